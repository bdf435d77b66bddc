"""An ostree repository as files, to be looked at and not written to.

Refs are files that hold a commit's id, commits are files named by the SHA-256 of what is in them, in every
mode a repository may have. Both are read here directly: a repository with containers in it has thousands of
refs, and a process for each would take minutes. Nothing is locked, since a ref and a commit are replaced by
rename, whole. https://ostreedev.github.io/ostree/repo/
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final, Self

from ...disk.files import close, disk_error
from ...errors import DocumentError, NotFound, StoreCorrupt
from .gvariant import commit_strings

MAX_COMMIT: Final = 32 << 20  # the manifest and the config of an image, twice what registries take
MAX_REFS: Final = 100_000
REFS: Final = "refs/heads"

_COMMIT = re.compile(rb"([0-9a-f]{64})\s*")
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_HINT = "give the directory of the repository; where bootc runs it is /sysroot/ostree/repo"


class OSTreeRepo:
    """The repository in ``path``. Every method blocks.

    ``warnings``: what could not be made sense of, one line each.
    """

    def __init__(self, path: Path) -> None:
        """Use ``open``."""
        self.path = path
        self.warnings: list[str] = []

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises NotFound, StoreCorrupt (something else is there), LocalError."""
        try:
            os.stat(path)
        except FileNotFoundError as exc:
            raise NotFound(f"there is no {path}; {_HINT}") from exc
        except OSError as exc:
            raise disk_error(exc, "looking at the ostree repository", path) from exc
        if not (os.path.isfile(path / "config") and all(map(os.path.isdir, (path / "objects", path / REFS)))):
            raise StoreCorrupt(f"{path} is not an ostree repository; {_HINT}", path=str(path))
        return cls(path)

    def refs(self, *prefixes: str) -> dict[str, str]:
        """The refs below ``prefixes`` and the commits they name. Raises LocalError.

        A ref that names none is left out, with a warning.
        """
        found: dict[str, str] = {}
        bad: list[str] = []
        todo = [prefix for prefix in reversed(prefixes) if os.path.isdir(self._ref_path(prefix))]
        try:
            while todo:
                prefix = todo.pop()
                with os.scandir(self._ref_path(prefix)) as entries:
                    for entry in entries:
                        ref = f"{prefix}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(ref)
                        elif commit := self._commit_of(entry.path):
                            found[ref] = commit
                        else:
                            bad.append(ref)
                if len(found) > MAX_REFS:
                    raise StoreCorrupt(f"{self.path} has more than {MAX_REFS} refs", path=str(self.path))
        except OSError as exc:
            raise disk_error(exc, "reading the refs of", self.path) from exc
        if bad:
            self.warnings.append(
                f"{self.path}: {len(bad)} refs name no commit; the first is {min(bad)!r:.300}"
            )
        return found

    def commit_of(self, ref: str) -> str | None:
        """What ``ref`` names now. Raises LocalError."""
        try:
            return self._commit_of(self._ref_path(ref))
        except OSError as exc:
            raise disk_error(exc, "reading the ref", self._ref_path(ref)) from exc

    def is_file(self, ref: str, inode: int, mtime_ns: int, commit: str) -> bool:
        """Whether ``ref`` still is that file, and names that commit. Raises LocalError."""
        try:
            found = os.stat(self._ref_path(ref), follow_symlinks=False)
        except OSError:
            return False
        there = found.st_ino, found.st_mtime_ns
        return there == (inode, mtime_ns) and self.commit_of(ref) == commit

    def metadata(self, commit: str) -> dict[str, str]:
        """The strings of a commit's metadata, after hashing it.

        Raises DocumentError: it is not there, not whole, or was only partly fetched. That the files it names
        are there is for ``ostree fsck`` to say.
        """
        if os.path.lexists(self.path / "state" / f"{commit}.commitpartial"):
            raise DocumentError(f"commit {commit} is only partly there")
        path = self.path / "objects" / commit[:2] / f"{commit[2:]}.commit"
        try:
            raw = _read(path, MAX_COMMIT)
        except OSError as exc:
            raise DocumentError(f"commit {commit}: {exc.strerror}") from exc
        if raw is None or hashlib.sha256(raw).hexdigest() != commit:
            raise DocumentError(f"commit {commit} of {self.path} is damaged").with_hint("ostree-fsck")
        return commit_strings(raw)

    def _ref_path(self, ref: str) -> str:
        return f"{self.path}/{REFS}/{ref}"

    def _commit_of(self, path: str) -> str | None:
        try:
            raw = _read(path, 256)
        except OSError as exc:
            if exc.errno in _NOTHING_THERE:
                return None
            raise
        match = _COMMIT.fullmatch(raw) if raw else None
        return match[1].decode() if match else None


def _read(path: Path | str, limit: int) -> bytes | None:
    """A regular file, unless it is larger than ``limit``. Raises OSError."""
    fd = os.open(path, _READ)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            return None
        parts = []
        while part := os.read(fd, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        close(fd)
