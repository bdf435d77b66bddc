"""Small files that a command writes for other programs: there is the old one, or the whole new one."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from ..disk.files import disk_error, is_directory
from ..errors import LocalError

MODE = 0o644  # for programs of other users


def see_that_it_can_be_written(path: Path) -> None:
    """Raise LocalError where ``path`` cannot come to be, before work is done in vain."""
    if is_directory(path):
        raise LocalError(f"{path} is a directory, and was to be a file", path=str(path))
    if not is_directory(path.parent):
        raise LocalError(f"{path}: there is no directory {path.parent}", path=str(path))
    writes_to = path if path.exists() and not path.is_file() else path.parent
    if not os.access(writes_to, os.W_OK):
        raise LocalError(f"{path} cannot be written: {writes_to} may not be", path=str(path))


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` under the name ``path``, in one step. Raises LocalError, NoSpace.

    A link is followed. What is no file, /dev/stdout or a pipe for example, is written to as it is.
    """
    try:
        path = Path(os.path.realpath(path))
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(content)
            return
        fd, name = mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(fd, MODE)
                os.fdatasync(fd)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as exc:
        raise disk_error(exc, "writing", path) from exc
