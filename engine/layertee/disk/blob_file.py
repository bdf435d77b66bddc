"""A blob that is a file of its own, as the content of a holding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceUnreadable
from .files import close, open_regular


@dataclass(frozen=True, slots=True)
class FileContent:
    """The bytes of the plain file ``path``."""

    path: Path

    def open(self) -> FileReader:
        """Raises SourceUnreadable."""
        return FileReader(self.path)


class FileReader:
    """Reads a plain file from its first byte. A BlobReader."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pos = 0
        self._fd = open_regular(path)
        try:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except OSError:
            pass  # advice only
        except BaseException:
            self.close()
            raise

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; less than all of it only at the end of the file, then 0. Blocks."""
        done = 0
        while done < len(view):
            try:
                n = os.preadv(self._fd, [view[done:]], self._pos)
            except OSError as exc:
                raise SourceUnreadable(f"{self._path}: {exc.strerror}") from exc
            if n == 0:
                break
            done += n
            self._pos += n
        return done

    def close(self) -> None:
        """Harmless when repeated."""
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1
