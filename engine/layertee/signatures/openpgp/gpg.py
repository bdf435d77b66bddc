"""Signatures of OpenPGP keys, checked by the machine's own gpg with a keyring that has nothing else in it.

Rules of this file: gpg is a program that nobody but root and this user could have changed; it never sees the
user's own keys, options or agent, fetches nothing, and asks nobody; what counts as signed is what gpg has put
out, and never what is seen in a signature otherwise.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import Final

from ...aio import in_thread
from ...disk.files import disk_error
from ...disk.trusted import refuse_reachable
from ...errors import PolicyRefused
from ...image.strictjson import printable
from ...record import dataclass
from ..signature import MAX_SIGNATURE
from .confined import Ended, run_confined, wrappers
from .gpgstatus import MAX_STATUS, imported_keys, signer

LIMIT_S: Final = 20.0
"""For one signature, or one file of keys."""

_NAMES: Final = ("gpg", "gpg2")  # some have an older one under the first name, and nobody the other way round
_STATUS: Final = "status"
_MAX_SAID: Final = 8192  # bytes: what it puts out when it takes keys, which is nothing
_OPTIONS: Final = (
    *("--no-options", "--batch", "--no-tty", "--quiet", "--no-greeting", "--display-charset", "utf-8"),
    # Nobody is started or asked, on this machine or another.
    *("--no-autostart", "--disable-dirmngr", "--no-auto-key-retrieve", "--no-auto-key-locate"),
    # Whom to trust is the policy's matter, and all keys that are there are the policy's.
    *("--trust-model", "always", "--no-auto-check-trustdb"),
    *("--no-random-seed-file", "--lock-never", "--exit-on-status-write-error"),
)


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys as the policy has them, armored or not, one or many, and where it has them, for messages."""

    data: bytes = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature was found to sign, and the primary key's fingerprint, in upper-case hexadecimal."""

    payload: bytes = field(repr=False)
    fingerprint: str


def find_gpg(environ: Mapping[str, str] = os.environ) -> Path:
    """The gpg that comes first on PATH. Raises PolicyRefused if there is none. Blocks.

    Directories that are not absolute are left out: they would be others tomorrow.
    """
    directories = [at for at in environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(at)]
    for name in _NAMES:
        for directory in directories:
            if found := shutil.which(name, path=directory):
                return Path(found)
    raise PolicyRefused(
        "gpg, which checks signatures of OpenPGP keys, is not installed: it is in the package gpg of Debian"
        " and Ubuntu, and in gnupg2 of Fedora and RHEL"
    )


class Keyring:
    """A home of gpg with certain keys, and nothing else. Made by ``keyring``."""

    def __init__(self, program: Path, wrapper: Sequence[str], home: Path, limit_s: float) -> None:
        self._command = (*wrapper, str(program), "--homedir", str(home), *_OPTIONS)
        self._home = home
        self._limit_s = limit_s
        self._keys: frozenset[str] = frozenset()

    async def add(self, keys: Keys) -> bool:
        """Take ``keys``; False if gpg did not even begin, and nothing is known of them.

        Raises PolicyRefused if there are none, or not all can be taken.
        """
        _, status = await self._run("--import", given=keys.data, most=_MAX_SAID)
        if not status:  # it says how many keys there were even where there was none
            return False
        try:
            self._keys |= imported_keys(status)
        except PolicyRefused as exc:
            raise PolicyRefused(f"{keys.place}: {exc}") from exc
        return True

    async def verify(self, message: bytes) -> Signed:
        """What ``message`` signs, by one of the keys. Raises PolicyRefused, saying why it proves nothing."""
        words = ("--no-armor", "--max-output", str(MAX_SIGNATURE), "--output", "-", "--verify", "-")
        ended, status = await self._run(*words, given=message, most=MAX_SIGNATURE)
        if not status:  # not even that it began: a busy kernel may have no namespace left for a moment
            ended, status = await self._run(*words, given=message, most=MAX_SIGNATURE)
        if not status:
            raise PolicyRefused(f"gpg says nothing of it: {_end_of(ended)}")
        fingerprint = signer(status, self._keys)
        if ended.status != 0:
            raise PolicyRefused(f"gpg does not accept it: {_end_of(ended)}")
        return Signed(ended.output, fingerprint)

    async def _run(self, *words: str, given: bytes, most: int) -> tuple[Ended, bytes]:
        """How gpg ended, and what it has said for programs."""
        said = self._home / _STATUS
        await in_thread(said.write_bytes, b"")
        ended = await run_confined(
            *(*self._command, "--status-file", str(said), *words),
            given=given,
            directory=self._home,
            most=most,
            limit_s=self._limit_s,
        )
        return ended, await in_thread(_read_status, said)


@asynccontextmanager
async def keyring(
    keys: Sequence[Keys], *, gpg: Path | None = None, limit_s: float = LIMIT_S
) -> AsyncIterator[Keyring]:
    """A keyring with ``keys``, of which there is one at least. ``gpg`` is the program, else the one on PATH.

    It is gone afterwards.

    Raises PolicyRefused if there is no gpg or not all keys can be taken, UnsafePath if another user could
    change that program, LocalError if there is no room for a few files.
    """
    program = gpg if gpg is not None else await in_thread(find_gpg)
    await in_thread(refuse_reachable, program)
    home = _Home()
    try:
        await in_thread(home.make)
        ring = await _begun(program, home.path, limit_s, keys[0])
        for each in keys[1:]:
            if not await ring.add(each):
                raise PolicyRefused(f"{each.place}: gpg did not begin to read it")
        yield ring
    finally:
        await in_thread(home.remove)


async def _begun(program: Path, home: Path, limit_s: float, keys: Keys) -> Keyring:
    """A keyring with ``keys``, behind the best wrapper that the kernel lets this user have."""
    for wrapper in await in_thread(wrappers):
        ring = Keyring(program, wrapper, home, limit_s)
        if await ring.add(keys):
            return ring
    raise PolicyRefused(f"{program} is not GnuPG's gpg, or does not run")


class _Home:
    """The directory of one keyring, this user's alone. All of it blocks."""

    def __init__(self) -> None:
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        assert self._path is not None
        return self._path

    def make(self) -> None:
        """Raises LocalError."""
        try:
            self._path = Path(tempfile.mkdtemp(prefix="layertee-gpg-"))
        except OSError as exc:
            where = os.environ.get("TMPDIR") or "/tmp"
            raise disk_error(exc, "preparing a check of signatures in", where) from exc

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


def _end_of(ended: Ended) -> str:
    last = printable(ended.said.strip().rpartition("\n")[2], 200)
    return last or f"it ended with status {ended.status}"


def _read_status(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_STATUS + 1)
    except OSError as exc:
        raise disk_error(exc, "reading what gpg says in", path) from exc
