"""Options that are not on the command line: from the environment, and from layertee.toml.

Rules of this file:

- A value is read by the function that reads it on the command line, and has to be one of the same choices.
- Of an option in none of the tables below, only the command line has a say. Those are the options that say
  what one call does or prints, and those by which one call may do what is not allowed otherwise.
- What makes layers or images be taken more easily (``_OF_MACHINE``) is the administrator's to say: neither an
  inherited variable nor a file in a home changes it.
- How much a process gives away (``sandbox``), anybody may raise, and nobody but the command line lower, from
  what the machine's files say.
- Where there is neither a variable nor a file, nothing is imported or built for them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import values
from .slips import nearest

if TYPE_CHECKING:
    from ..config.settings import Setting, SettingsFiles

PREFIX = "LAYERTEE_"

_ANYBODY = frozenset(
    {
        *("store", "layers", "keep-signatures", "platform", "from", "authfile", "cert-dir"),
        *("registries-conf", "keep-free", "keep-partials", "max-output", "zstd-window"),
        *("max-connections", "max-rate", "ranges", "stall-timeout", "patience", "deadline", "min-rate"),
        *("max-age", "ostree-repo", "skopeo", "ahead", "cache-max", "client-repo", "layer-identity"),
        *("annotate-layers", "user-agent-prefix", "sandbox", "metrics-file", "verbose", "debug"),
    }
)
# In a file, because who is served what is better seen where it is set up.
_IN_FILES = frozenset({"place", "listen", "tls-cert", "tls-key", "client-ca", "htpasswd", "grace", "cache"})
# In a file of the machine.
_OF_MACHINE = frozenset(
    {"trust", "trust-realm", "policy", "registries.d", "trust-file", "signatures-by", "verify"}
)
# Each command has its own: in a file, only the table of a command has it.
_OF_ONE_COMMAND = frozenset({"metrics-file"})
# What means another thing in a command than in others: only the table of that command has it.
_OWN: Mapping[str, frozenset[str]] = {
    "serve": frozenset({"max-rate", "max-connections", "stall-timeout", "cache-max"}),
    "gc": frozenset({"keep-partials"}),
}
SETTABLE = _ANYBODY | _IN_FILES | _OF_MACHINE
"""The names of all options that a file may set, of whatever command."""

# What is set by these names, may be more than what the machine's files say, and not less.
_RISING: Mapping[str, tuple[str, ...]] = {"sandbox": ("off", "auto", "require")}

# Commands that no file or variable has a say in.
_WITHOUT = frozenset({"help", "config"})
# Commands that a mistake does not stop: they say it.
_DIAGNOSES = frozenset({"doctor"})
# Variables of the environment that are read, and by no option.
_OTHERS = frozenset({"CONFIG", "TRUSTED_REALMS", "TRUSTED_DIRS", "CORE", "INFLATE", "BUILD"})
_ABSENT = object()

MAX_MISTAKES = 20
"""So many are described, and the others counted."""


class Option(NamedTuple):
    """One of a command, by its name without dashes, and what it has on the command line."""

    name: str
    action: argparse.Action

    @property
    def variable(self) -> str:
        """What it is called in the environment."""
        return variable_of(self.name)

    @property
    def is_switch(self) -> bool:
        """Whether it has no value."""
        return self.action.nargs == 0

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return isinstance(self.action, argparse._AppendAction)


class Given(NamedTuple):
    """What an option is if the command line does not say: ``text`` as it was written.

    ``setting`` is where that stands, or else ``variable`` of the environment.
    """

    value: Any
    text: str
    setting: Setting | None = None
    variable: str = ""

    @property
    def whence(self) -> str:
        """``FILE:LINE``, or the variable."""
        return self.setting.whence if self.setting else self.variable


class Found(NamedTuple):
    """What holds for one command, by the names of options, and the mistakes that were made.

    ``n_more``: how many mistakes there are beside these.
    """

    given: dict[str, Given]
    mistakes: list[str]
    n_more: int = 0


class Unfit(Exception):
    """What is wrong with one value."""


def options_in(parser: argparse.ArgumentParser) -> dict[str, Option]:
    """The options that ``parser`` has, but for --help and --version."""
    found = {}
    for action in parser._actions:  # argparse has no other way to ask, nor have the tools for man pages
        name = next((flag[2:] for flag in action.option_strings if flag.startswith("--")), "")
        if name not in ("", "help", "version"):
            found[name] = Option(name, action)
    return found


def may_set(command: str, name: str) -> str:
    """Who may set an option beside the command line: "anybody", "files", "machine" or "" for nobody.

    "files" are without the environment, "machine" are only those in /usr/lib and /etc.
    """
    if name in _OF_MACHINE:
        return "machine"
    if name in _IN_FILES:
        return "files"
    if name in _ANYBODY:
        return "files" if is_own(command, name) else "anybody"
    return ""


def mistyped(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that nothing reads and whose names are almost those of others: which these are."""
    ours = [name for name in environ if name.startswith(PREFIX)]
    if not ours:
        return {}
    known = {PREFIX + name for name in _OTHERS} | {variable_of(name) for name in _ANYBODY}
    found = {}
    for name in ours:
        if name not in known and (close := nearest(name, known)):
            found[name] = close
    return found


def variable_of(name: str) -> str:
    """What an option is called in the environment."""
    return PREFIX + name.upper().replace("-", "_").replace(".", "_")


def is_of_one(name: str) -> bool:
    """Whether a file can set this option only in the table of a command."""
    return name in _OF_ONE_COMMAND


def is_own(command: str, name: str) -> bool:
    """Whether only the table of ``command`` sets this option of it."""
    return name in _OWN.get(command, ())


class Outside:
    """What is set for one command outside of its command line. With nothing set, it does nothing."""

    def __init__(
        self,
        parsers: Iterable[argparse.ArgumentParser],
        found: Found,
        mistyped: Mapping[str, str] | None = None,
    ) -> None:
        self._found = found
        self._mistyped = mistyped or {}
        self._actions: dict[str, list[argparse.Action]] = {}
        for parser in parsers if found.given else ():
            for name, option in options_in(parser).items():
                if name in found.given:
                    self._actions.setdefault(name, []).append(option.action)

    def expect(self) -> None:
        """Have the parsers tell what was typed from what was not. To be called before they parse."""
        for action in (action for actions in self._actions.values() for action in actions):
            action.required = False
            if action.default is not argparse.SUPPRESS:
                # A list that is typed is to hold what was typed, and nothing else.
                action.default = None if isinstance(action, argparse._AppendAction) else _ABSENT

    def fill(self, args: argparse.Namespace) -> None:
        """Give ``args`` what was not typed; ``args.configured`` are the names of these options.

        Raises SettingsError for the first mistake in what is set, unless the command is to report them.
        """
        if self._found.mistakes and args.command not in _DIAGNOSES:
            from ..config.settings import SettingsError

            raise SettingsError(self._found.mistakes[0]).with_hint("settings")
        if self._mistyped:
            from .output import warn

            warn(f"{name} is not read; did you mean {meant}?" for name, meant in self._mistyped.items())
        configured = set()
        for name, actions in self._actions.items():
            typed = getattr(args, actions[0].dest, None)
            is_list = isinstance(actions[0], argparse._AppendAction)
            if typed is _ABSENT or (is_list and typed is None):
                setattr(args, actions[0].dest, self._found.given[name].value)
                configured.add(name)
        args.configured = frozenset(configured)


def outside(
    command: str,
    parsers: tuple[argparse.ArgumentParser, argparse.ArgumentParser],
    other: Callable[[str], argparse.ArgumentParser],
    commands: frozenset[str],
    *,
    environ: Mapping[str, str] = os.environ,
    files: SettingsFiles | None = None,
) -> Outside:
    """What is set for ``command``. ``parsers``: that of the whole, and its own; ``other`` makes that of
    another of ``commands``. Blocks.
    """
    if command in _WITHOUT:
        return Outside((), Found({}, []))
    if files is None:
        from ..config.settings import SettingsFiles

        files = SettingsFiles.of(environ)
    read = settings_in(files, commands)
    found = found_for(command, parsers[1], read, other, commands, environ)
    return Outside(parsers, found, mistyped(environ))


def settings_in(files: SettingsFiles, commands: frozenset[str]) -> tuple[list[Setting], list[str]]:
    """What all files say, what counts less first, and the mistakes of those that cannot be read. Blocks."""
    from ..errors import LayerteeError

    commands = commands - _WITHOUT
    settings: list[Setting] = []
    mistakes: list[str] = []
    try:
        for file in files.found():
            from ..config.settings import read_settings
            from ..disk.trusted import refuse_reachable

            try:
                settings += read_settings(file, refuse_reachable, commands)
            except LayerteeError as exc:
                mistakes.append(str(exc))
    except LayerteeError as exc:
        mistakes.append(str(exc))
    return settings, mistakes


def found_for(
    command: str,
    parser: argparse.ArgumentParser,
    read: tuple[list[Setting], list[str]],
    other: Callable[[str], argparse.ArgumentParser],
    commands: frozenset[str],
    environ: Mapping[str, str],
) -> Found:
    """What holds for ``command`` of what was read, and of ``environ``."""
    settings, mistakes = list(read[0]), list(read[1])
    given: dict[str, Given] = {}
    options: dict[str, Option] = {}
    if settings or any(name.startswith(PREFIX) for name in environ):
        options = options_in(parser)
    commands = commands - _WITHOUT
    unknown = _Unknown(command, options, other, commands)
    floors: dict[str, str] = {}
    n_more = 0
    for setting in settings:
        if setting.command not in (None, command):
            continue
        name = setting.key
        try:
            option = options.get(name)
            if setting.command is None and name in commands:
                raise Unfit(unknown.as_command(name))
            if setting.command is None and name in _OF_ONE_COMMAND:
                raise Unfit(f"each command has a {name} of its own: it stands in a table, like [image-proxy]")
            if option is None:
                unknown.refuse(setting, describe=len(mistakes) < MAX_MISTAKES)
            elif setting.command is not None or not is_own(command, name):
                _refuse_reserved(setting, command)
                value, text = _value_of(option, setting.value)
                if setting.file.of_machine and name in _RISING:
                    floors[name] = text
                if not _is_lowered(name, text, floors):
                    given[name] = Given(value, text, setting)
        except Unfit as exc:
            if len(mistakes) < MAX_MISTAKES:
                mistakes.append(f"{setting.whence}: {exc}")
            else:
                n_more += 1
    for name, option in options.items():
        text = environ.get(option.variable, "")
        if not text or is_own(command, name):
            continue
        try:
            if may_set(command, name) != "anybody":
                raise Unfit(_reserved(command, name))
            value = _from_text(option, text)
        except Unfit as exc:
            mistakes.append(f"{option.variable}: {exc}")
        else:
            if not _is_lowered(name, text, floors):
                given[name] = Given(value, text, variable=option.variable)
    return Found(given, mistakes, n_more)


# --- inside -------------------------------------------------------------------------------------------


def _reserved(command: str, name: str) -> str:
    """Why this place may not set an option."""
    who = may_set(command, name)
    if who == "machine":
        return f"only the machine's layertee.toml, in /etc/layertee, may set {name}"
    if who == "files":
        return f"only layertee.toml may set {name}"
    return f"--{name} can only be given on the command line"


def _refuse_reserved(setting: Setting, command: str) -> None:
    who = may_set(command, setting.key)
    if not who or (who == "machine" and not setting.file.of_machine):
        raise Unfit(_reserved(command, setting.key))


class _Unknown:
    """What is said of keys that ``command`` does not have. Parsers of all commands are made once."""

    def __init__(
        self,
        command: str,
        options: Iterable[str],
        other: Callable[[str], argparse.ArgumentParser],
        commands: frozenset[str],
    ) -> None:
        self._command = command
        self._options = options
        self._other = other
        self._commands = commands
        self._all: dict[str, frozenset[str]] | None = None

    def refuse(self, setting: Setting, *, describe: bool) -> None:
        """Raises Unfit for a key that no command has, or not the one whose table it stands in.

        ``describe``: with what was meant, which takes long to find.
        """
        name = setting.key
        if setting.command is None:
            if name in SETTABLE:
                return
            if describe and self._owners(name):
                raise Unfit(_reserved(self._command, name))
            if name in _WITHOUT and isinstance(setting.value, dict):
                raise Unfit(f"{name} has no options that a file may set")
            known = set(SETTABLE)
            what = f"there is no option {name!r:.60}"
            if isinstance(setting.value, dict | list):
                known |= self._commands
                what = f"there is no option and no command {name!r:.60}"
        else:
            known = {option for option in self._options if may_set(self._command, option)}
            what = f"{self._command} has no option {name!r:.60}"
        raise Unfit(what + (_meant(name, known) if describe else ""))

    def as_command(self, name: str) -> str:
        """What is wrong with a key that is the name of a command, and maybe that of an option, too."""
        if owners := self._owners(name):
            return f"{name} is an option of {owners[0]}: it stands in a table [{owners[0]}]"
        return f"{name} is a command: what is for it stands in a table [{name}]"

    def _owners(self, name: str) -> list[str]:
        """The commands that have an option of this name."""
        if self._all is None:
            self._all = {one: frozenset(options_in(self._other(one))) for one in sorted(self._commands)}
        return [command for command, names in self._all.items() if name in names]


def _is_lowered(name: str, text: str, floors: Mapping[str, str]) -> bool:
    """Whether ``text`` is less than what the machine has in ``floors``."""
    ranks = _RISING.get(name, ())
    return name in floors and ranks.index(text) < ranks.index(floors[name])


def _meant(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name[:60], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _value_of(option: Option, value: object) -> tuple[Any, str]:
    """The value of a file, as on the command line, and as a text. Raises Unfit."""
    name = option.name
    if option.is_switch:
        if not isinstance(value, bool):
            raise Unfit(f"{name} is true or false")
        return value, _text_of(name, value)
    if option.is_list:
        texts = [_text_of(name, one) for one in (value if isinstance(value, list) else [value])]
        return [_read(option, text, in_file=True) for text in texts], " ".join(texts)
    if isinstance(value, list):
        raise Unfit(f"{name} is one value, not an array")
    text = _text_of(name, value)
    return _read(option, text, in_file=True), text


def _text_of(name: str, value: object) -> str:
    """What would be typed for ``value``. Raises Unfit."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise Unfit(f"{name} cannot be a {type(value).__name__}: write a string")


def _from_text(option: Option, text: str) -> Any:
    """The value of a variable. Raises Unfit."""
    if option.is_switch:
        return _checked(values.boolean, text)
    if option.is_list:
        return [_read(option, word, in_file=False) for word in text.split()]
    return _read(option, text, in_file=False)


def _read(option: Option, text: str, *, in_file: bool) -> Any:
    """What the command line makes of ``text``. Raises Unfit."""
    action = option.action
    if "\0" in text:
        raise Unfit(f"{option.name} has a NUL character in it")
    if in_file and not text:
        raise Unfit(f"{option.name} is empty")
    # Where the working directory of a process is that inherits a variable is not its author's to know.
    if action.type in (values.path, values.path_or_none) and not text.startswith("/"):
        raise Unfit(f"{option.name} has to be an absolute path, not {text!r:.60}")
    kind = action.type
    value = _checked(kind, text) if callable(kind) else text
    if action.choices is not None and value not in action.choices:
        meant = _meant(text, action.choices)
        raise Unfit(f"{option.name} is one of {', '.join(action.choices)}, not {text!r:.60}{meant}")
    return value


def _checked(read: Callable[[str], Any], text: str) -> Any:
    """``read(text)``. Raises Unfit with what ``read`` says."""
    try:
        return read(text)
    except (argparse.ArgumentTypeError, ValueError) as exc:
        raise Unfit(str(exc)) from None
