"""An OCI image layout in one tar file, as ``skopeo copy … oci-archive:FILE`` and ``podman save`` write it.

Nothing is unpacked. The headers are read once, for where each blob begins and ends; documents and layers
are then read from there, and hashed like those of a directory. What the archive means must not depend on
who reads it: a blob that is there twice, a link, or a sparse file, where a plain file has to be, spoils all
of it. Members with other names are nobody's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ..disk.files import close, disk_error
from ..errors import NotFound, StoreCorrupt
from ..store.layout_reader import LayoutReader, blob_name
from .archive_file import ArchiveFile, ArchiveMember, open_archive
from .oci_layout import OCILayoutPlace
from .tarindex import DamagedTar, Member, members

if TYPE_CHECKING:
    from ..image.document import Digest

_NAME: Final = re.compile(
    rb"(?:\./)*(oci-layout|index\.json|blobs/sha256/[a-f0-9]{64}|blobs/sha512/[a-f0-9]{128})/*"
)


class Archive(LayoutReader):
    """The layout in the tar ``path``. Holds nothing open.

    The members are those that were there when it was opened; once the file is another, every read raises
    SourceUnreadable.
    """

    def __init__(self, path: Path) -> None:
        """Use ``open``."""
        super().__init__(path)
        self._file = open_archive(path)
        self._members = _read_members(self._file)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The layout that is in the file ``path``.

        Raises NotFound (nothing there), StoreCorrupt (something else, or damaged), LocalError.
        """
        archive = cls(path)
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
        return ArchiveMember(self._file, member).read(limit)

    def blob_size(self, digest: Digest) -> int | None:
        """The size of the member under that name, or None."""
        member = self._members.get(blob_name(digest))
        return None if member is None else member.size

    def content(self, digest: Digest) -> ArchiveMember:
        """How to read a blob; what comes out was not hashed yet. Raises NotFound."""
        name = blob_name(digest)
        member = self._members.get(name)
        if member is None:
            raise NotFound(f"{self.shown(name)} is not there")
        return ArchiveMember(self._file, member)


class OCIArchivePlace(OCILayoutPlace):
    """The archive in ``path``. All else is as with a layout in a directory."""

    @property
    def name(self) -> str:
        return f"oci-archive:{self._path}"

    def _open(self) -> Archive:
        return Archive.open(self._path)


def _read_members(file: ArchiveFile) -> Mapping[str, Member]:
    """The members that a layout is made of, by name. Raises StoreCorrupt, LocalError, SourceUnreadable."""
    path = file.path
    fd = file.open()
    try:
        return _members_of(fd)
    except DamagedTar as exc:
        raise StoreCorrupt(f"{path} is not an archive that can be read: {exc}", path=str(path)) from exc
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
