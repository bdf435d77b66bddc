"""The circumstances that pulls are measured in: which server, how fast, and what the machine has already."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench.contenders import Contender, Source
from bench.content import COMPRESSIONS, SHAPES, UPDATED
from tests.support.rig.certs import Certificates, make_certificates
from tests.support.rig.images import BuiltImage, upload
from tests.support.rig.nginx import NginxRegistry, process_cpu_s
from tests.support.rig.registry import RegistryServer

__all__ = ["REGIMES", "SMALL", "Case", "Regime", "Server", "cases", "client_cpu", "serve", "server_versions"]

RATE = 40_000_000  # bytes per second and connection: what content delivery networks give one client


@dataclass(frozen=True, slots=True)
class Regime:
    """Shapes, compressions and destinations are what is measured unless others are asked for."""

    name: str
    description: str
    server: str = "docker-registry"
    shapes: tuple[str, ...] = ("chunked",)
    compressions: tuple[str, ...] = ("gzip",)
    on_disk: tuple[str, ...] = ()
    rate: int | None = None
    tls: bool = False


REGIMES = {
    regime.name: regime
    for regime in (
        Regime(
            "loopback",
            "docker-registry over loopback, plain HTTP, an empty destination",
            shapes=SHAPES,
            compressions=COMPRESSIONS,
            on_disk=("gzip",),
        ),
        Regime(
            "capped",
            "nginx, 40 MB/s per connection (limit_rate), static blobs, plain HTTP, an empty destination",
            server="nginx",
            shapes=SHAPES,
            rate=RATE,
        ),
        Regime("nginx", "nginx, static blobs, plain HTTP, an empty destination", server="nginx"),
        Regime(
            "tls",
            "nginx, static blobs, HTTPS; every client checks the certificate against the given authority",
            server="nginx",
            shapes=SHAPES,
            tls=True,
        ),
        Regime(
            "update",
            "docker-registry; 4 of 40 layers changed; each client finds what it wrote of the image before,"
            " except where its destination is emptied by itself (dir:)",
        ),
        Regime(
            "recompressed",
            "docker-registry; the same image, pulled as gzip before, is now of this compression",
            compressions=("zstd",),
        ),
        Regime(
            "one-core",
            "docker-registry; the client on CPU 0 alone (taskset), the server on the others",
            compressions=("gzip", "zstd"),
        ),
    )
}
SMALL = ("loopback", "capped")


@dataclass(frozen=True, slots=True)
class Case:
    """One image under one regime to one kind of destination (``tmpfs`` or ``disk``)."""

    regime: Regime
    shape: str
    compression: str
    dest: str

    @property
    def pulled(self) -> tuple[str, str]:
        """Shape and compression of the image that is pulled."""
        return (UPDATED if self.regime.name == "update" else self.shape, self.compression)

    @property
    def present(self) -> tuple[str, str] | None:
        """Of the image that was pulled before, if any."""
        if self.regime.name == "update":
            return (self.shape, self.compression)
        return (self.shape, "gzip") if self.regime.name == "recompressed" else None

    def field(self, contenders: Sequence[Contender]) -> list[Contender]:
        """Who takes part.

        Where there is a newer skopeo than the distribution's, or its library, the older one only pulls
        the plain cases: it would take half of the time of all others.
        """
        peers = {contender.peer for contender in contenders}
        plain = (
            self.regime.name == "loopback" and self.dest == "tmpfs" and self.compression in ("gzip", "zstd")
        )
        older = {"skopeo"} if peers & {"skopeo-latest", "imagecopy"} and not plain else set()
        return [it for it in contenders if it.peer not in older and self.takes_part(it)]

    def takes_part(self, contender: Contender) -> bool:
        """Downloads know nothing of what is present. Of an image whose blobs alone were checked, it is not
        known which of another's layers have the same content.
        """
        if self.present is None:
            return True
        left_out = ("download", "blob-digest") if self.regime.name == "recompressed" else ("download",)
        return contender.work not in left_out


def cases(
    regimes: Sequence[str], shapes: Sequence[str], compressions: Sequence[str], dests: Sequence[str]
) -> list[Case]:
    """All cases of ``regimes``; an empty sequence stands for what each regime has of its own."""
    found = []
    for regime in (REGIMES[name] for name in regimes):
        for dest in dests or ("tmpfs", "disk"):
            kinds = regime.on_disk if dest == "disk" and not dests else compressions or regime.compressions
            for shape, kind in product(shapes or regime.shapes, kinds):
                if not compressions or kind in compressions:
                    found.append(Case(regime, shape, kind, dest))
    return [case for case in found if _is_possible(case)]


def _is_possible(case: Case) -> bool:
    if case.regime.name == "recompressed" and case.compression == "gzip":
        return False
    if case.compression == "zstd:chunked" and case.shape == "big":
        return False  # to these clients it is zstd with a table at its end, whatever the shape
    return case.shape == "chunked" or case.regime.name != "update"


class Server:
    """A running server of images; ``name`` is that of the program."""

    def __init__(
        self, name: str, running: RegistryServer | NginxRegistry, certificates: Certificates | None = None
    ) -> None:
        self.name = name
        self._running = running
        self._certificates = certificates
        self._published: set[str] = set()

    def publish(self, image: BuiltImage, tag: str) -> Source:
        """Have ``image`` under ``tag``."""
        name = f"os:{tag}"
        if tag not in self._published:
            if isinstance(self._running, NginxRegistry):
                self._running.add(image, name)
            else:
                upload(image, name, self._running)
            self._published.add(tag)
        authority = self._certificates.authority.absolute() if self._certificates else None
        return Source(f"{self._running.host}/{name}", image, authority, self._running.cert_dir)

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far."""
        return process_cpu_s(self._running.pid)

    def layer_bytes(self, image: BuiltImage) -> int:
        """Bytes of bodies of the layers of ``image`` that it has sent since :meth:`reset`."""
        return self._running.blob_bytes(digests=image.layer_digests)

    def reset(self) -> None:
        """Forget what it has sent."""
        self._running.reset()


@contextmanager
def serve(regime: Regime, directory: Path) -> Iterator[Server]:
    """The server of ``regime``; what it needs to write goes below ``directory``."""
    with ExitStack() as stack:
        if regime.server == "docker-registry":
            running = stack.enter_context(RegistryServer(directory / "registry"))
            yield Server(regime.server, running)
            return
        certificates = make_certificates(directory / "tls") if regime.tls else None
        root = directory / "nginx"
        nginx = NginxRegistry(root, rate_per_connection=regime.rate, certificate=certificates)
        yield Server(regime.server, stack.enter_context(nginx), certificates)


@contextmanager
def client_cpu(regime: Regime) -> Iterator[int | None]:
    """The CPU that clients of ``regime`` are bound to, if so: then what is started inside gets the others."""
    if regime.name != "one-core":
        yield None
        return
    before = os.sched_getaffinity(0)
    client, *others = sorted(before)
    os.sched_setaffinity(0, others)
    try:
        yield client
    finally:
        os.sched_setaffinity(0, before)


def server_versions() -> dict[str, str]:
    """Of both programs, as they say it themselves."""
    found = {}
    for name, option in (("docker-registry", "--version"), ("nginx", "-v")):
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        done = subprocess.run(
            [name, option], capture_output=True, text=True, check=True, env=os.environ | {"PATH": path}
        )
        match = re.search(r"\d+(\.\d+)+\S*", done.stdout + done.stderr)
        found[name] = match[0] if match else "unknown"
    return found
