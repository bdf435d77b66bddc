"""Refs of an ostree repository are made, and taken away again, under the repository's lock.

``ostree refs --create`` takes no lock and lets the last writer win, as suits a person. A program that must
not touch the refs of others needs more. So here a ref is a file without a name until it is whole and synced;
then it gets its name by link, which fails where there is one.

The lock is libostree's own: ``.lock``, an open file description lock. Making refs shares it, as every
transaction does, and keeps ``ostree prune`` from removing the commits meanwhile. Taking refs away has it
alone, so no transaction is putting another ref in the place of one that is about to go.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ...disk.files import close, disk_error, make_directory, open_directory
from ...disk.locks import HeldLock, Lock, lock, try_lock_description, wait_for
from ...errors import LocalError
from .names import LAYERS, escape
from .record import PLACE, PreparedRef, read_record, write_record
from .repo import REFS, OSTreeRepo

if TYPE_CHECKING:
    from ...image.document import Digest
    from .place import LayerCommit

LOCK_WAIT_S: Final = 30.0
BATCH: Final = 64  # refs made at once, each with a descriptor

_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
_MODE = 0o644  # libostree's


class RefWriter:
    """The refs of ``repo``'s layers, locked: a context manager. To take refs away it must be EXCLUSIVE.

    ``record`` are the refs that we made and that are still there. Entering raises StoreBusy after
    ``timeout`` seconds, StoreCorrupt (the record) and LocalError, which says what to do.
    """

    def __init__(self, repo: OSTreeRepo, how: Lock = Lock.SHARED, *, timeout: float = LOCK_WAIT_S) -> None:
        self._repo = repo
        self._how = how
        self._timeout = timeout
        self._held = ExitStack()
        self._dir = -1
        self.record: tuple[PreparedRef, ...] = ()

    def __enter__(self) -> Self:
        root = self._repo.path
        refuse_unwritable(root)
        with ExitStack() as held:
            make_directory(root / PLACE, 0o755)
            held.enter_context(lock(root / PLACE / "lock", timeout=self._timeout))
            held.enter_context(lock_repository(root, self._how, timeout=self._timeout))
            make_directory(root / REFS / LAYERS, 0o755)
            self._dir = open_directory(root / REFS / LAYERS)
            held.callback(close, self._dir)
            self.record = own_refs(self._repo, read_record(root))
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def create(self, wanted: Mapping[Digest, LayerCommit], image: str, manifest: Digest) -> set[Digest]:
        """Make a ref for each blob; those that were made. A name that is taken stays as it is.

        A crash leaves some of the refs, each whole, and a record of them. Raises LocalError, NoSpace.
        """
        made: set[Digest] = set()
        todo = iter(wanted.items())
        while batch := list(itertools.islice(todo, BATCH)):
            with self._staged(batch, image, manifest) as rows:
                before = self.record
                self._save((*before, *rows.values()))
                linked = [row for fd, row in rows.items() if self._link(fd, row.digest)]
                self._sync()
                made.update(row.digest for row in linked)
                if len(linked) < len(rows):
                    self._save((*before, *linked))
        return made

    def remove(self, rows: Collection[PreparedRef]) -> None:
        """Take away ``rows`` of ``record``, and forget them.

        A crash leaves a record of refs that are gone, which is harmless. Raises LocalError.
        """
        for row in rows:
            try:
                os.unlink(escape(row.digest), dir_fd=self._dir)
            except OSError as exc:
                raise disk_error(exc, "removing the ref of", row.digest) from exc
        if rows:
            self._sync()
            self._save([row for row in self.record if row not in rows])

    # --- inside ---------------------------------------------------------------

    @contextmanager
    def _staged(
        self, batch: Sequence[tuple[Digest, LayerCommit]], image: str, manifest: Digest
    ) -> Iterator[dict[int, PreparedRef]]:
        """Files without a name, whole and synced, one for each ref; closed in the end."""
        rows: dict[int, PreparedRef] = {}
        with ExitStack() as files:
            for digest, held in batch:
                try:
                    fd = self._nameless(files)
                    os.write(fd, f"{held.commit}\n".encode())
                    os.fchmod(fd, _MODE)
                    os.fdatasync(fd)
                    file = os.fstat(fd)
                except OSError as exc:
                    raise disk_error(exc, "writing the ref of", digest) from exc
                rows[fd] = PreparedRef(
                    digest,
                    held.commit,
                    file.st_ino,
                    file.st_mtime_ns,
                    held.diff_id,
                    held.basis,
                    image,
                    manifest,
                )
            yield rows

    def _nameless(self, files: ExitStack) -> int:
        """A new file that ``files`` closes. Raises OSError."""
        try:
            fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._dir)
        except OSError as exc:
            if exc.errno not in _NO_TMPFILE:
                raise
            # Its name is in tmp/ then, where libostree removes what is left behind.
            path = self._repo.path / "tmp" / f"layertee-{secrets.token_hex(8)}"
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            files.callback(_unlink, path)
        files.callback(close, fd)
        return fd

    def _link(self, fd: int, digest: Digest) -> bool:
        """Give a file its name; False where the name is taken."""
        try:
            os.link(f"/proc/self/fd/{fd}", escape(digest), dst_dir_fd=self._dir, follow_symlinks=True)
        except FileExistsError:
            return False
        except OSError as exc:
            raise disk_error(exc, "making the ref of", digest) from exc
        return True

    def _save(self, rows: Sequence[PreparedRef]) -> None:
        write_record(self._repo.path, rows)
        self.record = tuple(rows)

    def _sync(self) -> None:
        """Make the names durable, and tell whoever watches the repository, as libostree does."""
        try:
            os.fsync(self._dir)
            os.utime(self._repo.path)
        except OSError as exc:
            raise disk_error(exc, "syncing the refs of", self._repo.path) from exc


def own_refs(repo: OSTreeRepo, rows: Iterable[PreparedRef]) -> tuple[PreparedRef, ...]:
    """Those of ``rows`` whose ref still is the file that we made. Raises LocalError."""
    return tuple(row for row in rows if repo.is_file(row.ref, row.inode, row.mtime_ns, row.commit))


def refuse_unwritable(repo: Path) -> None:
    """Raises LocalError where refs cannot be made, with what would help."""
    try:
        read_only = os.statvfs(repo).f_flag & os.ST_RDONLY
    except OSError as exc:
        raise disk_error(exc, "looking at", repo) from exc
    if read_only:
        raise LocalError(f"{repo} is on a filesystem that is mounted read-only", path=str(repo)).with_hint(
            "read-only-repository"
        )
    if not all(os.access(place, os.W_OK | os.X_OK) for place in (repo, repo / REFS)):
        raise LocalError(
            f"no permission to write to {repo}; run as the user that owns it, usually root", path=str(repo)
        )


def lock_repository(repo: Path, how: Lock, *, timeout: float) -> HeldLock:
    """libostree's lock on the repository (``ostree-repo.c``). Raises StoreBusy, LocalError. Blocks."""
    path = repo / ".lock"
    return wait_for(
        lambda: try_lock_description(path, how, mode=0o660),
        path,
        timeout,
        holder="another program (bootc, ostree)",
    )


def _unlink(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)
