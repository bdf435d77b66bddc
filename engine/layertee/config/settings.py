"""layertee.toml: what the options of commands are by default (docs/reference/layertee-toml.md).

Rules of this file: it knows files, tables and keys, and no option. Which keys there are, and what their
values may be, the command line knows. Nothing of TOML is imported where no file is: most machines have none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ..errors import LayerteeError
from ..record import dataclass
from .home import User
from .search import is_own_drop_in

NAME: Final = "layertee.toml"
DROP_INS: Final = "layertee.toml.d"
VARIABLE: Final = "LAYERTEE_CONFIG"
LIMIT: Final = 1 << 20
MAX_FILES: Final = 256

_VENDOR, _ADMIN = "usr/lib/layertee", "etc/layertee"
_NOTHING = Path(os.devnull)


class SettingsError(LayerteeError):
    """layertee.toml, or a variable for an option, cannot be used; the message names file and line."""

    code = "SETTINGS"


@dataclass(frozen=True, slots=True)
class File:
    """One that is read. ``of_machine``: by its place it is the administrator's or the vendor's.

    ``named``: by the environment, so that it has to be there.
    """

    path: Path
    of_machine: bool
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a file says of one option. ``command``: the table that it stands in; None for every command.

    ``value`` is as tomllib has it; ``line`` is None where it is not known.
    """

    key: str
    value: object
    command: str | None
    file: File
    line: int | None

    @property
    def whence(self) -> str:
        """``FILE:LINE``."""
        return str(self.file.path) if self.line is None else f"{self.file.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class SettingsFiles:
    """Where files are looked for: a directory of the vendor, one of the administrator, one of the user.

    Of a later one counts what it says before what an earlier one does. ``only`` is one file that stands for
    all of the user's: what the machine's files say, no process escapes by its environment.
    """

    vendor: Path
    admin: Path
    user: Path | None = None
    only: Path | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> SettingsFiles:
        """Those of this process. Root has no file of its own: what its commands do is the machine's matter.

        Blocks where the environment has no HOME.
        """
        if only := environ.get(VARIABLE):
            return cls.beneath(Path("/"), only=Path(only))
        user = User.of(environ)
        own = user.config / "layertee" if user.config and user.uid != 0 else None
        return cls.beneath(Path("/"), user=own)

    @classmethod
    def beneath(cls, root: Path, *, user: Path | None = None, only: Path | None = None) -> SettingsFiles:
        """Those of the machine whose files are in ``root``."""
        return cls(root / _VENDOR, root / _ADMIN, user, only)

    def found(self) -> Iterator[File]:
        """Those that are there, what counts less first. Raises SettingsError. Blocks."""
        for directory, has_drop_ins in ((self.vendor, False), (self.admin, True)):
            yield from (File(path, of_machine=True) for path in _there(directory, has_drop_ins))
        if self.only is not None:
            if not self.only.is_absolute():  # it is inherited, and means no working directory
                raise SettingsError(f"{VARIABLE} has to be an absolute path, not {str(self.only)!r:.60}")
            if self.only != _NOTHING:
                yield File(self.only, of_machine=False, named=True)
            return
        # Behind a directory that this user may not look into, nothing is.
        if self.user is not None and os.path.lexists(self.user):
            yield from (File(path, of_machine=False) for path in _there(self.user, True))


def read_settings(file: File, check: Callable[[Path], None], commands: frozenset[str]) -> list[Setting]:
    """What ``file`` says: what is for every command, then what is for one of ``commands``.

    ``check`` raises an error for a file that somebody else could change. Raises SettingsError and that.
    Blocks.
    """
    from ..image.strictjson import printable
    from .reading import read_file
    from .tomlfile import NotToml, parse_toml

    path = file.path
    try:
        check(path)
        raw = read_file(path, LIMIT, named=False)  # of a pipe, the end might never come
        if raw is None:
            os.stat(path)  # says why
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    if raw is None:  # behind a directory that was there, or gone since
        raise SettingsError(f"{path} cannot be read")
    if len(raw) > LIMIT:
        raise SettingsError(f"{path} is larger than {LIMIT} bytes")
    try:
        toml = parse_toml(raw)
    except NotToml as exc:
        at = path if exc.line is None else f"{path}:{exc.line}"
        raise SettingsError(f"{at}: this is not TOML: {printable(str(exc))}") from exc
    lines: dict[tuple[str, ...], int] = {}
    for statement in toml.statements:
        lines.setdefault(statement.key, statement.line)

    def settings(table: Mapping[str, object], command: str | None) -> Iterator[Setting]:
        above = () if command is None else (command,)
        for key, value in _flat(table):
            line = lines.get((*above, *key.split(".")), lines.get((*above, key), lines.get(above)))
            yield Setting(key=key, value=value, command=command, file=file, line=line)

    general = {
        key: value for key, value in toml.data.items() if key not in commands or not isinstance(value, dict)
    }
    found = list(settings(general, None))
    for command in commands & toml.data.keys() - general.keys():
        table = toml.data[command]
        assert isinstance(table, dict)
        found += settings(table, command)
    return found


def _flat(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The pairs of a table; ``registries.d = "…"`` without quotes is one pair, too."""
    for key, value in table.items():
        if isinstance(value, dict) and value.keys() == {"d"}:
            yield f"{key}.d", value["d"]
        else:
            yield key, value


def _there(directory: Path, has_drop_ins: bool) -> list[Path]:
    """The files in ``directory`` in the order in which they are read. Raises SettingsError."""
    main, drop_ins = directory / NAME, directory / DROP_INS
    found = []
    try:
        if _is_there(main):
            found.append(main)
        if not has_drop_ins or not _is_there(drop_ins):
            return found
        with os.scandir(drop_ins) as entries:
            names = sorted(entry.name for entry in entries if is_own_drop_in(entry.name))
    except OSError as exc:
        raise SettingsError(f"{directory} cannot be looked into: {exc.strerror}") from exc
    if len(names) > MAX_FILES:
        raise SettingsError(f"{drop_ins} has more than {MAX_FILES} files")
    return [*found, *(path for path in (drop_ins / name for name in names) if not _is_masked(path))]


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return not _is_masked(path)


def _is_masked(path: Path) -> bool:
    """Whether ``path`` leads to /dev/null: a name under which nothing is to be."""
    return path.is_symlink() and os.path.realpath(path) == os.devnull
