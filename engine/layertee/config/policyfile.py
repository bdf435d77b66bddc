"""The file policy.json: whether it means what it seems to, and what each of its sections asks for.

containers-policy.json(5). A typo in a policy must not open a door, so the file is read as containers/image
reads it (signature/policy_config.go): an unknown or repeated key, another type, or a scope that its transport
does not have, and the whole file is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ..errors import DocumentError
from ..image.grammar import DOMAIN, MAX_REPOSITORY, REPOSITORY, TAG
from ..image.strictjson import as_object, as_text, load_object, printable
from .requirements import (
    PKI,
    AcceptAnything,
    Fulcio,
    Identity,
    IdentityKind,
    Material,
    RejectAll,
    Requirement,
    SignedBaseLayer,
    SignedBy,
    SigstoreSigned,
)

Requirements = tuple[Requirement, ...]
Sections = Mapping[str, Mapping[str, Requirements]]
"""By transport, then by scope; the scope ``""`` is the transport's default."""

_SINGLE: Final[Mapping[str, Requirement]] = {
    "insecureAcceptAnything": AcceptAnything(),
    "reject": RejectAll(),
}
_KEY_TYPES: Final = frozenset({"GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"})
_GPG_KEYS: Final = ("keyPath", "keyPaths", "keyData")
_SIGSTORE_KEYS: Final = (*_GPG_KEYS, "keyDatas", "fulcio", "pki")
_REKOR_KEYS: Final = (
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
)
_PLAIN_IDENTITIES: Final[Mapping[str, Identity]] = {
    kind.value: Identity(kind)
    for kind in (
        IdentityKind.MATCH_EXACT,
        IdentityKind.MATCH_REPO_DIGEST_OR_EXACT,
        IdentityKind.MATCH_REPOSITORY,
    )
}

_HOST: Final = rf"(?:{DOMAIN}|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?"
_NAMED: Final = re.compile(rf"(?P<name>(?:{_HOST}/)?{REPOSITORY})(?P<tag>:{TAG})?(?P<digest>@.+)?")
_PREFIX: Final = re.compile(rf"{_HOST}(?:/{REPOSITORY})?")
_IMAGE_ID: Final = re.compile(r"[a-f0-9]{64}")
_DIGEST: Final = re.compile(r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}")
_ATOMIC_SCOPE: Final = re.compile(r"[^/]*(?:/[^:/]*(?:/[^:/]*(?::[^:/]*)?)?)?")

# Transports whose scopes are files or directories, and those that have no scope but "".
_PATH_SCOPES: Final = frozenset({"oci", "oci-archive", "dir", "sif"})
_NO_SCOPES: Final = frozenset({"docker-archive", "tarball"})
# Scopes may differ by case only, like tags do: strictjson has to be told where keys are data.
_MAPS: Final = frozenset(
    {*("transports", "docker", "docker-daemon", "containers-storage", "atomic", "ostree"), *_PATH_SCOPES}
)


def parse_policy(raw: bytes, what: str) -> tuple[Requirements, Sections]:
    """What the file asks for by default, and in its sections. ``what`` names it in messages.

    Raises DocumentError for whatever containers/image would not read.
    """
    document = load_object(raw, what, maps=_MAPS)
    _check_keys(document, {"default", "transports"}, what)
    if "default" not in document:
        raise DocumentError(f"{what} has no default")
    default = _requirements(document["default"], f"{what}, default")
    if "transports" not in document:
        return default, {}
    sections: dict[str, dict[str, Requirements]] = {}
    for transport, scopes in as_object(document["transports"], f"{what}, transports").items():
        here = f"{what}, {printable(transport, 60)}"
        sections[transport] = {
            scope: _section(transport, scope, value, here) for scope, value in as_object(scopes, here).items()
        }
    return default, sections


def _section(transport: str, scope: str, value: object, here: str) -> Requirements:
    if scope and not _is_scope(transport, scope):
        raise DocumentError(f"{here}: {printable(scope)!r} is not a scope of this transport")
    return _requirements(value, f"{here}, {printable(scope)!r}")


def _is_scope(transport: str, scope: str) -> bool:
    """As ``ValidatePolicyConfigurationScope`` of each transport."""
    if transport in _PATH_SCOPES:
        return scope.startswith("/") and not {"", ".", ".."} & set(scope[1:].split("/"))
    if transport == "docker-daemon":
        return not _is_digest(scope)
    if transport == "containers-storage":
        return _is_storage_scope(scope)
    if transport == "atomic":
        return _ATOMIC_SCOPE.fullmatch(scope) is not None
    return transport not in _NO_SCOPES


def _is_storage_scope(scope: str) -> bool:
    """``[graphroot]`` or ``[driver@graphroot]``, then nothing, or an image."""
    store, closed, image = scope.partition("]")
    driver, at, root = store[1:].partition("@")
    if not scope.startswith("[") or not closed or (at and not driver):
        return False
    if not (root if at else driver).startswith("/"):
        return False
    _, *pins = image.split("@", 2)
    if len(pins) == 2:
        return _is_digest(pins[0]) and _IMAGE_ID.fullmatch(pins[1]) is not None
    return all(_is_digest(pin) or _IMAGE_ID.fullmatch(pin) for pin in pins)


def _requirements(value: object, what: str) -> Requirements:
    """All of them have to hold."""
    if not isinstance(value, list) or not value:
        raise DocumentError(f"{what} is not a list of requirements, or is an empty one")
    return tuple(_requirement(one, what) for one in value)


def _requirement(value: object, what: str) -> Requirement:
    found = as_object(value, f"{what}: a requirement")
    kind = as_text(found.get("type"), f"{what}: type")
    if kind in _SINGLE:
        _check_keys(found, {"type"}, f"{what}, {kind}")
        return _SINGLE[kind]
    if kind not in _SIGNED:
        raise DocumentError(f"{what}: there is no requirement of the type {printable(kind, 60)!r}")
    return _SIGNED[kind](found, f"{what}, {kind}")


def _signed_by(found: dict[str, object], what: str) -> SignedBy:
    _check_keys(found, {"type", "keyType", *_GPG_KEYS, "signedIdentity"}, what)
    key_type = as_text(found.get("keyType"), f"{what}: keyType")
    if key_type not in _KEY_TYPES:
        raise DocumentError(f"{what}: the keyType is unknown")
    _check_values(found, what)
    source = _one_of(found, _GPG_KEYS, what)
    return SignedBy(key_type, _material(found, source), _signed_identity(found, what))


def _signed_base_layer(found: dict[str, object], what: str) -> SignedBaseLayer:
    _check_keys(found, {"type", "baseLayerIdentity"}, what)
    return SignedBaseLayer(_identity(found.get("baseLayerIdentity"), what))


def _sigstore_signed(found: dict[str, object], what: str) -> SigstoreSigned:
    _check_keys(found, {"type", *_SIGSTORE_KEYS, *_REKOR_KEYS, "signedIdentity"}, what)
    _check_values(found, what)
    for key in ("keyPaths", "keyDatas", "rekorPublicKeyPaths", "rekorPublicKeyDatas"):
        if found.get(key) == []:
            raise DocumentError(f"{what}: {key} is empty")
    source = _one_of(found, _SIGSTORE_KEYS, what)
    rekor = [key for key in _REKOR_KEYS if key in found]
    if len(rekor) > 1 or (source == "fulcio" and not rekor) or (source == "pki" and rekor):
        raise DocumentError(f"{what}: {source} does not go with {' and '.join(rekor) or 'no Rekor key'}")
    return SigstoreSigned(
        None if source in ("fulcio", "pki") else _material(found, source),
        _fulcio(as_object(found[source], f"{what}: fulcio"), f"{what}, fulcio")
        if source == "fulcio"
        else None,
        _pki(as_object(found[source], f"{what}: pki"), f"{what}, pki") if source == "pki" else None,
        _material(found, rekor[0]) if rekor else None,
        _signed_identity(found, what),
    )


def _fulcio(found: dict[str, object], what: str) -> Fulcio:
    _check_keys(found, {"caPath", "caData", "oidcIssuer", "subjectEmail"}, what)
    _check_values(found, what)
    ca = _material(found, _one_of(found, ("caPath", "caData"), what))
    if "oidcIssuer" not in found or "subjectEmail" not in found:
        raise DocumentError(f"{what}: oidcIssuer or subjectEmail is missing")
    return Fulcio(ca, str(found["oidcIssuer"]), str(found["subjectEmail"]))


def _pki(found: dict[str, object], what: str) -> PKI:
    roots, between = ("caRootsPath", "caRootsData"), ("caIntermediatesPath", "caIntermediatesData")
    whose = ("subjectEmail", "subjectHostname")
    _check_keys(found, {*roots, *between, *whose}, what)
    _check_values(found, what)
    root = _one_of(found, roots, what)
    if not any(key in found for key in whose):
        raise DocumentError(f"{what}: neither subjectEmail nor subjectHostname is there")
    if all(key in found for key in between):
        raise DocumentError(f"{what}: {between[0]} and {between[1]} exclude each other")
    intermediates = next((key for key in between if key in found), None)
    return PKI(
        _material(found, root),
        _material(found, intermediates) if intermediates else None,
        str(found.get("subjectEmail", "")),
        str(found.get("subjectHostname", "")),
    )


_SIGNED: Final[Mapping[str, Callable[[dict[str, object], str], Requirement]]] = {
    "signedBy": _signed_by,
    "signedBaseLayer": _signed_base_layer,
    "sigstoreSigned": _sigstore_signed,
}


def _material(found: Mapping[str, object], key: str) -> Material:
    """What ``key`` names or holds; its value was checked."""
    value = found[key]
    texts = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    if "Data" in key:
        return Material(data=tuple(base64.b64decode(text) for text in texts))
    return Material(paths=tuple(map(Path, texts)))


def _signed_identity(found: Mapping[str, object], what: str) -> Identity:
    return _identity(found["signedIdentity"], what) if "signedIdentity" in found else Identity()


def _identity(value: object, what: str) -> Identity:
    """Which name a signature has to be for."""
    found = as_object(value, f"{what}: the identity")
    kind = as_text(found.get("type"), f"{what}: the identity's type")
    here = f"{what}, {printable(kind, 60)}"
    if kind in _PLAIN_IDENTITIES:
        _check_keys(found, {"type"}, here)
        return _PLAIN_IDENTITIES[kind]
    if kind == "exactReference":
        _check_keys(found, {"type", "dockerReference"}, here)
        name = _named(found.get("dockerReference"), here, pinned=True)
        return Identity(IdentityKind.EXACT_REFERENCE, name)
    if kind == "exactRepository":
        _check_keys(found, {"type", "dockerRepository"}, here)
        return Identity(
            IdentityKind.EXACT_REPOSITORY, _named(found.get("dockerRepository"), here, pinned=False)
        )
    if kind != "remapIdentity":
        raise DocumentError(f"{what}: there is no identity of the type {printable(kind, 60)!r}")
    _check_keys(found, {"type", "prefix", "signedPrefix"}, here)
    prefixes = [as_text(found.get(key), f"{here}: {key}") for key in ("prefix", "signedPrefix")]
    for key, prefix in zip(("prefix", "signedPrefix"), prefixes, strict=True):
        if not _PREFIX.fullmatch(prefix):
            raise DocumentError(f"{here}: {key} is neither a host nor the beginning of a name")
    return Identity(IdentityKind.REMAP, prefix=prefixes[0], signed_prefix=prefixes[1])


def _named(value: object, what: str, *, pinned: bool) -> str:
    text = as_text(value, f"{what}: the name")
    match = _NAMED.fullmatch(text)
    good = match is not None and not _IMAGE_ID.fullmatch(text) and len(match["name"]) <= MAX_REPOSITORY
    if match is None or not good or (match["digest"] and not _is_digest(match["digest"][1:])):
        raise DocumentError(f"{what}: {printable(text)!r} is not the name of an image")
    if pinned and not match["tag"] and not match["digest"]:
        raise DocumentError(f"{what}: {printable(text)!r} has neither a tag nor a digest")
    return text


def _check_keys(found: Mapping[str, object], known: set[str], what: str) -> None:
    for key in found:
        if key not in known:
            raise DocumentError(f"{what} has the key {printable(key, 60)!r}, which is unknown")


def _check_values(found: Mapping[str, object], what: str) -> None:
    """The plain ones: ``…Paths`` and ``…Datas`` are lists, ``…Data`` is base64, the others are text."""
    for key, value in found.items():
        here = f"{what}: {key}"
        if key in ("signedIdentity", "fulcio", "pki"):
            continue
        several = key.endswith(("Paths", "Datas"))
        if several and not isinstance(value, list):
            raise DocumentError(f"{here} is not an array")
        for one in value if isinstance(value, list) and several else [value]:
            text = as_text(one, here)
            if "Data" in key:
                _check_base64(text, here)
            elif not text and not several:
                raise DocumentError(f"{here} is empty")


def _check_base64(text: str, what: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DocumentError(f"{what} is not base64") from exc


def _one_of(found: Mapping[str, object], keys: tuple[str, ...], what: str) -> str:
    there = [key for key in keys if key in found]
    if len(there) != 1:
        raise DocumentError(f"{what}: exactly one of {', '.join(keys)} has to be there")
    return there[0]


def _is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None
