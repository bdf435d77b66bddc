"""registries.conf: which files are read, and where an image is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from layertee.config.home import User
from layertee.config.registries import Endpoint, Registries
from layertee.config.registries_file import Whence
from layertee.errors import RegistriesConfError, RegistryBlocked
from layertee.image.reference import Reference, parse_reference
from tests.support.users import closed

SHA = "sha256:" + "a" * 64
NOBODY = User(1000, None, None, None, None, None)


def reference(text: str) -> Reference:
    found = parse_reference(text)
    assert isinstance(found, Reference)
    return found


def of(text: str, tmp_path: Path) -> Registries:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    nowhere = tmp_path / "nowhere"
    return Registries.read(path=path, env={}, user=NOBODY, admin=nowhere, vendor=nowhere)


def asked(registries: Registries, name: str) -> list[str]:
    """Each endpoint in short: what is asked for, ``!`` for insecure, ``m`` for a mirror, and its line."""
    return [
        f"{e.reference}{' !' * e.insecure}{' m' * e.is_mirror} {e.whence.line if e.whence else '-'}"
        for e in registries.endpoints(reference(name))
    ]


# --- endpoints ---------------------------------------------------------------------------------------


def test_without_a_file_an_image_is_asked_for_where_its_name_says() -> None:
    for name in (
        "quay.io/a/b:1",
        f"docker.io/library/busybox@{SHA}",
        "[::1]:5000/x",
    ):
        image = reference(name)
        assert Registries.none().endpoints(image) == (Endpoint(image, False, False, None),)
        assert Registries.none().section(name) is None
    assert Registries.none().credential_helpers == ("containers-auth.json",)


def test_mirrors_come_in_order_before_the_origin_with_their_lines(tmp_path: Path) -> None:
    registries = of(
        """
        [[registry]]
        prefix = "quay.io/fedora"
        location = "registry.example.com/f"
        [[registry.mirror]]
        location = "one.example:5000/cache/quay"
        insecure = true
        [[registry.mirror]]
        location = "two.example"
        namespace-proxy = "quay.io"

        [[registry]]
        location = "quay.io"
        insecure = true
        """,
        tmp_path,
    )
    assert asked(registries, "quay.io/fedora/bootc:42") == [
        "one.example:5000/cache/quay/bootc:42 ! m 5",
        "two.example/bootc:42 m 8",
        "registry.example.com/f/bootc:42 2",
    ]
    assert asked(registries, "quay.io/fedoras/x") == ["quay.io/fedoras/x:latest ! 12"]
    assert [e.namespace for e in registries.endpoints(reference("quay.io/fedora/x"))] == ["", "quay.io", ""]
    assert (
        str(registries.endpoints(reference("quay.io/fedora/x"))[0].whence) == f"{tmp_path}/registries.conf:5"
    )


def test_docker_hub_is_configured_by_its_name(tmp_path: Path) -> None:
    registries = of(
        '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.gcr.io"\n', tmp_path
    )
    assert asked(registries, "docker.io/busybox") == [
        "mirror.gcr.io/library/busybox:latest m 3",
        "docker.io/library/busybox:latest 1",
    ]
    assert registries.endpoints(reference("index.docker.io/busybox"))[-1].reference.registry == "docker.io"


@pytest.mark.parametrize(
    ("settings", "by_tag", "by_digest"),
    [
        ("", "abc", "abc"),
        ("mirror-by-digest-only = true", "", "abc"),
        ("mirror-by-digest-only = false", "abc", "abc"),
    ],
)
def test_mirrors_may_be_for_digests_only(settings: str, by_tag: str, by_digest: str, tmp_path: Path) -> None:
    text = f'[[registry]]\nlocation = "o.example"\n{settings}\n'
    text += "".join(f'[[registry.mirror]]\nlocation = "{name}.example"\n' for name in "abc")
    registries = of(text, tmp_path)
    for tail, want in ((":1", by_tag), (f"@{SHA}", by_digest), (f":1@{SHA}", by_digest)):
        found = registries.endpoints(reference(f"o.example/x{tail}"))
        assert "".join(e.reference.registry[0] for e in found) == want + "o"


def test_each_mirror_may_be_for_digests_or_for_tags_only(tmp_path: Path) -> None:
    text = '[[registry]]\nlocation = "o.example"\n'
    for name, use in (("a", "all"), ("d", "digest-only"), ("t", "tag-only")):
        text += f'[[registry.mirror]]\nlocation = "{name}.example"\npull-from-mirror = "{use}"\n'
    registries = of(text, tmp_path)
    for tail, want in ((":1", "ato"), (f"@{SHA}", "ado"), (f":1@{SHA}", "ado")):
        found = registries.endpoints(reference(f"o.example/x{tail}"))
        assert "".join(e.reference.registry[0] for e in found) == want


@pytest.mark.parametrize(
    ("prefix", "fits", "does_not"),
    [
        ("example.com", ["example.com/x", "example.com:5000/x"], ["example.com.org/x", "an.example.com/x"]),
        ("example.com:5000", ["example.com:5000/x"], ["example.com/x", "example.com:50001/x"]),
        ("example.com/a", ["example.com/a", "example.com/a/b"], ["example.com/ab", "example.com/b"]),
        ("Example.COM/a", ["example.com/a"], ["example.com/b"]),
        (
            "*.example.com",
            ["a.example.com/x", "a.b.example.com:1/x"],
            ["example.com/x", "a.example.common/x"],
        ),
        ("example.com/", ["example.com/x"], ["example.org/x"]),
    ],
)
def test_a_prefix_fits_whole_parts_of_a_name(
    prefix: str, fits: list[str], does_not: list[str], tmp_path: Path
) -> None:
    registries = of(f'[[registry]]\nprefix = "{prefix}"\nlocation = "elsewhere.example"\n', tmp_path)
    assert all(registries.section(name) for name in fits)
    assert not any(registries.section(name) for name in does_not)


def test_the_longest_prefix_holds_and_sections_are_not_added_up(tmp_path: Path) -> None:
    registries = of(
        """
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry.mirror]]
        location = "m.example"
        [[registry]]
        location = "a.example.com/team"
        """,
        tmp_path,
    )
    assert asked(registries, "a.example.com/team/x") == ["a.example.com/team/x:latest 7"]
    assert asked(registries, "a.example.com/teams/x:1") == [
        "m.example/teams/x:1 m 5",
        "a.example.com/teams/x:1 ! 2",
    ]


# --- blocked -------------------------------------------------------------------------------------------


def test_what_is_blocked_is_asked_nowhere(tmp_path: Path) -> None:
    registries = of('\n[[registry]]\nlocation = "quay.io"\nblocked = true\n', tmp_path)
    with pytest.raises(RegistryBlocked) as caught:
        registries.endpoints(reference("quay.io/a/b"))
    assert f"quay.io is blocked by the administrator ({tmp_path}/registries.conf:2)" in str(caught.value)
    assert asked(registries, "quay.org/a/b") == ["quay.org/a/b:latest -"]


def test_mirrors_of_a_blocked_origin_are_all_that_is_asked(tmp_path: Path) -> None:
    text = '[[registry]]\nlocation = "quay.io"\nblocked = true\n[[registry.mirror]]\nlocation = "m.example"\n'
    registries = of(text, tmp_path)
    assert asked(registries, "quay.io/a/b") == ["m.example/a/b:latest m 4"]
    section = registries.section("quay.io/a/b")
    assert section is not None
    assert section.blocked


def test_an_origin_is_blocked_by_the_section_of_its_name_also_where_that_names_another_place(
    tmp_path: Path,
) -> None:
    registries = of('[[registry]]\nprefix = "a.example"\nlocation = "b.example"\nblocked = true\n', tmp_path)
    with pytest.raises(RegistryBlocked):
        registries.endpoints(reference("a.example/x"))
    assert asked(registries, "b.example/x") == ["b.example/x:latest -"]


def test_a_mirror_and_an_origin_are_blocked_by_sections_of_their_own(tmp_path: Path) -> None:
    registries = of(
        """
        [[registry]]
        prefix = "a.example"
        location = "bad.example/a"
        [[registry.mirror]]
        location = "bad.example/m"
        [[registry.mirror]]
        location = "good.example"
        [[registry]]
        location = "bad.example"
        blocked = true
        """,
        tmp_path,
    )
    assert asked(registries, "a.example/x") == ["good.example/x:latest m 7"]


# --- refusals ----------------------------------------------------------------------------------------

REFUSED = {
    "a scheme": ('[[registry]]\nlocation = "https://quay.io"\n', 1),
    "a scheme in a prefix": ('[[registry]]\nlocation = "a"\nprefix = "http://quay.io"\n', 1),
    "nothing": ("\n[[registry]]\ninsecure = true\n", 2),
    "a prefix alone": ('[[registry]]\nprefix = "quay.io"\n', 1),
    "a mirror without location": ('[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true\n', 3),
    "a mirror's use for the origin": ('[[registry]]\nlocation = "a"\npull-from-mirror = "all"\n', 1),
    "two uses": (
        '[[registry]]\nlocation = "a"\nmirror-by-digest-only = true\n[[registry.mirror]]\n'
        'location = "b"\npull-from-mirror = "all"\n',
        4,
    ),
    "an unknown use": (
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "ALL"\n',
        3,
    ),
    "another's insecure": (
        '[[registry]]\nlocation = "a"\n[[registry]]\nprefix = "b"\nlocation = "a"\ninsecure = true\n',
        3,
    ),
    "another's blocked": (
        '[[registry]]\nlocation = "a"\nblocked = true\n[[registry]]\nprefix = "b"\nlocation = "a"\n',
        4,
    ),
    "a wildcard with a path": ('[[registry]]\nprefix = "*.a.com/b"\nlocation = "c.com"\n', 1),
    "a search registry with a path": ('\nunqualified-search-registries = ["a/b"]\n', 2),
    "an empty search registry": ('unqualified-search-registries = ["docker.io", ""]\n', 1),
    "an unknown mode": ('short-name-mode = "Enforcing"\n', 1),
    "an alias with a tag": ('[aliases]\n"a" = "quay.io/a"\n"b" = "quay.io/b:1"\n', 3),
    "an alias without registry": ('[aliases]\nb = "library/b"\n', 2),
    "an alias for a full name": ('[aliases]\n"quay.io/a" = "quay.io/b"\n', 2),
    "an alias in capitals": ('[aliases]\nB = "quay.io/b"\n', 2),
    "an alias that is no text": ("[aliases]\nb = 1\n", 2),
    "a flag in quotes": ('[[registry]]\nlocation = "a"\ninsecure = "true"\n', 1),
    "a number for a name": ("[[registry]]\nlocation = 1\n", 1),
    "a table for a list": ('[registry]\nlocation = "a"\n', 1),
    "a text for a list": ('credential-helpers = "pass"\n', 1),
    "a mirror that is a table": ('[[registry]]\nlocation = "a"\n[registry.mirror]\nlocation = "b"\n', 1),
    "two cases of one key": ('[[registry]]\nlocation = "a"\nLocation = "b"\n', None),
    "two cases of a key of the file": ("a = 1\nRegistry = []\nregistry = []\n", 2),
    "version 1": ('[registries.search]\nregistries = ["docker.io"]\n', 1),
    "version 1, empty": ("[registries.block]\nregistries = []\n", 1),
    "no TOML": ('a = 1\n[[registry]]\nlocation = "a\n', 3),
    "a helper that is no text": ("additional-layer-store-auth-helper = 1\n", 1),
}


@pytest.mark.parametrize(("text", "line"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_with_file_and_line(text: str, line: int | None, tmp_path: Path) -> None:
    with pytest.raises(RegistriesConfError) as caught:
        of(text, tmp_path)
    at = f":{line}" if line else ""
    assert str(caught.value).startswith(f"{tmp_path}/registries.conf{at}: ")


def test_version_1_gets_the_words_of_the_other_tools(tmp_path: Path) -> None:
    with pytest.raises(RegistriesConfError, match="must be in v2 format but is in v1"):
        of('[registries.insecure]\nregistries = ["a"]\n', tmp_path)
    assert of("[registries]\n[registries.search]\n", tmp_path).search == ()


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("docker.io", "q.example/busybox"),  # a short form of docker.io/library/busybox
        ("nohost", "q.example/busybox"),
        ("index.docker.io/library", "q.example/busybox"),
        ("[::1]:5000", "q.example/busybox"),
        ("q.example:5000", "q.example:5000/busybox"),
        ("under_score.example", "q.example/busybox"),
        ("m.example/Upper", "q.example/busybox"),
        ("m.example:99999", "q.example/busybox"),
        ("m.example:0", "q.example/busybox"),
        ("m.example/" + "x" * 250, "q.example/busybox"),
    ],
)
def test_a_location_that_makes_no_name_is_refused_where_it_is_used(
    location: str, name: str, tmp_path: Path
) -> None:
    registries = of(f'\n[[registry]]\nprefix = "q.example"\nlocation = "{location}"\n', tmp_path)
    with pytest.raises(RegistriesConfError, match=r"registries\.conf:2: "):
        registries.endpoints(reference(name))


def test_what_is_not_known_and_other_letter_case_are_taken_as_by_the_other_tools(tmp_path: Path) -> None:
    registries = of(
        """
        future = { a = 1 }
        aliases = 5
        additional-layer-store-auth-helper = "helper"
        Credential-Helpers = ["pass", "containers-auth.json"]
        [[Registry]]
        LOCATION = "quay.io/"
        colour = "blue"
        Insecure = true
        """,
        tmp_path,
    )
    assert asked(registries, "quay.io/x") == ["quay.io/x:latest ! 6"]
    assert registries.credential_helpers == ("pass", "containers-auth.json")


def test_inline_tables_have_the_line_of_their_brace(tmp_path: Path) -> None:
    registries = of(
        """registry = [
          {location = "a.example"}, {location = "b.example",
            mirror = [{location = "m.example"}]},
        ]""",
        tmp_path,
    )
    assert asked(registries, "a.example/x") == ["a.example/x:latest 2"]
    assert asked(registries, "b.example/x") == ["m.example/x:latest m None", "b.example/x:latest 2"]


def test_a_line_that_is_not_certain_is_not_given(tmp_path: Path) -> None:
    registries = of('[["regis\\u0074ry"]]\nlocation = "a.example"\n', tmp_path)
    assert asked(registries, "a.example/x") == ["a.example/x:latest None"]
    assert str(Whence(Path("/x"))) == "/x"


# --- which files -------------------------------------------------------------------------------------


class Machine:
    """A machine's directories, and files in them that each add one section, named after the file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.system = (root / "etc", root / "usr")
        self.env: dict[str, str] = {"HOME": str(root / "home")}

    def write(self, name: str, text: str | None = None) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        host = name.replace("/", ".").replace("_", "-")
        path.write_text(f'[[registry]]\nlocation = "{host}"\n' if text is None else text)
        return path

    def read(self, uid: int = 0, /, **more: str) -> Registries:
        env: Mapping[str, str] = self.env | more
        return Registries.read(env=env, user=User.of(env, uid), admin=self.system[0], vendor=self.system[1])

    def files(self, uid: int = 0, /, **more: str) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.read(uid, **more).files]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


USER = "home/.config/containers/registries.conf"


def test_of_the_main_files_the_first_is_read(machine: Machine) -> None:
    assert machine.files() == []
    for name in ("usr/registries.conf", "etc/registries.conf", USER):
        machine.write(name)
        assert machine.files() == [name]
    other = machine.write("xdg/containers/registries.conf")
    assert machine.files(XDG_CONFIG_HOME=str(other.parents[1])) == ["xdg/containers/registries.conf"]


def test_drop_ins_come_after_by_name_and_the_nearer_of_one_name(machine: Machine) -> None:
    machine.write("etc/registries.conf")
    for name in ("etc/registries.conf.d/50-b.conf", "usr/registries.conf.d/50-b.conf", f"{USER}.d/60-c.conf"):
        machine.write(name)
    for name in (
        "usr/registries.conf.d/10-a.conf",
        "etc/registries.conf.d/README",
        "etc/registries.conf.d/.conf",
    ):
        machine.write(name)
    (machine.root / "etc/registries.conf.d/dir.conf").mkdir()
    assert machine.files() == [
        "etc/registries.conf",
        "etc/registries.conf.d/.conf",
        "usr/registries.conf.d/10-a.conf",
        "etc/registries.conf.d/50-b.conf",
        f"{USER}.d/60-c.conf",
    ]


def test_drop_ins_may_be_for_root_for_others_or_for_one_user(machine: Machine) -> None:
    names = ["etc/registries.rootless.conf.d/1000", "etc/registries.rootless.conf.d"]
    names += ["etc/registries.rootful.conf.d", "etc/registries.conf.d"]
    for number, name in enumerate(names):
        machine.write(f"{name}/{number}.conf")
        machine.write(f"{name}/same.conf")
    assert machine.files(0) == [f"{names[2]}/2.conf", f"{names[3]}/3.conf", f"{names[2]}/same.conf"]
    rootless = [f"{names[0]}/0.conf", f"{names[1]}/1.conf", f"{names[3]}/3.conf", f"{names[0]}/same.conf"]
    assert machine.files(1000) == rootless
    assert machine.files(0, _CONTAINERS_ROOTLESS_UID="1000") == rootless
    assert machine.files(1001) == [*rootless[1:3], f"{names[1]}/same.conf"]
    assert machine.files(1000, _CONTAINERS_ROOTLESS_UID="x") == machine.files(0)


def test_the_environment_names_a_file_in_place_of_all_others_and_one_after_them(machine: Machine) -> None:
    machine.write("etc/registries.conf")
    machine.write("etc/registries.conf.d/a.conf")
    named, last = machine.write("named"), machine.write("last")
    assert machine.files(CONTAINERS_REGISTRIES_CONF=str(named)) == ["named"]
    both = {"CONTAINERS_REGISTRIES_CONF": str(named), "CONTAINERS_REGISTRIES_CONF_OVERRIDE": str(last)}
    assert machine.files(**both) == ["named", "last"]
    del both["CONTAINERS_REGISTRIES_CONF"]
    assert machine.files(**both) == ["etc/registries.conf", "etc/registries.conf.d/a.conf", "last"]
    assert machine.files(CONTAINERS_REGISTRIES_CONF="", CONTAINERS_REGISTRIES_CONF_OVERRIDE="") != []


def test_an_option_names_a_file_in_place_of_the_main_ones(machine: Machine) -> None:
    machine.write("etc/registries.conf")
    machine.write("etc/registries.conf.d/a.conf")
    found = Registries.read(
        path=machine.write("named"),
        env=machine.env | {"CONTAINERS_REGISTRIES_CONF": "/none"},
        admin=machine.system[0],
        vendor=machine.system[1],
    )
    assert [path.name for path in found.files] == ["named", "a.conf"]


def test_later_files_win_section_by_section_and_setting_by_setting(machine: Machine) -> None:
    machine.write(
        "etc/registries.conf",
        """
        unqualified-search-registries = ["a.example"]
        credential-helpers = ["one"]
        short-name-mode = "enforcing"
        [[registry]]
        location = "quay.io"
        insecure = true
        [[registry]]
        location = "q.example"
        [aliases]
        a = "quay.io/a"
        b = "quay.io/b"
        """,
    )
    machine.write(
        "etc/registries.conf.d/1.conf",
        """
        credential-helpers = []
        unqualified-search-registries = []
        [[registry]]
        location = "quay.io"
        blocked = true
        [aliases]
        a = ""
        c = "docker.io/c"
        """,
    )
    found = machine.read()
    assert asked(found, "q.example/x") == ["q.example/x:latest 8"]
    with pytest.raises(RegistryBlocked, match=r"1\.conf:4"):
        found.endpoints(reference("quay.io/x"))
    assert (found.search, found.credential_helpers) == ((), ("containers-auth.json",))
    assert found.short_name_mode == "enforcing"
    assert {name: alias.name for name, alias in found.aliases.items()} == {
        "a": None,
        "b": "quay.io/b",
        "c": "docker.io/library/c",
    }
    assert {alias.whence.path.name for alias in found.aliases.values()} == {"1.conf", "registries.conf"}
    assert str(found.aliases["c"].whence).endswith("1.conf:9")
    assert str(found.search_whence).endswith("1.conf:3")


# --- files that are in the way -------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE"])
def test_a_file_that_is_named_has_to_be_there(machine: Machine, variable: str) -> None:
    with pytest.raises(RegistriesConfError, match=f"{machine.root}/none cannot be read: No such file"):
        machine.read(**{variable: str(machine.root / "none")})
    with pytest.raises(RegistriesConfError, match="Is a directory"):
        machine.read(**{variable: str(machine.root)})


@pytest.mark.parametrize("name", ["etc/registries.conf", USER, "etc/registries.conf.d/1.conf"])
def test_what_is_in_place_of_a_file_is_an_error(machine: Machine, name: str) -> None:
    path = machine.root / name
    path.parent.mkdir(parents=True)
    path.symlink_to(path)
    with pytest.raises(RegistriesConfError, match="symbolic link"):
        machine.read()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RegistriesConfError, match="not a regular file"):
        machine.read()
    path.unlink()
    path.symlink_to(machine.root)
    with pytest.raises(RegistriesConfError, match=r"regular file|directory"):
        machine.read()
    path.unlink()
    path.symlink_to(machine.root / "gone")
    assert machine.files() == []


def test_a_directory_of_drop_ins_that_is_a_file_is_an_error(machine: Machine) -> None:
    machine.write("etc/registries.conf.d", "")
    with pytest.raises(RegistriesConfError, match="Not a directory"):
        machine.read()


def test_a_file_is_taken_out_of_effect_by_a_link_to_null(machine: Machine) -> None:
    machine.write("usr/registries.conf.d/1.conf", "this would be refused")
    (machine.root / "etc/registries.conf.d").mkdir(parents=True)
    (machine.root / "etc/registries.conf.d/1.conf").symlink_to("/dev/null")
    (machine.root / "etc/registries.conf").symlink_to("/dev/null")
    assert machine.read().sections == ()


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"#" * ((1 << 20) + 1), "larger than 1048576 bytes"),
        (b"a = 1\n\0", ":2: "),
        (b"a = 1\n# \xff\n", ":2: .*this is not text in UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"{b=" * 100_000, "nested too deeply"),
        (b"[" + b"a." * 100_000 + b"a]", "more than 64 parts"),
        (b"a = " + b"9" * 5000, "this is not TOML"),
        (b"unqualified-search-registries = ['" + b"a-" * 400_000 + b"']", "is not host"),
        (b"[aliases]\n" + b"a-" * 400_000 + b"= 'a.example/a'", "longer than a name can be"),
        (b"[aliases]\na = '" + b"a-" * 400_000 + b"/a'", "longer than a name can be"),
    ],
)
def test_a_file_made_to_harm_is_refused(machine: Machine, raw: bytes, what: str) -> None:
    path = machine.write("etc/registries.conf", "")
    path.write_bytes(raw)
    with pytest.raises(RegistriesConfError, match=what):
        machine.read()


def test_an_unreadable_file_is_an_error_and_a_foreign_home_is_none(machine: Machine) -> None:
    machine.write(USER)
    machine.write("etc/registries.conf")
    with closed(machine.root / "home"):
        assert machine.files(1000) == ["etc/registries.conf"]
    with closed(machine.root / "etc"), pytest.raises(RegistriesConfError, match="ermission denied"):
        Registries.read(
            env={},
            user=NOBODY,
            admin=machine.system[0],
            vendor=machine.system[1],
        )


def test_toml_is_not_imported_where_no_file_is() -> None:
    code = (
        "import sys; from pathlib import Path; from layertee.config.registries import Registries\n"
        "nowhere = Path('/nonexistent')\n"
        "Registries.read(env={'HOME': '/nonexistent'}, admin=nowhere, vendor=nowhere)\n"
        "print('tomllib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
