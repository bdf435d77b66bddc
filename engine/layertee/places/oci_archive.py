"""An OCI image layout in one tar file, as ``skopeo copy … oci-archive:FILE`` and ``podman save`` write it.

Nothing is unpacked. The headers are read once, for where each blob begins and ends; documents and layers
are then read from there, and hashed like those of a directory. What the archive means must not depend on
who reads it: a blob that is there twice, a link, or a sparse file, where a plain file has to be, spoils all
of it. Members with other names are nobody's business.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from ..disk.files import close, disk_error, open_regular, real_path
from ..errors import NotFound, SourceUnreadable, StoreCorrupt
from ..image.document import Digest
from ..store.layout_reader import LayoutReader, blob_name
from .oci_layout import OCILayoutPlace
from .tarindex import DamagedTar, Member, members

_NAME: Final = re.compile(
    rb"(?:\./)*(oci-layout|index\.json|blobs/sha256/[a-f0-9]{64}|blobs/sha512/[a-f0-9]{128})/*"
)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Stamp(NamedTuple):
    """What tells a file from the one that replaced it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Archive(LayoutReader):
    """The layout in the tar ``path``. Holds nothing open.

    The members are those that were there when it was opened; once the file is another, every read raises
    SourceUnreadable.
    """

    def __init__(self, path: Path) -> None:
        """Use ``open``."""
        super().__init__(path)
        self._members, self._stamp = _read_members(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The layout that is in the file ``path``.

        Raises NotFound (nothing there), StoreCorrupt (something else, or damaged), LocalError.
        """
        archive = cls(real_path(path))
        archive.check()
        return archive

    def shown(self, name: str) -> str:
        """What to call a member in messages."""
        return f"{self.path}: {name}"

    def read(self, name: str, limit: int) -> bytes | None:
        """A member, as far as ``limit`` + 1 bytes; None if there is none. Raises SourceUnreadable."""
        member = self._members.get(name)
        if member is None:
            return None
        room = bytearray(min(member.size, limit + 1))
        reader = ArchiveMember(self.path, self._stamp, member).open()
        try:
            reader.readinto(memoryview(room))
        finally:
            reader.close()
        return bytes(room)

    def blob_size(self, digest: Digest) -> int | None:
        """The size of the member under that name, or None."""
        member = self._members.get(blob_name(digest))
        return None if member is None else member.size

    def content(self, digest: Digest) -> ArchiveMember:
        """How to read a blob that is there; what comes out was not hashed yet. Raises SourceUnreadable."""
        member = self._members.get(blob_name(digest))
        if member is None:
            raise SourceUnreadable(f"{self.path}: {digest} is missing")
        return ArchiveMember(self.path, self._stamp, member)


class OCIArchivePlace(OCILayoutPlace):
    """The archive in ``path``. All else is as with a layout in a directory."""

    @property
    def name(self) -> str:
        return f"oci-archive:{self._path}"

    def _open(self) -> Archive:
        return Archive.open(self._path)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """The content of one member of ``archive`` as it was when it had ``stamp``. A BlobContent."""

    archive: Path
    stamp: _Stamp
    member: Member

    @property
    def path(self) -> None:
        """It is no file of its own."""
        return None

    def open(self) -> _MemberReader:
        """Raises SourceUnreadable."""
        return _MemberReader(self.archive, self.stamp, self.member)


class _MemberReader:
    """The content of one member. Raises SourceUnreadable, also when the archive is another file by now."""

    def __init__(self, path: Path, stamp: _Stamp, member: Member) -> None:
        self._path = path
        self._pos = member.offset
        self._end = member.offset + member.size
        self._fd = open_regular(path)
        if _stamp(self._fd) != stamp:
            self.close()
            raise SourceUnreadable(f"{path}: was replaced or written to since it was looked at")

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; less than all of it only at the end, then 0. Blocks."""
        want = min(len(view), self._end - self._pos)
        done = 0
        while done < want:
            try:
                n = os.preadv(self._fd, [view[done:want]], self._pos)
            except OSError as exc:
                raise SourceUnreadable(f"{self._path}: {exc.strerror}") from exc
            if n == 0:
                raise SourceUnreadable(f"{self._path}: became shorter while it was read")
            done += n
            self._pos += n
        return done

    def close(self) -> None:
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1


# --- headers --------------------------------------------------------------------------------------


def _read_members(path: Path) -> tuple[Mapping[str, Member], _Stamp]:
    """The members that a layout is made of, by name. Raises NotFound, StoreCorrupt, LocalError."""
    try:
        fd = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} is not there") from None
    except OSError as exc:
        raise disk_error(exc, "opening", path) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreCorrupt(f"{path} is not a plain file", path=str(path))
        stamp = _stamp(fd)
        return _members_of(fd), stamp
    except DamagedTar as exc:
        message = f"{path} is not an archive that can be read: {exc} (only plain tar files are)"
        raise StoreCorrupt(message, path=str(path)) from exc
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    finally:
        close(fd)


def _members_of(fd: int) -> dict[str, Member]:
    """Raises DamagedTar and OSError."""
    found: dict[str, Member] = {}
    for member in members(fd):
        match = _NAME.fullmatch(member.name)
        if match is None:
            continue
        name = match[1].decode("ascii")
        if not member.is_plain:
            raise DamagedTar(f"{name} in it is not a plain file")
        if name in found:
            raise DamagedTar(f"{name} is in it twice")
        found[name] = member
    return found


def _stamp(fd: int) -> _Stamp:
    found = os.fstat(fd)
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
