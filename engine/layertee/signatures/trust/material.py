"""What trust.toml names beside itself: keys and trusted roots, read when an image is checked.

A file that another user than root and this one could change is refused, like trust.toml: who can change a key
decides what is trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ...config.reading import read_file
from ...config.trustrules import KeylessSigner, KeySigner, ScopeRules, Signer, TrustedRoot
from ...errors import DocumentError, TrustFileError
from ...image.strictjson import printable
from ...record import dataclass
from .bundlekeys import PublicKey, fingerprint, load_pem
from .files import refuse_unsafe
from .keyless import require_library
from .root import LIMIT, RootDocument, parse_root

_MAX_KEY: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a signer."""

    public: PublicKey
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Signers:
    """Those of a scope or of an attestation, by their numbers: keys, and identities."""

    keys: dict[int, Key]
    identities: dict[int, KeylessSigner]


def load_signers(signers: tuple[Signer, ...], whence: str) -> Signers:
    """``signers`` with their keys. Blocks. Raises TrustFileError, UnsafePath."""
    keys: dict[int, Key] = {}
    by_fingerprint: dict[str, str] = {}
    for n, signer in enumerate(signers):
        if not isinstance(signer, KeySigner):
            continue
        key = _key(signer, whence)
        other = by_fingerprint.setdefault(key.fingerprint, signer.name)
        if other != signer.name:
            raise TrustFileError(
                f"{whence}: {other!r} and {signer.name!r} have the same key, which counts once"
            )
        keys[n] = key
    identities = {n: signer for n, signer in enumerate(signers) if isinstance(signer, KeylessSigner)}
    return Signers(keys, identities)


def load_root(rules: ScopeRules) -> RootDocument | None:
    """The trusted root of a scope; None where it has none. Blocks, with ``refresh`` also on the network.

    Raises TrustFileError, UnsafePath; PolicyRefused without the sigstore library.
    """
    if rules.root is None:
        return None
    if rules.root.path is not None:
        raw, what = _read(rules.root.path, LIMIT, rules.whence), str(rules.root.path)
    else:
        raw, what = _by_tuf(rules.root, rules.whence), "the trusted root of the sigstore library"
    try:
        return parse_root(raw, what)
    except DocumentError as exc:
        raise TrustFileError(f"{rules.whence}: {exc}") from exc


def _key(signer: KeySigner, whence: str) -> Key:
    raw = signer.data if signer.path is None else _read(signer.path, _MAX_KEY, whence)
    try:
        public = load_pem(raw)
    except ValueError as exc:
        where = signer.path or "key-data"
        raise TrustFileError(f"{whence}: {signer.name}: {where}: {printable(str(exc))}") from exc
    return Key(public, fingerprint(public))


def _read(path: Path, limit: int, whence: str) -> bytes:
    try:
        refuse_unsafe(path)
    except TrustFileError as exc:
        raise TrustFileError(f"{whence}: {exc}") from exc
    try:
        raw = read_file(path, limit, named=True)
    except OSError as exc:
        raise TrustFileError(f"{whence}: {path} cannot be read: {exc.strerror}") from exc
    if raw is None or len(raw) > limit:
        raise TrustFileError(f"{whence}: {path} is larger than {limit} bytes")
    return raw


def _by_tuf(root: TrustedRoot, whence: str) -> bytes:
    require_library()
    import platformdirs  # which the library keeps its files by
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig

    kept = platformdirs.user_cache_path("sigstore-python", "sigstore")
    if kept.exists():
        refuse_unsafe(kept)
    try:
        if root.url:
            config = ClientTrustConfig.from_tuf(root.url, offline=not root.refresh)
        else:
            config = ClientTrustConfig.production(offline=not root.refresh)
        # The library has no other way to what it has verified.
        raw: bytes = config._inner.trusted_root.to_json().encode()
    except (Error, OSError, ValueError, AttributeError) as exc:
        raise TrustFileError(
            f"{whence}: the trusted root cannot be had by TUF: {printable(str(exc))}"
        ) from exc
    return raw
