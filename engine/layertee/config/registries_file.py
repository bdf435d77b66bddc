"""One file of registries.conf's kind: from TOML to values, with the lines that they come from.

containers-registries.conf(5), version 2, as the newest containers/image reads it: what it refuses is refused,
what it ignores is ignored. Keys are found whatever their case, as there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from ..errors import InvalidReference, RegistriesConfError
from ..image.grammar import DOMAIN
from ..image.reference import parse_alias, parse_short_name
from ..image.strictjson import printable
from .reading import read_file

LIMIT: Final = 1 << 20
MIRROR_USES = frozenset({"all", "digest-only", "tag-only"})
MODES = frozenset({"disabled", "enforcing", "permissive"})
_SEARCHED = re.compile(DOMAIN + r"(?::[0-9]+)?")
_HEADER = re.compile(r"""\s*\[\[\s*(["']?)registry\1(?:\s*\.\s*(["']?)(mirror)\2)?\s*\]\]\s*(?:#.*)?""")
_AT = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")


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
class ConfFile:
    """What one file says; None where it says nothing. ``aliases``: short names, and None for one that is
    unset.
    """

    path: Path
    sections: tuple[Section, ...] = ()
    search: tuple[str, ...] | None = None
    helpers: tuple[str, ...] | None = None
    mode: str | None = None
    aliases: Mapping[str, str | None] | None = None


def load(path: Path, *, named: bool) -> ConfFile | None:
    """The file at ``path``; None where one that nobody ``named`` is not there. Blocks.

    Raises RegistriesConfError.
    """
    try:
        raw = read_file(path, LIMIT, named=named)
    except OSError as exc:
        raise RegistriesConfError(f"{path} cannot be read: {exc.strerror}") from exc
    if raw is None:
        return None
    if len(raw) > LIMIT:
        raise RegistriesConfError(f"{path} is larger than {LIMIT} bytes")
    try:
        text = raw.decode().removeprefix("\ufeff")  # the mark that some editors begin a file with
        return _File(path, text, tomllib.loads(text)).read()
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise RegistriesConfError(f"{path}:{line}: this is not UTF-8") from exc
    except tomllib.TOMLDecodeError as exc:
        found = _AT.search(str(exc))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        what = _AT.sub("", str(exc)).strip()
        raise RegistriesConfError(f"{path}:{line}: this is not TOML: {printable(what)}") from exc
    except RecursionError as exc:
        raise RegistriesConfError(f"{path} is nested too deeply") from exc


class _File:
    """One file being read."""

    def __init__(self, path: Path, text: str, document: dict[str, Any]) -> None:
        self._path = path
        self._document = document
        self._lines, self._mirror_lines = _header_lines(text)

    def read(self) -> ConfFile:
        document = self._document
        self._refuse_version_1(_get(document, "registries"))
        tables = self._tables(document, "registry", "registry")
        if len(self._lines) != len(tables):
            self._lines, self._mirror_lines = [None] * len(tables), []
        sections = tuple(self._section(at, table) for at, table in enumerate(tables))
        self._no_conflicts(sections)
        first: dict[str, Section] = {}
        for section in sections:
            first.setdefault(section.prefix, section)
        mode = self._text(document, "short-name-mode")
        if mode and mode not in MODES:
            self._fail(f"short-name-mode {mode!r:.100} is none of {', '.join(sorted(MODES))}")
        self._text(document, "additional-layer-store-auth-helper")
        helpers = self._texts(document, "credential-helpers")
        return ConfFile(
            self._path,
            tuple(first[prefix] for prefix in sorted(first)),
            self._search(),
            tuple(helpers) if helpers is not None else None,
            mode or None,
            dict(self._aliases()),
        )

    # --- sections ---

    def _section(self, at: int, table: dict[str, Any]) -> Section:
        whence = Whence(self._path, self._lines[at])
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
        if _get(table, "pull-from-mirror"):
            self._fail("pull-from-mirror is for a [[registry.mirror]], not for the registry itself", whence)
        only_digests = self._flag(table, "mirror-by-digest-only", whence)
        tables = self._tables(table, "mirror", "registry.mirror")
        lines = self._mirror_lines[at] if at < len(self._mirror_lines) else []
        if len(lines) != len(tables):
            lines = [None] * len(tables)
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
            self._fail("registries is not a table")
        for name in ("search", "insecure", "block"):
            part = _get(table, name)
            if part is not None and not isinstance(part, dict):
                self._fail(f"registries.{name} is not a table")
            if part is not None and _get(part, "registries") is not None:
                self._fail(
                    "registries.conf must be in v2 format but is in v1; write [[registry]] sections, and"
                    " unqualified-search-registries"
                )

    def _search(self) -> tuple[str, ...] | None:
        found = self._texts(self._document, "unqualified-search-registries")
        if found is None:
            return None
        key = "unqualified-search-registries"
        names = tuple(self._no_scheme(name, key) for name in found)
        for name in names:
            if not _SEARCHED.fullmatch(name):
                self._fail(f"{key}: {name!r:.200} is not host[:port]")
        return names

    def _aliases(self) -> Iterator[tuple[str, str | None]]:
        table = _get(self._document, "aliases")
        if table is None:
            return
        if not isinstance(table, dict):
            self._fail("aliases is not a table")
        for name, value in table.items():
            if not isinstance(value, str):
                self._fail(f"the alias {name!r:.200} is not a text")
            try:
                if parse_short_name(name).suffix:
                    self._fail(f"the alias {name!r:.200} must have neither tag nor digest")
                yield name, parse_alias(value) if value else None
            except InvalidReference as exc:
                self._fail(str(exc))

    # --- one key ---

    def _tables(self, table: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
        found = _get(table, key)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._fail(f"{what} is not an array of tables; write [[{what}]]")
        return list(found)

    def _text(self, table: dict[str, Any], key: str, whence: Whence | None = None) -> str:
        found = _get(table, key)
        if found is not None and not isinstance(found, str):
            self._fail(f"{key} is not a text", whence)
        return found or ""

    def _texts(self, table: dict[str, Any], key: str) -> list[str] | None:
        found = _get(table, key)
        if found is not None and not (
            isinstance(found, list) and all(isinstance(each, str) for each in found)
        ):
            self._fail(f"{key} is not an array of texts")
        return found

    def _flag(self, table: dict[str, Any], key: str, whence: Whence) -> bool:
        found = _get(table, key)
        if found is not None and not isinstance(found, bool):
            self._fail(f"{key} is neither true nor false", whence)
        return bool(found)

    def _fail(self, what: str, whence: Whence | None = None) -> NoReturn:
        raise RegistriesConfError(f"{whence or self._path}: {printable(what, 600)}")


def _get(table: dict[str, Any], key: str) -> Any:
    """The value under ``key``, else under a key that differs in case only."""
    if key in table:
        return table[key]
    return next((value for name, value in table.items() if name.lower() == key), None)


def _header_lines(text: str) -> tuple[list[int | None], list[list[int | None]]]:
    """The lines of the ``[[registry]]`` headers, and for each those of its mirrors.

    No lines at all where a text may go over several: what looks like a header may be a part of it.
    """
    lines: list[int | None] = []
    mirrors: list[list[int | None]] = []
    if '"""' in text or "'''" in text:
        return lines, mirrors
    for number, line in enumerate(text.split("\n"), 1):
        found = _HEADER.fullmatch(line.rstrip("\r"))
        if found is None:
            continue
        if found[3]:
            if mirrors:
                mirrors[-1].append(number)
        else:
            lines.append(number)
            mirrors.append([])
    return lines, mirrors
