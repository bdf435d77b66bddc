"""Where the store of podman and its kin is said to be: names, storage.conf, the environment."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from layertee.config.storage import StorageRoots, find_roots
from layertee.errors import InvalidReference, LocalError, NoHome, StoreCorrupt
from layertee.image.reference_storage import StorageReference, parse_storage
from tests.support.users import closed

DEFAULT = parse_storage("containers-storage:")
VAR = Path("/var/lib/containers/storage")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("containers-storage:", StorageReference(None, None, None, (), None)),
        ("containers-storage:localhost/a:1", StorageReference(None, None, None, (), "localhost/a:1")),
        ("containers-storage:[/a]", StorageReference(Path("/a"), None, None, (), None)),
        (
            "containers-storage:[overlay@/a+/b:overlay.imagestore=/c,x=y]q.io/n@sha256:00",
            StorageReference(
                Path("/a"), "overlay", Path("/b"), ("overlay.imagestore=/c", "x=y"), "q.io/n@sha256:00"
            ),
        ),
        ("containers-storage:[vfs@/a]n", StorageReference(Path("/a"), "vfs", None, (), "n")),
        ("containers-storage:[/a+/b]n", StorageReference(Path("/a"), None, Path("/b"), (), "n")),
    ],
)
def test_a_store_is_named_as_by_other_tools(text: str, want: StorageReference) -> None:
    assert parse_storage(text) == want
    assert str(want) == text


@pytest.mark.parametrize(
    "text",
    [
        "oci:/a",
        "containers-storage",
        "containers-storage:[/a",
        "containers-storage:[]n",
        "containers-storage:[a]n",
        "containers-storage:[@/a]n",
        "containers-storage:[overlay@]n",
        "containers-storage:[overlay@a/b]n",
        "containers-storage:[/a+]n",
        "containers-storage:[/a+run]n",
        "containers-storage:n\n",
        "containers-storage:n ",
    ],
)
def test_a_name_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_storage(text)


# --- what the machine says ----------------------------------------------------------------


def test_a_named_store_needs_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "storage.conf").write_text("nonsense")
    reference = parse_storage("containers-storage:[overlay2@/a:.imagestore=/b,overlay.mountopt=nodev]")
    environ = {"CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"), "STORAGE_DRIVER": "vfs"}
    assert find_roots(reference, environ=environ) == StorageRoots((Path("/a"), Path("/b")), "overlay")


def test_without_configuration_the_defaults_hold() -> None:
    assert find_roots(DEFAULT, environ={}, uid=0, system_confs=()) == StorageRoots((VAR,), None)
    assert find_roots(DEFAULT, environ={}, uid=0, system_confs=()).drivers == ("overlay", "vfs")
    home = Path("/home/u/.local/share/containers/storage")
    assert find_roots(DEFAULT, environ={"HOME": "/home/u"}, uid=1000, system_confs=()).roots == (home,)
    environ = {"HOME": "/home/u", "XDG_DATA_HOME": "/data"}
    roots = find_roots(DEFAULT, environ=environ, uid=1000, system_confs=()).roots
    assert roots == (Path("/data/containers/storage"),)


CONF = """
[storage]
driver = "vfs"
graphroot = "/srv/graph"
imagestore = "/srv/images"
rootless_storage_path = "$HOME/box/$UID/$USER"
runroot = "/run/x"

[storage.options]
additionalimagestores = ["/usr/lib/images", "/srv/graph", ""]
size = ""

[storage.options.overlay]
mountopt = "nodev"
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "etc.conf"
    path.write_text(CONF)
    return path


def test_the_file_names_the_stores(conf: Path) -> None:
    roots = find_roots(DEFAULT, environ={}, uid=0, system_confs=(conf,))
    paths = (Path("/srv/graph"), Path("/srv/images"), Path("/usr/lib/images"))
    assert roots == StorageRoots(paths, "vfs")


def test_the_graphroot_of_the_system_is_not_that_of_its_users(conf: Path) -> None:
    environ = {"HOME": "/home/u", "USER": "u"}
    roots = find_roots(DEFAULT, environ=environ, uid=7, system_confs=(conf,)).roots
    assert roots == (Path("/home/u/box/7/u"), Path("/usr/lib/images"), Path("/srv/graph"))


def test_the_first_file_there_is_counts(conf: Path, tmp_path: Path) -> None:
    other = tmp_path / "usr.conf"
    other.write_text('[storage]\ngraphroot = "/usr/graph"\n')
    missing = tmp_path / "missing.conf"
    assert find_roots(DEFAULT, environ={}, uid=0, system_confs=(other, conf)).roots == (Path("/usr/graph"),)
    found = find_roots(DEFAULT, environ={}, uid=0, system_confs=(missing, conf)).roots
    assert found[0] == Path("/srv/graph")


def test_a_users_own_file_comes_before_the_systems(conf: Path, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/containers/storage.conf"
    own.parent.mkdir(parents=True)
    own.write_text('[storage]\ngraphroot = "/own"\n')
    environ = {"HOME": str(tmp_path / "home")}
    assert find_roots(DEFAULT, environ=environ, uid=7, system_confs=(conf,)).roots == (Path("/own"),)
    assert find_roots(DEFAULT, environ=environ, uid=0, system_confs=(conf,)).roots[0] == Path("/srv/graph")
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "home/.config")
    assert find_roots(DEFAULT, environ=environ, uid=0, system_confs=(conf,)).roots == (Path("/own"),)


def test_the_environment_has_the_last_word(conf: Path, tmp_path: Path) -> None:
    named = tmp_path / "named.conf"
    named.write_text('[storage]\ndriver = "vfs"\ngraphroot = "/named"\n')
    environ = {
        "CONTAINERS_STORAGE_CONF": str(named),
        "STORAGE_DRIVER": "overlay",
        "STORAGE_OPTS": "overlay.additionalimagestore=/more,overlay.mountopt=nodev,imagestore=/images",
    }
    found = find_roots(DEFAULT, environ=environ, uid=0, system_confs=(conf,))
    assert found == StorageRoots((Path("/named"), Path("/more"), Path("/images")), "overlay")


def test_a_driver_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(InvalidReference, match="btrfs"):
        find_roots(DEFAULT, environ={"STORAGE_DRIVER": "btrfs"}, uid=0, system_confs=())


@pytest.mark.parametrize(
    "text",
    [
        "storage = [",
        "storage = 1",
        "[storage]\noptions = 1",
        "[storage]\ndriver = 1",
        "[storage]\ngraphroot = 1",
        '[storage]\ngraphroot = "relative"',
        '[storage]\ngraphroot = "/a\\u0000b"',
        '[storage.options]\nadditionalimagestores = "/a"',
        "[storage.options]\nadditionalimagestores = [1]",
        "\xff",
        "[storage]\n" + "# " + "x" * (1 << 20),
    ],
)
def test_a_file_that_makes_no_sense_is_an_error_and_not_the_default(text: str, tmp_path: Path) -> None:
    path = tmp_path / "storage.conf"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreCorrupt, match=str(path)):
        find_roots(DEFAULT, environ={}, uid=0, system_confs=(path,))


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    environ = {"CONTAINERS_STORAGE_CONF": str(tmp_path / "gone.conf")}
    with pytest.raises(LocalError, match=r"gone\.conf") as caught:
        find_roots(DEFAULT, environ=environ, uid=0, system_confs=())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


def test_without_a_home_there_is_no_usual_place(tmp_path: Path) -> None:
    with pytest.raises(NoHome, match=r"podman's store; set HOME or XDG_DATA_HOME"):
        find_roots(DEFAULT, environ={}, uid=54321, system_confs=())
    environ = {"XDG_DATA_HOME": "/data"}
    data = Path("/data/containers/storage")
    assert find_roots(DEFAULT, environ=environ, uid=54321, system_confs=()).roots == (data,)
    conf = tmp_path / "storage.conf"
    conf.write_text('[storage]\nrootless_storage_path = "/srv/$UID"\n')
    roots = find_roots(DEFAULT, environ={}, uid=54321, system_confs=(conf,)).roots
    assert roots == (Path("/srv/54321"),)
    conf.write_text('[storage]\nrootless_storage_path = "$HOME/x"\n')
    with pytest.raises(NoHome, match=f"{conf}: rootless_storage_path has"):
        find_roots(DEFAULT, environ={}, uid=54321, system_confs=(conf,))


def test_relative_directories_are_ignored(conf: Path) -> None:
    environ = {"HOME": "/home/u", "XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config"}
    home = Path("/home/u/.local/share/containers/storage")
    assert find_roots(DEFAULT, environ=environ, uid=1000, system_confs=()).roots == (home,)
    assert find_roots(DEFAULT, environ=environ, uid=0, system_confs=(conf,)).roots[0] == Path("/srv/graph")


def test_what_is_behind_a_directory_of_somebody_else_is_not_there(conf: Path, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/containers/storage.conf"
    own.parent.mkdir(parents=True)
    own.write_text('[storage]\ngraphroot = "/own"\n')
    environ = {"HOME": str(tmp_path / "home"), "USER": "u"}
    with closed(tmp_path / "home"):
        roots = find_roots(DEFAULT, environ=environ, uid=7, system_confs=(conf,)).roots
    assert roots[0] == tmp_path / "home/box/7/u"
    for where in (own, tmp_path / "home"):
        environ["CONTAINERS_STORAGE_CONF"] = str(own) if where != own else ""
        with closed(where), pytest.raises(LocalError, match=f"{own}: Permission denied") as caught:
            find_roots(DEFAULT, environ=environ, uid=7, system_confs=(conf,))
        assert caught.value.path == str(own)


def test_an_option_without_an_absolute_path_is_refused() -> None:
    with pytest.raises(InvalidReference, match="imagestore"):
        find_roots(DEFAULT, environ={"STORAGE_OPTS": "overlay.imagestore=here"}, uid=0, system_confs=())
