"""registries.conf on this machine: where settings stand, what is blocked, and files that are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layertee.config.home import User
from layertee.config.registries import Endpoint, Registries
from layertee.errors import RegistriesConfError, RegistryBlocked
from layertee.image.reference import Reference, parse_reference
from tests.support.users import bound_by_modes

LIMIT = 1 << 20


class Machine:
    """A root directory with files of this kind in it, and its user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.admin, self.vendor = root / "etc/containers", root / "usr/share/containers"
        self.env = {"XDG_CONFIG_HOME": str(root / "home")}

    def write(self, text: str | bytes, name: str = "etc/containers/registries.conf") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def read(self, path: Path | None = None) -> Registries:
        user = User.of(self.env, uid=0, passwd=lambda uid: None)
        return Registries.read(path=path, env=self.env, user=user, admin=self.admin, vendor=self.vendor)

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        reference = parse_reference(name)
        assert isinstance(reference, Reference)
        return self.read().endpoints(reference)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_any_file_asks_images_by_their_names(machine: Machine) -> None:
    found = machine.read()
    reference = parse_reference("docker.io/library/busybox")
    assert isinstance(reference, Reference)
    assert found.files == () and found.credential_helpers == ("containers-auth.json",)
    assert found.endpoints(reference) == (Endpoint(reference),)
    assert Registries.none().endpoints(reference) == (Endpoint(reference),)


def test_no_toml_is_imported_where_no_file_is(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from layertee.config.registries import Registries;"
        f"Registries.read(env={{}}, admin=Path({str(tmp_path)!r}), vendor=Path({str(tmp_path)!r}));"
        "sys.exit('tomllib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"HOME": str(tmp_path)}, check=False)
    assert done.returncode == 0


def test_each_endpoint_says_on_which_line_it_stands(machine: Machine) -> None:
    path = machine.write(
        "# one\n"
        "\n"
        '  [[ registry ]]  # "x"\n'
        'prefix = "a.test"\nlocation = "b.test"\n'
        '[["registry".\'mirror\']]\nlocation = "c.test"\n'
        "[other]\nx = '[[registry]]'\n"
        "[[registry]]\r\n"
        'location = "d.test"\r\n'
    )
    assert [str(end.whence) for end in machine.endpoints("a.test/x")] == [f"{path}:6", f"{path}:3"]
    assert [str(end.whence) for end in machine.endpoints("d.test/x")] == [f"{path}:10"]
    assert [end.whence for end in machine.endpoints("e.test/x")] == [None]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('\nregistry = [{location = "a.test"}]\n', 2),
        ('x = """\n[[registry]]\n"""\n[[registry]]\nlocation = "a.test"\n', 4),
        ("x = '''\n[[registry]]\n'''\n[[registry]]\nlocation = \"a.test\"\n", 4),
        ('x = [\n"[[registry]]",\n]\n# [[registry]]\n[[registry]]\nlocation = "a.test"\n', 5),
    ],
)
def test_what_looks_like_a_header_is_not_taken_for_one(machine: Machine, text: str, line: int) -> None:
    path = machine.write(text)
    (end,) = machine.endpoints("a.test/x")
    assert str(end.whence) == f"{path}:{line}"


def test_a_line_that_is_not_sure_is_not_said(machine: Machine) -> None:
    path = machine.write('[["r\\u0065gistry"]]\nlocation = "a.test"\n')
    (end,) = machine.endpoints("a.test/x")
    assert str(end.whence) in (str(path), f"{path}:1")


def test_of_several_files_the_last_says_where_a_section_stands(machine: Machine) -> None:
    machine.write('[[registry]]\nlocation = "a.test"\n')
    path = machine.write('\n[[registry]]\nprefix = "a.test"\nlocation = "m.test"\n', "home/containers/x.conf")
    (machine.root / "home/containers/registries.conf.d").mkdir()
    drop_in = path.rename(machine.root / "home/containers/registries.conf.d/x.conf")
    (end,) = machine.endpoints("a.test/x")
    assert (str(end.reference), str(end.whence)) == ("m.test/x:latest", f"{drop_in}:2")
    assert machine.read().files == (machine.admin / "registries.conf", drop_in)


# --- blocked ---


@pytest.mark.parametrize("name", ["a.test/x", "A.TEST/x", "a.test:5000/x", "a.test/x/y:1"])
@pytest.mark.parametrize("prefix", ["a.test", "A.test", "*.test"])
def test_a_blocked_registry_is_blocked_however_it_is_written(
    machine: Machine, name: str, prefix: str
) -> None:
    path = machine.write(f'[[registry]]\nprefix = "{prefix}"\nlocation = "m.test"\nblocked = true\n')
    with pytest.raises(RegistryBlocked, match=f"blocked.*{path}:1"):
        machine.endpoints(name)


def test_a_registry_is_not_reached_through_another_name_that_leads_to_it(machine: Machine) -> None:
    machine.write(
        '[[registry]]\nprefix = "a.test"\nlocation = "b.test/sub"\n'
        '[[registry.mirror]]\nlocation = "B.test/mirror"\n'
        '[[registry]]\nlocation = "b.test"\nblocked = true\n'
    )
    with pytest.raises(RegistryBlocked, match=r"b\.test"):
        machine.endpoints("a.test/x")


def test_hosts_are_written_in_any_case_and_asked_in_lower_case(machine: Machine) -> None:
    machine.write('[[registry]]\nprefix = "A.Test"\nlocation = "M.Test:5000"\n')
    assert [str(end.reference) for end in machine.endpoints("a.test/x")] == ["m.test:5000/x:latest"]


# --- broken and hostile ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1\nb = \n", ":2: this is not TOML"),
        ("a = 1\nb = [\n", ":[23]: this is not TOML"),
        ("a = 1\na = 2\n", "this is not TOML"),
        ("a = '\0'\n", ":1: this is not TOML"),
        (b"a = 1\n\nb = '\xff'\n", ":3: .*not text in UTF-8"),
        (b"[[registry]]\n".decode().encode("utf-16"), ":1: .*not text in UTF-8"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "{b=" * 100_000, "nested too deeply"),
        (b"#" * (LIMIT + 1), "larger than"),
        ("[[registry]]\nprefix = 'x\\u001b[31m'\n", "no location"),
        ('\n[[registry]]\nlocation = "https://a.test"\n', ":2: location .*without https://"),
        ("\n\n[[registry]]\n", ":3: .*neither a location nor a prefix"),
        ('[[registry]]\nlocation = "a.test"\n[[registry.mirror]]\ninsecure = true\n', ":3: .*no location"),
        ("[registries.search]\nregistries = ['a.test']\n", "must be in v2 format but is in v1"),
        ("[aliases]\n'x:1' = 'a.test/b'\n", "tag nor digest"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_cannot_be_read_stops_with_its_name(
    machine: Machine, text: str | bytes, says: str
) -> None:
    path = machine.write(text)
    with pytest.raises(RegistriesConfError, match=rf"{path}.*{says}") as failed:
        machine.read()
    assert str(failed.value).isprintable()


def test_a_file_of_the_largest_size_is_read(machine: Machine) -> None:
    text = '[[registry]]\nlocation = "a.test"\n'
    machine.write(text + "#" * (LIMIT - len(text)))
    assert machine.endpoints("a.test/x")[0].whence is not None


def test_what_is_no_file_is_said(machine: Machine) -> None:
    path = machine.admin / "registries.conf"
    path.mkdir(parents=True)
    with pytest.raises(RegistriesConfError, match=str(path)):
        machine.read()
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(RegistriesConfError, match=str(path)):  # and does not wait for a writer
        machine.read()
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(RegistriesConfError, match=str(path)):
        machine.read()


def test_a_file_that_may_not_be_read_is_said(machine: Machine) -> None:
    path = machine.write("")
    path.chmod(0)
    with bound_by_modes(), pytest.raises(RegistriesConfError, match=str(path)):
        machine.read()


@pytest.mark.parametrize("variable", ["CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE"])
def test_a_file_that_was_named_has_to_be_there(machine: Machine, variable: str) -> None:
    missing = machine.root / "missing.conf"
    with pytest.raises(RegistriesConfError, match=str(missing)):
        machine.read(missing)
    machine.env[variable] = str(missing)
    with pytest.raises(RegistriesConfError, match=str(missing)):
        machine.read()


def test_a_drop_in_that_leads_nowhere_is_not_there(machine: Machine) -> None:
    machine.write("", "etc/containers/registries.conf.d/a.conf")
    (machine.admin / "registries.conf.d/b.conf").symlink_to("nowhere")
    (machine.admin / "registries.conf.d/c.conf").mkdir()
    assert [path.name for path in machine.read().files] == ["a.conf"]
