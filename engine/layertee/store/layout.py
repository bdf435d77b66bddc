"""An OCI image layout in a directory of this machine, to be read and written.

Other tools read and write the same directory, so: files are opened without following a symlink, and only
plain ones; paths are built from ``Digest`` values only; ``index.json`` is replaced in one step, under a lock
on the directory, with everything kept that is not ours, unknown fields included.

In a layout that is not private, a blob may be a symlink to a plain file: some build tools make them. One that
leads out of the layout is followed if nobody else could have made it, nor change what it leads to
(disk/trusted.py).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..disk.blob_file import FileContent
from ..disk.files import close, disk_error, make_directory, real_path
from ..disk.locks import lock_directory
from ..disk.part import PART_SUFFIX, write_file
from ..disk.trusted import refuse_reachable
from ..errors import NotFound, SourceUnreadable, StoreCorrupt, UnsafePath
from ..image.document import Descriptor, Digest
from . import layout_index
from .layout_index import INDEX, Entry
from .layout_reader import MARKER, VERSION, LayoutReader, blob_name, listed

LOCK_S = 10.0  # an index is rewritten in milliseconds
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Layout(LayoutReader):
    """The layout in the directory ``path``, which may be written to."""

    def __init__(self, path: Path, *, private: bool) -> None:
        """Use ``open`` or ``create``."""
        super().__init__(path)
        self.blob_mode: int | None = 0o400 if private else None
        self._index_mode: int | None = 0o600 if private else None
        self._directory_mode = 0o700 if private else 0o777
        self._follows = not private

    @classmethod
    def open(cls, path: Path, *, private: bool = False) -> Self:
        """The layout that is in ``path``.

        Raises NotFound (nothing there), StoreCorrupt (something else, or damaged), LocalError.
        """
        layout = cls(real_path(path), private=private)
        try:
            found = os.stat(layout.path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} is not there") from None
        except OSError as exc:
            raise disk_error(exc, "looking at", path) from exc
        if not stat.S_ISDIR(found.st_mode):
            raise StoreCorrupt(f"{path} is not a directory", path=str(path))
        layout.check()
        return layout

    @classmethod
    def create(cls, path: Path, *, private: bool) -> Self:
        """The layout in ``path``, made if there is nothing yet.

        ``private``: 0700 and 0600, blobs 0400; else as the umask has it. Raises StoreCorrupt for a
        directory that holds something else, LocalError, NoSpace.
        """
        layout = cls(real_path(path), private=private)
        make_directory(layout.path, layout._directory_mode)
        with lock_directory(layout.path, timeout=LOCK_S):
            layout._complete()
        return cls.open(path, private=private)

    # --- blobs --------------------------------------------------------------

    def blob_directory(self, algorithm: str = "sha256") -> Path:
        """Where the blobs named by ``algorithm`` are."""
        return self.path / "blobs" / algorithm

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob is, if it is here."""
        return self.path / blob_name(digest)

    def blob_size(self, digest: Digest) -> int | None:
        """The size of the plain file under that name, or None. Raises LocalError when nobody can tell."""
        path = self.blob_path(digest)
        try:
            path = self._behind(path)
            found = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, NotFound, SourceUnreadable):
            return None
        except OSError as exc:
            raise disk_error(exc, "looking at", path) from exc
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def content(self, digest: Digest) -> FileContent:
        """How to read a blob; what comes out was not hashed yet. Raises NotFound, SourceUnreadable."""
        return FileContent(self._behind(self.blob_path(digest)))

    def read(self, name: str, limit: int) -> bytes | None:
        """At most ``limit`` + 1 bytes of a plain file, or None.

        Raises LocalError, StoreCorrupt, NotFound and SourceUnreadable (a symlink to nothing, or that is not
        followed).
        """
        path = self.path / name
        return _read(path if path.parent == self.path else self._behind(path), limit)

    def blobs(self) -> Iterator[Digest]:
        """Every blob name that is here, in order. Raises LocalError."""
        top = self.path / "blobs"
        try:
            for algorithm in sorted(os.listdir(top)):
                with suppress(NotADirectoryError):
                    for name in sorted(os.listdir(top / algorithm)):
                        with suppress(ValueError):  # not a blob's name: not ours to touch
                            yield Digest(f"{algorithm}:{name}")
        except OSError as exc:
            raise disk_error(exc, "listing", top) from exc

    # --- images -------------------------------------------------------------

    def set_entry(self, ref: str | None, descriptor: Descriptor) -> None:
        """Name ``descriptor``: ``ref`` now means it. All other entries stay as they are.

        Raises StoreBusy, StoreCorrupt, LocalError, NoSpace.
        """
        if ref is not None and (not ref or not ref.isprintable() or " " in ref):
            raise ValueError(f"not a reference name: {ref!r}")
        self._rewrite(lambda entries: layout_index.with_entry(entries, ref, descriptor))

    def remove_entry(self, ref: str) -> None:
        """Forget the name ``ref``; the blobs stay. Raises NotFound and as ``set_entry``."""
        self.find(ref)
        self._rewrite(lambda entries: layout_index.without_entry(entries, ref))

    def remove_leftovers(self) -> int:
        """Remove temporary files of writers that died; return how many. Raises StoreBusy, LocalError."""
        count = 0
        with lock_directory(self.path, timeout=LOCK_S):
            try:
                for name in os.listdir(self.path):
                    if _is_leftover(name):
                        os.unlink(self.path / name)
                        count += 1
            except OSError as exc:
                raise disk_error(exc, "cleaning up in", self.path) from exc
        return count

    # --- inside ---------------------------------------------------------------

    def _behind(self, path: Path) -> Path:
        """The file that ``path`` is a link to; else ``path``, to be opened as what it is.

        Raises NotFound for a link to nothing, SourceUnreadable for one that is not to be followed.
        """
        if not self._follows or not os.path.islink(path):
            return path
        behind = Path(os.path.realpath(path))
        if not os.path.lexists(behind) or os.path.islink(behind):
            raise NotFound(f"{path} is a symlink to {behind}, which is not there")
        if not behind.is_relative_to(self.path):
            try:
                refuse_reachable(path)
            except UnsafePath as exc:
                raise SourceUnreadable(
                    f"{path} is a symlink out of the layout, which is followed only where nobody else could"
                    f" have made it: {exc}"
                ) from exc
        return behind

    def _rewrite(self, change: Callable[[list[Entry]], list[Entry]]) -> None:
        with lock_directory(self.path, timeout=LOCK_S):
            path = self.path / INDEX
            new = layout_index.changed(str(path), self.read_index(), change)
            try:
                mode = stat.S_IMODE(os.stat(path).st_mode)
            except OSError as exc:
                raise disk_error(exc, "looking at", path) from exc
            write_file(self.path, INDEX, new, mode=mode)

    def _complete(self) -> None:
        """Make what a layout must have. The marker comes first: it tells our beginning from other things."""
        try:
            names = set(os.listdir(self.path))
        except OSError as exc:
            raise disk_error(exc, "listing", self.path) from exc
        if MARKER not in names:
            others = sorted(name for name in names if name != "lost+found" and not _is_leftover(name))
            if others:
                message = f"{self.path} is neither empty nor an OCI image layout (it holds {listed(others)})"
                raise StoreCorrupt(f"{message}; name another directory", path=str(self.path))
            content = json.dumps({"imageLayoutVersion": VERSION}).encode()
            write_file(self.path, MARKER, content, mode=self._index_mode)
        make_directory(self.path / "blobs", self._directory_mode)
        make_directory(self.blob_directory(), self._directory_mode)
        if INDEX not in names:
            if next(self.blobs(), None) is not None:
                message = f"{self.path / INDEX} is missing, though there are blobs; restore it"
                raise StoreCorrupt(message, path=str(self.path))
            write_file(self.path, INDEX, layout_index.EMPTY, mode=self._index_mode)


def is_unfinished(path: Path) -> bool:
    """Whether nothing was ever put into the directory ``path``, of which ``create`` would make a layout.

    It is empty, or has what ``create`` makes before the index: a machine lost its power then, say. Raises
    LocalError.
    """
    try:
        names = {name for name in os.listdir(path) if name != "lost+found" and not _is_leftover(name)}
        if not names <= {MARKER, "blobs"}:
            return False
        blobs = path / "blobs"
        return "blobs" not in names or all(not os.listdir(blobs / name) for name in os.listdir(blobs))
    except NotADirectoryError:
        return False
    except OSError as exc:
        raise disk_error(exc, "listing", path) from exc


def _read(path: Path, limit: int) -> bytes | None:
    """At most ``limit`` + 1 bytes of a plain file; None if there is none. Raises LocalError, StoreCorrupt."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise disk_error(exc, "opening", path) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreCorrupt(f"{path} is not a plain file", path=str(path))
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    finally:
        close(fd)


def _is_leftover(name: str) -> bool:
    return name.startswith((f".{MARKER}-", f".{INDEX}-")) and name.endswith(PART_SUFFIX)
