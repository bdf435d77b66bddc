"""Where signatures are looked for: files merged, the most specific namespace, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.config.home import User
from layertee.config.registries_d import SignatureConfig, SignaturePlaces
from layertee.errors import RegistriesConfError
from layertee.image.reference import Reference, parse_reference


class Machine:
    """Directories in place of /etc/containers, /usr/share/containers and a user's own."""

    def __init__(self, root: Path) -> None:
        self.admin, self.vendor, self.own = root / "etc", root / "usr", root / "home/.config/containers"
        self.home = root / "home"

    def write(self, directory: Path, name: str, text: str) -> Path:
        path = directory / "registries.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, directory: Path | None = None, uid: int = 0) -> SignatureConfig:
        user = User.of({"HOME": str(self.home)}, uid=uid)
        return SignatureConfig.read(directory, env={}, user=user, admin=self.admin, vendor=self.vendor)

    def places(self, name: str, uid: int = 0) -> SignaturePlaces:
        image = parse_reference(name)
        assert isinstance(image, Reference)
        return self.read(uid=uid).places(image)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_files_it_is_the_default(machine: Machine) -> None:
    default = SignaturePlaces("file:///var/lib/containers/sigstore", None, False, None)
    assert machine.places("quay.io/a/b:1") == default
    own = machine.places("quay.io/a/b:1", uid=1000).lookaside
    assert own == f"file://{machine.home}/.local/share/containers/sigstore"


def test_each_value_is_that_of_the_most_specific_namespace_that_has_it(machine: Machine) -> None:
    first = machine.write(
        machine.admin,
        "a.yaml",
        "default-docker:\n  sigstore: https://old.test\n  use-sigstore-attachments: true\n"
        "docker:\n  quay.io/a:\n    lookaside: https://a.test/sigs\n  '*.corp.test': {lookaside: https://corp.test}\n",
    )
    second = machine.write(
        machine.own, "b.yaml", "docker:\n  quay.io/a/b: {use-sigstore-attachments: false}\n  quay.io/a/b:1:\n"
    )
    assert machine.places("quay.io/a/b:1") == SignaturePlaces("https://a.test/sigs", first, False, second)
    assert machine.places("quay.io/a/c:1") == SignaturePlaces("https://a.test/sigs", first, True, first)
    assert machine.places("x.corp.test/y:1").lookaside == "https://corp.test"
    assert machine.places("docker.io/library/x:1").lookaside == "https://old.test"
    assert machine.read().files == (first, second)


def test_a_file_hides_one_of_the_same_name_further_down(machine: Machine) -> None:
    machine.write(machine.vendor, "a.yaml", "default-docker: {lookaside: https://vendor.test}")
    mine = machine.write(machine.admin, "a.yaml", "default-docker: {lookaside: https://admin.test}")
    assert machine.read().files == (mine,)
    assert machine.places("quay.io/a:1").lookaside == "https://admin.test"


def test_a_directory_that_is_named_is_the_only_one(machine: Machine, tmp_path: Path) -> None:
    machine.write(machine.admin, "a.yaml", "default-docker: {lookaside: https://admin.test}")
    named = machine.write(tmp_path / "named", "x.yaml", "")
    assert machine.read(named.parent).files == (named,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("docker: [", ":1: this is not YAML"),
        ("a: b\n  c: d: e", ":2: this is not YAML"),
        ("[]", "is not a table"),
        ("docker: 7", "docker is not a table"),
        ("docker: {quay.io: 7}", "quay.io is not a table"),
        ("docker: {quay.io: {lookaside: [x]}}", "lookaside is not a text"),
        ("default-docker: {use-sigstore-attachments: maybe}", "neither true nor false"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("\x00", "YAML"),
        ("docker: " + "[" * 20_000, "YAML"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(machine: Machine, text: str, says: str) -> None:
    path = machine.write(machine.admin, "a.yaml", text)
    with pytest.raises(RegistriesConfError) as failed:
        machine.read()
    assert str(path) in str(failed.value) and says in str(failed.value)


def test_a_file_that_would_take_long_to_read_is_refused(machine: Machine) -> None:
    line = "  h{}.example.com: {{lookaside: https://x}}\n"
    lines = [line.format(n) for n in range(3000)]
    machine.write(machine.admin, "a.yaml", "docker:\n" + "".join(lines[:1000]))
    assert machine.places("h999.example.com/a:1").lookaside == "https://x"
    path = machine.write(machine.admin, "a.yaml", "docker:\n" + "".join(lines))
    with pytest.raises(RegistriesConfError) as failed:
        machine.read()
    assert str(failed.value) == f"{path} is larger than 65536 bytes"


def test_two_files_about_one_namespace_are_refused(machine: Machine) -> None:
    one = machine.write(machine.admin, "a.yaml", "docker: {quay.io: {lookaside: https://a.test}}")
    two = machine.write(machine.admin, "b.yaml", "docker: {quay.io: {lookaside: https://a.test}}")
    with pytest.raises(RegistriesConfError) as failed:
        machine.read()
    assert str(one) in str(failed.value) and str(two) in str(failed.value)


@pytest.mark.parametrize(
    "text",
    [
        "default-docker: {}\ndocker: {}\ndefault-docker: {}\n",
        "docker:\n  quay.io: {lookaside: 'http://a'}\n  quay.io: {lookaside: 'http://b'}\n",
        "docker:\n  quay.io: {lookaside: 'http://a'}\n  'quay.io': {lookaside: 'http://b'}\n",
        "default-docker: {lookaside: 'http://a', use-sigstore-attachments: true, lookaside: 'http://b'}\n",
        "other: [1, {a: 1, b: 2, a: 3}]\n",
        "other: &all {a: 1, b: {c: *all, c: 2}}\n",
    ],
)
def test_what_one_file_says_twice_is_refused(machine: Machine, text: str) -> None:
    path = machine.write(machine.admin, "a.yaml", text)
    with pytest.raises(RegistriesConfError, match="is there twice in one table") as caught:
        machine.read()
    assert str(path) in str(caught.value)


def test_a_home_with_odd_characters_is_a_good_default(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "100% me?")
    own = machine.places("quay.io/a/b:1", uid=1000).lookaside
    assert own == f"file://{tmp_path}/100%25%20me%3F/home/.local/share/containers/sigstore"


def test_names_that_expand_without_end_cost_nothing(machine: Machine) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    machine.write(machine.admin, "a.yaml", "\n".join(lines))
    assert not machine.places("quay.io/a:1").attachments
