"""Advisory locks that die with their holder.

flock on a file of its own: the kernel drops it when the process ends, however it ends, so there is
never a stale lock, only a stale file. A lock file may be unlinked by whoever holds it; an acquirer
therefore looks, after it got the lock, whether the name still leads to the file it locked, and
begins again if not. Two descriptors of one process exclude each other like two processes.

Order, to make deadlock impossible: store (shared or exclusive), then one layer, then the index,
then the catalog. Waiting is bounded everywhere; a layer is never waited for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import StoreBusy
from .files import close, disk_error, open_directory

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})  # NFS without a lock daemon
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.1


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


def try_lock(path: Path, *, shared: bool = False, required: bool = True) -> HeldLock | None:
    """The lock on ``path``, or None while somebody holds it in a way that excludes this.

    Without ``required``, a filesystem that cannot lock gives a lock that excludes nobody; with it,
    LocalError, as for any other failure.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        while True:
            fd = os.open(path, _FLAGS, 0o600)
            try:
                fcntl.flock(fd, how)
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


def lock(path: Path, *, shared: bool = False, timeout: float, required: bool = True) -> HeldLock:
    """Wait up to ``timeout`` seconds for the lock on ``path``. Raises StoreBusy, LocalError.

    Blocks the calling thread: from a coroutine, call it through ``asyncio.to_thread``.
    """
    return _wait(lambda: try_lock(path, shared=shared, required=required), path, timeout)


def lock_directory(path: Path, *, timeout: float) -> HeldLock:
    """The exclusive lock on a directory itself, for one that is not ours to put a lock file into.

    Where a directory cannot be locked (NFS), nobody is excluded. Raises StoreBusy, LocalError.
    """
    return _wait(lambda: _try_directory(path), path, timeout)


def _wait(attempt: Callable[[], HeldLock | None], path: Path, timeout: float) -> HeldLock:
    deadline = time.monotonic() + timeout
    wait = _FIRST_WAIT_S
    while (held := attempt()) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            message = f"{path} is locked by another process, still after {timeout:g} s; try again later"
            raise StoreBusy(message, path=str(path))
        time.sleep(min(wait, left))
        wait = min(wait * 2, _LONGEST_WAIT_S)
    return held


def _try_directory(path: Path) -> HeldLock | None:
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


def _leads_to(path: Path, fd: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))
