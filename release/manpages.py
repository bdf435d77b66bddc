"""The manual pages, in roff: argparse-manpage makes those of commands out of their parsers.

What is here besides are the pages of the program and of layertee.toml, out of the topics of ``layertee help``
and of the table of options that a file may set: no text stands twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from argparse_manpage.manpage import Manpage

from layertee.cli import settings
from layertee.cli.arguments import GROUPS, SUMMARIES, parser_of
from layertee.cli.topics import TOPICS

# Everything that a page has of roff; a line that begins otherwise is text.
_REQUEST = re.compile(r"\.(?:TH|SH|SS|TP|PP|B|I|BR|nf|fi|in|RS|RE|br|UR|UE)\b")
_SEE_ALSO = {
    "pull": (
        "skopeo-copy(1)",
        "podman-pull(1)",
        "containers-registries.conf(5)",
        "containers-policy.json(5)",
    ),
    "image-proxy": ("skopeo(1)", "bootc(8)"),
    "prepare": ("ostree(1)", "bootc(8)"),
    "install-shim": ("skopeo(1)",),
}


def pages(version: str, date_s: int) -> dict[str, str]:
    """Every page by the name of its file. ``date_s``: of the release, in seconds since 1970."""
    date = datetime.fromtimestamp(date_s, UTC).strftime("%Y-%m-%d")

    def head(name: str, section: int) -> str:
        title = escaped(name.upper())
        return f'.TH {title} "{section}" "{date}" "layertee {escaped(version)}" "layertee"'

    found = {
        "layertee.1": _of_program(head("layertee", 1)),
        "layertee.toml.5": _of_settings(head("layertee.toml", 5)),
    }
    for command in SUMMARIES:
        name = f"layertee-{command}"
        found[f"{name}.1"] = _of_command(command, head(name, 1))
    return {name: _in_ascii(_guarded(text)) for name, text in found.items()}


def escaped(text: str) -> str:
    """``text`` as roff that shows it: with hyphens that can be copied, and no line that is a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^(?=[.'])", r"\&", text, flags=re.MULTILINE)


def formatted(text: str) -> str:
    """A topic of ``layertee help``: paragraphs are filled, and what is set in stays as it is.

    That may be as wide as a terminal: then it starts further to the left than paragraphs do.
    """
    parts = []
    for block in text.rstrip().split("\n\n"):
        lines = block.split("\n")
        while lines:
            is_table = lines[0].startswith("  ")
            n = next((at for at, line in enumerate(lines) if line.startswith("  ") != is_table), len(lines))
            block_lines = [line[2:] if is_table else line for line in lines[:n]]
            shown = escaped("\n".join(block_lines))
            left = max(2, min(9, 80 - max(map(len, block_lines))))
            parts.append(f".PP\n.in {left}n\n.nf\n{shown}\n.fi\n.in" if is_table else f".PP\n{shown}")
            lines = lines[n:]
    return "\n".join(parts).removeprefix(".PP\n")


def _of_command(command: str, head: str) -> str:
    parser = parser_of(command)
    page = Manpage(parser)
    page.prog = f"layertee-{command}"
    page.description = SUMMARIES[command]
    first, *rest = parser.format_usage().removeprefix("usage: layertee ").split()
    page.synopsis = [f"layertee {first}", *rest]
    page.add_section("Exit status", "=", formatted(TOPICS["exit-codes"]))
    others = ("layertee(1)", "layertee.toml(5)", *_SEE_ALSO.get(command, ()))
    page.add_section("See also", "=", ",\n".join(_reference(other) for other in others))
    return "\n".join([head, *str(page).splitlines()[1:]]) + "\n"


def _of_program(head: str) -> str:
    lines = [head, ".SH NAME", r"layertee \- pull OCI and bootc images, only the layers that a machine lacks"]
    lines += [
        ".SH SYNOPSIS",
        ".B layertee",
        escaped("[-h] [--version] [-v] [--debug] COMMAND ..."),
        ".SH DESCRIPTION",
    ]
    lines += [
        "An image of an operating system is pulled from a registry. Of its layers, only those are downloaded",
        "whose content is nowhere on this machine, and each is verified while it arrives: the digest of the",
        "blob and that of the tar in it.",
    ]
    for title, group in GROUPS.items():
        lines += [".SH", title.upper()]
        for name, text in group.items():
            lines += [".TP", _reference(f"layertee-{name}(1)"), escaped(text)]
    lines += [".SH OPTIONS"]
    for flags, text in _flags_of_program():
        lines += [".TP", flags, escaped(text)]
    for topic, text in TOPICS.items():
        title = "EXIT STATUS" if topic == "exit-codes" else topic.upper()
        lines += [f".SH {title}", formatted(text)]
    lines += [
        ".SH SEE ALSO",
        ",\n".join(_reference(f"layertee-{name}(1)") for name in SUMMARIES) + ",",
        _reference("layertee.toml(5)"),
    ]
    return "\n".join(lines) + "\n"


def _flags_of_program() -> Iterator[tuple[str, str]]:
    yield r"\fB\-h\fR, \fB\-\-help\fR", "show the commands and topics that there are, and exit"
    yield r"\fB\-\-version\fR", "show the version, and exit"
    yield r"\fB\-v\fR, \fB\-\-verbose\fR", "log retries and decisions to stderr; also behind the command"
    yield r"\fB\-\-debug\fR", "log every step to stderr; also behind the command"


def _of_settings(head: str) -> str:
    lines = [head, ".SH NAME", r"layertee.toml \- what the options of layertee are by default"]
    lines += [".SH DESCRIPTION", formatted(TOPICS["configuration"]), ".SH KEYS"]
    for name, (commands, option, who) in sorted(_keys().items()):
        metavar = (
            "true|false"
            if option.is_switch
            else option.action.metavar or "|".join(option.action.choices or ())
        )
        lines += [".TP", rf"\fB{escaped(name)}\fR = {escaped(str(metavar))}"]
        if option.action.help:
            lines.append(escaped(_help_of(option)) + ".")
        by = {"machine": "Only in a file of the machine.", "files": "Only in a file."}.get(who)
        lines += [escaped(f"Of: {commands}. {by or f'In the environment: {option.variable}.'}")]
    lines += [".SH SEE ALSO", _reference("layertee(1)") + ",", _reference("layertee-config(1)")]
    return "\n".join(lines) + "\n"


def _keys() -> dict[str, tuple[str, settings.Option, str]]:
    """Of each key: the commands that have it, as one of them has it, and who may set it."""
    found: dict[str, tuple[str, settings.Option, str]] = {}
    for command in SUMMARIES:
        for name, option in settings.options_in(parser_of(command)).items():
            who = settings.may_set(command, name)
            if not who:
                continue
            if name in ("verbose", "debug"):
                found[name] = ("every command", option, who)
                continue
            own = " (in its table)" if settings.is_own(command, name) else ""
            before, first, others = found.get(name, ("", option, who))
            whose = f"{before}, {command}{own}" if before else f"{command}{own}"
            found[name] = (whose, first, "anybody" if "anybody" in (who, others) else who)
    return found


def _help_of(option: settings.Option) -> str:
    """As argparse shows it."""
    action = option.action
    return (action.help or "") % {**vars(action), "prog": "layertee"}


def _reference(page: str) -> str:
    """``name(1)`` with the name in bold."""
    name, _, section = page.partition("(")
    return rf"\fB{escaped(name)}\fR({section}"


def _in_ascii(text: str) -> str:
    """``text`` with escapes of roff for all other characters: what formats it may take it for Latin-1."""
    return "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in text)


def _guarded(text: str) -> str:
    """``text`` with a mark before lines that begin like a request, as wrapping may have made them."""
    lines = text.splitlines()
    return "".join(
        rf"\&{line}" + "\n" if line[:1] in ("'", ".") and not _REQUEST.match(line) else f"{line}\n"
        for line in lines
    )
