"""The command line's grammar: every command, its arguments, and how a mistake in them is answered.

What each command takes is in commandargs.py, what the values may be in values.py.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..version import __version__
from . import proxyargs, settings
from .commandargs import ARGUMENTS, DESCRIPTIONS, TOPIC_NAMES
from .commonargs import add_logging
from .exits import EXIT_ERROR
from .output import flush, say, tell

if TYPE_CHECKING:
    from ..config.settings import SettingsFiles

# What 'layertee --help' lists, as it lists it.
GROUPS: dict[str, dict[str, str]] = {
    "images": {
        "pull": "pull images into the store, a layout, or podman's store",
        "inspect": "show an image's digests, DiffIDs and what is here of it",
        "tags": "list the tags that a repository has in its registry",
    },
    "registries": {
        "login": "try a login, and keep it where podman and skopeo find it",
        "logout": "forget a login",
    },
    "store commands": {
        "ls": "list the images in the store",
        "map": "show the pairs blob digest <-> DiffID computed on this machine",
        "rm": "forget images; 'layertee gc' then frees their space",
        "gc": "remove blobs that no image needs, and beginnings of layers",
        "verify": "hash everything in the store again; quarantine what is wrong",
    },
    "other machines": {
        "serve": "hand on what this machine has, as a registry that is only read",
        "export": "write images, as far as another store lacks them, into a file",
        "import": "take in what 'export' wrote",
    },
    "bootc and other clients of skopeo": {
        "prepare": "before 'bootc upgrade': name layers that its repository has",
        "image-proxy": "serve them as 'skopeo experimental-image-proxy' would",
        "install-shim": "write DIR/skopeo, by which such clients reach image-proxy",
    },
    "this program": {
        "doctor": "show which core runs, the store, and what holds for an image",
        "config": "show what options are by default here, and which file says so",
        "help": "explain a command, or a topic of the list below",
    },
}
SUMMARIES = {name: text for group in GROUPS.values() for name, text in group.items()}

COMMANDS = frozenset(SUMMARIES)
_FEW = 12  # options, which fit into the line of usage
# What topics are also looked for by.
_ALSO = {
    "settings": "configuration",
    "options": "configuration",
    "layertee.toml": "configuration",
    "variables": "environment",
    "errors": "exit-codes",
    "resume": "partials",
    "json": "scripting",
}
_BEFORE = ("-v", "--verbose", "--debug", "-h", "--help", "--version")  # what may stand before a command


def parse(
    argv: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    files: SettingsFiles | None = None,
) -> argparse.Namespace:
    """What ``argv`` asks for: ``command`` is its name, ``options`` what follows ``--`` of install-shim.

    Options that are not in it are as ``environ`` says, or else ``files``: if None, those of this process.

    Raises SystemExit after ``--help`` and ``--version`` (0), and Mistake for one (1), once it was answered;
    SettingsError for one in the environment or a file; OutputFailed. Blocks.
    """
    words = list(argv)
    name = next((word for word in words if not word.startswith("-")), None)
    root, parser = _parsers(name)
    if any("\0" in word for word in words):
        root.error("an argument has a NUL character in it")
    before = words[: words.index(name)] if name is not None else []
    if name is not None and (early := _misplaced(word for word in before if word not in _BEFORE)):
        root.error(f"{early} stands before the command; it belongs behind it: layertee COMMAND {early} …")
    if name is not None and parser is None:
        there_are = f"; there are: {', '.join(ARGUMENTS)}"
        root.error(f"there is no command {name!r}{_suggestion(name, ARGUMENTS) or there_are}")
    if "--" in before:
        root.error(f"'--' stands before the command {name}")
    later: list[str] = []
    if name == "install-shim" and "--" in words:
        at = words.index("--")
        words, later = words[:at], words[at + 1 :]
    if name == "image-proxy":
        words = proxyargs.normalized(words)
    outside = None
    if name is not None and parser is not None:
        outside = settings.outside(name, (root, parser), parser_of, COMMANDS, environ=environ, files=files)
        outside.expect()
    args, unknown = root.parse_known_args(words)
    assert parser is not None and outside is not None  # nothing but a command lets a word pass
    if unknown:
        flags = [f"--{name}" for name in (*settings.options_in(parser), "help")]
        word = unknown[0].partition("=")[0]
        if name == "login" and word in ("-p", "--password"):  # what follows is not for logs
            parser.error(f"{word}: every process sees what is on a command line; use --password-stdin")
        found = _suggestion(word, flags)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{found}")
    outside.fill(args)
    args.options = later
    return args


class Mistake(SystemExit):
    """The words make no sense, which a person was told already: ``message``."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_ERROR)
        self.message = message


def parser_of(command: str | None) -> argparse.ArgumentParser:
    """That of one command, or of the whole."""
    root, parser = _parsers(command)
    return root if parser is None else parser


class _Parser(argparse.ArgumentParser):
    """Prints by way of the gate, and exits with 1 where argparse has 2: an image that was not found."""

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, **given)

    def format_usage(self) -> str:
        self._shorten_usage()
        return super().format_usage()

    def format_help(self) -> str:
        self._shorten_usage()
        return super().format_help()

    def _shorten_usage(self) -> None:
        """Of a command with many options, name those alone that it cannot do without."""
        if self.usage is not None or len(self._actions) <= _FEW:
            return
        words = [self.prog, "[OPTION ...]"]
        words += [
            f"{one.option_strings[0]} {one.metavar}"
            for one in self._actions
            if one.option_strings and one.required
        ]
        for one in (one for one in self._actions if not one.option_strings):
            if one.help != argparse.SUPPRESS:
                word = str(one.metavar)
                several = {"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} [{word} ...]"}
                words.append(several.get(str(one.nargs), word))
        self.usage = " ".join(words)

    def print_help(self, file: object = None) -> None:
        say(*self.format_help().rstrip("\n").split("\n"))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            tell(message)
        flush()
        raise SystemExit(status)

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            meant = _suggestion(wrong[1], re.findall(r"[\w.-]+", wrong[2]))
            if (
                self.prog == "layertee help"
            ):  # the list is as long as the help, and shorter than its line there
                meant = f"; did you mean {_ALSO[wrong[1]]}?" if wrong[1] in _ALSO else meant
                message = f"there is no topic or command {wrong[1]!r:.60}"
                message += meant or "; 'layertee --help' lists what there is"
            else:
                message += meant
        tell(*self.format_usage().rstrip("\n").split("\n"))
        tell(f"{self.prog}: error: {message}")
        raise Mistake(message)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        say(f"layertee {__version__}")
        parser.exit()


def _misplaced(words: Iterable[str]) -> str | None:
    """The first of ``words``, which stand before the command, that is an option of a command."""
    typed = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not typed:
        return None
    theirs = {f"--{name}" for command in ARGUMENTS for name in settings.options_in(parser_of(command))}
    return next((flag for flag in typed if flag in theirs), None)


def _suggestion(word: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def parser_of_all() -> argparse.ArgumentParser:
    """That of the whole with every command in it, for what is made out of it: manuals, completion."""
    return _made(tuple(ARGUMENTS), None)[0]


def _parsers(command: str | None) -> tuple[_Parser, _Parser | None]:
    """The parser of the whole, and that of ``command``; None where there is no such command.

    The whole has no other: making one for every command takes longer than reading the arguments of one.
    """
    root, parsers = _made((command,) if command in ARGUMENTS else (), argparse.SUPPRESS)
    return root, parsers.get(command)


def _made(names: Iterable[str], about: str | None) -> tuple[_Parser, dict[str | None, _Parser]]:
    """``about``: what argparse itself says of the commands, which ``epilog`` lists by their groups."""
    root = _Parser(
        prog="layertee",
        usage="layertee [-h] [--version] [-v] [--debug] COMMAND ...",
        description="Pull OCI and bootc images: only the layers that a machine lacks, in one pass.",
        epilog=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action=_Version, nargs=0, help="show the version")
    add_logging(root, False)
    commands = root.add_subparsers(metavar="COMMAND", required=True, prog="layertee", help=about)
    parsers: dict[str | None, _Parser] = {}
    for name in names:
        text = SUMMARIES[name]
        parser = commands.add_parser(name, help=text, description=DESCRIPTIONS.get(name, text))
        parser.set_defaults(command=name)
        ARGUMENTS[name](parser)
        add_logging(parser, argparse.SUPPRESS)  # also after the command's name
        parsers[name] = parser
    return root, parsers


def _listed() -> str:
    lines = []
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"    {name:<13} {text}" for name, text in group.items()), ""]
    lines += ["topics of 'layertee help':"]
    lines += [f"    {', '.join(TOPIC_NAMES[at : at + 6])}" for at in range(0, len(TOPIC_NAMES), 6)]
    return "\n".join(lines)
