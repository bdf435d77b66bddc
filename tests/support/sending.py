"""What a server does with what it is to send, without a server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from layertee.errors import SourceUnreadable
from layertee.serve.outgoing import Outgoing


async def sent(outgoing: Outgoing, nbytes: int) -> bytes:
    """All of it as a client gets it, through the file if there is one; raises where it would be cut."""
    try:
        if (file := outgoing.file) is not None:
            got = os.pread(file.fileno(), nbytes, file.offset)
            outgoing.check()
            return got
        chunks = []
        async for chunk in outgoing:
            assert 0 < len(chunk) <= 1 << 20
            chunks.append(bytes(chunk))
        outgoing.check()
        return b"".join(chunks)
    finally:
        await outgoing.close()


def open_files() -> set[tuple[str, str]]:
    """The descriptors of this process that lead to files, and where to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one of the listing
            continue
        if target.startswith("/") and not target.startswith(("/proc/", "/dev/")):
            found.add((name, target))
    return found


class Gate(ThreadPoolExecutor):
    """Threads whose jobs begin when ``gate`` is set. ``begun`` counts those that were handed in, and
    ``is_used`` is set once there was one.
    """

    def __init__(self) -> None:
        super().__init__(4)
        self.gate = threading.Event()
        self.begun = 0
        self.is_used = asyncio.Event()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.begun += 1
        self.is_used.set()

        def run() -> Any:
            assert self.gate.wait(30)
            return function(*args, **kwargs)

        return super().submit(run)


class Assembled:
    """Content that is in no file: ``data``, which may be changed while it is read.

    ``fails_at`` is the byte that cannot be read. ``opened`` counts readers, ``open_now`` those that were not
    closed, ``n_read`` bytes that were read.
    """

    path = None

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.fails_at: int | None = None
        self.opened = 0
        self.open_now = 0
        self.n_read = 0

    def open(self) -> AssembledReader:
        self.opened += 1
        return AssembledReader(self)


class AssembledReader:
    """Reads it as it is then."""

    def __init__(self, content: Assembled) -> None:
        self._content = content
        self._at = 0
        self._is_open = True
        content.open_now += 1

    def readinto(self, view: memoryview) -> int:
        content = self._content
        if content.fails_at is not None and self._at + len(view) > content.fails_at:
            raise SourceUnreadable(f"byte {content.fails_at} cannot be read")
        piece = content.data[self._at : self._at + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        content.n_read += len(piece)
        return len(piece)

    def close(self) -> None:
        self._content.open_now -= self._is_open
        self._is_open = False


class AssembledBySkips(Assembled):
    """The same, whose readers pass over what is not wanted."""

    def open(self) -> SkippingReader:
        self.opened += 1
        return SkippingReader(self)


class SkippingReader(AssembledReader):
    def skip(self, nbytes: int) -> None:
        self._at += nbytes
