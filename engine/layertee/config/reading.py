"""Files that this machine may or may not have, read without falling over what is in their way."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# On the way to the file: a directory of another user, a file or a circle of symlinks in place of one, a name
# that no filesystem takes.
_IN_THE_WAY = frozenset({errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def read_file(path: Path, limit: int, *, named: bool) -> bytes | None:
    """At most ``limit`` + 1 bytes of ``path``; None where an optional file is not there.

    ``named`` is for a file that somebody named: it has to be there, and may be a pipe. An optional one is not
    there either where this user cannot look, behind a directory of somebody else for example. One that is
    there and cannot be read is an error all the same: what it says is meant to hold. Raises OSError. Blocks.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "the name has a NUL in it")
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if named else os.O_NONBLOCK)
    try:
        fd = os.open(path, flags)
    except OSError as exc:
        if not named and (exc.errno == errno.ENOENT or _is_behind(path, exc)):
            return None
        raise
    try:
        if not named and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(fd)


def _is_behind(path: Path, failed: OSError) -> bool:
    """Whether it was not the file that failed, but the way to it."""
    return failed.errno in _IN_THE_WAY and not os.path.lexists(path)
