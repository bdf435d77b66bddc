"""Images left to the real skopeo: a client of its ``experimental-image-proxy``, which runs as a child.

For transports that are not served here (dir:, docker-archive:, docker-daemon:, …) and for encrypted layers.
What comes through it is checked by skopeo: sizes and blob digests, told at FinishPipe. The protocol has the
policy applied when an image is opened only from version 0.2.6 on, so **whoever delegates an image applies it
first**.

The protocol is that of wire.py, from the other end: one request under way, its reply in one packet.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from ..aio import in_thread
from ..disk.trusted import refuse_reachable
from ..errors import LayerteeError, LocalError
from ..record import dataclass
from .wire import MAX_PACKET

T = TypeVar("T")

# The slowest answer known is OpenImage of a compressed docker-archive:, which is unpacked first. FinishPipe
# is answered when the client has read its pipe, and has no limit.
_REPLY_S: Final = 900.0
_START_S: Final = 30.0
_EXIT_S: Final = 2.0  # it closes its images, removing temporary files, when we hang up
_STDERR: Final = 4096  # bytes: the end of what the child has said
_MAX_FDS: Final = 4  # a reply has two at most; one that has more than this is cut and refused
_INHERITED = re.compile(r"/(?:proc/self|dev)/fd/(\d+)")

# Runs between fork and exec in a process of its own: code of ours in a fork of a process with threads could
# deadlock. argv: our pid, then the command. 1 is PR_SET_PDEATHSIG, prctl(2).
_LAUNCH = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("its parent has ended")
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as exc:
    sys.exit(f"{sys.argv[2]}: {exc.strerror}")
"""


class DelegateError(LayerteeError):
    """The real skopeo refused a request, or is gone. ``method`` is what was asked of it.

    ``error_code`` is that of its error reply, whose text is then this one's, unchanged; empty without one.
    """

    code = "SKOPEO"

    def __init__(self, message: str, *, method: str = "", error_code: str = "") -> None:
        super().__init__(message)
        self.method = method
        self.error_code = error_code
        self.retryable = error_code == "retryable"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An answer of the real skopeo. ``fds`` are the holder's to close; ``pipe_id`` (0: none) is skopeo's."""

    value: Any
    pipe_id: int
    fds: tuple[int, ...]


class RealProxy:
    """The child, started by the first request. Belongs to one event loop; ``close`` it.

    ``command`` is the whole command line, an absolute path first; the environment is ours, and descriptors
    that it names as /proc/self/fd/N are handed down. Once a request was cancelled or the child has ended,
    all further ones raise DelegateError, since the ids of its images mean nothing to another child;
    ``alive`` says when to make a new RealProxy.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._lock = asyncio.Lock()
        self._child: _Child | None = None
        self._broken = ""
        self.version: tuple[int, ...] = ()
        """Of the protocol that the child speaks; empty before the first request."""

    @property
    def alive(self) -> bool:
        """Whether requests can be answered."""
        return not self._broken and (self._child is None or not self._child.exited.is_set())

    def again(self) -> RealProxy:
        """One with the same command, in place of one that has ended. Images that were open stay closed."""
        return RealProxy(self._command)

    async def request(self, method: str, args: Sequence[Any]) -> tuple[dict[str, Any], list[int]]:
        """One request: the reply to it and its descriptors, which are then the caller's.

        Requests made at once are answered one after the other. Raises DelegateError, also for an error reply.
        """
        async with self._lock:
            if self._child is None and not self._broken:
                self._child = await _Child.start(self._command)
                reply, _ = await self._exchange("Initialize", [], _START_S)
                self.version = tuple(int(part) for part in re.findall(r"\d+", str(reply["value"]))[:3])
            return await self._exchange(method, args, None if method == "FinishPipe" else _REPLY_S)

    async def close(self) -> None:
        """End the child, by hanging up and then by force, and reap it. Harmless when repeated."""
        self._broken = self._broken or "it was closed"
        if self._child is not None:
            if self._lock.locked():
                self._child.kill()  # which ends the request that is under way
            async with self._lock:
                await self._child.close()

    async def _exchange(
        self, method: str, args: Sequence[Any], limit_s: float | None
    ) -> tuple[dict[str, Any], list[int]]:
        child = self._child
        if self._broken or child is None:
            raise DelegateError(
                f"the real skopeo cannot be asked for {method}: {self._broken}", method=method
            )
        packet = _packed(method, args)
        try:
            async with asyncio.timeout(limit_s):
                reply, fds = await child.converse(packet)
        except BaseException as exc:
            # A reply that comes later would be taken for the next request's.
            self._broken = f"it was given up during {method}"
            if isinstance(exc, _Disconnected):
                raise DelegateError(await child.epitaph(method), method=method) from exc
            child.kill()
            if isinstance(exc, TimeoutError):
                message = f"the real skopeo did not answer {method} in {limit_s:.0f} s"
                raise DelegateError(message, method=method) from exc
            if isinstance(exc, _Unintelligible):
                raise DelegateError(f"the real skopeo answered {method} {exc}", method=method) from exc
            raise
        if not reply["success"]:
            _close_all(fds)
            # What speaks a version before 0.2.8 has no codes.
            raise DelegateError(reply["error"], method=method, error_code=reply["error_code"] or "other")
        return reply, fds


class DelegatedImage:
    """An image that is open at the real skopeo. ``close`` it."""

    def __init__(self, proxy: RealProxy, image_id: int) -> None:
        self._proxy = proxy
        self._id = image_id

    @classmethod
    async def open(cls, proxy: RealProxy, name: str) -> DelegatedImage:
        """OpenImage, of ``transport:details``. Raises DelegateError."""
        image_id = (await _ask(proxy, "OpenImage", name)).value
        if not isinstance(image_id, int) or image_id < 1:
            raise DelegateError(f"the real skopeo gave {name} the id {image_id!r:.50}", method="OpenImage")
        return cls(proxy, image_id)

    async def forward(self, method: str, *args: Any) -> Forwarded:
        """A method whose first argument is the image, which is left out here.

        Raises DelegateError, also for what this version of skopeo does not have (see ``RealProxy.version``).
        """
        return await _ask(self._proxy, method, self._id, *args)

    async def finish(self, pipe_id: int) -> None:
        """FinishPipe of a pipe that ``forward`` brought: skopeo's verdict on what went through it.

        Waits until the client has read it; skopeo closes its end not before this. Raises DelegateError.
        """
        await _ask(self._proxy, "FinishPipe", pipe_id)

    async def close(self) -> None:
        """CloseImage. Harmless when repeated, and when the real skopeo is gone."""
        image_id, self._id = self._id, 0
        if image_id and self._proxy.alive:
            with suppress(DelegateError):
                await _ask(self._proxy, "CloseImage", image_id)


async def _ask(proxy: RealProxy, method: str, *args: Any) -> Forwarded:
    reply, fds = await proxy.request(method, args)
    return Forwarded(reply["value"], reply["pipeid"], tuple(fds))


class _Disconnected(Exception):
    """The child has closed its end."""


class _Unintelligible(Exception):
    """The child does not keep to the protocol. The text says how, after "answered"."""


class _Child(asyncio.SubprocessProtocol):
    """The process and our end of its socket."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._said = b""
        self.exited = asyncio.Event()
        """Set when the process was reaped."""
        self._silent = asyncio.Event()

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Child:
        """Raises DelegateError."""
        try:
            await in_thread(refuse_reachable, Path(command[0]), absent=True)
        except LocalError as exc:
            raise DelegateError(f"the real skopeo is not started: {exc}") from exc
        inherited = {int(fd) for word in command for fd in _INHERITED.findall(word)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                _, child = await asyncio.get_running_loop().subprocess_exec(
                    lambda: cls(ours),
                    *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=sorted(fd for fd in inherited if fd > 2),
                )
            return child
        except BaseException as exc:
            ours.close()
            if isinstance(exc, OSError):
                raise DelegateError(f"the real skopeo cannot be started: {exc.strerror}") from exc
            raise

    async def converse(self, packet: bytes) -> tuple[dict[str, Any], list[int]]:
        """Send one packet and take the next that comes; nothing is left open if this raises.

        Raises _Disconnected, _Unintelligible.
        """
        try:
            while not self._try(lambda: self._socket.send(packet)):
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            while (received := self._try(lambda: _receive(self._socket))) is None:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
        except OSError as exc:
            raise _Disconnected from exc
        return received

    def _try(self, operation: Callable[[], T]) -> T | None:
        """None: not yet."""
        try:
            return operation()
        except BlockingIOError:
            return None

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        fd = self._socket.fileno()
        ready = asyncio.Event()
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)

    async def epitaph(self, method: str) -> str:
        """How a child that has hung up ended, and the last that it said."""
        try:
            async with asyncio.timeout(_EXIT_S):
                await self._silent.wait()
        except TimeoutError:
            self.kill()
        status = self._transport.get_returncode() if self._transport else None
        last = self._said.decode(errors="replace").strip().rpartition("\n")[2][-1000:]
        return f"the real skopeo ended during {method}, with status {status}" + (f": {last}" if last else "")

    def kill(self) -> None:
        """At once; it is reaped by the event loop."""
        if self._transport is not None:
            with suppress(ProcessLookupError):
                self._transport.kill()

    async def close(self) -> None:
        """Hang up, wait for the end, or bring it about."""
        self._socket.close()
        try:
            async with asyncio.timeout(_EXIT_S):
                await self.exited.wait()
        except TimeoutError:
            self.kill()
            await self.exited.wait()
        finally:
            self.kill()
            if self._transport is not None:
                self._transport.close()

    # --- what the event loop tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's does not say that it is one

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._said = (self._said + data)[-_STDERR:]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._silent.set()


def _packed(method: str, args: Sequence[Any]) -> bytes:
    packet = json.dumps({"method": method, "args": list(args)}).encode()
    if len(packet) > MAX_PACKET:
        raise DelegateError(
            f"{method} would take {len(packet)} bytes, {MAX_PACKET} are allowed", method=method
        )
    return packet


def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One packet and the descriptors beside it, which are closed if it is not a reply."""
    fds = array.array("i")
    raw, ancillary, flags, _ = sock.recvmsg(
        MAX_PACKET, socket.CMSG_SPACE(_MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if not raw:
            raise _Disconnected
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise _Unintelligible("with more than a packet may hold")
        return _document(raw, len(fds)), fds.tolist()
    except BaseException:
        _close_all(fds)
        raise


def _document(raw: bytes, n_fds: int) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise _Unintelligible(f"with what is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise _Unintelligible("with something that is not an object")
    pipe_id = document.setdefault("pipeid", 0)
    for key, kind in (("success", bool), ("pipeid", int), ("error", str), ("error_code", str)):
        if not isinstance(document.setdefault(key, kind()), kind):
            raise _Unintelligible(f"with a strange {key}: {document[key]!r:.100}")
    if document["success"] and n_fds not in ((1,) if pipe_id else (0, 2)):
        raise _Unintelligible(f"with pipe {pipe_id} and {n_fds} descriptors")
    document.setdefault("value", None)
    return document


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
