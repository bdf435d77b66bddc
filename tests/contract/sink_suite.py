"""What every sink for one blob must do, whoever makes it. A test class inherits it and says how."""

from __future__ import annotations

import abc
import errno
import os
import stat
from pathlib import Path

import pytest

from layertee.disk.part import BlobWriter
from layertee.errors import LocalError, NoSpace, SizeMismatch
from layertee.image.document import Digest
from tests.support.disk import Disk
from tests.support.store import fill, visible_blobs

DATA = b"the bytes of one layer, as they came\n" * 300
DIGEST = Digest.of(DATA)


class SinkSuite(abc.ABC):
    """``root`` is a directory with ``blobs/sha256``; ``parts`` lists what is unfinished in it."""

    @abc.abstractmethod
    def open(self, root: Path) -> BlobWriter:
        """A writer for one blob; called again only once the last one has ended."""

    @abc.abstractmethod
    def parts(self, root: Path) -> list[str]:
        """The names of unfinished files."""

    mode: int | None = 0o400

    def test_a_committed_blob_is_there_byte_for_byte(self, root: Path) -> None:
        sink = fill(self.open(root), DATA)
        path = sink.commit(DIGEST, len(DATA))
        assert path == root / "blobs" / "sha256" / DIGEST.hex
        assert path.read_bytes() == DATA
        assert self.parts(root) == []

    def test_an_empty_blob_can_be_committed(self, root: Path) -> None:
        assert self.open(root).commit(Digest.of(b""), 0).read_bytes() == b""

    def test_nothing_is_visible_before_the_commit(self, root: Path) -> None:
        writer = fill(self.open(root), DATA)
        assert visible_blobs(root) == {}
        assert len(self.parts(root)) == 1
        writer.abort()

    def test_an_unfinished_blob_is_readable_by_its_owner_only_unless_the_store_is_public(
        self, root: Path
    ) -> None:
        writer = self.open(root)
        mode = stat.S_IMODE(os.fstat(writer.fileno()).st_mode)
        assert mode == (0o600 if self.mode is not None else 0o666 & ~_umask())
        writer.abort()

    def test_a_committed_blob_has_its_mode(self, root: Path) -> None:
        path = fill(self.open(root), DATA).commit(DIGEST, len(DATA))
        expected = self.mode if self.mode is not None else 0o666 & ~_umask()
        assert stat.S_IMODE(path.stat().st_mode) == expected

    def test_an_aborted_blob_leaves_nothing(self, root: Path) -> None:
        writer = fill(self.open(root), DATA)
        writer.abort()
        writer.abort()
        assert visible_blobs(root) == {}
        assert self.parts(root) == []

    def test_leaving_the_block_without_a_commit_aborts(self, root: Path) -> None:
        with self.open(root) as writer:
            fill(writer, DATA)
        assert self.parts(root) == []
        assert visible_blobs(root) == {}

    @pytest.mark.parametrize("wrong", [len(DATA) - 1, len(DATA) + 1, 0])
    def test_another_size_than_written_is_refused(self, root: Path, wrong: int) -> None:
        with pytest.raises(SizeMismatch) as caught:
            fill(self.open(root), DATA).commit(DIGEST, wrong)
        assert (caught.value.want, caught.value.got) == (wrong, len(DATA))
        assert visible_blobs(root) == {}
        assert self.parts(root) == []

    def test_an_ended_writer_refuses_everything_but_abort(self, root: Path) -> None:
        writer = fill(self.open(root), DATA)
        writer.commit(DIGEST, len(DATA))
        with pytest.raises(RuntimeError):
            writer.fileno()
        with pytest.raises(RuntimeError):
            writer.commit(DIGEST, len(DATA))
        writer.abort()
        assert list(visible_blobs(root)) == [DIGEST]

    def test_a_digest_of_another_algorithm_is_misuse(self, root: Path) -> None:
        with self.open(root) as writer, pytest.raises(ValueError, match="does not belong"):
            writer.commit(Digest("sha512:" + "0" * 128), 0)

    def test_whoever_comes_second_succeeds_and_the_first_file_stays(self, root: Path) -> None:
        path = fill(self.open(root), DATA).commit(DIGEST, len(DATA))
        inode = path.stat().st_ino
        assert fill(self.open(root), DATA).commit(DIGEST, len(DATA)) == path
        assert path.stat().st_ino == inode
        assert self.parts(root) == []

    def test_a_file_that_cannot_be_what_its_name_says_gives_way(self, root: Path) -> None:
        lie = root / "blobs" / "sha256" / DIGEST.hex
        lie.write_bytes(b"")
        fill(self.open(root), DATA).commit(DIGEST, len(DATA))
        assert lie.read_bytes() == DATA

    def test_a_symlink_under_the_name_gives_way_and_its_target_is_not_touched(self, root: Path) -> None:
        outside = root.parent / "outside"
        outside.write_bytes(b"x" * len(DATA))
        (root / "blobs" / "sha256" / DIGEST.hex).symlink_to(outside)
        path = fill(self.open(root), DATA).commit(DIGEST, len(DATA))
        assert not path.is_symlink()
        assert path.read_bytes() == DATA
        assert outside.read_bytes() == b"x" * len(DATA)

    def test_the_descriptor_is_not_inherited_by_programs(self, root: Path) -> None:
        with self.open(root) as writer:
            assert not os.get_inheritable(writer.fileno())

    def test_no_descriptor_is_left_open(self, root: Path) -> None:
        before = set(os.listdir("/proc/self/fd"))
        fill(self.open(root), DATA).commit(DIGEST, len(DATA))
        self.open(root).abort()
        assert set(os.listdir("/proc/self/fd")) == before

    def test_data_is_synced_before_it_has_a_name_and_the_name_before_it_is_reported(self, root: Path) -> None:
        disk = Disk()
        writer = fill(self.open(root), DATA)
        with disk.watched():
            writer.commit(DIGEST, len(DATA))
        names = [name for name in disk.names() if name in ("fdatasync", "link", "rename", "fsync")]
        assert names[0] == "fdatasync"
        assert names[-1] == "fsync"
        assert set(names[1:-1]) <= {"link", "rename"}

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
    @pytest.mark.parametrize("for_good", [False, True])
    def test_whichever_call_fails_the_blob_is_whole_or_absent(
        self, root: Path, code: int, for_good: bool
    ) -> None:
        disk = Disk()
        n = 0
        while True:
            n += 1
            writer = fill(self.open(root), DATA)
            fds = len(os.listdir("/proc/self/fd"))
            outcome: Exception | None = None
            with disk.watched(n, code, for_good=for_good):
                try:
                    writer.commit(DIGEST, len(DATA))
                except LocalError as exc:
                    outcome = exc
            assert len(os.listdir("/proc/self/fd")) < fds, "a descriptor leaked"
            for path in visible_blobs(root).values():
                assert path.read_bytes() == DATA
                path.unlink()
            if outcome is not None:
                assert isinstance(outcome, NoSpace) == (code in (errno.ENOSPC, errno.EDQUOT))
                assert DIGEST.hex in str(outcome)
            for part in self.parts(root):  # only a disk that fails for good keeps one
                assert for_good or disk.calls[n - 1][0] == "unlink"
                next(root.rglob(part)).unlink()
            if not disk.tripped:
                assert outcome is None
                break
        assert n > 5

    def test_a_failed_sync_is_not_asked_again(self, root: Path) -> None:
        disk = Disk()
        writer = fill(self.open(root), DATA)
        with disk.watched():
            writer.commit(DIGEST, len(DATA))
        n = disk.names().index("fdatasync") + 1
        next(iter(visible_blobs(root).values())).unlink()
        writer = fill(self.open(root), DATA)
        with disk.watched(n), pytest.raises(LocalError):
            writer.commit(DIGEST, len(DATA))
        assert disk.names().count("fdatasync") == 1
        assert visible_blobs(root) == {}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
