"""The server's side of TLS: its certificate, and whose clients' certificates it wants to see."""

from __future__ import annotations

import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path

from ..errors import ServeConfigError

_CERT = b"CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_RECEIVED = 16 << 10  # a record of TLS


# What OpenSSL calls it, and what has happened.
_WHY_NO_HANDSHAKE = {
    "HTTP_REQUEST": "the client speaks http, and https is spoken here",
    "WRONG_VERSION_NUMBER": "what the client sends is not TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate, and one is needed",
    "UNSUPPORTED_PROTOCOL": "the client does not speak TLS 1.2 or later",
}


class ServerTLS:
    """TLS 1.2 or later with the certificate of ``cert`` and its ``key``.

    With ``client_ca``, only clients with a certificate of one of its authorities get through the handshake.
    Raises ServeConfigError, which names the file.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = cert, key, client_ca
        self.context = _context(cert, key, client_ca)

    def read_again(self) -> None:
        """For handshakes from now on. Raises ServeConfigError, and then the old certificate stays."""
        self.context = _context(*self._files)


def receive_little_at_once() -> None:
    """From now on, in all of this process: asyncio's TLS has 16 KiB for what a connection receives, not 256.

    A thousand clients that ask for something have a quarter of a gigabyte for it otherwise. asyncio has no
    other way to say so than this attribute of a class.
    """
    SSLProtocol.max_size = min(SSLProtocol.max_size, _RECEIVED)


def why_no_handshake(exc: OSError) -> str:
    """What ``exc`` of a handshake says, for the log."""
    if not isinstance(exc, ssl.SSLError):
        return str(exc) or "the client left"
    reason = exc.reason or str(exc)
    return _WHY_NO_HANDSHAKE.get(reason, reason.replace("_", " ").lower())


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (cert, key):
        _see_that_it_can_be_read(path)
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # no person is asked for one
    except (OSError, ValueError) as exc:
        why = _what_is_likely(cert, key) or _reason(exc)
        raise ServeConfigError(f"{cert} and {key} are no certificate and its key: {why}") from exc
    if client_ca is not None:
        _see_that_it_can_be_read(client_ca)
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as exc:
            raise ServeConfigError(f"{client_ca} has no certificates: {_reason(exc)}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _see_that_it_can_be_read(path: Path) -> None:
    """OpenSSL's errors do not say which of the files was meant."""
    try:
        path.open("rb").close()
    except OSError as exc:
        raise ServeConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _reason(exc: Exception) -> str:
    return getattr(exc, "reason", None) or str(exc)


def _what_is_likely(cert: Path, key: Path) -> str:
    """OpenSSL says "PEM lib" of several mistakes; empty where none of them is seen."""
    try:
        in_cert, in_key = cert.read_bytes(), key.read_bytes()
    except OSError:
        return ""
    if _KEY not in in_key and _CERT in in_key and _KEY in in_cert:
        return "the second is a certificate and the first a key; were they exchanged?"
    if any(word in in_key for word in _ENCRYPTED):
        return "the key has a passphrase, and is needed without one"
    if _CERT not in in_cert:
        return f"there is no certificate (PEM) in {cert}"
    if _KEY not in in_key:
        return f"there is no key (PEM) in {key}"
    return ""
