"""What options are without the command line: by the environment, by layertee.toml, by whose file."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from layertee.cli import settings
from layertee.cli.arguments import COMMANDS, parse, parser_of
from layertee.cli.main import main
from layertee.cli.targets import target_of
from layertee.cli.values import Amount
from layertee.config.settings import SettingsError, SettingsFiles
from layertee.errors import InvalidReference
from layertee.image.reference import LayoutReference
from tests.support.jsonshapes import check
from tests.support.pages import DOCS

WITH_SETTINGS = sorted(COMMANDS - {"help", "config"})


class Machine:
    """A system of files in ``root``, and a user whose configuration is in ``root/xdg``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ: dict[str, str] = {}

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def admin(self, text: str) -> Path:
        return self.write("etc/layertee/layertee.toml", text)

    def user(self, text: str) -> Path:
        return self.write("xdg/layertee/layertee.toml", text)

    def parse(self, *words: str, **environ: str) -> argparse.Namespace:
        files = SettingsFiles.beneath(self.root, user=self.root / "xdg/layertee")
        return parse(words, environ, files)

    def mistake(self, *words: str, **environ: str) -> str:
        with pytest.raises(SettingsError) as caught:
            self.parse(*words, **environ)
        assert caught.value.hint == "settings"
        return str(caught.value).replace(f"{self.root}/", "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- what counts ---------------------------------------------------------------------------------------


def test_each_place_counts_before_the_one_below_it(machine: Machine) -> None:
    rates = [machine.parse("pull", "x").max_rate]
    for name, rate in (
        ("usr/lib/layertee/layertee.toml", "1M"),
        ("etc/layertee/layertee.toml", "2M"),
        ("etc/layertee/layertee.toml.d/a.toml", "3M"),
        ("etc/layertee/layertee.toml.d/b.toml", "4M"),
        ("xdg/layertee/layertee.toml", "5M"),
        ("xdg/layertee/layertee.toml.d/a.toml", "6M"),
    ):
        machine.write(name, f'max-rate = "{rate}"')
        rates.append(machine.parse("pull", "x").max_rate)
    rates.append(machine.parse("pull", "x", LAYERTEE_MAX_RATE="7M").max_rate)
    rates.append(machine.parse("pull", "x", "--max-rate=8M", LAYERTEE_MAX_RATE="7M").max_rate)
    assert rates == [None, *(n * 1_000_000 for n in range(1, 9))]


def test_the_table_of_a_command_counts_before_what_is_for_all_in_the_same_file(machine: Machine) -> None:
    machine.admin('max-rate = "1M"\n[pull]\nmax-rate = "2M"\n')
    assert machine.parse("pull", "x").max_rate == 2_000_000
    assert machine.parse("inspect", "x").max_rate == 1_000_000
    machine.user('max-rate = "3M"')
    assert machine.parse("pull", "x").max_rate == 3_000_000


def test_a_list_is_replaced_and_not_continued(machine: Machine) -> None:
    machine.admin('from = ["auto", "oci:/srv/a"]')
    assert machine.parse("pull", "x").places == ["auto", "oci:/srv/a"]
    assert machine.parse("pull", "x", LAYERTEE_FROM="oci:/b  oci:/c").places == ["oci:/b", "oci:/c"]
    assert machine.parse("pull", "x", "--from", "oci:/d", "--from=oci:/e").places == ["oci:/d", "oci:/e"]
    machine.user("from = []")
    assert machine.parse("pull", "x").places == []
    machine.user('from = "ostree:/repo"')
    assert machine.parse("pull", "x").places == ["ostree:/repo"]


@pytest.mark.parametrize(
    ("line", "dest", "value"),
    [
        ('store = "/srv/layers"', "store", Path("/srv/layers")),
        ("max-rate = 20000000", "max_rate", 20_000_000),
        ("stall-timeout = 2.5", "stall_timeout", 2.5),
        ("max-connections = 3", "max_connections", 3),
        ("keep-signatures = true", "keep_signatures", True),
        ('layers = "uncompressed"', "layers", "uncompressed"),
        ('deadline = "1h30m"', "deadline", 5400.0),
        ("verbose = true", "verbose", True),
        ('trust-realm = ["Auth.example.com"]', "trusted_realms", ["auth.example.com"]),
        ('registries.d = "/etc/sigs"', "registries_d", Path("/etc/sigs")),
    ],
)
def test_a_value_is_what_it_is_on_the_command_line(
    machine: Machine, line: str, dest: str, value: object
) -> None:
    machine.admin(line)
    assert getattr(machine.parse("pull", "x"), dest) == value


def test_an_option_that_has_to_be_given_may_be_configured(machine: Machine) -> None:
    machine.admin('[prepare]\nostree-repo = "/sysroot/ostree/repo"')
    assert machine.parse("prepare", "x").ostree_repo == Path("/sysroot/ostree/repo")
    assert machine.parse("prepare", "x", "--ostree-repo=/b").ostree_repo == Path("/b")


def test_a_layout_that_is_typed_is_taken_before_a_store_that_is_configured(machine: Machine) -> None:
    machine.admin('store = "/srv/layers"')
    args = machine.parse("pull", "x", "--to", "oci:/srv/layout")
    assert target_of(args) == LayoutReference(Path("/srv/layout"), None)
    assert (args.store, args.configured) == (Path("/srv/layers"), frozenset({"store"}))
    typed = machine.parse("pull", "x", "--to", "oci:/srv/layout", "--store=/b")
    assert typed.configured == frozenset()
    with pytest.raises(InvalidReference, match="give one"):
        target_of(typed)


def test_an_empty_value_that_is_typed_is_one_that_is_typed(machine: Machine) -> None:
    machine.admin('authfile = "/etc/auth.json"')
    assert machine.parse("image-proxy").authfile == Path("/etc/auth.json")
    assert machine.parse("image-proxy", "--authfile=").authfile is None


def test_a_switch_of_the_environment_has_the_usual_words(machine: Machine) -> None:
    machine.admin("keep-signatures = true")
    assert machine.parse("pull", "x", LAYERTEE_KEEP_SIGNATURES="no").keep_signatures is False
    assert machine.parse("pull", "x", "--keep-signatures", LAYERTEE_KEEP_SIGNATURES="0").keep_signatures
    assert machine.parse("-v", "pull", "x", LAYERTEE_DEBUG="1").debug is True
    assert "LAYERTEE_DEBUG: 'si' is not true" in machine.mistake("pull", "x", LAYERTEE_DEBUG="si")


def test_an_empty_variable_is_none(machine: Machine) -> None:
    machine.admin('max-rate = "1M"')
    assert machine.parse("pull", "x", LAYERTEE_MAX_RATE="").max_rate == 1_000_000
    assert machine.parse("pull", "x", LAYERTEE_TLS_VERIFY="").tls_verify is None


def test_what_means_something_else_in_a_command_is_only_set_in_its_table(machine: Machine) -> None:
    machine.admin('max-rate = "1M"\nmax-connections = 9\nkeep-partials = "2d"\n[serve]\nmax-rate = "9M"\n')
    args = machine.parse("serve", LAYERTEE_MAX_RATE="3M", LAYERTEE_STALL_TIMEOUT="5")
    assert (args.max_rate, args.max_connections, args.stall_timeout) == (9_000_000, 1000, 30.0)
    assert machine.parse("gc", LAYERTEE_KEEP_PARTIALS="3d").keep_partials is None
    machine.admin('[gc]\nkeep-partials = "never"')
    assert machine.parse("gc").keep_partials is not None


def test_a_file_of_metrics_is_that_of_one_command(machine: Machine) -> None:
    path = machine.admin('[image-proxy]\nmetrics-file = "/m/bootc.prom"\n')
    assert machine.parse("image-proxy").metrics_file == Path("/m/bootc.prom")
    assert machine.parse("pull", "x").metrics_file is None
    assert machine.parse("pull", "x", LAYERTEE_METRICS_FILE="/m/a.prom").metrics_file == Path("/m/a.prom")
    path.write_text('metrics-file = "/m/all.prom"\n')
    assert "each command has a metrics-file of its own" in machine.mistake("pull", "x")


def test_options_of_other_commands_are_let_alone(machine: Machine) -> None:
    machine.admin('ostree-repo = "/repo"\nahead = "1Mi"\n[serve]\nlisten = ["127.0.0.1:99999"]\n')
    assert machine.parse("ls").store is None
    assert machine.parse("image-proxy").ahead == 1 << 20


# --- mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\nmax-rat = "1M"', ":2: there is no option 'max-rat'; did you mean max-rate?"),
        ("zzzzzz = 1", ":1: there is no option 'zzzzzz'"),
        ("[purl]\nx = 1", ":1: there is no option and no command 'purl'; did you mean pull?"),
        ("[pull]\nlistn = 1", ":2: pull has no option 'listn'"),
        ("[pull]\nmax-rates = 1", ":2: pull has no option 'max-rates'; did you mean max-rate?"),
        ('verify = "digest"', ":1: verify is an option of pull: it stands in a table [pull]"),
        ('pull = "digest"', ":1: pull is a command: what is for it stands in a table [pull]"),
        ('[config]\nroot = "/tmp"', ":1: config has no options that a file may set"),
        ("[help]\n", ":1: help has no options that a file may set"),
        ('max-rate = "fast"', ":1: 'fast' is not a rate of at least 1000 bytes per second, like 20M"),
        ("max-rate = [1000]", ":1: max-rate is one value, not an array"),
        ("max-rate = 1979-05-27", ":1: max-rate cannot be a date: write a string"),
        ("max-connections = 65", ":1: '65' is not a number from 1 to 64"),
        (
            'layers = "uncompresed"',
            ":1: layers is one of as-is, uncompressed, not 'uncompresed'; did you mean",
        ),
        ('store = "layers"', ":1: store has to be an absolute path, not 'layers'"),
        ('store = ""', ":1: store is empty"),
        ('store = "/a\\u0000b"', ":1: store has a NUL character in it"),
        ('keep-signatures = "yes"', ":1: keep-signatures is true or false"),
        ("dry-run = true", ":1: --dry-run can only be given on the command line"),
        ("tls-verify = false", ":1: --tls-verify can only be given on the command line"),
        ("insecure-policy = true", ":1: --insecure-policy can only be given on the command line"),
        ("[pull]\nallow-downgrade = true", ":2: --allow-downgrade can only be given on the command line"),
        ("undo = true", ":1: --undo can only be given on the command line"),  # of another command
        ("store = ", ":1: this is not TOML"),
    ],
)
def test_a_mistake_is_one_of_file_and_line(machine: Machine, text: str, said: str) -> None:
    machine.admin(text)
    assert machine.mistake("pull", "x").startswith(f"etc/layertee/layertee.toml{said}")


def test_what_lets_more_images_in_is_for_the_machine_to_say(machine: Machine) -> None:
    lines = {"trust": "claimed", "policy": "/p", "trust-file": "/t", "signatures-by": "skopeo"}
    for key, value in lines.items():
        machine.user(f'{key} = "{value}"')
        said = machine.mistake("pull", "x")
        assert f"only the machine's layertee.toml, in /etc/layertee, may set {key}" in said
        variable = settings.PREFIX + key.upper().replace("-", "_")
        machine.user("")
        assert f"{variable}: only the machine's" in machine.mistake("pull", "x", **{variable: value})
        machine.admin(f'{key} = "{value}"')
        assert str(getattr(machine.parse("pull", "x"), key.replace("-", "_"))) == value
        machine.admin("")


def test_a_file_of_the_environment_frees_from_nothing_that_the_machine_says(machine: Machine) -> None:
    machine.admin('policy = "/reject"\nmax-rate = "1M"')
    mine = machine.write("mine.toml", 'max-rate = "2M"')
    for only, rate in ((Path("/dev/null"), 1_000_000), (mine, 2_000_000)):
        args = parse(("pull", "x"), {}, SettingsFiles.beneath(machine.root, only=only))
        assert (args.policy, args.max_rate) == (Path("/reject"), rate)
    mine.write_text('policy = "/accept"')
    with pytest.raises(SettingsError, match="only the machine's"):
        parse(("pull", "x"), {}, SettingsFiles.beneath(machine.root, only=mine))


def test_the_sandbox_of_the_machine_can_only_be_raised(machine: Machine) -> None:
    assert machine.parse("pull", "x", LAYERTEE_SANDBOX="auto").sandbox == "auto"
    machine.admin('sandbox = "auto"\n[serve]\nsandbox = "off"')
    machine.user('sandbox = "off"')
    assert machine.parse("pull", "x").sandbox == "auto"
    assert machine.parse("pull", "x", LAYERTEE_SANDBOX="off").sandbox == "auto"
    assert machine.parse("pull", "x", LAYERTEE_SANDBOX="require").sandbox == "require"
    assert machine.parse("pull", "x", "--sandbox=off", LAYERTEE_SANDBOX="require").sandbox == "off"
    assert machine.parse("serve").sandbox == "off"
    machine.user('sandbox = "require"')
    assert machine.parse("pull", "x").sandbox == "require"
    assert (
        machine.parse("pull", "x", LAYERTEE_SANDBOX="off").sandbox == "require"
    )  # it says less than the machine, and nothing
    machine.write("etc/layertee/layertee.toml.d/a.toml", '[pull]\nsandbox = "off"')
    assert machine.parse("pull", "x", LAYERTEE_SANDBOX="off").sandbox == "off"


@pytest.mark.parametrize("text", ["layers", " "])
def test_a_path_in_a_variable_is_absolute(machine: Machine, text: str) -> None:
    assert "LAYERTEE_STORE: store has to be an absolute path" in machine.mistake("ls", LAYERTEE_STORE=text)
    assert machine.parse("ls", "--store", "layers").store == Path("layers")


def test_a_variable_that_is_almost_one_is_a_warning(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    others = ("CORPUS", "FAULTS", "DIST_CHECK", "TEST_CACHE", "ALL_PEERS", "LOAD_MB", "FUZZ_SECONDS", "HOME")
    environ = {f"LAYERTEE_{name}": "/x" for name in others}
    assert machine.parse("ls", LAYERTEE_STORE="/y", LAYERTEE_CORE="c", **environ).store == Path("/y")
    assert capsys.readouterr().err == ""
    assert machine.parse("ls", LAYERTEE_STOER="/x").store is None
    assert capsys.readouterr().err == (
        "layertee: warning: LAYERTEE_STOER is not read; did you mean LAYERTEE_STORE?\n"
    )


def test_of_very_many_mistakes_the_first_are_described(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    n_keys = settings.MAX_MISTAKES + 3000
    machine.admin("".join(f"key-{number} = 1\n" for number in range(n_keys)))
    asked: list[str] = []

    def other(command: str) -> argparse.ArgumentParser:
        asked.append(command)
        return parser_of(command)

    read = settings.settings_in(SettingsFiles.beneath(machine.root), COMMANDS)
    found = settings.found_for("ls", parser_of("ls"), read, other, COMMANDS, {})
    assert (len(found.mistakes), found.n_more) == (settings.MAX_MISTAKES, 3000)
    assert len(asked) <= len(COMMANDS)
    _, err = shown(machine, capsys, "ls", "--check", code=1)
    assert err.splitlines()[-1] == "layertee: and 3000 more mistakes"


def test_doctor_does_not_stop_at_what_is_wrong(machine: Machine) -> None:
    machine.admin(f'stor = "/x"\nsandbox = 1\nstore = "{machine.root}/store"')
    assert machine.parse("doctor", LAYERTEE_STORE="rel").store == machine.root / "store"
    assert machine.parse("help", "doctor").topic == "doctor"


def test_who_is_served_is_said_in_a_file(machine: Machine) -> None:
    assert "LAYERTEE_LISTEN: only layertee.toml may set listen" in machine.mistake(
        "serve", LAYERTEE_LISTEN="127.0.0.1:1"
    )
    machine.user('listen = ["127.0.0.1:1"]')
    assert len(machine.parse("serve").listen) == 1


def test_a_file_that_others_may_write_to_is_refused(machine: Machine) -> None:
    machine.admin('store = "/x"').chmod(0o666)
    assert "others may write to" in machine.mistake("ls")


def test_help_and_a_mistake_in_the_words_come_before_one_in_a_file(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.admin("nonsense")
    for words, code in ((("pull", "--help"), 0), (("pull", "--nonsense", "x"), 1)):
        with pytest.raises(SystemExit) as caught:
            machine.parse(*words)
        assert caught.value.code == code
    assert machine.parse("help", "places").topic == "places"
    assert machine.parse("config").about is None


# --- the tables of options -------------------------------------------------------------------------------


def test_every_name_in_the_tables_is_that_of_an_option() -> None:
    there_are = {name for command in COMMANDS for name in settings.options_in(parser_of(command))}
    assert there_are >= settings.SETTABLE


def test_what_one_call_does_and_what_is_less_safe_is_only_typed() -> None:
    typed = {
        *("dry-run", "json", "quiet", "to", "repair", "undo", "force", "remove", "partial", "sockfd"),
        *("tls-verify", "insecure-policy", "allow-downgrade", "insecure-listen", "no-creds"),
    }
    assert typed & settings.SETTABLE == set()
    for command in WITH_SETTINGS:
        assert not any(settings.may_set(command, name) for name in typed)


def test_no_two_options_have_the_same_variable() -> None:
    names = {name for command in COMMANDS for name in settings.options_in(parser_of(command))}
    options = [settings.Option(name, argparse.Action([], "")) for name in names]
    assert len({option.variable for option in options}) == len(names)


# --- layertee config -------------------------------------------------------------------------------------


def shown(
    machine: Machine, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> tuple[str, str]:
    assert main(["config", "--root", str(machine.root), *words]) == code
    told = capsys.readouterr()
    return told.out.replace(str(machine.root), ""), told.err.replace(str(machine.root), "")


def rows(out: str) -> Mapping[str, list[str]]:
    """What each option has, be it on one line or on two."""
    lines = out.replace("\n  ", " ").splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line}


def test_each_value_is_shown_with_what_says_so(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.admin('\nmax-rate = 20000000\nfrom = ["auto", "oci:/a"]\n[serve]\nmax-rate = "9M"\n')
    out, err = shown(machine, capsys, "pull")
    table = rows(out)
    assert err == ""
    assert out.startswith("none  /usr/lib/layertee/layertee.toml\nread  /etc/layertee/layertee.toml\n")
    assert table["max-rate"] == ["20000000", "/etc/layertee/layertee.toml:2"]
    assert table["from"] == ["auto", "oci:/a", "/etc/layertee/layertee.toml:3"]
    assert table["max-output"] == ["64Gi", "default"]
    assert table["stall-timeout"] == ["60", "default"] and table["platform"] == ["-", "default"]
    assert set(table) - {"none", "read"} == {
        name for name in settings.options_in(parser_of("pull")) if settings.may_set("pull", name)
    }
    out, _ = shown(machine, capsys)
    before, _, serve = out.partition("\nserve, where it differs:\n")
    assert rows(before)["max-rate"] == ["20000000", "/etc/layertee/layertee.toml:2"]
    assert rows(serve)["max-rate"] == ["9M", "/etc/layertee/layertee.toml:5"]
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_long_value_takes_a_second_line(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"/{'long/' * 14}"
    machine.admin(f'store = "{path}"')
    out, _ = shown(machine, capsys, "ls")
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("store"))
    assert lines[at].split() == ["store", path]
    assert lines[at + 1].split() == ["/etc/layertee/layertee.toml:1"]


def test_every_mistake_is_shown_and_the_exit_code_is_1(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(machine, capsys, "--check") == ("no mistakes\n", "")
    machine.admin('stor = "/x"\nmax-rate = "fast"\n[serve]\nlisten = ["nowhere"]\n')
    machine.write("etc/layertee/layertee.toml.d/a.toml", "[")
    out, err = shown(machine, capsys, "--check", code=1)
    assert out == ""
    assert len(err.splitlines()) == 4 and "layertee.toml:4: " in err and "a.toml:1: this is not" in err
    out, err = shown(machine, capsys, code=1)
    assert "max-rate" in out and len(err.splitlines()) == 4
    assert len(shown(machine, capsys, "--check", "ls", code=1)[1].splitlines()) == 2


def test_the_object_says_what_the_table_says(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    path = machine.admin('\n[pull]\nmax-rate = "1M"\nlayers = "flat"\n')
    assert main(["config", "--root", str(machine.root), "--json", "pull"]) == 1
    told = json.loads(capsys.readouterr().out)
    check("config", told)
    assert told["commands"]["pull"]["max-rate"] == {
        "value": "1M",
        "from": "file",
        "file": str(path),
        "line": 3,
        "key": "max-rate",
        "table": "pull",
        "variable": None,
    }
    assert told["commands"]["pull"]["min-rate"]["value"] is None
    assert told["commands"]["pull"]["min-rate"]["from"] == "default"
    assert told["mistakes"] == [f"{path}:4: layers is one of as-is, uncompressed, not 'flat'"]
    assert {"path": str(path), "read": True} in told["files"]


def test_variables_are_shown_and_those_that_are_mistyped_are_mistakes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAYERTEE_CONFIG", "/dev/null")
    monkeypatch.setenv("LAYERTEE_MAX_RATE", "5M")
    assert main(["config", "pull"]) == 0
    assert rows(capsys.readouterr().out)["max-rate"] == ["5M", "LAYERTEE_MAX_RATE"]
    monkeypatch.setenv("LAYERTEE_MAX_RTE", "5M")
    monkeypatch.setenv("LAYERTEE_SOMETHING_OF_OTHERS", "5M")
    assert main(["config", "--check"]) == 1
    assert capsys.readouterr().err == (
        "layertee: LAYERTEE_MAX_RTE: no option has this variable; did you mean LAYERTEE_MAX_RATE?\n"
    )


def test_an_amount_of_a_file_is_an_amount(machine: Machine) -> None:
    machine.admin('[serve]\ncache-max = "5%"\n')
    assert machine.parse("serve").cache_max == Amount(None, 0.05)


def test_the_examples_of_the_page_are_without_mistakes(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "reference/layertee-toml.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```toml\n(.*?)^```$", text, re.S | re.M)
    assert examples
    for example in examples:
        machine.admin(example)
        assert shown(machine, capsys, "--check") == ("no mistakes\n", "")
