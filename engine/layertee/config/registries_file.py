"""One file of registries.conf's kind: from TOML to values, with the lines that they come from.

containers-registries.conf(5), version 2, as the newest containers/image reads it: what it refuses is refused,
what it ignores is ignored. Keys are found whatever their case, as there. A key that is there twice, in two
cases, is an error: which of them counts would be chance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from ..errors import InvalidReference, RegistriesConfError
from ..image.grammar import DOMAIN
from ..image.reference import parse_alias, parse_short_name
from ..image.strictjson import printable
from ..record import dataclass
from .reading import read_file
from .tomlfile import NotToml, TomlFile, parse_toml

LIMIT: Final = 1 << 20
LIMIT_ALIAS: Final = 512
MIRROR_USES = frozenset({"all", "digest-only", "tag-only"})
MODES = frozenset({"disabled", "enforcing", "permissive"})
_SEARCHED = re.compile(DOMAIN + r"(?::[0-9]+)?")
_MAX_HOST = 255  # a longer one is in no name; bounds what the pattern may cost
_TO_ASCII = str.maketrans({"\u017f": "s", "\u212a": "k"})  # what has a letter of ASCII as its other case


@dataclass(frozen=True, slots=True)
class Whence:
    """Where a setting stands: ``FILE:LINE``, or only the file where the line is not known."""

    path: Path
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line is not None else str(self.path)


@dataclass(frozen=True, slots=True)
class Location:
    """A registry, or a part of one, that may be asked: what follows the section's prefix is put after it.

    ``use`` says when a mirror is asked: ``all``, ``digest-only`` or ``tag-only``. ``namespace`` goes along
    with every request as ``ns``, for a proxy of several registries (distribution-spec, registry proxying).
    """

    location: str
    insecure: bool
    whence: Whence
    use: str = "all"
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """What holds for images whose names begin with ``prefix``. An empty ``primary.location``: as they are
    called.
    """

    prefix: str
    primary: Location
    mirrors: tuple[Location, ...]
    blocked: bool

    @property
    def whence(self) -> Whence:
        return self.primary.whence


@dataclass(frozen=True, slots=True)
class Alias:
    """The ``name``, in full, that a short name stands for; None: what an earlier file says of it is void."""

    name: str | None
    whence: Whence


@dataclass(frozen=True, slots=True)
class ConfFile:
    """What one file says; None where it says nothing. ``search_whence``: where ``search`` stands."""

    path: Path
    sections: tuple[Section, ...] = ()
    search: tuple[str, ...] | None = None
    search_whence: Whence | None = None
    helpers: tuple[str, ...] | None = None
    mode: str | None = None
    aliases: Mapping[str, Alias] | None = None


def load(path: Path, *, named: bool) -> ConfFile | None:
    """The file at ``path``; None where one that nobody ``named`` is not there. Blocks.

    Raises RegistriesConfError.
    """
    try:
        raw = read_file(path, LIMIT, named=named)
    except OSError as exc:
        if not _is_null(path):
            raise RegistriesConfError(f"{path} cannot be read: {exc.strerror}") from exc
        raw = b""
    if raw is None:
        return None
    if len(raw) > LIMIT:
        raise RegistriesConfError(f"{path} is larger than {LIMIT} bytes")
    try:
        return _File(path, parse_toml(raw)).read()
    except NotToml as exc:
        raise RegistriesConfError(
            f"{Whence(path, exc.line)}: this is not TOML: {printable(str(exc))}"
        ) from exc


def _is_null(path: Path) -> bool:
    """A link to /dev/null in its place takes a file out of effect."""
    try:
        return os.path.samefile(path, os.devnull)
    except OSError:
        return False


class _File:
    """One file being read."""

    def __init__(self, path: Path, toml: TomlFile) -> None:
        self._path = path
        self._toml = toml
        self._document = toml.data
        self._lines: dict[tuple[str, ...], int] = {}
        for statement in toml.statements:
            self._lines.setdefault((_folded(statement.key[0]), *statement.key[1:]), statement.line)

    def read(self) -> ConfFile:
        document = self._document
        self._refuse_version_1(self._get(document, "registries"))
        tables = self._tables(document, "registry", "registry", self._at("registry"))
        lines = _header_lines(self._toml, len(tables))
        sections = tuple(self._section(table, *at) for table, at in zip(tables, lines, strict=True))
        self._no_conflicts(sections)
        first: dict[str, Section] = {}
        for section in sections:
            first.setdefault(section.prefix, section)
        at = self._at("short-name-mode")
        mode = self._text(document, "short-name-mode", at)
        if mode and mode not in MODES:
            self._fail(f"short-name-mode {mode!r:.100} is none of {', '.join(sorted(MODES))}", at)
        self._text(
            document, "additional-layer-store-auth-helper", self._at("additional-layer-store-auth-helper")
        )
        helpers = self._texts(document, "credential-helpers")
        return ConfFile(
            self._path,
            tuple(first[prefix] for prefix in sorted(first)),
            self._search(),
            self._at("unqualified-search-registries"),
            tuple(helpers) if helpers is not None else None,
            mode or None,
            dict(self._aliases()),
        )

    # --- sections ---

    def _section(self, table: dict[str, Any], line: int | None, mirror_lines: list[int]) -> Section:
        whence = Whence(self._path, line)
        primary = self._location(table, whence)
        prefix = self._place(table, "prefix", whence)
        if not prefix:
            prefix = primary.location
            if not prefix:
                self._fail("this registry has neither a location nor a prefix", whence)
        elif not primary.location and not prefix.startswith("*."):
            self._fail(f"the registry {prefix!r:.200} has no location; only *.example.com needs none", whence)
        if prefix.startswith("*.") and any(character in prefix for character in "/@:"):
            self._fail(f"prefix {prefix!r:.200}: a wildcard is *.example.com, without port and path", whence)
        if self._text(table, "pull-from-mirror", whence):
            self._fail("pull-from-mirror is for a [[registry.mirror]], not for the registry itself", whence)
        only_digests = self._flag(table, "mirror-by-digest-only", whence)
        tables = self._tables(table, "mirror", "registry.mirror", whence)
        lines = mirror_lines if len(mirror_lines) == len(tables) else [None] * len(tables)
        mirrors = tuple(
            self._mirror(mirror, Whence(self._path, line), only_digests)
            for mirror, line in zip(tables, lines, strict=True)
        )
        return Section(prefix, primary, mirrors, self._flag(table, "blocked", whence))

    def _mirror(self, table: dict[str, Any], whence: Whence, only_digests: bool) -> Location:
        mirror = self._location(table, whence)
        use = self._text(table, "pull-from-mirror", whence)
        if not mirror.location:
            self._fail("this mirror has no location", whence)
        if only_digests and use:
            self._fail("pull-from-mirror and the registry's mirror-by-digest-only exclude each other", whence)
        if use and use not in MIRROR_USES:
            self._fail(f"pull-from-mirror {use!r:.100} is none of {', '.join(sorted(MIRROR_USES))}", whence)
        return replace(mirror, use="digest-only" if only_digests else use or "all")

    def _location(self, table: dict[str, Any], whence: Whence) -> Location:
        return Location(
            self._place(table, "location", whence),
            self._flag(table, "insecure", whence),
            whence,
            namespace=self._text(table, "namespace-proxy", whence),
        )

    def _place(self, table: dict[str, Any], key: str, whence: Whence | None = None) -> str:
        return self._no_scheme(self._text(table, key, whence), key, whence)

    def _no_scheme(self, text: str, key: str, whence: Whence | None = None) -> str:
        trimmed = text.rstrip("/")
        if trimmed.startswith(("http://", "https://")):
            self._fail(f"{key} {text!r:.200}: write it without {trimmed.partition(':')[0]}://", whence)
        return trimmed

    def _no_conflicts(self, sections: tuple[Section, ...]) -> None:
        """A location that stands in several sections is insecure in all of them or in none, and so is
        blocked.
        """
        first: dict[str, Section] = {}
        for section in sections:
            key = section.primary.location or section.prefix
            other = first.setdefault(key, section)
            for word, mine, theirs in (
                ("insecure", section.primary.insecure, other.primary.insecure),
                ("blocked", section.blocked, other.blocked),
            ):
                if mine != theirs:
                    self._fail(f"{key!r:.200} is {word} here and not at {other.whence}", section.whence)

    # --- the rest ---

    def _refuse_version_1(self, table: object) -> None:
        if table is None:
            return
        if not isinstance(table, dict):
            self._fail("registries is not a table", self._at("registries"))
        for name in ("search", "insecure", "block"):
            part = self._get(table, name)
            if part is not None and not isinstance(part, dict):
                self._fail(f"registries.{name} is not a table", self._at("registries"))
            if part is not None and self._get(part, "registries") is not None:
                self._fail(
                    "registries.conf must be in v2 format but is in v1; write [[registry]] sections, and"
                    " unqualified-search-registries",
                    self._at("registries", name),
                )

    def _search(self) -> tuple[str, ...] | None:
        key = "unqualified-search-registries"
        found, at = self._texts(self._document, key), self._at(key)
        if found is None:
            return None
        names = tuple(self._no_scheme(name, key, at) for name in found)
        for name in names:
            if len(name) > _MAX_HOST or not _SEARCHED.fullmatch(name):
                self._fail(f"{key}: {name!r:.200} is not host[:port]", at)
        return names

    def _aliases(self) -> Iterator[tuple[str, Alias]]:
        table = self._get(self._document, "aliases")
        if not isinstance(table, dict):  # nothing, or what is passed over
            return
        for name, value in table.items():
            at = self._at("aliases", name)
            if not isinstance(value, str):
                self._fail(f"the alias {name!r:.200} is not a text", at)
            if max(len(name), len(value)) > LIMIT_ALIAS:
                self._fail(f"the alias {name!r:.80} is longer than a name can be", at)
            try:
                if parse_short_name(name).suffix:
                    self._fail(f"the alias {name!r:.200} must have neither tag nor digest", at)
                yield name, Alias(parse_alias(value) if value else None, at)
            except InvalidReference as exc:
                self._fail(str(exc), at)

    # --- one key ---

    def _at(self, *key: str) -> Whence:
        """Where ``key`` stands, the first part in whatever case."""
        return Whence(self._path, self._lines.get((_folded(key[0]), *key[1:])))

    def _get(self, table: Mapping[str, Any], key: str) -> Any:
        """The value under ``key`` in whatever case."""
        found = [name for name in table if _is(name, key)]
        if len(found) > 1:
            self._fail(f"{found[0]!r} and {found[1]!r} are one key; keep one of them", self._at(found[0]))
        return table[found[0]] if found else None

    def _tables(self, table: Mapping[str, Any], key: str, what: str, whence: Whence) -> list[dict[str, Any]]:
        found = self._get(table, key)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._fail(f"{what} is not an array of tables; write [[{what}]]", whence)
        return list(found)

    def _text(self, table: Mapping[str, Any], key: str, whence: Whence | None = None) -> str:
        found = self._get(table, key)
        if found is not None and not isinstance(found, str):
            self._fail(f"{key} is not a text", whence)
        return found or ""

    def _texts(self, table: Mapping[str, Any], key: str) -> list[str] | None:
        found = self._get(table, key)
        if found is not None and not (
            isinstance(found, list) and all(isinstance(each, str) for each in found)
        ):
            self._fail(f"{key} is not an array of texts", self._at(key))
        return found

    def _flag(self, table: Mapping[str, Any], key: str, whence: Whence) -> bool:
        found = self._get(table, key)
        if found is not None and not isinstance(found, bool):
            self._fail(f"{key} is neither true nor false", whence)
        return bool(found)

    def _fail(self, what: str, whence: Whence | None = None) -> NoReturn:
        raise RegistriesConfError(f"{whence or self._path}: {printable(what, 600)}")


def _is(name: str, key: str) -> bool:
    """Whether ``name`` is ``key`` in whatever case, as Unicode folds it letter by letter."""
    return len(name) == len(key) and _folded(name) == key


def _folded(name: str) -> str:
    return name.translate(_TO_ASCII).lower()


def _header_lines(toml: TomlFile, n_tables: int) -> Iterator[tuple[int | None, list[int]]]:
    """The line at which each of the registries begins, None where that is not certain, and those of its
    mirrors.
    """
    lines: list[int] = []
    mirrors: list[list[int]] = []
    for statement in toml.statements:
        begins = (statement.line,) if statement.is_array else statement.opened
        if len(statement.key) == 1 and _is(statement.key[0], "registry"):
            lines += begins
            mirrors += ([] for _ in begins)
        elif len(statement.key) == 2 and mirrors and all(map(_is, statement.key, ("registry", "mirror"))):
            mirrors[-1] += begins
    if len(lines) != n_tables:
        return iter([(None, [])] * n_tables)
    return iter(zip(lines, mirrors, strict=True))
