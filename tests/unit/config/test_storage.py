"""Where the store of podman and its kin is said to be: names, storage.conf, the environment."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from layertee.config.home import User
from layertee.config.storage import StorageRoots, find_roots, storage_files
from layertee.errors import InvalidReference, LocalError, NoHome, StoreCorrupt
from layertee.image.reference_storage import StorageReference, parse_storage
from tests.support.users import closed

DEFAULT = parse_storage("containers-storage:")
VAR = Path("/var/lib/containers/storage")


NOWHERE = {"admin": Path("/nonexistent/etc"), "vendor": Path("/nonexistent/usr")}


def etc(conf: Path) -> dict[str, Path]:
    """``conf``, a storage.conf, as that of the administrator."""
    return {"admin": conf.parent, "vendor": Path("/nonexistent/usr")}


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
    assert find_roots(DEFAULT, environ={}, uid=0, **NOWHERE) == StorageRoots((VAR,), None)
    assert find_roots(DEFAULT, environ={}, uid=0, **NOWHERE).drivers == ("overlay", "vfs")
    home = Path("/home/u/.local/share/containers/storage")
    assert find_roots(DEFAULT, environ={"HOME": "/home/u"}, uid=1000, **NOWHERE).roots == (home,)
    environ = {"HOME": "/home/u", "XDG_DATA_HOME": "/data"}
    roots = find_roots(DEFAULT, environ=environ, uid=1000, **NOWHERE).roots
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
    path = tmp_path / "etc/storage.conf"
    path.parent.mkdir()
    path.write_text(CONF)
    return path


def test_the_file_names_the_stores(conf: Path) -> None:
    roots = find_roots(DEFAULT, environ={}, uid=0, **etc(conf))
    paths = (Path("/srv/graph"), Path("/srv/images"), Path("/usr/lib/images"))
    assert roots == StorageRoots(paths, "vfs")


def test_a_user_has_the_graphroot_of_the_system_and_a_place_beside_it(conf: Path) -> None:
    environ = {"HOME": "/home/u", "USER": "u"}
    roots = find_roots(DEFAULT, environ=environ, uid=7, **etc(conf)).roots
    # As the newest tools have it; and as those before podman 6, where the system's graphroot is root's.
    assert roots == (
        *(Path("/srv/graph"), Path("/srv/images"), Path("/usr/lib/images")),
        Path("/home/u/box/7/u"),
    )


def test_the_first_file_there_is_counts(conf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other/storage.conf"
    other.parent.mkdir()
    other.write_text('[storage]\ngraphroot = "/usr/graph"\n')
    missing = tmp_path / "missing/storage.conf"
    assert find_roots(DEFAULT, environ={}, uid=0, admin=other.parent, vendor=conf.parent).roots == (
        Path("/usr/graph"),
    )
    found = find_roots(DEFAULT, environ={}, uid=0, admin=missing.parent, vendor=conf.parent).roots
    assert found[0] == Path("/srv/graph")


def test_a_users_own_file_comes_before_the_systems(conf: Path, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/containers/storage.conf"
    own.parent.mkdir(parents=True)
    own.write_text('[storage]\ngraphroot = "/own"\n')
    environ = {"HOME": str(tmp_path / "home")}
    assert find_roots(DEFAULT, environ=environ, uid=7, **etc(conf)).roots[0] == Path("/own")
    assert find_roots(DEFAULT, environ=environ, uid=0, **etc(conf)).roots == (Path("/own"),)


def test_the_environment_has_the_last_word(conf: Path, tmp_path: Path) -> None:
    named = tmp_path / "named.conf"
    named.write_text('[storage]\ndriver = "vfs"\ngraphroot = "/named"\n')
    environ = {
        "CONTAINERS_STORAGE_CONF": str(named),
        "STORAGE_DRIVER": "overlay",
        "STORAGE_OPTS": "overlay.additionalimagestore=/more,overlay.mountopt=nodev,imagestore=/images",
    }
    found = find_roots(DEFAULT, environ=environ, uid=0, **etc(conf))
    assert found == StorageRoots((Path("/named"), Path("/more"), Path("/images")), "overlay")


def test_a_driver_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(InvalidReference, match="btrfs"):
        find_roots(DEFAULT, environ={"STORAGE_DRIVER": "btrfs"}, uid=0, **NOWHERE)


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
        find_roots(DEFAULT, environ={}, uid=0, **etc(path))


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    environ = {"CONTAINERS_STORAGE_CONF": str(tmp_path / "gone.conf")}
    with pytest.raises(LocalError, match=r"gone\.conf") as caught:
        find_roots(DEFAULT, environ=environ, uid=0, **NOWHERE)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


def test_without_a_home_there_is_no_usual_place(tmp_path: Path) -> None:
    with pytest.raises(NoHome, match=r"podman's store; set HOME or XDG_DATA_HOME"):
        find_roots(DEFAULT, environ={}, uid=54321, **NOWHERE)
    environ = {"XDG_DATA_HOME": "/data"}
    data = Path("/data/containers/storage")
    assert find_roots(DEFAULT, environ=environ, uid=54321, **NOWHERE).roots == (data,)
    conf = tmp_path / "storage.conf"
    conf.write_text('[storage]\nrootless_storage_path = "/srv/$UID"\n')
    roots = find_roots(DEFAULT, environ={}, uid=54321, **etc(conf)).roots
    assert roots == (Path("/srv/54321"),)
    conf.write_text('[storage]\nrootless_storage_path = "$HOME/x"\n')
    with pytest.raises(NoHome, match=f"{conf}: rootless_storage_path has"):
        find_roots(DEFAULT, environ={}, uid=54321, **etc(conf))


def test_relative_directories_are_ignored(conf: Path) -> None:
    environ = {"HOME": "/home/u", "XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config"}
    home = Path("/home/u/.local/share/containers/storage")
    assert find_roots(DEFAULT, environ=environ, uid=1000, **NOWHERE).roots == (home,)
    assert find_roots(DEFAULT, environ=environ, uid=0, **etc(conf)).roots[0] == Path("/srv/graph")


def test_what_is_behind_a_directory_of_somebody_else_is_not_there(conf: Path, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/containers/storage.conf"
    own.parent.mkdir(parents=True)
    own.write_text('[storage]\ngraphroot = "/own"\n')
    environ = {"HOME": str(tmp_path / "home"), "USER": "u"}
    with closed(tmp_path / "home"):
        roots = find_roots(DEFAULT, environ=environ, uid=7, **etc(conf)).roots
    assert roots[0] == Path("/srv/graph")
    for where in (own, tmp_path / "home"):
        environ["CONTAINERS_STORAGE_CONF"] = str(own) if where != own else ""
        with (
            closed(where),
            pytest.raises(LocalError, match=f"{own} cannot be read: Perm") as caught,
        ):
            find_roots(DEFAULT, environ=environ, uid=7, **etc(conf))
        assert caught.value.path == str(own)


def test_an_option_without_an_absolute_path_is_refused() -> None:
    with pytest.raises(InvalidReference, match="imagestore"):
        find_roots(DEFAULT, environ={"STORAGE_OPTS": "overlay.imagestore=here"}, uid=0, **NOWHERE)


# --- as the newest tools merge it ------------------------------------------------------------


class Machine:
    """Directories in place of /etc/containers and /usr/share/containers, and a user's own."""

    def __init__(self, root: Path) -> None:
        self.admin, self.vendor = root / "etc", root / "usr"
        self.home = root / "home"
        self.own = self.home / ".config/containers"
        self.env = {"HOME": str(self.home)}

    def write(self, directory: Path, name: str, text: str) -> Path:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def roots(self, uid: int = 0) -> tuple[Path, ...]:
        found = find_roots(DEFAULT, environ=self.env, uid=uid, admin=self.admin, vendor=self.vendor)
        return found.roots


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_drop_ins_are_put_over_the_file_key_by_key(machine: Machine) -> None:
    main = machine.write(machine.admin, "storage.conf", '[storage]\ngraphroot = "/a"\nimagestore = "/i"\n')
    first = machine.write(machine.vendor, "storage.conf.d/10.conf", '[storage]\ngraphroot = "/b"\n')
    second = machine.write(machine.own, "storage.conf.d/20.conf", '[storage]\nimagestore = "/j"\n')
    assert machine.roots() == (Path("/b"), Path("/j"))
    found = storage_files(environ=machine.env, admin=machine.admin, vendor=machine.vendor)
    assert found == (main, first, second)


def test_drop_ins_for_root_and_for_others_are_apart(machine: Machine) -> None:
    machine.write(machine.admin, "storage.rootful.conf.d/1.conf", '[storage]\ngraphroot = "/root"\n')
    machine.write(machine.admin, "storage.rootless.conf.d/1.conf", '[storage]\ngraphroot = "/others"\n')
    machine.write(machine.admin, "storage.rootless.conf.d/7/1.conf", '[storage]\ngraphroot = "/seven"\n')
    assert [machine.roots(uid)[0] for uid in (0, 7, 8)] == [Path("/root"), Path("/seven"), Path("/others")]


def test_the_overriding_file_is_read_last_and_has_to_be_there(machine: Machine) -> None:
    machine.write(machine.admin, "storage.conf", '[storage]\ngraphroot = "/a"\n')
    override = machine.write(machine.home, "o.conf", '[storage]\ngraphroot = "/o"\n')
    machine.env["CONTAINERS_STORAGE_CONF_OVERRIDE"] = str(override)
    assert machine.roots() == (Path("/o"),)
    override.unlink()
    with pytest.raises(LocalError, match=r"o\.conf"):
        machine.roots()


def test_lists_are_replaced_unless_they_are_to_be_appended(machine: Machine) -> None:
    def listed(text: str) -> str:
        return f'[storage]\ngraphroot = "/g"\n[storage.options]\nadditionalimagestores = {text}\n'

    machine.write(machine.admin, "storage.conf", listed('["/a"]'))
    machine.write(machine.admin, "storage.conf.d/1.conf", listed('["/b", {append = true}]'))
    assert machine.roots() == (Path("/g"), Path("/a"), Path("/b"))
    machine.write(machine.admin, "storage.conf.d/2.conf", listed('["/c", {append = false}]'))
    assert machine.roots() == (Path("/g"), Path("/c"))
    for wrong in ('["/a", {appendix = true}]', '["/a", {append = 1}]', "[[]]"):
        machine.write(machine.admin, "storage.conf.d/2.conf", listed(wrong))
        with pytest.raises(StoreCorrupt, match=r"2\.conf"):
            machine.roots()


def test_variables_and_keys_are_read_as_go_reads_them(machine: Machine) -> None:
    machine.env |= {"WHERE": "there", "XDG_RUNTIME_DIR": "/run/u"}
    machine.write(
        machine.admin,
        "storage.conf",
        '[Storage]\nGraphRoot = "${HOME}/$WHERE/$UID$NOTHING"\nimageStore = "/$WHERE/i"\n',
    )
    assert machine.roots(7)[:2] == (machine.home / "there/7", Path("/$WHERE/i"))  # only in graph roots


def test_options_of_the_environment_stand_for_all_of_the_files(machine: Machine) -> None:
    text = '[storage]\ngraphroot = "/g"\n[storage.options]\nadditionalimagestores = ["/a"]\n'
    machine.write(machine.admin, "storage.conf", text)
    machine.env["STORAGE_OPTS"] = ""
    assert machine.roots() == (Path("/g"),)
    machine.env["STORAGE_OPTS"] = "overlay.imagestore=/b"
    assert machine.roots() == (Path("/g"), Path("/b"))


def test_an_error_has_the_line_of_its_file(machine: Machine) -> None:
    path = machine.write(machine.admin, "storage.conf", '[storage]\ndriver = "vfs"\ngraphroot = /x\n')
    with pytest.raises(StoreCorrupt, match=f"{path}:3: this is not TOML"):
        machine.roots()


def test_root_of_podmans_user_namespace_is_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    environ = {"HOME": "/home/u", "_CONTAINERS_ROOTLESS_UID": "1000"}
    assert User.of(environ).uid == 1000
    assert User.of(environ, uid=0).uid == 0
    home = Path("/home/u/.local/share/containers/storage")
    assert find_roots(DEFAULT, environ=environ, uid=None, **NOWHERE).roots == (home,)
    for odd in ("", "x", "-1", "1e3"):
        assert User.of(environ | {"_CONTAINERS_ROOTLESS_UID": odd}).uid == 0
    monkeypatch.setattr("os.geteuid", lambda: 7)
    assert User.of(environ).uid == 7
