"""Small files that a command writes for other programs: there is the old one, or the whole new one.

Which names are written to, and how, is the rule of disk/outputs.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from ..disk.files import close, disk_error
from ..disk.outputs import Output, output_at

MODE = 0o644  # of a new one, for programs of other users


def see_that_it_can_be_written(path: Path, outside: Iterable[Path] = ()) -> None:
    """Raise LocalError or UnsafePath where ``path`` cannot come to be, before work is done in vain.

    ``outside``: the stores that it may not be in.
    """
    output_at(path, outside=outside, streams=True)


def write_whole(path: Path, content: bytes, outside: Iterable[Path] = ()) -> None:
    """Put ``content`` under the name ``path``. Raises as ``see_that_it_can_be_written``, and NoSpace.

    /dev/stdout, or another descriptor of this process, and a character device are written to as they are.
    """
    found = output_at(path, outside=outside, streams=True)
    try:
        if found.is_stream:
            _write_to(found, content)
        else:
            _replace(found, content)
    except OSError as exc:
        raise disk_error(exc, "writing", path, elsewhere=True) from exc


def _write_to(found: Output, content: bytes) -> None:
    """Raises OSError."""
    if found.descriptor is not None:
        fd = os.dup(found.descriptor)
    else:
        fd = os.open(found.target, os.O_WRONLY | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        close(fd)


def _replace(found: Output, content: bytes) -> None:
    """Raises OSError."""
    target = found.target
    fd, name = mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if found.old is None:
                os.fchmod(fd, MODE)
            found.keep_mode(fd)
            os.fdatasync(fd)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
