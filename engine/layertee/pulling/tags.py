"""Which tags a repository has, asked of where this machine's configuration says that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..aio import in_thread
from ..errors import InvalidReference, LayerteeError
from ..image.reference import Reference, ShortName, parse_name
from ..record import dataclass

if TYPE_CHECKING:
    from .network import Network


@dataclass(frozen=True, slots=True)
class RepositoryTags:
    """The ``tags`` of ``repository`` (``registry/name``) in the order in which the registry has them."""

    repository: str
    tags: tuple[str, ...]
    warnings: tuple[str, ...] = ()


async def tags_of(repository: str, network: Network) -> RepositoryTags:
    """The tags of ``repository``: ``host/name``, with or without ``docker://``, or a short name.

    A short name is the first repository that it may stand for which has tags to be read; nobody is asked.
    Raises InvalidReference (UnresolvedName), NotInRegistry, Unauthorized and the rest of RegistryError,
    TransportError and its subclasses, DocumentError, RegistryBlocked, RegistriesConfError.
    """
    named = parse_repository(repository)
    if isinstance(named, Reference):
        return await _of_one(named, network)
    from ..config.shortnames import candidates, recorded_at

    configured = await network.registries()
    found = await in_thread(lambda: candidates(named, configured, recorded_at()))
    failed: list[LayerteeError] = []
    for reference in found.unasked():
        try:
            return await _of_one(reference, network)
        except LayerteeError as exc:
            failed.append(exc)
    stands = next((error for error in failed if error.retryable), failed[-1])
    for error in failed:
        if error is not stands:
            stands.add_note(str(error))
    raise stands


def parse_repository(text: str) -> Reference | ShortName:
    """A name in a registry that has neither tag nor digest. Raises InvalidReference."""
    named = parse_name(text)
    if isinstance(named, ShortName):
        extra = named.suffix
    elif isinstance(named, Reference):
        extra = "@" if named.digest else ":" if text.endswith(f":{named.tag}") else ""
    else:
        raise InvalidReference(f"{text!r:.200} is in no registry; only those have lists of tags")
    if extra:
        raise InvalidReference(f"{text!r:.200} has a tag or digest; name the repository alone")
    return named


async def _of_one(reference: Reference, network: Network) -> RepositoryTags:
    site = await network.site(reference)
    found, endpoint = await site.tags()
    warnings = []
    if found.n_unusable:
        warnings.append(f"{reference.name}: {found.n_unusable} entries of the list are no tags, and left out")
    if endpoint != reference.name:
        warnings.append(f"{reference.name}: the tags are those that {endpoint} has")
    return RepositoryTags(reference.name, found.tags, tuple(warnings))
