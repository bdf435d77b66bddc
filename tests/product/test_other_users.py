"""Other users of the machine: what they can change is neither believed nor run, and what they keep is theirs.

The places of these tests belong to a user whom nothing else of the machine belongs to.
"""

from __future__ import annotations

import ctypes
import io
import os
import pwd
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from layertee.cli.exits import EXIT_ERROR, EXIT_OK
from layertee.cli.main import main
from layertee.disk.trusted import others_may_write, refuse_reachable, trusted_users
from layertee.errors import UnsafePath
from layertee.skopeo.find import first_on_path
from layertee.skopeo.shim import install
from layertee.store.store import Store
from tests.support.process import in_child
from tests.support.rig.images import build_image
from tests.support.rig.layers import text_layer

pytestmark = pytest.mark.needs_root("only root can act for another user")

MALLORY = 54321
GROUP = 54322
CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE = 4


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that everybody can look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="layertee-users-") as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def place(room: Path) -> Path:
    """A directory of Mallory's, in a way that is safe as far as that."""
    place = room / "mallory"
    place.mkdir(mode=0o755)
    os.chown(place, MALLORY, MALLORY)
    return place


def import_what_it_takes(*commands: list[str]) -> None:
    """Run ``commands`` once, without a store: Mallory may not be able to read their modules."""
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        for command in commands:
            main([*command, "--store", "/nonexistent/store"])


def as_mallory(act: Callable[[], object]) -> None:
    """Run ``act`` in a child that is Mallory's; it has to succeed."""

    def change_and_act() -> None:
        os.setgroups([])
        os.setgid(MALLORY)
        os.setuid(MALLORY)
        act()

    assert in_child(change_and_act) == 0


def test_a_place_of_another_user_is_refused_by_its_name(place: Path) -> None:
    below = place / "store"
    below.mkdir(mode=0o700)  # root's, but Mallory can rename it
    for path in (place, below):
        with pytest.raises(
            UnsafePath, match=f"{place} belongs to user {MALLORY}, .*chown 0 {place}$"
        ) as caught:
            refuse_reachable(path)
        assert caught.value.path == str(place)
    place.chmod(0o1755)  # the sticky bit binds others than the owner
    with pytest.raises(UnsafePath):
        refuse_reachable(below)


def test_a_symlink_of_another_user_is_refused_where_its_target_would_do(place: Path, room: Path) -> None:
    like_tmp = room / "tmp"
    like_tmp.mkdir()
    like_tmp.chmod(0o1777)
    (like_tmp / "link").symlink_to(room)
    refuse_reachable(like_tmp / "link")
    os.lchown(like_tmp / "link", MALLORY, MALLORY)
    with pytest.raises(UnsafePath, match=f"run: chown -h 0 {like_tmp}/link$"):
        refuse_reachable(like_tmp / "link")


@pytest.mark.parametrize("target", ["oci-archive:{}", "oci:{}", "dir:{}"])
def test_no_image_is_written_where_a_symlink_of_another_user_leads(
    room: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build_image(room / "built", [text_layer({"a": "b"})], ref="r.example/os:1")
    source, store = f"oci:{built.root}:r.example/os:1", ["--store", str(room / "store")]
    assert main(["pull", "-q", *store, source]) == EXIT_OK
    like_tmp, victim = room / "tmp", room / "victim"
    like_tmp.mkdir()
    like_tmp.chmod(0o1777)
    (like_tmp / "link").symlink_to(victim)
    os.lchown(like_tmp / "link", MALLORY, MALLORY)
    to = ["--to", target.format(like_tmp / "link")]
    commands = [["pull", source, *to, *(() if target == "oci:{}" else store)]]
    if target != "dir:{}":
        commands.append(["export", "r.example/os:1", *to, *store])
    for command in commands:
        assert main(command) == EXIT_ERROR
        assert "[UNSAFE_PATH]" in capsys.readouterr().err
    assert not victim.exists() and os.listdir(like_tmp) == ["link"]


def test_no_store_is_opened_where_another_user_can_swap_it(place: Path) -> None:
    with pytest.raises(UnsafePath):
        Store.open(place / "store")
    assert list(place.iterdir()) == []
    os.chown(place, 0, 0)
    with Store.open(place / "store") as store:
        blobs = store.layout.blob_directory()
    os.chown(place, MALLORY, MALLORY)
    as_mallory(lambda: (place / "store").rename(place / "moved"))
    (place / "moved").rename(place / "store")
    with pytest.raises(UnsafePath, match=str(place)):
        Store.open(place / "store")
    os.chown(place, 0, 0)
    os.chown(blobs, MALLORY, MALLORY)
    with pytest.raises(UnsafePath, match=f"{blobs} belongs"):
        Store.open(place / "store")


def test_a_layout_for_others_may_be_in_a_place_of_theirs(place: Path) -> None:
    with Store.open(place / "layout", private=False):
        assert others_may_write(place / "layout")
    own = place / "layout/layertee"
    os.chown(own, MALLORY, MALLORY)
    with pytest.raises(UnsafePath, match=f"{own} belongs"):
        Store.open(place / "layout", private=False)


def test_what_only_root_can_change_is_good_for_everybody() -> None:
    def look() -> None:
        refuse_reachable(Path("/usr/bin"))
        with pytest.raises(UnsafePath, match="belongs to user 0"):
            refuse_reachable(Path("/usr/bin"), own=True)

    as_mallory(look)


@pytest.mark.parametrize("gid", [GROUP, 0])
def test_a_group_may_write_where_nobody_else_is_in_it(place: Path, gid: int) -> None:
    os.chown(place, 0, gid)
    place.chmod(0o775)
    refuse_reachable(place)


def test_a_group_that_other_users_are_in_may_not_write(place: Path) -> None:
    group = next(entry.pw_gid for entry in pwd.getpwall() if entry.pw_uid != 0 and entry.pw_gid != 0)
    os.chown(place, 0, group)
    place.chmod(0o775)
    with pytest.raises(UnsafePath, match=f"others may write to {place}"):
        refuse_reachable(place)


def test_no_shim_is_put_where_another_user_can_replace_it(place: Path, room: Path) -> None:
    with pytest.raises(UnsafePath, match=str(place)):
        install(place / "bin", python=Path(sys.executable), path="/usr/bin")
    real = place / "skopeo"
    real.write_text("#!/bin/sh\nid\n")
    real.chmod(0o755)
    with pytest.raises(UnsafePath, match=str(place)):
        install(room / "bin", python=Path(sys.executable), path=f"{place}:/usr/bin")
    assert not (room / "bin/skopeo").exists()


def test_a_directory_of_path_that_is_closed_to_a_user_has_nothing_for_it(place: Path) -> None:
    program = place / "skopeo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    os.chown(place, 0, 0)
    place.chmod(0o700)

    def look() -> None:
        assert first_on_path(f"{place}:{place.parent}", shims=True) is None

    assert first_on_path(f"{place}:/usr/bin", shims=True) == program
    as_mallory(look)


def test_where_nobody_stands_for_the_machines_root_it_is_trusted(room: Path) -> None:
    """As in ``podman unshare``: user 0 is Mallory, and root is not mapped."""
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("the machine has no user namespaces")
    libc = ctypes.CDLL(None, use_errno=True)
    (room / "open").mkdir()
    (room / "open").chmod(0o777)

    def look() -> None:
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # without it, /proc/self is root's after setuid
        if libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for name, text in (
            ("uid_map", f"0 {MALLORY} 1"),
            ("setgroups", "deny"),
            ("gid_map", f"0 {MALLORY} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
        nobody = os.stat("/").st_uid
        assert (os.geteuid(), nobody != 0) == (0, True)
        assert trusted_users() == {0, nobody}
        refuse_reachable(Path("/usr/bin"))
        with pytest.raises(UnsafePath, match="others may write"):
            refuse_reachable(room / "open")

    as_mallory(look)
    assert os.stat("/").st_uid == 0
    assert trusted_users() == {0}


def test_a_user_without_a_home_hears_what_to_set_where_a_home_is_needed(room: Path) -> None:
    import_what_it_takes(["ls"])

    def look() -> None:
        for name in [name for name in os.environ if name == "HOME" or name.startswith("XDG_")]:
            del os.environ[name]
        said = io.StringIO()
        with redirect_stderr(said):
            assert main(["ls"]) == EXIT_ERROR
            assert "set HOME or XDG_DATA_HOME" in said.getvalue() and "[NO_HOME]" in said.getvalue()
            assert main(["ls", "--store", str(room / "nothing")]) == EXIT_OK

    as_mallory(look)


def test_a_store_behind_a_closed_directory_is_an_error_that_names_it(place: Path) -> None:
    import_what_it_takes(["ls"], ["map"], ["doctor"], ["gc"])
    os.chown(place, 0, 0)
    place.chmod(0o700)
    root = place / "store"

    def look() -> None:
        for command in (["ls"], ["map"], ["doctor"], ["gc"]):
            said = io.StringIO()
            with redirect_stderr(said), redirect_stdout(io.StringIO()):
                assert main([*command, "--store", str(root)]) == EXIT_ERROR
            assert f"looking at {root}: Permission denied" in said.getvalue()

    as_mallory(look)
