"""Arguments in, exit codes and messages out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from layertee import Options, errors
from layertee.cli import main as cli
from layertee.cli import store as store_commands
from layertee.cli.arguments import parse
from layertee.cli.exits import EXIT_ERROR, exit_code
from layertee.cli.hints import HINTS
from layertee.cli.output import OutputFailed
from layertee.cli.shared import options_of
from layertee.config.helpers import HelperFailed
from layertee.config.settings import SettingsError
from layertee.errors import InvalidReference, LayerteeError, SourceUnreadable
from layertee.image.holding import Basis
from layertee.imageproxy.delegate import DelegateError
from layertee.imageproxy.images import SeveralMembers
from layertee.options import PolicyOptions
from layertee.sandbox.enter import SandboxError
from layertee.transfer.limits import RangeMode
from layertee.version import __version__

COMMANDS = ("pull", "inspect", "map", "ls", "rm", "gc", "verify", "doctor")
# Which exit code an error has: by who must act.
CODES: dict[type[LayerteeError], int] = {
    LayerteeError: 1,
    errors.InvalidReference: 1,
    errors.UnresolvedName: 1,
    errors.AuthConfigError: 1,
    errors.UnsupportedImage: 1,
    errors.PolicyRefused: 1,
    errors.DowngradeRefused: 1,
    errors.TrustFileError: 1,
    errors.RegistriesConfError: 1,
    errors.RegistryBlocked: 1,
    SandboxError: 1,
    errors.ServeConfigError: 1,
    SettingsError: 1,
    errors.ProxyConfigError: 1,
    DelegateError: 1,
    SeveralMembers: 1,
    HelperFailed: 1,
    errors.RegistryError: 1,
    errors.Unauthorized: 1,
    errors.NotFound: 2,
    errors.OtherPlatform: 2,
    errors.NotInRegistry: 2,
    errors.RateLimited: 4,
    errors.ServerError: 4,
    errors.TransportError: 4,
    errors.ConnectFailed: 4,
    errors.TLSFailed: 4,
    errors.ProxyRefused: 4,
    errors.Timeout: 4,
    errors.TruncatedBody: 4,
    errors.WebPage: 4,
    errors.RangeMismatch: 4,
    errors.RedirectRefused: 4,
    errors.IntegrityError: 3,
    errors.DocumentError: 3,
    errors.DigestMismatch: 3,
    errors.DiffIDMismatch: 3,
    errors.SizeMismatch: 3,
    errors.DecodeError: 3,
    errors.OutputBudgetExceeded: 3,
    errors.WindowTooLarge: 3,
    errors.WorkBudgetExceeded: 3,
    errors.DeadlineExceeded: 4,
    errors.LocalError: 1,
    errors.NoHome: 1,
    errors.UnsafePath: 1,
    errors.NoSpace: 5,
    errors.StoreBusy: 1,
    errors.StoreCorrupt: 1,
    errors.CatalogError: 1,
    errors.ServerBusy: 1,
    SourceUnreadable: 1,
    OutputFailed: 1,
}


def all_below(kind: type[LayerteeError]) -> set[type[LayerteeError]]:
    return {kind}.union(*(all_below(sub) for sub in kind.__subclasses__()))


def options(*more: str) -> Options:
    return options_of(parse(["pull", *more, "host/image:tag"]))


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What an impossible command line is told; its exit code is 1, not argparse's 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == EXIT_ERROR
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


# --- exit codes ------------------------------------------------------------------------------------


def one_of(kind: type[LayerteeError]) -> LayerteeError:
    """An error of that kind, whatever facts its maker would have to give."""
    error = kind.__new__(kind)
    error.args = ("x",)
    return error


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_kind_of_error_has_its_exit_code(kind: type[LayerteeError], code: int) -> None:
    assert exit_code(one_of(kind)) == code


def test_no_kind_of_error_is_without_an_exit_code() -> None:
    ours = {kind for kind in all_below(LayerteeError) if not kind.__name__.startswith("_")}
    assert set(CODES) == {k for k in ours if k.__module__.startswith("layertee.")}


def test_only_a_kind_of_an_error_has_the_same_code_as_that_error() -> None:
    for one, other in itertools.combinations(CODES, 2):
        assert one.code != other.code or issubclass(other, one), (one, other)


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_error_is_one_line_with_its_code_then_its_notes_and_its_hint(
    kind: type[LayerteeError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        error = one_of(kind)
        error.add_note("this is kept")
        raise error

    monkeypatch.setattr(store_commands, "ls", fails)
    assert cli.main(["ls"]) == code
    told = capsys.readouterr()
    hint = f"hint: {HINTS[kind.hint]}\n" if kind.hint else ""
    assert (told.out, told.err) == ("", f"layertee: x [{kind.code}]\n  this is kept\n{hint}")


def test_an_interruption_is_130_and_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_commands, "collect", interrupted)
    assert cli.main(["gc"]) == 130
    assert capsys.readouterr().err == "layertee: interrupted; what has arrived is kept\n"


def test_a_mistake_of_our_own_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise KeyError("bug")

    monkeypatch.setattr(store_commands, "ls", broken)
    with pytest.raises(KeyError):
        cli.main(["ls"])


# --- arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000", 1000),
        ("500k", 500_000),
        ("500K", 500_000),
        ("20M", 20_000_000),
        ("20m", 20_000_000),
        ("20MB/s", 20_000_000),
        ("20 MB", 20_000_000),
        ("20Mi", 20 << 20),
        ("20MiB/s", 20 << 20),
        ("1.5G", 1_500_000_000),
        ("1.5Gi", 3 << 29),
        (" 2k ", 2000),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: int) -> None:
    assert options("--max-rate", text).limits.max_rate == rate


@pytest.mark.parametrize(
    "text",
    ["", "fast", "0", "999", "-5M", "1e6", "20T", "20M/h", "1.M", ".5M", "0.5k", "9" * 400 + "G", "inf"],
)
def test_what_is_no_rate_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, "pull", f"--max-rate={text}", "image")
    assert "is not a rate of at least 1000 bytes per second, like 20M" in told


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("yes", True),
        ("false", False),
        ("No", False),
        ("0", False),
    ],
)
def test_a_boolean_has_its_usual_words(text: str, value: bool) -> None:
    assert options(f"--tls-verify={text}").tls_verify is value


@pytest.mark.parametrize("text", ["", "on", "2", "maybe"])
def test_another_word_is_no_boolean(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not true or false" in complaint(capsys, "pull", f"--tls-verify={text}", "image")


@pytest.mark.parametrize("text", ["1", "8", "64"])
def test_connections_are_counted_from_1_to_64(text: str) -> None:
    assert options("--max-connections", text).limits.max_connections == int(text)


@pytest.mark.parametrize("text", ["0", "65", "-1", "eight", "1.5", "", "²", "9" * 5000])
def test_another_count_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max-connections" in complaint(capsys, "pull", f"--max-connections={text}", "image")


def test_the_defaults_are_those_of_the_library() -> None:
    assert options() == Options()


def test_every_option_reaches_the_engine(tmp_path: Path) -> None:
    got = options(
        "--platform=linux/arm64/v8",
        f"--authfile={tmp_path / 'auth.json'}",
        "--tls-verify=false",
        f"--cert-dir={tmp_path}",
        "--max-connections=3",
        "--max-rate=1M",
        "--ranges=always",
        f"--from=oci:{tmp_path / 'one'}",
        f"--from=oci:{tmp_path / 'two'}",
        "--trust=computed",
        "--trust-realm=Auth.example.com",
        "--trust-realm=sso.example:8443",
        "--deadline=1h30m",
        "--min-rate=50k",
    )
    assert str(got.platform) == "linux/arm64/v8"
    assert (got.authfile, got.cert_dir, got.tls_verify) == (tmp_path / "auth.json", tmp_path, False)
    assert (got.limits.max_connections, got.limits.max_rate) == (3, 1_000_000)
    assert got.limits.ranges is RangeMode.ALWAYS
    assert got.places == (tmp_path / "one", tmp_path / "two")
    assert got.trust is Basis.COMPUTED
    assert got.trusted_realms == ("auth.example.com", "sso.example:8443")
    assert (got.budget.deadline_s, got.budget.min_rate) == (5400, 50_000)


@pytest.mark.parametrize(
    "words",
    [("image-proxy",), ("inspect", "x"), ("verify",), ("prepare", "--ostree-repo=/x", "x")],
    ids=lambda words: words[0],
)
def test_every_command_has_the_defaults_of_the_library(words: tuple[str, ...]) -> None:
    policy = PolicyOptions(required=words == ("image-proxy",))  # as skopeo, which opens nothing without one
    assert options_of(parse(words)) == Options(policy=policy)


def test_what_skopeo_says_in_other_words_reaches_the_engine_as_well(tmp_path: Path) -> None:
    words = ["--override-os=linux", "--override-arch=arm", "--override-variant=v7", "--no-creds"]
    words += ["--user-agent-prefix=rpm-ostree/1", f"--from=oci:{tmp_path}", "--trust-realm=a.example"]
    got = options_of(parse(["image-proxy", *words]), places_by_default=("auto",))
    assert (str(got.platform), got.anonymous) == ("linux/arm/v7", True)
    assert (got.user_agent_prefix, got.places, got.trusted_realms) == (
        "rpm-ostree/1",
        (tmp_path,),
        ("a.example",),
    )
    assert options_of(parse(["image-proxy"]), places_by_default=("auto",)).places != ()


@pytest.mark.parametrize("text", ["docker://host/image", "host/image", "/a/directory", "oci:", ""])
def test_a_place_that_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        options(f"--from={text}")


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d"])
def test_a_platform_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        options(f"--platform={text}")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("pull",),
        ("rm",),
        ("inspect", "a", "b"),
        ("pull", "--layers=flat", "x"),
        ("ls", "--nope"),
    ],
    ids=" ".join,
)
def test_an_impossible_command_line_shows_the_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint(capsys, *arguments).startswith("usage: layertee")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: layertee {command}")
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert f"    {command}" in capsys.readouterr().out


def test_two_destinations_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["pull", "--store", str(tmp_path), "--to", f"oci:{tmp_path}", "host/image"])
    assert code == EXIT_ERROR
    assert "give one [BAD_REF]" in capsys.readouterr().err


def test_the_version_costs_next_to_nothing() -> None:
    code = (
        "import sys\nfrom layertee.cli.main import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules} & set(sys.argv)))"
    )
    command = [sys.executable, "-c", code, "aiohttp", "asyncio", "rich", "sqlite3", "ssl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"layertee {__version__}", ""]
