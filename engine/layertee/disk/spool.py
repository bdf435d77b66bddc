"""Bytes that can be read only once, or only from the beginning, kept for a while as a file without a name.

The file is in ``TMPDIR``, else in /var/tmp: it may be large, and /tmp is memory on many machines. No other
user can open it, and its room is free again once nobody holds it, whatever becomes of the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ..errors import LayerteeError, LocalError, NoSpace
from .blob_file import OpenFile
from .files import close, disk_error
from .space import KeepFree, Space, human

MAX_SPOOL: Final = 64 << 30  # bytes of one file; what all layers of an image may be
_LOOK_EVERY: Final = 32 << 20  # bytes written between two looks at what is free


def spool_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where such files are: ``TMPDIR``, else /var/tmp if it is there, else /tmp."""
    if given := environ.get("TMPDIR"):
        return Path(given)
    return next((path for path in map(Path, ("/var/tmp", "/tmp")) if os.path.isdir(path)), Path("/tmp"))


def spool(
    chunks: Iterable[bytes | memoryview],
    what: str,
    *,
    limit: int = MAX_SPOOL,
    keep_free: KeepFree | None = None,
    directory: Path | None = None,
) -> OpenFile:
    """All of ``chunks`` in a file without a name, for reading; ``what`` is what messages call it.

    ``keep_free`` is what stays free of the disk, None for the usual. Raises NoSpace, LocalError (it would be
    more than ``limit`` bytes), and what the chunks raise; nothing is left behind then. Blocks.
    """
    where = directory or spool_directory()
    space = Space(where, keep_free or KeepFree.usual())
    fd = _nameless(where)
    try:
        done = 0
        left = 0
        for chunk in chunks:
            size = len(chunk)
            if done + size > limit:
                raise LocalError(
                    f"{what} is more than {human(limit)}, which is not unpacked", path=str(where)
                )
            if size > left:
                left = min(space.left(), _LOOK_EVERY)
            if size > left:
                raise NoSpace(
                    f"{what} takes more room than there is in {where}, where files go that cannot be read in"
                    " place",
                    path=str(where),
                    need=done + size,
                    free=done + max(left, 0),
                ).with_hint("temporary-files")
            _write(fd, chunk, where)
            done += size
            left -= size
        return OpenFile.of(fd, Path(what))
    finally:
        close(fd)


def _nameless(directory: Path) -> int:
    """Raises LocalError."""
    try:
        try:
            return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:  # a filesystem without such files, among them NFS and FUSE
            fd, name = tempfile.mkstemp(prefix="layertee-", dir=directory)
            os.unlink(name)
            return fd
    except OSError as exc:
        raise _with_hint(disk_error(exc, "making a temporary file in", directory)) from exc


def _write(fd: int, data: bytes | memoryview, where: Path) -> None:
    view = memoryview(data)
    while len(view):
        try:
            view = view[os.write(fd, view) :]
        except OSError as exc:
            raise _with_hint(disk_error(exc, "writing a temporary file in", where)) from exc


def _with_hint(exc: LayerteeError) -> LayerteeError:
    return exc.with_hint("temporary-files")
