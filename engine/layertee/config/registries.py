"""Which endpoints an image has on this machine: registries.conf, read and merged, and asked about names.

containers-registries.conf(5), version 2. Rules of this file: the section with the longest matching prefix
holds, alone; its mirrors come in their order and its own location last; a location that is blocked, by this
section or by the one that matches the rewritten name, is not asked, whatever else there is. Host names are
compared whatever their case, since they are the same hosts: a name in other letters is blocked as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import InvalidReference, RegistriesConfError, RegistryBlocked
from ..image.reference import Reference, parse_reference
from ..record import dataclass
from .home import User
from .search import ADMIN, VENDOR, Search

if TYPE_CHECKING:
    from .registries_file import Alias, ConfFile, Location, Section, Whence

VARIABLE: Final = "CONTAINERS_REGISTRIES_CONF"
OVERRIDE: Final = "CONTAINERS_REGISTRIES_CONF_OVERRIDE"
AUTH_FILES: Final = "containers-auth.json"  # in credential-helpers: the files of containers-auth.json(5)
PERMISSIVE: Final = "permissive"
MAX_NAME: Final = 255  # of a registry and a repository together


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One repository that may be asked for an image, as ``reference`` there.

    ``whence`` is None where no section applies: then it is the image's own name. ``namespace``: see Location.
    """

    reference: Reference
    insecure: bool = False
    is_mirror: bool = False
    whence: Whence | None = None
    namespace: str = ""


class Registries:
    """What the ``files`` say, merged in their order: a later one replaces what an earlier one says of a
    prefix.
    """

    def __init__(self, files: tuple[ConfFile, ...] = ()) -> None:
        self.files = tuple(file.path for file in files)
        self.credential_helpers: tuple[str, ...] = (AUTH_FILES,)
        self.search: tuple[str, ...] = ()
        """Registries that a short name may be of, in their order; ``search_whence`` says where."""
        self.search_whence: Whence | None = None
        self.short_name_mode = PERMISSIVE
        self.aliases: dict[str, Alias] = {}
        """By short name."""
        sections: dict[str, Section] = {}
        for file in files:
            sections.update((section.prefix, section) for section in file.sections)
            if file.search is not None:
                self.search, self.search_whence = file.search, file.search_whence
            if file.helpers is not None:
                self.credential_helpers = file.helpers or (AUTH_FILES,)
            self.short_name_mode = file.mode or self.short_name_mode
            self.aliases |= file.aliases or {}
        # Of those that differ in the case of the host only the one in lower case comes first.
        in_order = sorted(sections, key=lambda prefix: (_folded(prefix), prefix.swapcase()))
        self.sections = tuple(sections[prefix] for prefix in in_order)

    @classmethod
    def none(cls) -> Registries:
        """Nothing is configured."""
        return cls()

    @classmethod
    def read(
        cls,
        *,
        path: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        admin: Path = ADMIN,
        vendor: Path = VENDOR,
    ) -> Registries:
        """As this process finds it; ``path`` replaces the main files. Raises RegistriesConfError. Blocks."""
        env = os.environ if env is None else env
        user = user or User.of(env)
        search = Search.of(
            "registries.conf",
            VARIABLE,
            OVERRIDE,
            env=env,
            user=user,
            path=path,
            admin=admin,
            vendor=vendor,
        )
        return cls(tuple(_load(search, user.config)))

    def section(self, name: str) -> Section | None:
        """The section that holds for ``name``, a repository or a whole reference."""
        matching = (section for section in self.sections if _matched(name, section.prefix) is not None)
        return max(
            matching, key=lambda section: len(section.prefix), default=None
        )  # the first of the longest

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Whom to ask for ``reference``, in order, the origin last; at least one.

        Raises RegistryBlocked where all are blocked, RegistriesConfError where a location makes no name.
        """
        section = self.section(reference.name)
        if section is None:
            return (Endpoint(reference),)
        endpoints = []
        blocked: Section | None = None
        for location in _used(section, is_digest=reference.digest is not None):
            is_mirror = location is not section.primary
            rewritten = _rewritten(reference, section.prefix, location)
            there = self.section(rewritten.name)
            if section.blocked and not is_mirror:
                blocked = section
            elif there is not None and there.blocked:
                blocked = there
            else:
                endpoints.append(
                    Endpoint(rewritten, location.insecure, is_mirror, location.whence, location.namespace)
                )
        if not endpoints:
            assert blocked is not None
            raise RegistryBlocked(
                f"{reference}: {blocked.prefix} is blocked by the administrator ({blocked.whence})"
            )
        return tuple(endpoints)


def _load(search: Search, own: Path | None) -> Iterator[ConfFile]:
    files: list[Path] = []
    try:
        for candidate in search.candidates(lambda path: path in files):
            if file := _read(candidate.path, named=candidate.named, own=own):
                files.append(candidate.path)
                yield file
    except OSError as exc:
        raise RegistriesConfError(f"{exc.filename} cannot be read: {exc.strerror}") from exc


def _read(path: Path, *, named: bool, own: Path | None) -> ConfFile | None:
    """None where it is not there. ``own``: beneath it, a directory that this user cannot enter is not theirs;
    elsewhere it may hide that something is blocked.
    """
    if not named:
        try:
            path.lstat()
        except FileNotFoundError:
            return None  # most machines have one such file of six: no TOML is imported for the others
        except OSError as exc:
            if own is not None and path.is_relative_to(own):
                return None
            raise RegistriesConfError(f"{path} cannot be read: {exc.strerror}") from exc
    from .registries_file import load

    return load(path, named=named)


def _used(section: Section, *, is_digest: bool) -> Iterator[Location]:
    for mirror in section.mirrors:
        if mirror.use == "all" or (mirror.use == "digest-only") == is_digest:
            yield mirror
    yield section.primary


def _rewritten(reference: Reference, prefix: str, location: Location) -> Reference:
    """``reference`` at ``location``, to which ``prefix`` leads."""
    text = str(reference)
    if not location.location:
        return reference
    end = _matched(text, prefix)
    assert end is not None
    there = location.location + text[end:]
    try:
        found = parse_reference(f"docker://{there}")
    except InvalidReference as exc:
        raise RegistriesConfError(f"{location.whence}: {text} would be asked for as {there}: {exc}") from exc
    # Where containers/image sees a registry, which is less than a user may write.
    host = there.partition("/")[0]
    if not isinstance(found, Reference) or str(found) != _folded(there):
        problem = f"which stands for {found}; write that"
    elif "[" in host or not (host == "localhost" or "." in host or ":" in host):
        problem = f"and {host!r} is no registry"
    elif len(found.name) > MAX_NAME:
        problem = f"which is longer than {MAX_NAME}"
    else:
        return found
    raise RegistriesConfError(f"{location.whence}: {text} would be asked for as {there:.600}, {problem}")


def _matched(name: str, prefix: str) -> int | None:
    """Where in ``name`` the part ends that ``prefix`` stands for; None where it does not match."""
    name, prefix = _folded(name), _folded(prefix)
    if prefix.startswith("*."):
        at = name.find(prefix[1:])
        if at < 0 or "/" in name[:at]:
            return None
        end = at + len(prefix) - 1
    elif name.startswith(prefix):
        end = len(prefix)
    else:
        return None
    return end if end == len(name) or name[end] in ":/@" else None


def _folded(name: str) -> str:
    """``name`` with the letters of its host in lower case."""
    host, slash, rest = name.partition("/")
    return f"{host.lower()}{slash}{rest}"
