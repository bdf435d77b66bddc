"""The server's side of TLS: its certificate, and whose clients' certificates it wants to see."""

from __future__ import annotations

import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path

from ..errors import ServeConfigError

_RECEIVED = 16 << 10  # a record of TLS


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


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (cert, key):
        _see_that_it_can_be_read(path)
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # no person is asked for one
    except (OSError, ValueError) as exc:
        raise ServeConfigError(f"{cert} and {key} are no certificate and its key: {_reason(exc)}") from exc
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
