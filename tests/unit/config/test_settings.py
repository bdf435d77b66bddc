"""layertee.toml as files: which are read, in which order, and on which line a key stands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layertee.config.settings import (
    LIMIT,
    MAX_FILES,
    File,
    Setting,
    SettingsError,
    SettingsFiles,
    read_settings,
)
from layertee.errors import UnsafePath

COMMANDS = frozenset({"pull", "serve"})


def nothing_is_wrong(_: Path) -> None:
    """A check that lets every file pass."""


def write(path: Path, text: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], list[Setting]]:
    def of(text: str | bytes) -> list[Setting]:
        path = write(tmp_path / "layertee.toml", text)
        return read_settings(File(path, of_machine=True), nothing_is_wrong, COMMANDS)

    return of


# --- which files ---------------------------------------------------------------------------------------


def test_files_are_found_in_the_order_in_which_they_count(tmp_path: Path) -> None:
    user = tmp_path / "home/.config/layertee"
    vendor, admin = tmp_path / "usr/lib/layertee", tmp_path / "etc/layertee"
    wanted = [
        (write(vendor / "layertee.toml"), True),
        (write(admin / "layertee.toml"), True),
        (write(admin / "layertee.toml.d/10-site.toml"), True),
        (write(admin / "layertee.toml.d/9-host.toml"), True),
        (write(user / "layertee.toml"), False),
        (write(user / "layertee.toml.d/a.toml"), False),
    ]
    for no_toml in (
        admin / "layertee.toml.d/README",
        admin / "layertee.toml.d/x.toml~",
        admin / "trust.toml",
        vendor / "layertee.toml.d/a.toml",
    ):
        write(no_toml)
    found = list(SettingsFiles.beneath(tmp_path, user=user).found())
    assert [(file.path, file.of_machine) for file in found] == wanted


def test_where_nothing_is_nothing_is_found(tmp_path: Path) -> None:
    assert list(SettingsFiles.beneath(tmp_path, user=tmp_path / "home").found()) == []


def test_a_file_of_the_environment_stands_for_the_users_and_has_to_be_there(tmp_path: Path) -> None:
    files = SettingsFiles.of({"LAYERTEE_CONFIG": str(tmp_path / "mine.toml"), "HOME": str(tmp_path)})
    assert (files.user, files.admin) == (None, Path("/etc/layertee"))
    machine = write(tmp_path / "etc/layertee/layertee.toml")
    first, file = SettingsFiles.beneath(tmp_path, only=files.only).found()
    assert (first.path, first.of_machine) == (machine, True)
    assert (file.path, file.of_machine) == (tmp_path / "mine.toml", False)
    with pytest.raises(SettingsError, match=r"mine\.toml cannot be read: No such file"):
        read_settings(file, nothing_is_wrong, COMMANDS)
    (alone,) = SettingsFiles.beneath(tmp_path, only=Path("/dev/null")).found()
    assert alone.path == machine


@pytest.mark.parametrize("name", ["mine.toml", " "])
def test_a_file_of_the_environment_has_an_absolute_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="LAYERTEE_CONFIG has to be an absolute path"):
        list(SettingsFiles.beneath(tmp_path, only=Path(name)).found())


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="pipe cannot be read: it is not a regular file"):
        read_settings(File(tmp_path / "pipe", of_machine=False, named=True), nothing_is_wrong, COMMANDS)


def test_locks_of_editors_and_links_to_nothing_are_not_read(tmp_path: Path) -> None:
    drop_ins = tmp_path / "etc/layertee/layertee.toml.d"
    wanted = write(drop_ins / "a.toml")
    (drop_ins / ".#a.toml").symlink_to("admin@host.1234:1700000000")
    write(drop_ins / ".a.toml", "no TOML")
    (drop_ins / "50-site.toml").symlink_to("/dev/null")
    (tmp_path / "etc/layertee/layertee.toml").symlink_to("/dev/null")
    assert [file.path for file in SettingsFiles.beneath(tmp_path).found()] == [wanted]
    (drop_ins / "60-gone.toml").symlink_to("nowhere")  # what it was meant to say, is meant to hold
    assert len(list(SettingsFiles.beneath(tmp_path).found())) == 2


def test_a_user_has_a_file_and_root_has_none(tmp_path: Path) -> None:
    files = SettingsFiles.of({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert files.user == (tmp_path / "xdg/layertee" if os.geteuid() != 0 else None)
    assert (files.vendor, files.admin) == (Path("/usr/lib/layertee"), Path("/etc/layertee"))
    # Root of a namespace that podman made is the user who made it.
    inside = SettingsFiles.of({"HOME": str(tmp_path), "_CONTAINERS_ROOTLESS_UID": "1000"})
    assert inside.user == tmp_path / ".config/layertee"


def test_a_directory_that_is_a_file_is_an_error_of_the_machine_and_nothing_of_a_user(tmp_path: Path) -> None:
    write(tmp_path / "etc/layertee")
    with pytest.raises(SettingsError, match="etc/layertee cannot be looked into: Not a directory"):
        list(SettingsFiles.beneath(tmp_path).found())
    write(tmp_path / "home")
    assert list(SettingsFiles.beneath(tmp_path / "other", user=tmp_path / "home/layertee").found()) == []


def test_too_many_drop_ins_are_refused(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        write(tmp_path / f"etc/layertee/layertee.toml.d/{number}.toml")
    with pytest.raises(SettingsError, match="has more than 256 files"):
        list(SettingsFiles.beneath(tmp_path).found())


# --- one file ------------------------------------------------------------------------------------------


def test_what_is_for_every_command_comes_before_what_is_for_one(
    read: Callable[[str | bytes], list[Setting]],
) -> None:
    found = read('# mine\nstore = "/a"\n[pull]\nstore = "/b"\n\nfrom = ["auto"]\n')
    assert [(one.key, one.value, one.command, one.line) for one in found] == [
        ("store", "/a", None, 2),
        ("store", "/b", "pull", 4),
        ("from", ["auto"], "pull", 6),
    ]


@pytest.mark.parametrize(
    "text", ['registries.d = "/x"', '"registries.d" = "/x"', 'registries = { d = "/x" }']
)
def test_a_key_with_a_dot_may_be_written_with_and_without_quotes(
    text: str, read: Callable[[str | bytes], list[Setting]]
) -> None:
    (one,) = read(text)
    assert (one.key, one.value) == ("registries.d", "/x")
    (one,) = read(f"[pull]\n{text}\n")
    assert (one.key, one.value, one.command) == ("registries.d", "/x", "pull")


def test_a_table_in_one_line_has_the_line_of_the_table(read: Callable[[str | bytes], list[Setting]]) -> None:
    (one,) = read('\npull = { max-rate = "1M" }')
    assert (one.key, one.command, one.line) == ("max-rate", "pull", 2)
    assert one.whence.endswith("layertee.toml:2")


def test_what_is_no_table_of_a_command_is_a_key(read: Callable[[str | bytes], list[Setting]]) -> None:
    found = read('pull = "x"\n[other]\na = 1\nb = 2\n')
    assert [(one.key, one.command) for one in found] == [("pull", None), ("other", None)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store = /x", ":1: this is not TOML"),
        ("a = 1\na = 2\n", ":2: this is not TOML"),
        (b"a = 1\n# \xff\n", ":2: this is not TOML: this is not text in UTF-8"),
        (b"#" * (LIMIT + 1), "is larger than 1048576 bytes"),
    ],
    ids=["value", "twice", "utf-8", "size"],
)
def test_what_cannot_be_read_is_an_error_that_says_where(
    text: str | bytes, said: str, read: Callable[[str | bytes], list[Setting]]
) -> None:
    with pytest.raises(SettingsError, match=said):
        read(text)


def test_a_file_is_checked_before_it_is_read(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise UnsafePath(f"others may write to {path}", path=str(path))

    file = File(write(tmp_path / "layertee.toml", "not toml"), of_machine=True)
    with pytest.raises(UnsafePath):
        read_settings(file, refuse, COMMANDS)
