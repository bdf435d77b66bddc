"""``--progress-fd``: what a command does, as JSON lines in the shape that ``bootc --progress-fd`` has.

Rules of this file:

- A reader that is slow, or gone, holds up nothing. An event is written only where that cannot block: to a
  pipe that ``poll`` has room for, in pieces no larger than PIPE_BUF, and to a socket without waiting.
- Events of progress may be left out. They fill no more than half of a pipe, so that the last event fits in
  behind them, though nobody has read one.
- The plan and the last event are never left out. For the last, a reader that is there is waited for.

The events are documented in docs/reference/progress.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import stat
import struct
import termios
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidReference
from ..pulling.plan import Action
from .output import SCHEMA

if TYPE_CHECKING:
    from ..backoff import AskedWait
    from ..pulling.imageplan import ImagePlan
    from ..pulling.report import LayerProgress, Progress
    from .progress import BlobProgress

VERSION = "0.1.0"  # of the protocol, as bootc counts
EVERY_S = 0.2
LAST_S = 5.0  # how long a reader that takes nothing is waited for, at the end
_FIRST_FREE = 3  # what is below is standard input, output and error


class Events:
    """Writes events to ``fd``, which stays open, and which children do not inherit from now on.

    Raises InvalidReference for one that cannot be written to.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._mode = _mode_of(fd)
        os.set_inheritable(fd, False)
        self._pending = b""
        self._gone = False
        self._written = float("-inf")  # an event of progress
        self._plan: ImagePlan | None = None
        self._send({"type": "Start", "version": VERSION})

    def resolving(self, image: str) -> None:
        """The image is being looked for."""
        self._send(
            {
                "type": "ProgressSteps",
                "task": "resolving",
                "description": f"Resolving {image}",
                "id": image,
                "stepsCached": 0,
                "steps": 0,
                "stepsTotal": 1,
                "subtasks": [],
            }
        )

    def preparing(self, image: str, n_made: int, n_there: int, n_total: int) -> None:
        """Of the layers of the image, names were made for so many, and so many had theirs."""
        self._send(
            {
                "type": "ProgressSteps",
                "task": "preparing",
                "description": f"Preparing for {image}",
                "id": image,
                "stepsCached": n_there,
                "steps": n_made,
                "stepsTotal": n_total,
                "subtasks": [],
            }
        )

    def planned(self, plan: ImagePlan) -> None:
        """What is to be done."""
        self._plan = plan
        self._send(
            {
                "type": "Plan",
                "image": plan.reference,
                "manifestDigest": plan.digest,
                "bytesToFetch": plan.bytes_to_fetch,
                "bytesReused": plan.bytes_reused,
                "layers": [
                    {
                        "digest": step.layer.digest,
                        "action": step.action.value,
                        "size": step.size,
                        "bytesToFetch": step.wire_bytes,
                    }
                    for step in plan.layers
                ],
            }
        )

    def waiting(self, wait: AskedWait) -> None:
        """A server has asked to be left alone for a while, and is."""
        self._send(
            {
                "type": "Wait",
                "host": wait.host,
                "status": wait.status,
                "askedSeconds": wait.asked_s,
                "seconds": round(wait.seconds, 3),
            }
        )

    def progress(self, progress: Progress) -> None:
        """How far a pull is. May be left out."""
        if self._may_write():
            self._send(_pulling(progress, self._plan), droppable=True)

    def verifying(self, progress: BlobProgress) -> None:
        """How far a verification is. May be left out."""
        self._blobs("verifying", "Verifying the store", progress)

    def exporting(self, progress: BlobProgress) -> None:
        """How far an export is. May be left out."""
        self._blobs("exporting", "Writing what is exported", progress)

    def _blobs(self, task: str, description: str, progress: BlobProgress) -> None:
        if self._may_write():
            self._send(
                {
                    "type": "ProgressBytes",
                    "task": task,
                    "description": description,
                    "id": task,
                    "bytesCached": 0,
                    "bytes": progress.bytes_done,
                    "bytesTotal": progress.bytes_total,
                    "stepsCached": 0,
                    "steps": progress.n_done,
                    "stepsTotal": progress.n_total,
                    "subtasks": [],
                },
                droppable=True,
            )

    def last(
        self, exit_code: int, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None = None
    ) -> None:
        """The end. A reader that is there is waited for, ``LAST_S`` seconds at most."""
        end = {"type": "Result", "schema": SCHEMA, "exitCode": exit_code, "result": result, "error": error}
        self._send(end, wait_s=LAST_S)

    # --- writing ---

    def _may_write(self) -> bool:
        return not self._gone and time.monotonic() - self._written >= EVERY_S

    def _send(self, event: Mapping[str, Any], *, droppable: bool = False, wait_s: float = 0.0) -> None:
        if self._gone:
            return
        try:
            self._flush(0.0)
            if droppable and (self._pending or self._is_half_full()):
                return
            self._pending += json.dumps(event, separators=(",", ":")).encode() + b"\n"
            self._flush(wait_s)
            if droppable:
                self._written = time.monotonic()
        except OSError:  # the reader is gone, or its disk is full: it gets no more
            self._gone = True

    def _flush(self, wait_s: float) -> None:
        """Write what is pending, as far as that goes without blocking, or is taken within ``wait_s``."""
        deadline = time.monotonic() + wait_s
        ready = select.poll()
        ready.register(self._fd, select.POLLOUT)
        while self._pending:
            left_s = max(0.0, deadline - time.monotonic())
            if not stat.S_ISREG(self._mode) and not ready.poll(left_s * 1000):
                return
            try:
                written = self._write(self._pending[: select.PIPE_BUF])
            except BlockingIOError:
                if time.monotonic() >= deadline:  # another writer was quicker
                    return
                continue
            self._pending = self._pending[written:]

    def _write(self, data: bytes) -> int:
        if not stat.S_ISSOCK(self._mode):
            return os.write(self._fd, data)
        with socket.socket(
            fileno=os.dup(self._fd)
        ) as own:  # a write to a socket waits for room for all of it
            return own.send(data, socket.MSG_DONTWAIT)

    def _is_half_full(self) -> bool:
        if not stat.S_ISFIFO(self._mode):
            return False
        unread = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, struct.pack("i", 0)))[0]
        return bool(unread > fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ) // 2)


def _mode_of(fd: int) -> int:
    """What kind of file it is. Raises InvalidReference."""
    try:
        if fd < _FIRST_FREE:
            raise OSError("that is a standard stream")
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError("it is open for reading only")
        return os.fstat(fd).st_mode
    except (OSError, OverflowError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise InvalidReference(f"--progress-fd {fd}: nothing can be written to it: {reason}") from None


def _pulling(progress: Progress, plan: ImagePlan | None) -> dict[str, Any]:
    """Sizes and numbers of layers that need nothing are *cached*; all else is of those that need work."""
    work = [layer for layer in progress.layers if layer.action is not Action.HAVE or layer.done]
    cached = [layer for layer in progress.layers if layer.action is Action.HAVE and not layer.done]
    image = plan.reference if plan is not None else ""
    return {
        "type": "ProgressBytes",
        "task": "pulling",
        "description": f"Pulling {image}",
        "id": image,
        "bytesCached": sum(layer.size for layer in cached),
        "bytes": progress.bytes_done,
        "bytesTotal": progress.bytes_total,
        "stepsCached": len(cached),
        "steps": sum(layer.state == "done" for layer in work),
        "stepsTotal": len(work),
        "subtasks": [
            _subtask(layer, plan) for layer in work if layer.state in ("checking", "running")
        ],  # a few at most: the event stays small
    }


def _subtask(layer: LayerProgress, plan: ImagePlan | None) -> dict[str, Any]:
    cached = plan.layers[layer.index].resumed_at if plan is not None else 0
    return {
        "subtask": "layer",
        "description": f"Layer {layer.index}",
        "id": layer.digest,
        "bytesCached": min(cached, layer.size),
        "bytes": layer.done,
        "bytesTotal": layer.size,
    }
