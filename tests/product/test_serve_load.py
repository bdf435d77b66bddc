"""Five hundred clients at once: each gets the right bytes, and the server's memory stays small.

LAYERTEE_LOAD_MB in the environment is the size of the layer; 100 is what the server is meant for, and takes a
minute.
"""

from __future__ import annotations

import mmap
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.process import Cli
from tests.support.rig.images import build_image
from tests.support.rig.layers import incompressible_layer
from tests.support.serving import Served, head_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.alone]

CLIENTS = 500
SIZE_MB = int(os.environ.get("LAYERTEE_LOAD_MB", "10"))
MEMORY_MAX_KIB = 128 << 10
# Bytes that the kernel keeps for one of these clients: it is the server's kernel, too.
RECEIVED_MAX = 512 << 10


class Download:
    """One client: compares what comes with the blob, and keeps nothing."""

    def __init__(self, served: Served, target: str, blob: mmap.mmap) -> None:
        self._blob = blob
        self._head = bytearray()
        self.n = -1  # of the body; -1 while the head comes
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_MAX)
        self.sock.connect((served.host, served.port))
        self.sock.sendall(head_of(target))
        self.sock.setblocking(False)

    def read(self, room: memoryview) -> bool:
        """What has come; whether all has."""
        if self.n < 0:
            self._head += self.sock.recv(1)
            if self._head.endswith(b"\r\n\r\n"):
                assert self._head.startswith(b"HTTP/1.1 200 ")
                assert f"\r\nContent-Length: {len(self._blob)}\r\n".encode() in self._head
                self.n = 0
            return False
        n = self.sock.recv_into(room)
        assert n, f"cut after {self.n} bytes"
        assert bytes(room[:n]) == self._blob[self.n : self.n + n], f"wrong from {self.n} on"
        self.n += n
        return self.n == len(self._blob)


def download(served: Served, target: str, blob: mmap.mmap, clients: int) -> None:
    """By so many clients, which all begin before one is done."""
    room = memoryview(bytearray(1 << 20))
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            one = Download(served, target, blob)
            selector.register(one.sock, selectors.EVENT_READ, one)
        while selector.get_map():
            ready = selector.select(60)
            assert ready, "nothing comes any more"
            for key, _ in ready:
                if key.data.read(room):
                    selector.unregister(key.fileobj)
                    key.data.sock.close()


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, closing(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)) as raw:
        yield raw


@pytest.mark.parametrize("way", ["store", "layout"])
def test_five_hundred_downloads_are_right_and_cost_little_memory(user: Cli, tmp_path: Path, way: str) -> None:
    layer = incompressible_layer(SIZE_MB * 1_000_000)
    image = build_image(tmp_path / "os", [layer], compression="none", ref="localhost/os:1")
    (built,) = image.layers
    if way == "store":
        user.run("pull", "--insecure-policy", f"oci:{image.root}:localhost/os:1")
    places = ["--place", "store" if way == "store" else f"oci:{image.root}"]
    with serving(user, *places) as served, mapped(image.blob_path(built.digest)) as blob:
        download(served, f"/v2/os/blobs/{built.digest}", blob, CLIENTS)
        assert served.rss_kib("VmHWM") <= MEMORY_MAX_KIB
