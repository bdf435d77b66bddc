"""Tables out of results: ``python -m bench.report [JSON] [--readme README.md] [--summary bench/README.md]``.

Writes ``<results>.md`` beside the JSON (the newest one, if none is named): every client of every regime, the
goals of targets.py with what became of them, floors, memory, start-up. Two shorter forms replace what is
between the two marks in a file: with ``--readme`` one row and one chart, with ``--summary`` a row for each
comparison. The same JSON gives the same text.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import targets
from bench.tables import (
    PEERS,
    REGIMES,
    WORKS,
    Results,
    Run,
    Where,
    highest_of,
    load,
    lowest_of,
    median_of,
    newest,
    ratio,
    row_value,
)

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NOT_MEASURED = "not measured"
MARKED = "<!-- Written by python -m bench.report; do not edit. -->"


def number(value: float | None, digits: int = 2, *, missing: str = "-") -> str:
    """For a cell; ``missing`` where there is no value."""
    return missing if value is None else f"{value:,.{digits}f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def machine_line(results: Results) -> str:
    """Date, machine and system in one sentence."""
    it = results.machine
    kind = "a virtual machine" if it.get("virtual") else "a machine"
    memory = number(it["memory_mib"] / 1024, 0)
    return (
        f"{results.date}: {kind} with {it['n_cpus']} CPUs ({it['cpu']}) and {memory} GiB,"
        f" {it['os']}, Linux {it['kernel']}, Python {it['python']}"
    )


def full_report(results: Results, stem: str) -> str:
    """The whole of it, in Markdown. ``stem`` is the file name of the results, without its suffix."""
    figures = targets.figures(results)

    def figure(name: str) -> Iterator[str]:
        if name in figures:
            yield from ("", f"![{figures[name]}]({stem}-{name}.svg)")

    lines = [f"# Measurements of {results.date}", "", MARKED, "", *_conditions(results)]
    lines += ["", "## Goals", *figure("overview"), "", *_goals(results)]
    seen = ""
    for where, found in results.tables().items():
        if where.regime != seen:
            seen = where.regime
            lines += ["", f"## {_heading(seen)}", *_described(results, seen), *figure(seen)]
        lines += ["", f"### {where.image}, to {where.dest}, {_cpus(where)}", "", *_clients(found)]
    absent = [regime for regime in REGIMES if not results.select(regime=regime)]
    if absent:
        lines += ["", "## Not measured", "", *(f"- {REGIMES[regime]}" for regime in absent)]
    if results.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in results.notes)]
    lines += ["", "## Against the floor", *figure("floor"), "", *_floors(results)]
    lines += ["", "## Peak memory over layer size", *figure("rss"), "", *_sizes(results)]
    lines += ["", "## Start-up", "", *_startup(results)]
    return "\n".join(lines) + "\n"


def headline_block(results: Results, directory: str, stem: str) -> str:
    """The comparison that comes first, and the chart. ``directory`` leads from the page to the results."""
    base = _base(directory, stem)
    first = targets.COMPARISONS[0]
    lines = [MARKED, "", *_against_peers(results, [first])]
    said = [f"{machine_line(results)}. Medians of whole commands; ratios are ours over theirs."]
    said += [text for image in results.images if (text := _described_image(image, first))]
    said += [*_footnotes(results), f"`{results.command}` measures it again; [all tables]({base}.md)."]
    lines += ["", " ".join(said)]
    if "overview" in (figures := targets.figures(results)):
        lines += ["", f"![{figures['overview']}]({base}-overview.svg)"]
    return "\n".join(lines)


def summary_block(results: Results, directory: str, stem: str) -> str:
    """All comparisons and single figures. ``directory`` leads from the page to the results."""
    base = _base(directory, stem)
    lines = [
        MARKED,
        "",
        f"{machine_line(results)}. Medians of whole commands; client and server share the CPUs.",
    ]
    lines += [
        f"`{results.command}` measures it again; [all tables]({base}.md).",
        "",
        *_against_peers(results, targets.COMPARISONS),
    ]
    lines += ["", "Ratios are ours over theirs: below 1 is less.", _versions(results), *_footnotes(results)]
    lines += ["", *_facts(results)]
    return "\n".join(lines)


def _base(directory: str, stem: str) -> str:
    return f"{directory}/{stem}" if directory not in ("", ".") else stem


def _described_image(image: Mapping[str, Any], comparison: targets.Comparison) -> str:
    """What the image of a comparison is, in a sentence; nothing for another image."""
    if (image["shape"], image["compression"]) != (comparison.shape, comparison.compression):
        return ""
    sizes = [number(image[name] / 1e6, 0) for name in ("compressed_nbytes", "uncompressed_nbytes")]
    return f"The image has {image['n_layers']} layers, {sizes[0]} MB compressed and {sizes[1]} MB as tars."


def replace_block(text: str, block: str) -> str:
    """``text`` with ``block`` between the marks. Raises ValueError unless each is there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} and, after it, one {END}")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


# -- parts ---------------------------------------------------------------------------


def _conditions(results: Results) -> Iterator[str]:
    yield f"{machine_line(results)}."
    yield ""
    yield f"Command: `{results.command}`"
    yield ""
    yield _versions(results)
    yield from _footnotes(results)
    yield ""
    yield "Whole commands, from spawn to exit. CPU is the client's, user and system; MB is 10^6 bytes."
    yield "layertee verifies both digests of every layer, but for the rows that say so."
    yield ""
    heads = ("image", "compression", "layers", "compressed MB", "uncompressed MB", "content")
    yield from table(
        heads,
        (
            (
                str(image["shape"]),
                str(image["compression"]),
                str(image["n_layers"]),
                number(image["compressed_nbytes"] / 1e6, 1),
                number(image["uncompressed_nbytes"] / 1e6, 1),
                str(image["content"]),
            )
            for image in results.images
        ),
    )


def _versions(results: Results) -> str:
    return f"Versions: {', '.join(f'{name} {it}' for name, it in sorted(results.versions.items()))}."


def _footnotes(results: Results) -> Iterator[str]:
    peers = {run.peer for run in results.runs}
    for name, what in PEERS.items():
        if name in peers:
            yield f"{name} is {what}."


def _heading(regime: str) -> str:
    what = REGIMES.get(regime, regime)
    return what[0].upper() + what[1:]


def _described(results: Results, regime: str) -> Iterator[str]:
    for row in results.regimes:
        if row["name"] == regime:
            yield from ("", f"{row['description']}.")


def _cpus(where: Where) -> str:
    return f"{where.n_cpus} CPU{'s' if where.n_cpus != 1 else ''}"


def _spread(runs: Sequence[Run], field: str) -> str:
    middle, low, high = (of(runs, field) for of in (median_of, lowest_of, highest_of))
    return f"{number(middle)} ({number(low)}-{number(high)})"


def _clients(found: dict[tuple[str, str], list[Run]]) -> list[str]:
    heads = (
        "client",
        "work",
        "wall s (min-max)",
        "CPU s (min-max)",
        "server CPU s",
        "peak RSS MiB",
        "received MB",
        "runs",
    )
    rows = []
    for (peer, work), runs in found.items():
        wire = median_of(runs, "wire_nbytes")
        rows.append(
            (
                f"**{peer}**" if peer == targets.OURS else peer,
                WORKS.get(work, work),
                _spread(runs, "wall_s"),
                _spread(runs, "cpu_s"),
                number(median_of(runs, "server_cpu_s")),
                number(highest_of(runs, "rss_mib"), 0),
                number(None if wire is None else wire / 1e6, 1),
                str(len(runs)),
            )
        )
    return table(heads, rows)


def _goals(results: Results) -> list[str]:
    rows = []
    for it in targets.outcomes(results):
        found = _measured(it)
        rows.append(
            (
                it.goal,
                it.want,
                found,
                it.text or "-",
                f"**{it.verdict}**" if it.reached is False else it.verdict,
            )
        )
    return table(("goal", "wanted", "measured", "from", "verdict"), rows)


def _measured(it: targets.Outcome) -> str:
    digits = {"": 3, "s": 2}.get(it.unit, 0)
    return NOT_MEASURED if it.value is None else f"{number(it.value, digits)} {it.unit}".strip()


def _floors(results: Results) -> list[str]:
    if not results.floor:
        return [NOT_MEASURED.capitalize() + "."]
    kernels = ("inflate_s", "hash1_s", "hash2_s", "receive_s", "write_out_s", "write_in_s")
    sums = ("floor_decompress_s", "floor_as_is_s", "floor_blob_digest_s")
    heads = ["image", "to", *(name.removesuffix("_s").replace("_", " ") for name in (*kernels, *sums))]
    lines = table(
        heads,
        (
            (
                f"{row['shape']}, {row['compression']}",
                str(row["dest"]),
                *(number(row[it]) for it in (*kernels, *sums)),
            )
            for row in results.floor
        ),
    )
    lines += ["", "The same in CPU seconds of layertee; in brackets, the floor over ours.", ""]
    works = (("decompress", sums[0]), ("as-is", sums[1]), ("blob-digest", sums[2]))
    rows = []
    for row in results.floor:
        place = {name: row[name] for name in ("shape", "compression", "dest")}
        cells = [f"{row['shape']}, {row['compression']}", str(row["dest"])]
        for work, floor in works:
            ours = median_of(
                results.select(regime="loopback", peer=targets.OURS, work=work, **place), "cpu_s"
            )
            share = ratio(row[floor], ours)
            cells.append(NOT_MEASURED if ours is None else f"{number(ours)} ({number(share)})")
        rows.append(cells)
    return [*lines, *table(("image", "to", *(work for work, _ in works)), rows)]


def _sizes(results: Results) -> list[str]:
    if not results.size:
        return [NOT_MEASURED.capitalize() + "."]
    columns = sorted({(row["compression"], row["form"]) for row in results.size})
    sizes = sorted({row["layer_mib"] for row in results.size})

    def cells(size: int) -> Iterator[str]:
        for compression, form in columns:
            rss = row_value(results.size, "rss_mib", layer_mib=size, compression=compression, form=form)
            yield number(rss, 0, missing=NOT_MEASURED)

    heads = ("layer MiB", *(f"{compression}, {form}: MiB" for compression, form in columns))
    return table(heads, ((number(size, 0), *cells(size)) for size in sizes))


def _startup(results: Results) -> list[str]:
    if not results.startup:
        return [NOT_MEASURED.capitalize() + "."]
    commands = dict.fromkeys(str(row["command"]) for row in results.startup)

    def ms(command: str, field: str) -> str:
        value = row_value(results.startup, field, command=command)
        return number(None if value is None else value * 1000, 0)

    rows = ((f"`{command}`", ms(command, "wall_s"), ms(command, "cpu_s")) for command in commands)
    return table(("command", "wall ms", "CPU ms"), rows)


# -- the short form ------------------------------------------------------------------


def _against_peers(results: Results, comparisons: Iterable[targets.Comparison]) -> list[str]:
    rows = []
    for comparison in comparisons:
        ours, theirs = comparison.runs(results)
        cells = [comparison.image, comparison.what]
        for runs in (ours, theirs):
            wall, cpu = (median_of(runs, field) for field in ("wall_s", "cpu_s"))
            cells.append(f"{number(wall)} / {number(cpu)}" if runs else NOT_MEASURED)
        cells[3] += f" ({comparison.peer(theirs)})" if theirs else ""
        quotients = [ratio(median_of(ours, it), median_of(theirs, it)) for it in ("wall_s", "cpu_s")]
        cells.append(_quotients(*quotients))
        rows.append(cells)
    heads = ("image", "what", "layertee: wall / CPU s", "peer: wall / CPU s", "ratio: wall / CPU")
    return table(heads, rows)


def _quotients(wall: float | None, cpu: float | None) -> str:
    """For a cell; bold where we take less time."""
    if wall is None or cpu is None:
        return "-"
    text = f"{number(wall)} / {number(cpu)}"
    return f"**{text}**" if wall < 0.995 else text


def _facts(results: Results) -> list[str]:
    """The goals that are no comparison, one line each."""
    compared = {comparison.image + ": " + comparison.what for comparison in targets.COMPARISONS}
    lines = []
    for it in targets.outcomes(results):
        if it.goal.rpartition(": ")[0] not in compared:
            lines.append(f"- {it.goal}: {_measured(it)}" + (f" ({it.text})" if it.text else ""))
    return lines


def main(argv: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Write the files; 1, with a reason, if there is nothing to write from or no place to write to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", help="results (default: the newest in bench/results)")
    parser.add_argument("--readme", type=Path, help="put the headline between the marks of this file")
    parser.add_argument("--summary", type=Path, help="put all comparisons between the marks of this file")
    args = parser.parse_args(argv)
    try:
        path: Path = args.json or newest()
        results = load(path)
        report = path.with_suffix(".md")
        report.write_text(full_report(results, path.stem), encoding="utf-8")
        say(f"wrote {report}")
        for page, block_of in ((args.readme, headline_block), (args.summary, summary_block)):
            if page is None:
                continue
            directory = Path(os.path.relpath(path.parent, page.parent)).as_posix()
            block = block_of(results, directory, path.stem)
            page.write_text(replace_block(page.read_text(encoding="utf-8"), block), encoding="utf-8")
            say(f"wrote {page}")
    except (OSError, ValueError) as exc:
        print(f"bench.report: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
