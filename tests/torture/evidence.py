"""What is known of a command from outside: what it was sent, what it flushed, what it left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.compress import digest_of
from tests.support.fakes.fault_server import FaultServer
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, upload
from tests.support.rig.registry import RegistryServer

__all__ = ["Origin", "Witness", "blobs_are_true"]


@dataclass(frozen=True, slots=True)
class Witness:
    """What ``cut.c`` wrote down of a run."""

    n_calls: int
    was_cut: bool
    durable: frozenset[str]
    """Names of blobs (hexadecimal) that were given, and whose directory was flushed after that."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The log ``path``, which need not be there."""
        n_calls, was_cut = 0, False
        given: dict[str, list[str]] = {}
        begun: dict[str, tuple[str, ...]] = {}  # by thread: the names that its flush will cover
        durable: set[str] = set()
        for line in path.read_text().splitlines() if path.exists() else ():
            number, thread, call, result, *details = line.split()
            n_calls = max(n_calls, int(number))
            was_cut |= call == "cut"
            if call == "begins":
                begun[thread] = tuple(given.get(details[0], ()))
            elif call == "fsync" and result == "0":
                durable.update(begun[thread])
            elif len(details) == 2 and result == "0":
                given.setdefault(details[0], []).append(details[1])
        return cls(n_calls, was_cut, frozenset(name for name in durable if len(name) == 64))


class Origin:
    """Where images come from: a real registry, or one that sends no more than ``rate`` bytes a second."""

    def __init__(self, rate: float | None = None) -> None:
        self._server: RegistryServer | FaultServer = RegistryServer()
        if rate is not None:  # what is on its way counts as sent: let that be little
            self._server = FaultServer(rate_per_connection=rate, send_buffer=256 << 10)
        self._serves: dict[str, BuiltImage] = {}

    @property
    def host(self) -> str:
        return self._server.host

    def start(self) -> None:
        """Raises NotInstalled."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def serve(self, image: BuiltImage, name: str) -> None:
        """Make ``name`` mean ``image`` from now on."""
        if self._serves.get(name) is image:
            return
        self._serves[name] = image
        if isinstance(self._server, FaultServer):
            self._server.add(image, *name.split(":"))
        else:
            upload(image, name, self._server)

    def forget(self) -> None:
        """What was asked for up to now does not count."""
        if isinstance(self._server, FaultServer):
            self._server.settle()
            self._server.forget()
        else:
            self._server.reset()

    def was_asked(self) -> bool:
        """Whether a pull has begun since; of one with a rate only."""
        return isinstance(self._server, FaultServer) and bool(self._server.requests("manifest"))

    def sent(self) -> Counter[str]:
        """Bytes of each blob that were sent since."""
        sent: Counter[str] = Counter()
        if isinstance(self._server, FaultServer):
            self._server.settle()
            for request in self._server.requests("blob"):
                sent[request.reference] += request.body_bytes
        else:
            for access in self._server.accesses():
                if access.kind == "blob" and access.method == "GET" and access.status in (200, 206):
                    sent[str(access.reference)] += access.nbytes
        return +sent


def blobs_are_true(cli: Cli) -> None:
    """Every file of the store's blobs has the bytes that its name says."""
    for path in (cli.store / "blobs" / "sha256").glob("*"):
        content = path.read_bytes()
        found = digest_of(content)
        assert found == f"sha256:{path.name}", f"{path.name}: {len(content)} bytes that are {found}"
