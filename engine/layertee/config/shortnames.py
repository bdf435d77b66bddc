"""What a short name stands for on this machine: ``busybox``, with no registry before it.

As podman does, containers-registries.conf(5): an alias, of those that podman recorded before those of
registries.conf; else the name in each of the registries that are searched, in their order. Where those are
several, ``short-name-mode`` says whether a person has to choose. Nobody is asked by this module.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import InvalidReference, RegistriesConfError, UnresolvedName
from ..image.reference import Reference, ShortName, parse_reference
from ..record import dataclass
from .home import User, uid_outside

if TYPE_CHECKING:
    from .registries import Registries
    from .registries_file import Alias, Whence

RECORDED: Final = Path("containers/short-name-aliases.conf")
ROOT_CACHE: Final = Path("/var/cache")
DISABLED, ENFORCING = "disabled", "enforcing"


@dataclass(frozen=True, slots=True)
class Candidates:
    """The images that ``name`` may stand for, in the order in which they are tried; at least one.

    ``why`` says where that is configured, ``mode`` is the machine's short-name-mode.
    """

    name: ShortName
    references: tuple[Reference, ...]
    why: str
    mode: str

    @property
    def is_for_a_person(self) -> bool:
        """Whether a person at a terminal chooses one of them."""
        return len(self.references) > 1 and self.mode != DISABLED

    def unasked(self) -> tuple[Reference, ...]:
        """Those to try, where there is no person to ask. Raises UnresolvedName: one has to be chosen."""
        if self.is_for_a_person and self.mode == ENFORCING:
            raise self.undecided()
        return self.references

    def undecided(self) -> UnresolvedName:
        """The error for a choice that was not made."""
        names = tuple(map(str, self.references))
        error = UnresolvedName(
            f"short name {str(self.name)!r} may be one of {', '.join(names)} ({self.why}); write it in full"
        )
        error.candidates = names
        return error


def candidates(name: ShortName, configured: Registries, recorded: Path | None) -> Candidates:
    """What ``name`` may stand for; ``recorded`` is podman's file of aliases, see :func:`recorded_at`.

    Raises UnresolvedName (nothing), RegistriesConfError. Blocks.
    """
    alias = _alias(name.repository, configured, recorded)
    if alias is not None:
        full, whence = alias
        return Candidates(name, (name.at(full),), f"an alias in {whence}", configured.short_name_mode)
    if not configured.search:
        files = ", ".join(str(path) for path in configured.files)
        raise UnresolvedName(
            f"short name {str(name)!r} names no registry: it is no alias, and no"
            f" unqualified-search-registries are set in {files or 'any registries.conf'}; write it in full"
        )
    found = tuple(_searched(name, registry, configured) for registry in configured.search)
    why = f"unqualified-search-registries in {configured.search_whence}"
    return Candidates(name, found, why, configured.short_name_mode)


def recorded_at(env: Mapping[str, str] | None = None) -> Path | None:
    """Where podman records the aliases that were chosen; None for a user without a home."""
    env = os.environ if env is None else env
    uid = uid_outside(env, os.geteuid())
    cache = User.of(env, uid).cache if uid else ROOT_CACHE
    return cache / RECORDED if cache else None


def _alias(short: str, configured: Registries, recorded: Path | None) -> tuple[str, Whence] | None:
    """The full name for ``short`` and where that stands. One that was recorded as unset is none."""
    if recorded is not None:
        from .registries_file import load

        with _unchanged(recorded):
            file = load(recorded, named=False)
        if file is not None and file.aliases is not None and short in file.aliases:
            return _full(file.aliases[short])
    return _full(configured.aliases.get(short))


def _full(alias: Alias | None) -> tuple[str, Whence] | None:
    return (alias.name, alias.whence) if alias is not None and alias.name is not None else None


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """podman writes ``path`` in place, under a lock: half of it is not what it says. Blocks meanwhile."""
    try:
        fd = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # not there, or of another user: then nothing is known of writers
        yield
        return
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_SH)
        except OSError as exc:
            raise RegistriesConfError(f"{path}.lock cannot be locked: {exc.strerror}") from exc
        yield
    finally:
        os.close(fd)


def _searched(name: ShortName, registry: str, configured: Registries) -> Reference:
    text = f"{registry}/{name}"
    try:
        found = parse_reference(f"docker://{text}")
    except InvalidReference as exc:
        raise RegistriesConfError(
            f"{configured.search_whence}: of unqualified-search-registries, {text!r:.200} is no name: {exc}"
        ) from exc
    assert isinstance(found, Reference)
    return found
