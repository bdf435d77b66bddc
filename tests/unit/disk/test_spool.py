"""Files without a name, for what can be read only once."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from layertee.disk.space import KeepFree
from layertee.disk.spool import spool, spool_directory
from layertee.errors import LocalError, NoSpace

MIB = 1 << 20
NOTHING = KeepFree(0)


def test_what_was_written_can_be_read_any_number_of_times(tmp_path: Path) -> None:
    file = spool([b"one", memoryview(b"two"), b"", b"three"], "it", keep_free=NOTHING, directory=tmp_path)
    assert os.listdir(tmp_path) == []
    assert file.size == 11
    for _ in range(2):
        fd = file.descriptor()
        assert os.read(fd, 100) == b"onetwothree"
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
        os.close(fd)
    file.close()


def test_a_filesystem_without_nameless_files_gets_one_that_is_unlinked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuses(path: str, flags: int, *args: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuses)
    file = spool([b"one"], "it", keep_free=NOTHING, directory=tmp_path)
    assert (file.size, os.listdir(tmp_path)) == (3, [])
    file.close()


def test_more_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(LocalError, match="the tar is more than 10 B"):
        spool([b"12345", b"123456"], "the tar", limit=10, keep_free=NOTHING, directory=tmp_path)
    assert (os.listdir(tmp_path), set(os.listdir("/proc/self/fd"))) == ([], before)


def test_what_has_to_stay_free_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 100 * MIB // 4096
    free = [100 * MIB]

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            free[0] -= MIB
            yield bytes(MIB)

    disk = lambda _: SimpleNamespace(f_bavail=free[0] // 4096, f_frsize=4096, f_blocks=total)  # noqa: E731
    monkeypatch.setattr(os, "statvfs", disk)
    with pytest.raises(NoSpace, match=f"the tar takes more room than there is in {tmp_path}") as caught:
        spool(pieces(), "the tar", keep_free=KeepFree.parse("60%"), directory=tmp_path)
    assert caught.value.hint == "temporary-files"
    assert 30 * MIB < caught.value.need <= 41 * MIB
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_with_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace, match=f"temporary file in {tmp_path}") as caught:
        spool([b"one"], "it", keep_free=NOTHING, directory=tmp_path)
    assert caught.value.hint == "temporary-files"


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=f"a temporary file in {tmp_path}/none"):
        spool([b"one"], "it", keep_free=NOTHING, directory=tmp_path / "none")


def test_the_directory_is_the_user_s_or_one_on_a_disk() -> None:
    assert spool_directory({"TMPDIR": "/mine"}) == Path("/mine")
    assert spool_directory({}) == spool_directory({"TMPDIR": ""}) == Path("/var/tmp")
