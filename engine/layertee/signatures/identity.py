"""Whether a signature is for the image that was asked for: the name in it, and ``signedIdentity``.

containers-policy.json(5), as containers/image compares (signature/policy_reference_match.go). Rules of this
file: the name in a signature is another's text, and read by the grammar of distribution/reference alone, case
and all; what that grammar refuses is no name, and a name without tag and digest is of no one image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..config.requirements import Identity, IdentityKind
from ..errors import DocumentError
from ..image import hub
from ..image.digest import Digest
from ..image.grammar import DOMAIN, MAX_REPOSITORY, REPOSITORY, TAG
from ..record import dataclass

if TYPE_CHECKING:
    from ..image.reference import Reference

_DIGEST: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
_NAMED = re.compile(
    rf"(?P<name>(?:{DOMAIN}(?::[0-9]+)?/)?{REPOSITORY})(?::(?P<tag>{TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LONGEST: Final = 600  # a name of 255, a tag of 128 and a digest of 135 characters, with what joins them


@dataclass(frozen=True, slots=True)
class _Named:
    """``registry/repository`` in full, and what follows it, as it is written."""

    name: str
    tag: str | None
    digest: str | None

    @property
    def is_name_only(self) -> bool:
        return self.tag is None and self.digest is None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest is not None else "")


def accepts(identity: Identity, name: Reference | None, signed: str) -> bool:
    """Whether a signature that says it is for ``signed`` is one for ``name``, the image as it was asked for.

    None is an image without a name in a registry: only identities that name one themselves take it. Where
    ``name`` has both tag and digest, it is the one with the digest, as its scope in policy.json is.
    """
    found = _parse(signed)
    if found is None:
        return False
    match identity.kind:
        case IdentityKind.EXACT_REFERENCE:
            return _is_exact(_parse(identity.name), found)
        case IdentityKind.EXACT_REPOSITORY:
            return _is_same_repository(_parse(identity.name), found)
    intended = (
        _parse(f"{name.name}@{name.digest}" if name.digest else str(name)) if name is not None else None
    )
    match identity.kind:
        case IdentityKind.MATCH_EXACT:
            return _is_exact(intended, found)
        case IdentityKind.MATCH_REPO_DIGEST_OR_EXACT:
            return _is_repo_digest_or_exact(intended, found)
        case IdentityKind.MATCH_REPOSITORY:
            return _is_same_repository(intended, found)
        case IdentityKind.REMAP:
            return _is_repo_digest_or_exact(_remapped(intended, identity), found)
    return False


def _is_exact(intended: _Named | None, found: _Named) -> bool:
    return intended is not None and not found.is_name_only and intended == found


def _is_repo_digest_or_exact(intended: _Named | None, found: _Named) -> bool:
    """The digest that was asked for is not compared: the manifest has it, and the one in the signature."""
    if intended is None or found.is_name_only:
        return False
    if intended.tag is None and intended.digest is not None:
        return intended.name == found.name
    return intended == found


def _is_same_repository(intended: _Named | None, found: _Named) -> bool:
    return intended is not None and intended.name == found.name


def _remapped(intended: _Named | None, identity: Identity) -> _Named | None:
    """``intended`` with the one prefix for the other; as it is if it does not begin with that prefix."""
    if intended is None:
        return None
    if intended.name != identity.prefix and not intended.name.startswith(f"{identity.prefix}/"):
        return intended
    text = identity.signed_prefix + str(intended)[len(identity.prefix) :]
    found = _parse(text)
    return found if found is not None and str(found) == text else None  # in full: no short form of Docker Hub


def _parse(text: str) -> _Named | None:
    """``text`` as distribution/reference reads it (ParseNormalizedNamed); None if it refuses."""
    if len(text) > _LONGEST or not text.isascii() or _IDENTIFIER.fullmatch(text):
        return None
    registry, slash, rest = text.partition("/")
    if not slash or not (any(character in registry for character in ".:") or registry == "localhost"):
        registry, rest = hub.NAME, text
    if registry in hub.NAMES:
        registry = hub.NAME
        if "/" not in rest:
            rest = f"library/{rest}"
    repository = rest.partition(":")[0]
    if repository != repository.lower():
        return None
    match = _NAMED.fullmatch(f"{registry}/{rest}")
    if match is None or len(match["name"]) > MAX_REPOSITORY:
        return None
    if match["digest"] is not None:
        try:
            Digest.parse(match["digest"])
        except DocumentError:
            return None
    return _Named(match["name"], match["tag"], match["digest"])
