"""Keys and signatures by the real gpg, in a home of its own (Debian packages gpg and gpg-agent)."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layertee.image.digest import Digest

from .rig.images import run_tool

__all__ = ["Signer", "payload", "signer"]


def payload(digest: Digest | str, name: str, **optional: object) -> bytes:
    """What simple signing signs."""
    critical = {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": str(digest)},
        "identity": {"docker-reference": name},
    }
    return json.dumps({"critical": critical, "optional": optional}).encode()


class Signer:
    """A home with keys, named by their user ids. All of it blocks."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *words: str, given: bytes = b"", at: str | None = None) -> bytes:
        """What gpg puts out. ``at``: the time that it is to believe in, as YYYYMMDDThhmmss."""
        time = ("--faked-system-time", f"{at}!") if at else ()
        done = subprocess.run(
            [
                *("gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet"),
                *("--pinentry-mode", "loopback", "--passphrase", "", *time, *words),
            ],
            input=given,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def key(self, user: str, algorithm: str = "ed25519", *, life: str = "0", at: str | None = None) -> str:
        """Make a key that signs; its fingerprint. ``life``: until it expires, as 1d or 2y; 0 is for ever."""
        self.gpg("--quick-generate-key", user, algorithm, "sign", life, at=at)
        return self.fingerprints(user)[0]

    def subkey(self, user: str, algorithm: str, *, life: str = "0", at: str | None = None) -> str:
        """Make another one for signing; its fingerprint."""
        self.gpg("--quick-add-key", self.fingerprints(user)[0], algorithm, "sign", life, at=at)
        return self.fingerprints(user)[-1]

    def fingerprints(self, user: str) -> list[str]:
        """Of the primary key and its subkeys."""
        listed = self.gpg("--with-colons", "--list-keys", _exactly(user)).decode()
        return [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]

    def public(self, *users: str, armor: bool = False) -> bytes:
        """Their keys, for those who check."""
        return self.gpg(*(("--armor",) if armor else ()), "--export", *map(_exactly, users))

    def sign(self, content: bytes, *keys: str, options: tuple[str, ...] = (), at: str | None = None) -> bytes:
        """A message with its content, signed by each of ``keys``: user ids, or fingerprints with !."""
        users = [word for key in keys for word in ("--local-user", _exactly(key))]
        return self.gpg(*users, *options, "--output", "-", "--sign", given=content, at=at)

    def revoke(self, user: str) -> None:
        """With the certificate that gpg has made along with the key."""
        self.gpg("--import", given=self._revocation(user))

    def revoked(self, user: str) -> bytes:
        """The public key as it is after it was revoked, which it is not here: it still signs."""
        with signer() as elsewhere:
            elsewhere.gpg("--import", given=self.public(user))
            elsewhere.gpg("--import", given=self._revocation(user))
            return elsewhere.public(user)

    def _revocation(self, user: str) -> bytes:
        made = self.home / "openpgp-revocs.d" / f"{self.fingerprints(user)[0]}.rev"
        return made.read_bytes().replace(b":-----BEGIN", b"-----BEGIN")


def _exactly(key: str) -> str:
    """gpg would take a part of a user id for it."""
    return key if key.endswith("!") else f"={key}"


@contextmanager
def signer() -> Iterator[Signer]:
    """An empty home, and its agent's end. In /tmp, since the path of the agent's socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="lt-gpg-", dir="/tmp") as root:
        try:
            yield Signer(Path(root))
        finally:
            run_tool("gpgconf", "--homedir", root, "--kill", "all")
