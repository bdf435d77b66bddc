"""``layertee config``: what each option is where the command line does not say, and what says so."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..config.settings import SettingsFiles
from ..errors import LayerteeError, NoHome
from ..store.store import default_root
from . import arguments, settings
from .exits import EXIT_ERROR, EXIT_OK
from .output import print_json, say, tell

_NO_VALUE = "-"
_DEFAULT = "default"
_WIDTH = 80
_COMMANDS = sorted(arguments.COMMANDS - {"config", "help"})


class Shown(NamedTuple):
    """An option's value as text, and where it is from; ``given`` is None for a default."""

    value: str
    given: settings.Given | None

    @property
    def whence(self) -> str:
        return self.given.whence if self.given else _DEFAULT

    @property
    def table(self) -> str | None:
        """The command in whose table the value stands."""
        return self.given.setting.command if self.given and self.given.setting else None


def config(args: argparse.Namespace) -> int:
    """Show what is configured, and every mistake in it; with one, the exit code is 1."""
    environ: Mapping[str, str] = {} if args.root else os.environ
    files = SettingsFiles.beneath(args.root) if args.root else SettingsFiles.of(environ)
    by_command, mistakes = _survey(files, environ, [args.about] if args.about else _COMMANDS)
    if args.json:
        print_json(_as_json(files, by_command, mistakes))
    elif not args.check:
        _print(files, by_command, is_one=args.about is not None)
    if not args.json:
        tell(*(f"layertee: {mistake}" for mistake in mistakes))
        if args.check and not mistakes:
            say("no mistakes")
    return EXIT_ERROR if mistakes else EXIT_OK


def mistakes_of_process() -> list[str]:
    """What is wrong in the files and variables of this process, for whatever command. Blocks."""
    return _survey(SettingsFiles.of(), os.environ, _COMMANDS)[1]


def _survey(
    files: SettingsFiles, environ: Mapping[str, str], commands: Iterable[str]
) -> tuple[dict[str, dict[str, Shown]], list[str]]:
    """What holds for each of ``commands``, and the mistakes."""
    read = settings.settings_in(files, arguments.COMMANDS)
    other = cache(arguments.parser_of)  # every command asks for those of all
    mistakes = dict.fromkeys(read[1])
    n_more = 0
    by_command: dict[str, dict[str, Shown]] = {}
    for command in commands:
        parser = other(command)
        found = settings.found_for(command, parser, read, other, arguments.COMMANDS, environ)
        mistakes |= dict.fromkeys(found.mistakes)
        n_more = max(n_more, found.n_more)
        by_command[command] = {
            name: _shown(option, found.given.get(name))
            for name, option in settings.options_in(parser).items()
            if settings.may_set(command, name)
        }
    for variable, meant in settings.mistyped(environ).items():
        mistakes[f"{variable}: no option has this variable; did you mean {meant}?"] = None
    if n_more:
        mistakes[f"and {n_more} more mistakes"] = None
    return by_command, list(mistakes)


def _shown(option: settings.Option, given: settings.Given | None) -> Shown:
    if given is not None:
        return Shown(given.text, given)
    default = option.action.default
    if option.name == "store":
        default = _usual_store()
    if option.is_switch:
        return Shown("false", None)
    if default in (None, [], ""):
        return Shown(_NO_VALUE, None)
    return Shown(f"{default:g}" if isinstance(default, float) else str(default), None)


def _usual_store() -> Path | None:
    try:
        return default_root()
    except NoHome:
        return None


def _files(files: SettingsFiles) -> Iterator[tuple[str, bool]]:
    """What is looked for, and whether it is there; of drop-ins, those that there are."""
    try:
        found = [file.path for file in files.found()]
    except LayerteeError:  # which is among the mistakes
        found = []
    looked_for = [files.vendor, files.admin, *([files.user] if files.user else [])]
    for directory in looked_for:
        yield str(directory / "layertee.toml"), directory / "layertee.toml" in found
        for path in found:
            if path.parent.parent == directory:
                yield str(path), True
    if files.only:
        yield str(files.only), os.path.exists(files.only)


def _print(files: SettingsFiles, by_command: Mapping[str, Mapping[str, Shown]], *, is_one: bool) -> None:
    for path, is_there in _files(files):
        say(f"{'read' if is_there else 'none'}  {path}")
    if is_one:
        ((_, only),) = by_command.items()
        _print_options("", only)
        return
    general: dict[str, Shown] = {}
    for command, options in by_command.items():
        for name, shown in options.items():
            if not settings.is_own(command, name) and shown.table is None:
                general.setdefault(name, shown)
    _print_options("every command that has the option:", general)
    for command, options in by_command.items():
        theirs = {name: shown for name, shown in options.items() if general.get(name) != shown}
        if theirs:
            _print_options(f"{command}, where it differs:", theirs)


def _print_options(title: str, options: Mapping[str, Shown]) -> None:
    """A line for each, or two where one would be too long."""
    say("", *([title] if title else []))
    wide = max(map(len, options), default=0)
    for name, shown in sorted(options.items()):
        line = f"{name:<{wide}}  {shown.value:<14}  {shown.whence}"
        if len(line) <= _WIDTH:
            say(line)
        else:
            say(f"{name:<{wide}}  {shown.value}", f"{'':<{wide}}  {shown.whence}")


def _as_json(
    files: SettingsFiles, by_command: Mapping[str, Mapping[str, Shown]], mistakes: list[str]
) -> dict[str, object]:
    """See docs/reference/json.md."""
    return {
        "files": [{"path": path, "read": is_there} for path, is_there in _files(files)],
        "commands": {
            command: {name: _option_as_json(shown) for name, shown in sorted(options.items())}
            for command, options in by_command.items()
        },
        "mistakes": mistakes,
    }


def _option_as_json(shown: Shown) -> dict[str, object]:
    setting = shown.given.setting if shown.given else None
    return {
        "value": None if shown.value == _NO_VALUE and shown.given is None else shown.value,
        "from": "default" if shown.given is None else "file" if setting else "environment",
        "file": str(setting.file.path) if setting else None,
        "line": setting.line if setting else None,
        "key": setting.key if setting else None,
        "table": setting.command if setting else None,
        "variable": shown.given.variable or None if shown.given else None,
    }
