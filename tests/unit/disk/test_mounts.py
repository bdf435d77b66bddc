"""Filesystems without modes: which they are, what is said of them, and that files can be kept there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layertee.disk.mounts import Mount, mount_of
from layertee.disk.part import PartFile
from layertee.disk.trusted import others_may_write, refuse_foreign, refuse_reachable
from layertee.errors import LocalError, UnsafePath
from layertee.store.store import Store

LINES = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 shared:7 - exfat /dev/sdb1 rw,uid=0,errors=remount-ro
40 35 0:55 / /srv/share rw - cifs //host/share rw,file_mode=0777
nonsense
41 35 8:1 / / rw - ext4 /dev/sda1 rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(LINES)
    return path


def test_a_mount_is_found_by_the_device_of_its_files(mountinfo: Path) -> None:
    assert mount_of(os.makedev(98, 0), mountinfo) == Mount("/mnt/a b", "exfat")
    assert mount_of(os.makedev(0, 55), mountinfo) == Mount("/srv/share", "cifs")
    assert mount_of(os.makedev(8, 1), mountinfo) == Mount("/", "ext4")
    assert mount_of(os.makedev(8, 2), mountinfo) is None
    assert mount_of(os.makedev(8, 1), mountinfo.with_name("none")) is None


def test_the_machine_s_own_table_is_read() -> None:
    found = mount_of(os.stat("/proc").st_dev)
    assert found is not None
    assert (found.kind, found.has_modes) == ("proc", True)


def test_what_to_mount_with_depends_on_the_kind() -> None:
    for kind in ("vfat", "msdos", "exfat", "ntfs3", "fuseblk"):
        assert not Mount("/mnt", kind).has_modes
        assert Mount("/mnt", kind).options_for(1000) == "uid=1000,umask=022"
    for kind in ("cifs", "smb3"):
        assert not Mount("/mnt", kind).has_modes
        assert Mount("/mnt", kind).options_for(0) == "uid=0,file_mode=0644,dir_mode=0755"
    for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "nfs4", "virtiofs"):
        assert Mount("/mnt", kind).has_modes


def as_if_mounted(tmp_path: Path, kind: str) -> Path:
    """A table in which the filesystem of ``tmp_path`` is of that kind."""
    device = tmp_path.stat().st_dev
    path = tmp_path / "mountinfo"
    path.write_text(f"1 0 {os.major(device)}:{os.minor(device)} / /mnt/stick rw - {kind} /dev/sdb1 rw\n")
    return path


def test_where_chmod_changes_nothing_the_mount_is_named(tmp_path: Path) -> None:
    table = as_if_mounted(tmp_path, "exfat")
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    me = os.geteuid()
    says = f"(exfat on /mnt/stick): mount it with -o uid={me},umask=022"
    for refuse in (refuse_reachable, refuse_foreign):
        with pytest.raises(UnsafePath) as caught:
            refuse(place, mountinfo=table)
        assert str(caught.value).startswith(f"others may write to {place}, and so replace")
        assert says in str(caught.value)
        assert "run:" not in str(caught.value)
        with pytest.raises(UnsafePath, match=f"run: chmod go-w {place}"):
            refuse(place, mountinfo=as_if_mounted(tmp_path, "ext4"))
        table = as_if_mounted(tmp_path, "exfat")


@pytest.mark.needs_root("gives a directory to another user")
def test_where_chown_changes_nothing_the_mount_is_named(tmp_path: Path) -> None:
    table = as_if_mounted(tmp_path, "cifs")
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, 1234, 0)
    with pytest.raises(UnsafePath) as caught:
        refuse_reachable(place, mountinfo=table)
    assert "belongs to user 1234" in str(caught.value)
    assert "-o uid=0,file_mode=0644,dir_mode=0755" in str(caught.value)
    assert "run:" not in str(caught.value)


def test_a_mount_that_is_this_user_s_is_as_good_as_any(tmp_path: Path) -> None:
    """The modes that such a mount shows are judged, and not its kind."""
    refuse_reachable(tmp_path, mountinfo=as_if_mounted(tmp_path, "vfat"))
    assert not others_may_write(tmp_path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_files_are_kept_where_modes_and_links_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """FAT knows neither: chmod to what the mount does not give, and link, are refused there."""

    def refused(*args: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fchmod", refused)
    monkeypatch.setattr(os, "link", refused)
    with PartFile(tmp_path, tmp_path, "a.part", mode=0o400) as part:
        part.write(b"content")
        assert part.publish("a", 7).read_bytes() == b"content"
    for private in (True, False):
        with Store.open(tmp_path / f"store{private}", private=private) as store:
            assert store.images.all() == []
            assert store.catalog_error is None


def test_a_mode_that_cannot_be_set_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fchmod", fails)
    with (
        pytest.raises(LocalError, match="Input/output error"),
        PartFile(tmp_path, tmp_path, "a.part") as part,
    ):
        part.publish("a", 0)
    assert [path.name for path in tmp_path.iterdir()] == []
