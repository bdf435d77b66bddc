"""Advisory locks that die with their holder.

Two kinds, and both are the kernel's: it drops them when the process ends, however it ends, so there is
never a stale lock, only a stale file. **flock** is our own kind, on a file of its own or on a directory; a
lock file may be unlinked by its holder, so a process that gets the lock looks whether the name still
leads to the file that it locked, and begins again if not. **Open file description locks** are the kind of
libostree, for what we share with it. Two descriptors of one process exclude each other like two processes.

A lock is waited for in one of two ways: ``lock`` and its kin block their thread, ``when_free`` suspends a
task. Both ask again after pauses that grow, since a blocking request on a thread could not be given up.

Order, to make deadlock impossible: store (shared or exclusive), then one layer, then the index,
then the catalog. Waiting is bounded everywhere; a layer is never waited for.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..errors import StoreBusy
from .files import close, disk_error, open_directory

Attempt = Callable[[], "HeldLock | None"]
"""Tries once, without waiting: the lock, or None while another holder excludes it."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})  # NFS without a lock daemon
_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.1


class Lock(enum.Enum):
    """How a lock is held: along with others who share it, or alone."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


_FLOCK = {Lock.SHARED: fcntl.LOCK_SH | fcntl.LOCK_NB, Lock.EXCLUSIVE: fcntl.LOCK_EX | fcntl.LOCK_NB}


class HeldLock:
    """A lock that is held until ``release`` or the end of the ``with`` block."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def release(self) -> None:
        """Let go; harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)

    def discard(self) -> None:
        """Remove the lock file, then let go. Only for an exclusive lock. Raises LocalError."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise disk_error(exc, "removing the lock", self.path) from exc
        finally:
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


# --- one attempt ------------------------------------------------------------


def try_lock(path: Path, how: Lock = Lock.EXCLUSIVE, *, required: bool = True) -> HeldLock | None:
    """The flock on the file ``path``, made if need be, or None while somebody's excludes it.

    Without ``required``, a filesystem that cannot lock gives a lock that excludes nobody; with it,
    LocalError, as for any other failure.
    """
    try:
        while True:
            fd = os.open(path, _FLAGS, 0o600)
            try:
                fcntl.flock(fd, _FLOCK[how])
                if _leads_to(path, fd):
                    return HeldLock(path, fd)
            except BlockingIOError:
                close(fd)
                return None
            except OSError as exc:
                if exc.errno in _UNSUPPORTED and not required:
                    return HeldLock(path, fd)
                close(fd)
                raise
            close(fd)
    except OSError as exc:
        raise disk_error(exc, "locking", path) from exc


def try_lock_directory(path: Path) -> HeldLock | None:
    """The exclusive flock on a directory itself, for one that is not ours to put a lock file into.

    Where a directory cannot be locked (NFS), nobody is excluded. Raises LocalError.
    """
    fd = open_directory(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        close(fd)
        return None
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED and exc.errno != errno.EBADF:
            close(fd)
            raise disk_error(exc, "locking", path) from exc
    return HeldLock(path, fd)


def try_lock_description(path: Path, how: Lock, *, mode: int) -> HeldLock | None:
    """The open file description lock (fcntl_locking(2)) on the file ``path``, made with ``mode`` if need be.

    The file stays for ever: other programs lock it too. Raises LocalError.
    """
    # struct flock: type, whence, start, length (0: all of it), pid (0 for this kind of lock)
    wish = struct.pack(
        "hhqqi0q", fcntl.F_RDLCK if how is Lock.SHARED else fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0
    )
    try:
        fd = os.open(path, _FLAGS, mode)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wish)
        except (BlockingIOError, PermissionError):  # POSIX leaves it open which of the two a conflict is
            close(fd)
            return None
        except BaseException:
            close(fd)
            raise
    except OSError as exc:
        raise disk_error(exc, "locking", path) from exc
    return HeldLock(path, fd)


# --- waiting ------------------------------------------------------------------


def lock(path: Path, how: Lock = Lock.EXCLUSIVE, *, timeout: float, required: bool = True) -> HeldLock:
    """``try_lock`` for up to ``timeout`` seconds. Blocks. Raises StoreBusy, LocalError."""
    return wait_for(lambda: try_lock(path, how, required=required), path, timeout)


def lock_directory(path: Path, *, timeout: float) -> HeldLock:
    """``try_lock_directory`` for up to ``timeout`` seconds. Blocks. Raises StoreBusy, LocalError."""
    return wait_for(lambda: try_lock_directory(path), path, timeout)


def wait_for(attempt: Attempt, path: Path, timeout: float, *, holder: str = "another process") -> HeldLock:
    """The lock that ``attempt`` takes, within ``timeout`` seconds. Blocks its thread.

    Raises StoreBusy, which names ``path`` and the usual ``holder``, and what ``attempt`` raises.
    """
    for pause in _pauses(timeout):
        if (held := attempt()) is not None:
            return held
        time.sleep(pause)
    return _last(attempt, path, timeout, holder)


async def when_free(
    attempt: Attempt, path: Path, wait_s: float, *, holder: str = "another process"
) -> HeldLock:
    """``wait_for`` on the event loop: a task that is cancelled meanwhile holds nothing.

    ``wait_s`` may be infinite. ``attempt`` runs on the loop: it is a few system calls.
    """
    import asyncio  # commands that only look at the store have no loop

    for pause in _pauses(wait_s):
        if (held := attempt()) is not None:
            return held
        await asyncio.sleep(pause)
    return _last(attempt, path, wait_s, holder)


def _pauses(timeout: float) -> Iterator[float]:
    """How long to wait after each attempt but the last."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE_S
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


def _last(attempt: Attempt, path: Path, timeout: float, holder: str) -> HeldLock:
    if (held := attempt()) is None:
        message = f"{path} is locked by {holder}, still after {timeout:g} s; try again later"
        raise StoreBusy(message, path=str(path))
    return held


def _leads_to(path: Path, fd: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))
