"""Manual pages, and completion for bash, zsh and fish, as they lie below /usr/share.

They are made out of the parsers of the command line, by argparse-manpage and shtab.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import shtab

from layertee.cli.arguments import parser_of_all
from release.manpages import pages
from release.project import DIST, source_date, version

SHELLS = {
    "bash": "bash-completion/completions/layertee",
    "zsh": "zsh/site-functions/_layertee",
    "fish": "fish/vendor_completions.d/layertee.fish",
}
_FILES = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=DIST / "share", metavar="DIR", help="where to (default: %(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    for name, text in files().items():
        path: Path = args.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def files() -> dict[str, str]:
    """Each file by its name below ``share``. The same sources and the same date give the same files."""
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"  # argparse lays text out for the terminal that the environment describes
    try:
        found = {f"man/man{name[-1]}/{name}": text for name, text in pages(version(), source_date()).items()}
        found |= {name: completion(shell) for shell, name in SHELLS.items()}
    finally:
        del os.environ["COLUMNS"]
        if width is not None:
            os.environ["COLUMNS"] = width
    return found


def completion(shell: str) -> str:
    """The script for one of ``SHELLS``."""
    whole = parser_of_all()
    commands = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    for parser in (whole, *commands.choices.values()):
        for action in parser._actions:
            if action.metavar in _FILES:
                action.complete = _FILES[str(action.metavar)]
            elif isinstance(action.metavar, str):
                action.metavar = action.metavar.replace(":", " ")  # which would end it, for zsh
            if action.help and action.help != argparse.SUPPRESS and action.option_strings:
                action.help = _short(action)
    return str(shtab.complete(whole, shell))


def _short(action: argparse.Action) -> str:
    """What fits beside an option in a list: the beginning of its help."""
    text = (action.help or "") % {**vars(action), "prog": "layertee"}
    for end in (" (", "; ", ": "):
        text = text.partition(end)[0]
    return text.replace("%", "%%")
