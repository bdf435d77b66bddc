"""Bytes reach the disk whole and checked, or they are not there.

One protocol for everything this package writes under a name that means something:

1. a part file with a private name, opened so that no existing file and no symlink is ever written to;
2. the bytes, by whoever holds ``fileno()``;
3. all checks (the caller's hashes; here the size);
4. fdatasync, mode, the final name *without replacing*, fsync of the directory;
5. only then may anyone record that it is there.

A crash between any two steps leaves either nothing under the final name or the whole file. A failed
fsync is final: the kernel marks the pages clean, so asking again would lie (Rebello et al., "Can
Applications Recover from fsync Failures?", USENIX ATC 2020); the part is dropped instead.

A part whose bytes are worth keeping is *retained* instead of dropped, and another process *goes on* with it
(``go_on``): it has the file's lock for as long as the file is open, hashes what is there from the first byte,
and appends. Nothing is known of such a file but its name, which says what it is meant to become.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..errors import LocalError, SizeMismatch
from ..image.document import Digest
from .blob_file import OpenFile
from .files import DIRECTORY_FLAGS, close, disk_error, open_directory, sync_directory

PART_SUFFIX: Final = ".part"

_OLD_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_MODES = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})  # FAT, some FUSE
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})  # NFS without a lock daemon
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})  # FAT, some FUSE


class PartFile:
    """A new file under a private name in ``ingest`` that may be published once in ``final``.

    ``mode`` None leaves the mode to the umask (0666 & ~umask); a number is set exactly, and until
    then the file is 0600. On a filesystem without modes it stays as it is. Both directories must be
    on one filesystem. Raises LocalError, NoSpace.

    ``go_on``: the file may be there already, and then begins with the ``n_kept`` bytes that it has. It is
    locked until it is closed; raises BlockingIOError while another process or task has it. What cannot be a
    part of ours (no plain file, another user's, one with a second name) gives way to a new file.

    ``elsewhere``: a descriptor (``O_PATH`` will do) of the one directory that both are, which is of no store.
    No name of it is looked up then, and room in a store is not what an error advises.
    """

    def __init__(
        self,
        ingest: Path,
        final: Path,
        part: str,
        *,
        mode: int | None = 0o400,
        go_on: bool = False,
        elsewhere: int | None = None,
    ) -> None:
        if not part or "/" in part or part in (".", ".."):
            raise ValueError(f"not a file name: {part!r}")
        self.path = ingest / part
        self._final = final
        self._part = part
        self._mode = mode
        self.n_kept = 0
        self._has_name = True  # what is called so is this file
        self._is_elsewhere = elsewhere is not None
        self._fd = self._final_fd = -1
        self._ingest_fd = open_directory(ingest) if elsewhere is None else _opened_again(elsewhere, ingest)
        try:
            self._final_fd = open_directory(final) if elsewhere is None else os.dup(self._ingest_fd)
            if go_on:
                self._open_or_make()
            else:
                self._make()
        except BlockingIOError:
            self._close()
            raise
        except OSError as exc:
            self._close()
            raise self._error(exc, "creating") from exc
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def fileno(self) -> int:
        """The descriptor to write to. RuntimeError after publish or abort."""
        if self._fd < 0:
            raise RuntimeError(f"{self.path} was already published or aborted")
        return self._fd

    def read_kept(self, view: memoryview, at: int) -> int:
        """Read the file into ``view`` from byte ``at`` on; how many bytes that are. Raises LocalError."""
        try:
            return os.preadv(self.fileno(), [view], at)
        except OSError as exc:
            raise self._error(exc, "reading") from exc

    def to_disk(self) -> None:
        """Wait until what was written is on the disk. Blocks. Raises LocalError, NoSpace: the file is then to
        be dropped.
        """
        try:
            os.fdatasync(self.fileno())
        except OSError as exc:
            raise self._error(exc, "syncing") from exc

    def forget_cached(self) -> None:
        """Have what is read next come from the disk, where there is one: a page that could not be written
        would be right in memory only. Blocks. Raises as ``to_disk``.
        """
        self.to_disk()
        with suppress(OSError):
            os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self) -> OpenFile:
        """This very file for reading: it outlives ``publish`` and ``abort``, and is the caller's.

        Raises LocalError; RuntimeError after publish or abort.
        """
        return OpenFile.of(self.fileno(), self.path)

    def write(self, data: bytes) -> None:
        """Append ``data``. Raises LocalError, NoSpace."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fileno(), view) :]
        except OSError as exc:
            raise self._error(exc, "writing") from exc

    def publish(self, name: str, size: int, *, replace: bool = False, survives_power: bool = True) -> Path:
        """Sync, then give the file its name; it is durable when this returns.

        A file of ``size`` bytes that already has the name stays (somebody else won) unless
        ``replace``; anything else under it cannot be what the name says, and gives way. Whatever
        is raised, the part is gone: SizeMismatch, LocalError, NoSpace. ``survives_power`` False: where
        the directory cannot be synced, the name is as good as given.
        """
        fd = self.fileno()
        try:
            found = os.fstat(fd).st_size
            if found != size:
                message = f"{self.path}: {found} bytes were written, not {size}"
                raise SizeMismatch(message, want=size, got=found)
            os.fdatasync(fd)
            if self._mode is not None:
                self._set_mode(fd, self._mode)
            if replace or not self._link(name, size):
                os.rename(self._part, name, src_dir_fd=self._ingest_fd, dst_dir_fd=self._final_fd)
                self._has_name = False
            with nullcontext() if survives_power else suppress(OSError):
                os.fsync(self._final_fd)
        except OSError as exc:
            raise self._error(exc, "committing", self._final / name) from exc
        finally:
            self.abort()
        return self._final / name

    def retain(self) -> None:
        """Close the part and leave it for another that goes on with it; an empty one goes. Never raises."""
        try:
            is_empty = self._fd < 0 or os.fstat(self._fd).st_size == 0
        except OSError:
            is_empty = True
        if is_empty:
            self.abort()
        self._close()

    def abort(self) -> None:
        """Remove the part, if it is still one. Never raises; may be called again."""
        if self._ingest_fd >= 0 and self._has_name:
            with suppress(OSError):
                os.unlink(self._part, dir_fd=self._ingest_fd)
        self._close()

    def _error(self, exc: OSError, doing: str, path: Path | None = None) -> LocalError:
        return disk_error(exc, doing, path or self.path, elsewhere=self._is_elsewhere)

    def _make(self) -> None:
        mode = 0o600 if self._mode is not None else 0o666
        self._fd = os.open(self._part, _NEW_FILE, mode, dir_fd=self._ingest_fd)

    def _open_or_make(self) -> None:
        """The part as it is, if it can be one of ours, else a new one, with its lock. Raises OSError."""
        while True:
            try:
                self._fd = os.open(self._part, _OLD_FILE, dir_fd=self._ingest_fd)
            except FileNotFoundError:
                with suppress(FileExistsError):  # made by another meanwhile
                    self._make()
            except OSError as exc:
                if exc.errno not in (errno.ELOOP, errno.ENXIO, errno.EACCES):
                    raise
                self._give_way(exc)
            if self._fd < 0:
                continue
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                if exc.errno not in _NO_LOCKS:
                    raise
            found = os.fstat(self._fd)
            if self._is_mine(found):
                self.n_kept = found.st_size
                return
            with suppress(FileNotFoundError):
                there = os.stat(self._part, dir_fd=self._ingest_fd, follow_symlinks=False)
                if os.path.samestat(there, found):
                    os.unlink(self._part, dir_fd=self._ingest_fd)
            close(self._fd)
            self._fd = -1

    def _give_way(self, why: OSError) -> None:
        """What has the part's name cannot be opened: it goes, unless it only has its final mode already."""
        there = os.stat(self._part, dir_fd=self._ingest_fd, follow_symlinks=False)
        is_ours = stat.S_ISREG(there.st_mode) and there.st_uid == os.geteuid()
        if why.errno == errno.EACCES and is_ours and not there.st_mode & stat.S_IWUSR:
            fd = os.open(self._part, _OLD_FILE & ~os.O_RDWR, dir_fd=self._ingest_fd)  # a sandbox has no chmod
            try:
                os.fchmod(fd, 0o600)
            finally:
                close(fd)
            return
        os.unlink(self._part, dir_fd=self._ingest_fd)

    def _is_mine(self, found: os.stat_result) -> bool:
        """A plain file of this user that still has this name, and no other: it was not committed."""
        try:
            there = os.stat(self._part, dir_fd=self._ingest_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_nlink == 1
            and found.st_uid == os.geteuid()
            and os.path.samestat(there, found)
        )

    def _set_mode(self, fd: int, mode: int) -> None:
        """Of our own file this fails only where files have no modes; they are then as it was mounted."""
        try:
            os.fchmod(fd, mode)
        except OSError as exc:
            if exc.errno not in _NO_MODES:
                raise

    def _link(self, name: str, size: int) -> bool:
        """Give the part its name unless that is taken. False: the name must be taken by rename.

        link + unlink is rename without replacing that every local filesystem has, and that a
        system call tracer sees; a crash in between leaves one file under two names, both true.
        """
        try:
            os.link(
                self._part, name, src_dir_fd=self._ingest_fd, dst_dir_fd=self._final_fd, follow_symlinks=False
            )
            return True
        except FileExistsError:
            pass
        except OSError as exc:
            if exc.errno not in _NO_HARD_LINKS:
                raise
        try:
            there = os.stat(name, dir_fd=self._final_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(there.st_mode) and there.st_size == size

    def _close(self) -> None:
        for fd in (self._fd, self._ingest_fd, self._final_fd):
            if fd >= 0:
                close(fd)
        self._fd = self._ingest_fd = self._final_fd = -1


class BlobWriter(PartFile):
    """One blob on its way to ``final``, a directory ``blobs/<algorithm>``.

    ``key`` names the part; it must be unused. Not thread-safe. As a context manager it aborts
    what was not committed.
    """

    def __init__(
        self, ingest: Path, final: Path, key: str, *, mode: int | None = 0o400, go_on: bool = False
    ) -> None:
        super().__init__(ingest, final, key + PART_SUFFIX, mode=mode, go_on=go_on)

    def commit(self, digest: Digest, size: int, *, replace: bool = False) -> Path:
        """Publish the ``size`` bytes written as ``digest``, which the caller computed from them.

        ``replace`` is for a file under that name that nobody has checked. Raises SizeMismatch,
        LocalError, NoSpace; ValueError for a digest of another algorithm than the directory's.
        """
        if digest.algorithm != self._final.name:
            raise ValueError(f"{digest} does not belong in {self._final}")
        return self.publish(digest.hex, size, replace=replace)


def write_document(ingest: Path, final: Path, data: bytes, *, mode: int | None = 0o400) -> Digest:
    """Keep a small blob (manifest, config) in ``final``; return its digest.

    A file with its name is read: the right bytes are made durable and stay, others are replaced.
    Raises LocalError, NoSpace.
    """
    digest = Digest.of(data)
    if _already_there(final, digest.hex, data):
        return digest
    with BlobWriter(ingest, final, _unique(f"document-{digest.hex[:16]}"), mode=mode) as writer:
        writer.write(data)
        writer.commit(digest, len(data), replace=True)
    return digest


def write_file(directory: Path, name: str, data: bytes, *, mode: int | None) -> None:
    """Write ``directory/name``, in the place of what is there, in one step.

    The temporary name is ``.NAME-<unique>.part``, in the same directory. Raises LocalError, NoSpace.
    """
    with PartFile(directory, directory, f".{_unique(name)}{PART_SUFFIX}", mode=mode) as part:
        part.write(data)
        part.publish(name, len(data), replace=True)


def replace_elsewhere(
    directory: int,
    path: Path,
    data: bytes,
    *,
    mode: int,
    part: str | None = None,
    dress: Callable[[int], None] | None = None,
) -> None:
    """Write the file ``path``, which is of no store, in the place of what is there, in one step.

    ``directory``: a descriptor of the one that it is in, by which all is done. ``part``: the temporary name,
    to be used under a lock, so that what a killed process left gives way; else a new one is found.
    ``dress`` gets the descriptor of the new file before that has its name. Raises LocalError, NoSpace.
    """
    if part is not None:
        with suppress(OSError):  # what cannot be removed, cannot be made either
            os.unlink(part, dir_fd=directory)
    unique = part or f".{_unique(path.name)}{PART_SUFFIX}"
    with PartFile(path.parent, path.parent, unique, mode=mode, elsewhere=directory) as file:
        file.write(data)
        if dress is not None:
            dress(file.fileno())
        file.publish(path.name, len(data), replace=True, survives_power=False)


def _opened_again(directory: int, path: Path) -> int:
    """A descriptor of ``directory`` that can be synced, if this user may read it. Raises LocalError."""
    try:
        with suppress(PermissionError):
            return os.open(".", DIRECTORY_FLAGS, dir_fd=directory)
        return os.dup(directory)
    except OSError as exc:
        raise disk_error(exc, "opening the directory", path, elsewhere=True) from exc


def _already_there(final: Path, name: str, data: bytes) -> bool:
    try:
        fd = os.open(final / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # absent, or something that has to give way
    try:
        if os.fstat(fd).st_size != len(data) or os.pread(fd, len(data) + 1, 0) != data:
            return False
        os.fsync(fd)
    except OSError:
        return False  # unreadable: written anew
    finally:
        close(fd)
    sync_directory(final)
    return True


def _unique(stem: str) -> str:
    return f"{stem}-{os.getpid()}-{secrets.token_hex(4)}"
