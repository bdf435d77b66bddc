"""Throw-away certificates for servers on 127.0.0.1, laid out as containers' ``certs.d`` wants them."""

from __future__ import annotations

import datetime
import enum
import ssl
from dataclasses import dataclass
from pathlib import Path


class Flaw(enum.Enum):
    """What is wrong with a certificate, seen from a client that reads the written ``ca.crt``."""

    NONE = "none"
    WRONG_NAME = "wrong-name"
    EXPIRED = "expired"
    UNTRUSTED = "untrusted"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of one server: its own chain and key, and the authority that a client should trust."""

    root: Path
    chain: Path
    key: Path
    authority: Path

    def certs_d(self, host: str) -> Path:
        """Write ``certs.d/<host>/ca.crt``; return that directory, as ``--dest-cert-dir`` takes it."""
        directory = self.root / "certs.d" / host
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_bytes(self.authority.read_bytes())
        return directory

    def server_context(self) -> ssl.SSLContext:
        """A context to serve with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.authority))


def make_certificates(root: Path, flaw: Flaw = Flaw.NONE) -> Certificates:
    """Make an authority and a certificate for 127.0.0.1 and localhost under ``root``.

    With a ``flaw``, a client that trusts the written authority must still refuse the server.
    """
    import trustme  # a test dependency, not needed by the plain registry of the demo

    root.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    names = ("registry.invalid",) if flaw is Flaw.WRONG_NAME else ("127.0.0.1", "localhost")
    now = datetime.datetime.now(tz=datetime.UTC)
    leaf = authority.issue_cert(
        *names,
        not_before=now - datetime.timedelta(days=30),
        not_after=now + datetime.timedelta(days=-1 if flaw is Flaw.EXPIRED else 30),
    )
    published = trustme.CA() if flaw is Flaw.UNTRUSTED else authority
    made = Certificates(root, root / "server.pem", root / "server.key", root / "ca.crt")
    made.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    made.key.write_bytes(leaf.private_key_pem.bytes())
    made.key.chmod(0o600)
    published.cert_pem.write_to_path(str(made.authority))
    return made
