"""A disk that counts what is asked of it, and fails at the call that a test names."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DISK_CALLS = (
    "close",
    "fchmod",
    "fdatasync",
    "fstat",
    "fsync",
    "ftruncate",
    "link",
    "listdir",
    "mkdir",
    "open",
    "pread",
    "rename",
    "rmdir",
    "stat",
    "statvfs",
    "unlink",
    "write",
)


class Disk:
    """Every call of ``os`` that touches a disk, counted; the n-th may fail, or kill the process."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.tripped = False

    @contextmanager
    def watched(
        self, fail_at: int = 0, code: int = errno.EIO, *, for_good: bool = False, kill: bool = False
    ) -> Iterator[None]:
        """Fail the ``fail_at``-th call with ``code``, and with ``for_good`` all later ones too."""
        real = {name: getattr(os, name) for name in DISK_CALLS}
        self.calls.clear()
        self.tripped = False

        def wrap(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.calls.append((name, args))
                n = len(self.calls)
                if n == fail_at or (for_good and self.tripped):
                    self.tripped = True
                    if kill:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if name == "close":
                        real[name](*args)  # Linux releases the number whatever close returns
                    raise OSError(code, os.strerror(code))
                return real[name](*args, **kwargs)

            return call

        for name in DISK_CALLS:
            setattr(os, name, wrap(name))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def names(self) -> list[str]:
        """The calls made, in order."""
        return [name for name, _ in self.calls]
