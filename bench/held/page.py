"""Documents of all sections as Markdown, for the part of bench/README.md between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.held.document import BUSY, Document, Ratio, Shift
from bench.held.sections import SECTIONS

BEGIN, END = "<!-- held:begin -->", "<!-- held:end -->"
MARKED = "<!-- Written by python -m bench refresh; do not edit. -->"
_EXPLAINED = {
    "kernels": "CPU time of one thread, interleaved rounds. libdeflate gets whole buffers.",
    "starts": "Medians. Of the image-proxy, wall time is up to its answer to `Initialize`.",
    "lone": "The largest layer of *big*. Medians; what the pool counts of inflating, decoding before the"
    " turn, hashing and writing is time of all workers.",
    "pulls": "Medians of whole commands; client and server share the CPUs. imagecopy is a small program over"
    " the newest containers/image, the library of skopeo.",
    "copies": "Seconds for 10^9 bytes. Sizes of reads and writes of pulls are those under strace.",
    "model": "Computed from the costs of the sections above, the event loop's and the server's from a pull."
    " One core and two are measured beside it; the others are no measurement.",
}


def block(documents: Mapping[str, Document]) -> str:
    """All that counts of ``documents``, in the order of sections. What does not count is not shown."""
    lines = [MARKED]
    for name, section in SECTIONS.items():
        if name in documents and documents[name].counts:
            lines += ["", *shown(documents[name])]
        else:
            lines += ["", f"### {section.what}", "", "Not measured yet."]
    return "\n".join(lines)


def shown(document: Document) -> list[str]:
    """One section: where and when, its table, its ratios, its notes."""
    section, it = SECTIONS[document.section], document.machine
    kind = "a virtual machine" if it.get("virtual") else "a machine"
    lines = [f"### {section.what}", ""]
    lines.append(
        f"{document.date}, {kind} with {it['n_cpus']} CPUs ({it['cpu']}), {it['os']}, Linux {it['kernel']},"
        f" Python {it['python']}; `{document.command}`. {_EXPLAINED[document.section]}"
    )
    lines += ["", *section.table(document.body.rows)]
    if document.body.ratios:
        lines += ["", *ratios(document.body.ratios)]
    if document.body.versions:
        versions = ", ".join(f"{name} {value}" for name, value in sorted(document.body.versions.items()))
        lines += ["", f"Versions: {versions}."]
    lines += [line for note in document.body.notes for line in ("", f"{note.rstrip('.')}.")]
    return lines


def ratios(found: Iterable[Ratio]) -> list[str]:
    """Lines of Markdown: medians of the rounds' own ratios, with quartiles, and what is to be reached."""
    heads = ("ratio", "wall (quartiles)", "to reach", "CPU (quartiles)", "to reach", "rounds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for ratio in found:
        wall = _cells(ratio.wall, ratio.wall_quartiles, ratio.goal_wall)
        cpu = _cells(ratio.cpu, ratio.cpu_quartiles, ratio.goal_cpu)
        lines.append(f"| {ratio.key} | {' | '.join((*wall, *cpu))} | {ratio.rounds} |")
    return lines


def _cells(value: float | None, quartiles: tuple[float, float] | None, goal: float | None) -> tuple[str, str]:
    if value is None or quartiles is None:
        return "", ""
    text = f"{value:.3f} ({quartiles[0]:.3f}-{quartiles[1]:.3f})"
    if goal is None:
        return text, ""
    return text, f"{goal:.3f} {'reached' if value <= goal else '**not reached**'}"


def changes(found: Sequence[Shift]) -> list[str]:
    """Lines for a terminal: every ratio beside that which is stored, regressions marked."""
    lines = []
    for shift in found:
        mark = ""
        if shift.is_regression:
            mark = "  REGRESSION" + ("" if shift.clear else " (within the quartiles of the rounds)")
        lines.append(
            f"  {shift.change:+7.1%}  {shift.before:.3f} -> {shift.now:.3f}  {shift.key}, {shift.what}{mark}"
        )
    return lines


def why_not(document: Document) -> str:
    """Why a document does not count, for a person."""
    if document.small:
        return "of a tenth of the content"
    return f"other programs had {document.others:.0%} of the CPUs meanwhile (more than {BUSY:.0%})"


def replaced(text: str, new: str) -> str:
    """``text`` with ``new`` between the marks. Raises ValueError unless each is there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} and, after it, one {END}")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{new}\n{END}{rest.split(END)[1]}"
