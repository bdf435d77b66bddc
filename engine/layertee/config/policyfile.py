"""The file policy.json: whether it means what it seems to, and what each of its sections asks for.

containers-policy.json(5). A typo in a policy must not open a door, so the file is read as containers/image
reads it (signature/policy_config.go): an unknown or repeated key, another type, or a scope that its transport
does not have, and the whole file is refused.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Callable, Mapping
from typing import Final

from ..errors import DocumentError
from ..image.grammar import DOMAIN, MAX_REPOSITORY, REPOSITORY, TAG
from ..image.strictjson import as_object, as_text, load_object, printable

Sections = Mapping[str, Mapping[str, "Verdict"]]
"""By transport, then by scope; the scope ``""`` is the transport's default."""


class Verdict(enum.Enum):
    """What a list of requirements says, as far as it can be said without the image."""

    ACCEPT = "accept"  # anything goes
    SIGNATURES = "signatures"  # it depends on signatures
    REJECT = "reject"


_SINGLE: Final = {"insecureAcceptAnything": Verdict.ACCEPT, "reject": Verdict.REJECT}
_KEY_TYPES: Final = frozenset({"GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"})
_GPG_KEYS: Final = ("keyPath", "keyPaths", "keyData")
_SIGSTORE_KEYS: Final = (*_GPG_KEYS, "keyDatas", "fulcio", "pki")
_REKOR_KEYS: Final = (
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
)
_PLAIN_IDENTITIES: Final = frozenset({"matchExact", "matchRepoDigestOrExact", "matchRepository"})

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


def parse_policy(raw: bytes, what: str) -> tuple[Verdict, Sections]:
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
    sections: dict[str, dict[str, Verdict]] = {}
    for transport, scopes in as_object(document["transports"], f"{what}, transports").items():
        here = f"{what}, {printable(transport, 60)}"
        sections[transport] = {
            scope: _section(transport, scope, value, here) for scope, value in as_object(scopes, here).items()
        }
    return default, sections


def _section(transport: str, scope: str, value: object, here: str) -> Verdict:
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


def _requirements(value: object, what: str) -> Verdict:
    """All of them have to hold."""
    if not isinstance(value, list) or not value:
        raise DocumentError(f"{what} is not a list of requirements, or is an empty one")
    verdicts = {_requirement(one, what) for one in value}
    if Verdict.REJECT in verdicts:
        return Verdict.REJECT
    return Verdict.SIGNATURES if Verdict.SIGNATURES in verdicts else Verdict.ACCEPT


def _requirement(value: object, what: str) -> Verdict:
    found = as_object(value, f"{what}: a requirement")
    kind = as_text(found.get("type"), f"{what}: type")
    if kind in _SINGLE:
        _check_keys(found, {"type"}, f"{what}, {kind}")
        return _SINGLE[kind]
    if kind not in _SIGNED:
        raise DocumentError(f"{what}: there is no requirement of the type {printable(kind, 60)!r}")
    _SIGNED[kind](found, f"{what}, {kind}")
    return Verdict.SIGNATURES


def _signed_by(found: dict[str, object], what: str) -> None:
    _check_keys(found, {"type", "keyType", *_GPG_KEYS, "signedIdentity"}, what)
    if as_text(found.get("keyType"), f"{what}: keyType") not in _KEY_TYPES:
        raise DocumentError(f"{what}: the keyType is unknown")
    _check_values(found, what)
    _one_of(found, _GPG_KEYS, what)
    if "signedIdentity" in found:
        _identity(found["signedIdentity"], what)


def _signed_base_layer(found: dict[str, object], what: str) -> None:
    _check_keys(found, {"type", "baseLayerIdentity"}, what)
    _identity(found.get("baseLayerIdentity"), what)


def _sigstore_signed(found: dict[str, object], what: str) -> None:
    _check_keys(found, {"type", *_SIGSTORE_KEYS, *_REKOR_KEYS, "signedIdentity"}, what)
    _check_values(found, what)
    for key in ("keyPaths", "keyDatas", "rekorPublicKeyPaths", "rekorPublicKeyDatas"):
        if found.get(key) == []:
            raise DocumentError(f"{what}: {key} is empty")
    source = _one_of(found, _SIGSTORE_KEYS, what)
    rekor = [key for key in _REKOR_KEYS if key in found]
    if len(rekor) > 1 or (source == "fulcio" and not rekor) or (source == "pki" and rekor):
        raise DocumentError(f"{what}: {source} does not go with {' and '.join(rekor) or 'no Rekor key'}")
    if source == "fulcio":
        _fulcio(as_object(found[source], f"{what}: fulcio"), f"{what}, fulcio")
    elif source == "pki":
        _pki(as_object(found[source], f"{what}: pki"), f"{what}, pki")
    if "signedIdentity" in found:
        _identity(found["signedIdentity"], what)


def _fulcio(found: dict[str, object], what: str) -> None:
    _check_keys(found, {"caPath", "caData", "oidcIssuer", "subjectEmail"}, what)
    _check_values(found, what)
    _one_of(found, ("caPath", "caData"), what)
    if "oidcIssuer" not in found or "subjectEmail" not in found:
        raise DocumentError(f"{what}: oidcIssuer or subjectEmail is missing")


def _pki(found: dict[str, object], what: str) -> None:
    roots, between = ("caRootsPath", "caRootsData"), ("caIntermediatesPath", "caIntermediatesData")
    whose = ("subjectEmail", "subjectHostname")
    _check_keys(found, {*roots, *between, *whose}, what)
    _check_values(found, what)
    _one_of(found, roots, what)
    if not any(key in found for key in whose):
        raise DocumentError(f"{what}: neither subjectEmail nor subjectHostname is there")
    if all(key in found for key in between):
        raise DocumentError(f"{what}: {between[0]} and {between[1]} exclude each other")


_SIGNED: Final[Mapping[str, Callable[[dict[str, object], str], None]]] = {
    "signedBy": _signed_by,
    "signedBaseLayer": _signed_base_layer,
    "sigstoreSigned": _sigstore_signed,
}


def _identity(value: object, what: str) -> None:
    """Which name a signature has to be for."""
    found = as_object(value, f"{what}: the identity")
    kind = as_text(found.get("type"), f"{what}: the identity's type")
    here = f"{what}, {printable(kind, 60)}"
    if kind in _PLAIN_IDENTITIES:
        _check_keys(found, {"type"}, here)
    elif kind == "exactReference":
        _check_keys(found, {"type", "dockerReference"}, here)
        _named(found.get("dockerReference"), here, pinned=True)
    elif kind == "exactRepository":
        _check_keys(found, {"type", "dockerRepository"}, here)
        _named(found.get("dockerRepository"), here, pinned=False)
    elif kind == "remapIdentity":
        _check_keys(found, {"type", "prefix", "signedPrefix"}, here)
        for key in ("prefix", "signedPrefix"):
            if not _PREFIX.fullmatch(as_text(found.get(key), f"{here}: {key}")):
                raise DocumentError(f"{here}: {key} is neither a host nor the beginning of a name")
    else:
        raise DocumentError(f"{what}: there is no identity of the type {printable(kind, 60)!r}")


def _named(value: object, what: str, *, pinned: bool) -> None:
    text = as_text(value, f"{what}: the name")
    match = _NAMED.fullmatch(text)
    good = match is not None and not _IMAGE_ID.fullmatch(text) and len(match["name"]) <= MAX_REPOSITORY
    if match is None or not good or (match["digest"] and not _is_digest(match["digest"][1:])):
        raise DocumentError(f"{what}: {printable(text)!r} is not the name of an image")
    if pinned and not match["tag"] and not match["digest"]:
        raise DocumentError(f"{what}: {printable(text)!r} has neither a tag nor a digest")


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
