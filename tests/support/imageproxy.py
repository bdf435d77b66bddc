"""A client of the image-proxy protocol for tests: does what bootc's does, and what no good client would.

    with layertee_proxy(store) as proxy:
        proxy.value("Initialize")
        image = proxy.open("docker://registry.example.com/os:1")
        manifest = proxy.body("GetManifest", image)

One JSON document per SOCK_SEQPACKET packet, pipes as SCM_RIGHTS beside it: see
skopeo-experimental-image-proxy(1). Every descriptor that arrives belongs to the client object, which closes
what is left when it ends.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.compress import digest_of
from tests.support.process import NOT_FOR_USERS, wait_until
from tests.support.rig.blobs import BuiltLayer

PACKET = 32 << 10  # bytes: the largest packet of the protocol, either way
KEYS = frozenset({"success", "value", "pipeid", "error_code", "error"})
_MAX_FDS = 8  # more than any reply may carry, so that too many are seen and not cut off
_REPLY_S = 150.0
_EXIT_S = 100.0


class Disconnected(Exception):
    """The server closed the socket, or is gone."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One packet of the server: the document as it was sent, and the descriptors beside it."""

    document: dict[str, Any]
    fds: tuple[int, ...]
    nbytes: int

    @property
    def success(self) -> bool:
        """Of the request."""
        assert isinstance(self.document["success"], bool)
        return self.document["success"]

    @property
    def value(self) -> Any:
        """Whatever the method returns."""
        return self.document["value"]

    @property
    def pipeid(self) -> int:
        """0 without a pipe."""
        assert isinstance(self.document["pipeid"], int)
        return self.document["pipeid"]

    @property
    def error(self) -> str:
        """Empty on success."""
        assert isinstance(self.document["error"], str)
        return self.document["error"]


class ImageProxy:
    """A running server, and the client's end of its socket.

    ``command`` is run with the other end as standard input; with ``sockfd`` as a descriptor of another
    number, named by ``--sockfd``. ``env`` is all that it inherits.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], *, sockfd: bool = False) -> None:
        self._fds: set[int] = set()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(_REPLY_S)
        with theirs:
            words = [*command, "--sockfd", str(theirs.fileno())] if sockfd else list(command)
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if sockfd else theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=env,
                pass_fds=(theirs.fileno(),) if sockfd else (),
            )

    # -- lifetime ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        for fd in tuple(self._fds):
            self.close_fd(fd)
        try:
            self.process.wait(timeout=_EXIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            if error is None:
                raise AssertionError(f"the server outlives its client\n{self.stderr()}") from None
        else:
            said = self.stderr()
            assert error is not None or not any(word in said for word in NOT_FOR_USERS), said
        finally:
            self._stderr.close()

    def hang_up(self) -> None:
        """Close the client's end, as a client that is gone."""
        self.socket.close()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send the server a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the server at once."""
        self.process.kill()
        self.process.wait()

    def exit_status(self, timeout_s: float = _EXIT_S) -> int:
        """Wait for the server to end by itself; negative: by that signal. Raises TimeoutExpired."""
        return self.process.wait(timeout=timeout_s)

    def stderr(self) -> str:
        """What the server has said so far."""
        return os.pread(self._stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    @property
    def pid(self) -> int:
        """Of the server."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    # -- packets -------------------------------------------------------------------------

    def send(self, packet: bytes) -> None:
        """One packet, whatever is in it."""
        try:
            self.socket.send(packet)
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise Disconnected(self.stderr()) from exc

    def receive(self) -> Reply:
        """The next packet. Raises Disconnected; TimeoutError after a minute."""
        space = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
        try:
            packet, ancillary, flags, _ = self.socket.recvmsg(2 * PACKET, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as exc:
            raise Disconnected(self.stderr()) from exc
        fds = array.array("i")
        for level, kind, data in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        self._fds.update(fds)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), (
            "a packet is larger than the protocol allows"
        )
        if not packet:
            raise Disconnected(self.stderr())
        document = json.loads(packet)
        assert isinstance(document, dict)
        return Reply(document, tuple(fds), len(packet))

    def call(self, method: str, *args: object) -> Reply:
        """Send a request and wait for its reply, good or bad."""
        self.begin(method, *args)
        return self.receive()

    # -- what a test expects of a call -----------------------------------------------------

    def value(self, method: str, *args: object) -> Any:
        """Of a call that must succeed and bring no descriptor."""
        reply = self.call(method, *args)
        assert reply.success, reply.error
        assert (reply.fds, reply.pipeid, reply.error) == ((), 0, "")
        return reply.value

    def refused(self, method: str, *args: object) -> str:
        """The error of a call that must fail: no descriptor, no value."""
        return refusal(self.call(method, *args))

    def piped(self, method: str, *args: object) -> Reply:
        """A call that must succeed with one pipe, which is left as it is."""
        reply = self.call(method, *args)
        assert reply.success, reply.error
        assert (len(reply.fds), reply.error) == (1, "")
        assert reply.pipeid > 0
        return reply

    def body(self, method: str, *args: object) -> bytes:
        """What comes through the pipe of a call; all of it must succeed."""
        content, end = self.drain(self.piped(method, *args))
        assert end.success, end.error
        return content

    def drain(self, reply: Reply) -> tuple[bytes, Reply]:
        """Read a pipe to its end and finish it meanwhile, as clients do; its content, and FinishPipe's reply.

        Meanwhile, since some servers close their end only then.
        """
        fd = reply.fds[0]
        content: list[bytes] = []
        reader = threading.Thread(target=lambda: content.append(read_all(fd)), name=f"reader of {fd}")
        reader.start()
        try:
            end = self.call("FinishPipe", reply.pipeid)
        finally:
            reader.join()
        self.close_fd(fd)
        return content[0], end

    def close_fd(self, fd: int) -> None:
        """Close one that a reply brought."""
        self._fds.discard(fd)
        os.close(fd)

    # -- shorthands ------------------------------------------------------------------------

    def open(self, image: str) -> int:
        """OpenImage; its id."""
        number = self.value("OpenImage", image)
        assert isinstance(number, int) and number >= 1
        return number

    def manifest(self, image: int) -> tuple[str, dict[str, Any]]:
        """GetManifest: the digest, and the document."""
        reply = self.piped("GetManifest", image)
        content, end = self.drain(reply)
        assert end.success, end.error
        return reply.value, json.loads(content)

    def blob(self, image: int, layer: BuiltLayer) -> bytes:
        """GetBlob of a layer."""
        return self.body("GetBlob", image, layer.digest, layer.size)

    def no_blob(self, image: int, layer: BuiltLayer) -> str:
        """GetBlob of a layer that must be refused; why."""
        return self.refused("GetBlob", image, layer.digest, layer.size)

    def begin(self, method: str, *args: object) -> None:
        """Send a request and do not wait for the reply."""
        self.send(json.dumps({"method": method, "args": list(args)}).encode())

    # -- what it costs -----------------------------------------------------------------------

    def n_fds(self) -> int:
        """Open descriptors of the server."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss(self) -> int:
        """Resident memory of the server, bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise AssertionError("the server is gone")


def layertee_proxy(
    store: Path, *options: str, policy: Path | None = None, sockfd: bool = False, **env: str
) -> ImageProxy:
    """The ``layertee image-proxy`` of this virtual environment on ``store``; it has been asked nothing yet.

    Without a ``policy`` it is told to have none (``--insecure-policy``). ``env`` adds to its environment.
    """
    trust = ["--policy", str(policy)] if policy else ["--insecure-policy"]
    command = [sys.executable, "-m", "layertee", "image-proxy", "--store", str(store), *trust, *options]
    return ImageProxy(command, _environment(store) | env, sockfd=sockfd)


@contextlib.contextmanager
def serving(store: Path, *options: str, policy: Path | None = None) -> Iterator[ImageProxy]:
    """Our server for registries without TLS, initialized. It must end well and leave a clean store."""
    with layertee_proxy(store, "--tls-verify=false", *options, policy=policy) as proxy:
        proxy.value("Initialize")
        yield proxy
        proxy.hang_up()
        assert proxy.exit_status() == 0, proxy.stderr()
    assert_clean(store)


def real_skopeo(home: Path, *options: str, policy: Path | None = None, sockfd: bool = False) -> ImageProxy:
    """The machine's ``skopeo experimental-image-proxy``; it has been asked nothing yet."""
    trust = ["--policy", str(policy)] if policy else ["--insecure-policy"]
    command = ["skopeo", *trust, "experimental-image-proxy", *options]
    return ImageProxy(command, _environment(home), sockfd=sockfd)


def parts(store: Path) -> list[Path]:
    """Of layers that are on their way into ``store``, or were."""
    return sorted((store / "layertee" / "parts").glob("*"))


def being_written(store: Path) -> list[Path]:
    """Those parts of layers that a process or task has the lock of."""
    found = []
    for path in parts(store):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as part:
            try:
                fcntl.flock(part, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(path)
    return found


def assert_clean(store: Path) -> None:
    """Nothing is left that no later run goes on with, and every blob is what its name says."""
    left = list((store / "layertee" / "ingest").glob("*"))
    assert left == [], f"files are left: {left}"
    for path in (store / "blobs" / "sha256").glob("*"):
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}", f"{path} is not what its name says"


def refusal(reply: Reply) -> str:
    """The text of an error reply, which must be a well-formed one."""
    assert set(reply.document) >= KEYS - {"error_code"}
    assert (reply.success, reply.value, reply.fds, reply.pipeid) == (False, None, (), 0)
    assert reply.error
    return reply.error


def read_all(fd: int) -> bytes:
    """Everything from ``fd`` up to its end; it stays open."""
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def is_gone(pid: int) -> bool:
    """Whether that process has ended, reaped or not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def wait_gone(pid: int, timeout_s: float = 100.0) -> None:
    """Wait for the end of a process that is not a child of ours. Raises TimeoutError."""
    wait_until(lambda: is_gone(pid), f"process {pid} is still there", timeout_s)


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
