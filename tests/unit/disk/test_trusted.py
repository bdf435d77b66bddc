"""Who else could change what a path leads to. What takes another user to show is in tests/product."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from layertee.disk.trusted import others_may_write, refuse_foreign, refuse_reachable, trusted_users
from layertee.errors import LocalError, UnsafePath

_ACL = "system.posix_acl_access"


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A way of three directories, safe for now."""
    room = tmp_path / "a" / "b" / "c"
    room.mkdir(parents=True)
    for path in (room, *room.parents[:2]):
        path.chmod(0o755)
    return room


def refused(path: Path) -> Path:
    """The step because of which ``path`` is refused."""
    with pytest.raises(UnsafePath) as caught:
        refuse_reachable(path)
    assert caught.value.code == "UNSAFE_PATH"
    return Path(caught.value.path)


def test_a_way_that_nobody_else_can_change_is_fine(room: Path) -> None:
    refuse_reachable(room)
    refuse_reachable(room, own=True)
    assert not others_may_write(room)


@pytest.mark.parametrize("n_above", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o722])
def test_a_step_that_others_may_write_to_is_refused(room: Path, n_above: int, mode: int) -> None:
    step = [room, *room.parents][n_above]
    step.chmod(mode)
    with pytest.raises(UnsafePath, match=f"others may write to {step}, .* run: chmod go-w {step}$"):
        refuse_reachable(room)
    assert others_may_write(room)
    step.chmod(0o755)
    refuse_reachable(room)


def test_the_command_to_run_is_one_word_for_each_word(room: Path) -> None:
    step = room / "a b;c"
    step.mkdir()
    step.chmod(0o777)
    with pytest.raises(UnsafePath, match=f"run: chmod go-w '{step}'$"):
        refuse_reachable(step)


def test_a_directory_like_tmp_may_be_passed_and_not_be_the_place(room: Path) -> None:
    room.parent.chmod(0o1777)
    refuse_reachable(room)
    assert refused(room.parent) == room.parent


def test_a_file_is_looked_at_as_well(room: Path) -> None:
    program = room / "program"
    program.touch(mode=0o755)
    refuse_reachable(program)
    program.chmod(0o757)
    assert refused(program) == program


def test_the_target_of_a_symlink_is_judged_with_its_own_way(room: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "x" / "y"
    elsewhere.mkdir(parents=True)
    for target in (str(elsewhere), os.path.relpath(elsewhere, room), "../../.././x/y//."):
        link = room / "link"
        link.symlink_to(target)
        refuse_reachable(link / ".")
        (tmp_path / "x").chmod(0o777)
        assert refused(link) == tmp_path / "x"
        (tmp_path / "x").chmod(0o755)
        room.chmod(0o777)  # who may write there may point the link elsewhere
        assert refused(link) == room
        room.chmod(0o755)
        link.unlink()


def test_a_chain_of_symlinks_is_walked_to_its_end(room: Path) -> None:
    for n in range(39):
        (room / f"link{n}").symlink_to(f"link{n + 1}")
    (room / "link39").mkdir()
    refuse_reachable(room / "link0")
    (room / "link39").chmod(0o777)
    assert refused(room / "link0") == room / "link39"


def test_a_circle_of_symlinks_is_a_typed_error(room: Path) -> None:
    (room / "x").symlink_to("y")
    (room / "y").symlink_to("x")
    with pytest.raises(LocalError, match=f"looking at {room}/x/z") as caught:
        refuse_reachable(room / "x/z")
    assert not isinstance(caught.value, UnsafePath)


def test_the_way_back_up_is_the_one_of_the_kernel(room: Path, tmp_path: Path) -> None:
    """``link/..`` is above what the link leads to."""
    (tmp_path / "x/y").mkdir(parents=True)
    (room / "link").symlink_to(tmp_path / "x/y")
    (tmp_path / "x").chmod(0o777)
    assert refused(Path(f"{room}/link/../y")) == tmp_path / "x"


def test_a_relative_path_begins_where_this_process_is(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    refuse_reachable(Path("."))
    room.parent.chmod(0o777)
    assert refused(Path(".")) == room.parent


def test_what_is_not_there_is_an_error_unless_it_is_to_be_made(room: Path) -> None:
    missing = room / "x" / "y"
    with pytest.raises(LocalError, match=f"looking at {missing}"):
        refuse_reachable(missing)
    refuse_reachable(missing, absent=True)
    room.chmod(0o777)
    with pytest.raises(UnsafePath):
        refuse_reachable(missing, absent=True)


def test_a_file_on_the_way_is_a_typed_error(room: Path) -> None:
    (room / "file").touch()
    with pytest.raises(LocalError, match="Not a directory"):
        refuse_reachable(room / "file/x", absent=True)


def test_what_is_in_a_place_is_not_a_symlink_and_not_for_others(room: Path) -> None:
    (room / "dir").mkdir(0o700)
    refuse_foreign(room / "dir")
    (room / "dir").chmod(0o777)
    with pytest.raises(UnsafePath, match="chmod"):
        refuse_foreign(room / "dir")
    (room / "link").symlink_to(room)
    with pytest.raises(UnsafePath, match="symlink"):
        refuse_foreign(room / "link")
    with pytest.raises(LocalError):
        refuse_foreign(room / "missing")


def test_an_access_control_list_that_lets_others_write_is_refused(room: Path) -> None:
    """The group's bits of the mode are then the mask of the list."""
    user_obj, user, group_obj, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
    rows = [(user_obj, 7, -1), (user, 7, 54321), (group_obj, 5, -1), (mask, 7, -1), (other, 5, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)
    try:
        os.setxattr(room, _ACL, packed)
    except OSError:
        pytest.skip("the filesystem of the tests has no access control lists")
    assert room.stat().st_mode & 0o777 == 0o775
    assert refused(room) == room
    os.removexattr(room, _ACL)
    room.chmod(0o755)
    refuse_reachable(room)


def test_a_directory_may_be_trusted_by_name_and_nothing_beside_it(room: Path) -> None:
    volume = room.parent
    volume.chmod(0o777)
    (room / "link").symlink_to(volume)
    for named in (str(volume), f"/nowhere:{volume}/", f"{volume}/.:relative"):
        environ = {"LAYERTEE_TRUSTED_DIRS": named}
        for path in (room, volume, room / "link"):
            refuse_reachable(path, environ=environ)
            refuse_reachable(path, own=True, environ=environ)
    for other in ("", str(room), str(volume.parent), str(room / "link"), f"{volume}x", volume.name):
        with pytest.raises(UnsafePath) as caught:
            refuse_reachable(room, environ={"LAYERTEE_TRUSTED_DIRS": other})
        assert (caught.value.path, caught.value.hint) == (str(volume), "trusted-dirs")
    volume.parent.chmod(0o777)
    with pytest.raises(UnsafePath) as caught:
        refuse_reachable(room, environ={"LAYERTEE_TRUSTED_DIRS": str(volume)})
    assert caught.value.path == str(volume.parent)


def test_root_and_this_user_are_trusted() -> None:
    assert {0, os.geteuid()} <= trusted_users()
