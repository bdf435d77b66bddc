"""A layer of containers-storage, put together again as the tar it was unpacked from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...config.storage import TREES
from ...core.split import FILE, MORE, Splitter
from ...disk.files import close
from ...disk.tree import Tree
from ...errors import SourceUnreadable
from ...record import dataclass
from .tarsplit import Payload, TarSplit


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """Where a layer is: in the store ``root`` of ``driver`` (a key of ``TREES``), under ``layer_id``.

    ``size`` is that of its tar, in bytes.
    """

    root: Path
    driver: str
    layer_id: str
    size: int

    @property
    def records(self) -> Path:
        """The directory with the tar-split files of all layers. Like ``root`` it is the administrator's."""
        return self.root / f"{self.driver}-layers"

    @property
    def tarsplit_name(self) -> str:
        """The tar-split file, beneath ``records``."""
        return f"{self.layer_id}.tar-split.gz"

    def tree(self) -> Tree:
        """The directory with the layer's files. Raises SourceUnreadable.

        The driver's own directory may be a symlink to another disk; what is beneath it is not trusted.
        """
        top, _, rest = TREES[self.driver].partition("/{}")
        with _hinted(), Tree.open(self.root / top) as driver:
            return driver.sub(f"{self.layer_id}{rest}")

    @property
    def path(self) -> None:
        """The tar is no file of its own."""
        return None

    def check(self) -> None:
        """Raise SourceUnreadable unless both are there."""
        with Tree.open(self.records) as records:
            records.size(os.fsencode(self.tarsplit_name))
        self.tree().close()

    def open(self) -> LayerReader:
        """Begin to read. Raises SourceUnreadable."""
        return LayerReader(self)


@contextmanager
def _hinted() -> Iterator[None]:
    """What belongs to another user of the containers can be read in podman's user namespace."""
    try:
        yield
    except SourceUnreadable as exc:
        if isinstance(exc.__cause__, PermissionError):
            exc.with_hint("podman-unshare")
        raise


class LayerReader:
    """The tar of ``files``, from the layer's own tree. A BlobReader.

    Drivers can show more than that tree, as a mounted layer has its parents' files, too. But a file
    with bytes in the tar was written from those bytes, into this tree. What is not there, or has
    another size, is not the layer any more: SourceUnreadable, in the middle if need be. What has
    changed without changing its size is for the reader's hash to find.

    The C core does nearly all of it, where there is one. What it leaves is done as without it.
    """

    def __init__(self, files: LayerFiles) -> None:
        with Tree.open(files.records) as records:
            fd, _ = records.file(os.fsencode(files.tarsplit_name))
        try:
            self._tree = files.tree()
        except SourceUnreadable:
            close(fd)
            raise
        self._shown = f"{files.records}/{files.tarsplit_name}"
        self._file = os.fdopen(fd, "rb")
        self._split = TarSplit(self._file, self._shown, files.size)
        self._quick = Splitter(self._tree.fileno()) if Splitter.is_there() else None
        # What is next: bytes of the tar, or ``left`` bytes of a file.
        self._segment = memoryview(b"")
        self._name = b""
        self._fd = -1  # of the file, once it is read from
        self._at = 0
        self._left = 0

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` as far as the tar goes; less than all of it only at the end, then 0.

        Blocks. Raises SourceUnreadable.
        """
        return self._move(view, len(view))

    def skip(self, nbytes: int) -> None:
        """Go on ``nbytes`` bytes further; files that are passed over are not opened.

        Blocks. Raises SourceUnreadable, also where the tar ends before.
        """
        if (n := self._move(None, nbytes)) != nbytes:
            raise SourceUnreadable(f"{self._shown}: ends {nbytes - n} bytes too early")

    def close(self) -> None:
        """Close what is open; harmless when repeated."""
        if self._quick is not None:
            self._quick.close()
            self._quick = None
        self._split.close()
        self._close_file()
        self._file.close()
        self._tree.close()

    def _move(self, view: memoryview | None, nbytes: int) -> int:
        """Go on as many bytes of the tar, and put them into ``view``, if there is one; how many they were."""
        done = 0
        while done < nbytes:
            room = view[done:] if view is not None else None
            left = nbytes - done
            if self._left:
                done += self._of_file(room, min(left, self._left))
            elif self._segment:
                n = min(left, len(self._segment))
                if room is not None:
                    room[:n] = self._segment[:n]
                self._segment = self._segment[n:]
                done += n
            elif self._quick is not None and (n := self._quickly(self._quick, room, left)):
                done += n
            elif not self._left and not self._advance():
                break
        return done

    def _quickly(self, quick: Splitter, room: memoryview | None, nbytes: int) -> int:
        """The same as far as the core does it. 0: the next entry is the caller's to take, or already is."""
        split, done = self._split, 0
        while True:
            into = room[done:] if room is not None else None
            moved = quick.read(split.text, split.at, into, nbytes - done, split.bounds)
            split.at += moved.n_in
            done += moved.n_out
            if moved.status == FILE:
                self._name, self._at, self._left = quick.give_up_file()
            if moved.status != MORE or done == nbytes or not split.more():
                return done

    def _advance(self) -> bool:
        """Go to the next segment or file; False at the end."""
        entry = self._split.take()
        if entry is None:
            return False
        if isinstance(entry, Payload):
            self._name, self._at, self._left = entry.name, 0, entry.size
        else:
            self._segment = memoryview(entry)
        return True

    def _of_file(self, room: memoryview | None, nbytes: int) -> int:
        """Some of the file's next ``nbytes`` bytes, at least one."""
        n = nbytes if room is None else self._read(room[:nbytes])
        self._at += n
        self._left -= n
        if not self._left:
            self._close_file()
        return n

    def _open_file(self) -> None:
        with _hinted():
            self._fd, size = self._tree.file(self._name)
        if size != self._at + self._left:
            wanted = self._at + self._left
            raise SourceUnreadable(f"{self._named()}: has {size} bytes, the layer {wanted}")

    def _read(self, view: memoryview) -> int:
        if self._fd < 0:
            self._open_file()
        try:
            n = os.preadv(self._fd, [view], self._at)
        except OSError as exc:
            raise SourceUnreadable(f"{self._named()}: {exc.strerror}") from exc
        if n == 0:
            raise SourceUnreadable(f"{self._named()}: was cut short while it was read")
        return n

    def _close_file(self) -> None:
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1

    def _named(self) -> str:
        return f"{self._shown}: {os.fsdecode(self._name)!r:.200}"
