"""The command as a process: descriptors that are closed or full, signals, locales, a lost directory."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.fakes.fault_server import FaultServer, on
from tests.support.fakes.faults import Gate, Held
from tests.support.process import COMMAND, PLAIN, Cli
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer

pytestmark = pytest.mark.slow

CLOSED = [
    *("<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of 2 MiB; its label has characters that few encodings have."""
    layers = [incompressible_layer(2 << 20, seed=3)]
    return build_image(tmp_path_factory.mktemp("process"), layers, labels={"title": "Größe 日本 …"})


@pytest.fixture(scope="module")
def server(image: BuiltImage) -> Iterator[FaultServer]:
    with FaultServer(image) as server:
        yield server


def in_shell(user: Cli, redirected: str, *words: object, **more: str) -> tuple[int, bytes, bytes]:
    """Exit code and both outputs of the command, started by a shell that redirects its descriptors."""
    name, *args = map(str, words)
    command = f"exec {shlex.join(user.command(name, *args))} {redirected}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=user.environment(**more))
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


# --- what the system gives -------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["-n 5", "-n 20", "-v 60000", "-v 120000", "-v 190000", "-d 30000"])
def test_a_process_that_gets_too_little_says_of_what(user: Cli, server: FaultServer, limit: str) -> None:
    command = f"ulimit {limit}; exec {shlex.join(user.command('pull', PLAIN, server.reference))}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=user.environment())
    if limit == "-v 300000" and done.returncode == 0:
        return  # enough or not: that depends on how many threads happen to allocate at once
    assert done.returncode == 1, done.stderr
    what = "files" if "-n" in limit else "memory"
    said = [line for line in done.stderr.splitlines() if line.startswith("layertee: ")]
    assert what in done.stderr and len(said) == 1, done.stderr


@pytest.mark.parametrize("limit", ["-v 250000", "-v 300000", "-v 400000"])
def test_a_process_that_may_get_too_little_brings_the_image_or_says_of_what(
    user: Cli, server: FaultServer, limit: str
) -> None:
    """Which of the two depends on how its threads share the allocator."""
    command = f"ulimit {limit}; exec {shlex.join(user.command('pull', PLAIN, server.reference))}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=user.environment())
    if done.returncode == 0:
        user.verified()
    else:
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert "memory" in done.stderr.splitlines()[-1], done.stderr


def test_a_low_limit_for_open_files_is_raised_as_far_as_it_may_be(user: Cli, server: FaultServer) -> None:
    command = f"ulimit -S -n 20; exec {shlex.join(user.command('pull', PLAIN, server.reference))}"
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, env=user.environment())


# --- descriptors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", CLOSED)
def test_a_pull_does_not_need_its_standard_descriptors(user: Cli, server: FaultServer, closed: str) -> None:
    code, _, err = in_shell(user, closed, "pull", PLAIN, server.reference)
    assert (code, b"[" in err) == (0, "2>" not in closed)
    listed = in_shell(user, closed, "ls")
    assert listed[0] == 0 and (server.reference.encode() in listed[1]) is (">&-" not in closed.split())
    assert user.verified()["blobs"] == 3  # and nothing was written into a file that got such a number


@pytest.mark.parametrize("closed", CLOSED)
def test_an_error_keeps_its_exit_code_though_it_cannot_be_told(user: Cli, closed: str) -> None:
    assert in_shell(user, closed, "verify")[0] == 2
    assert in_shell(user, closed, "frobnicate")[0] == 1
    assert in_shell(user, closed, "--version")[0] == 0


@pytest.mark.parametrize(
    "words",
    [("pull", PLAIN), ("inspect", PLAIN), ("ls",), ("ls", "--json"), ("map",), ("doctor",), ("verify",)],
)
def test_a_full_disk_under_standard_output_is_an_error_with_a_message(
    user: Cli, server: FaultServer, words: tuple[str, ...]
) -> None:
    user.pull(server.reference)
    image = [server.reference] if PLAIN in words else []
    code, _, err = in_shell(user, ">/dev/full", *words, *image)
    assert code == 1
    assert err.endswith(b"layertee: standard output cannot be written: No space left on device [OUTPUT]\n")
    assert in_shell(user, ">/dev/full 2>/dev/full", *words, *image)[0] == 1


@pytest.mark.parametrize("n_images", [1, 2])
def test_what_could_not_be_printed_is_reported_as_no_success(
    user: Cli, server: FaultServer, image: BuiltImage, n_images: int
) -> None:
    path, events = user.home / "m.prom", user.home / "events"
    options = (PLAIN, "--json", "--metrics-file", str(path), "--progress-fd", "5")
    images = [server.reference, f"{server.reference.rpartition(':')[0]}@{image.digest}"][:n_images]
    assert in_shell(user, f">/dev/full 5>{events}", "pull", *options, *images)[0] == 1
    assert 'code="OUTPUT"' in path.read_text() and "_last_success_" not in path.read_text()
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["exitCode"], last["error"]["code"], last["result"]) == (1, "OUTPUT", None)
    assert in_shell(user, ">/dev/full", "verify", "--metrics-file", str(path))[0] == 1
    assert 'code="OUTPUT"' in path.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("pull", PLAIN, "--store", "s", "--creds", b"u:\xff", "127.0.0.1:1/a"),
        ("login", PLAIN, "-u", b"u\xff", "--password-stdin", "127.0.0.1:1"),
        ("pull", PLAIN, "--store", "s", b"127.0.0.1:1/\xff", "--metrics-file", "m.prom"),
    ],
)
def test_arguments_that_are_not_utf_8_are_an_error(user: Cli, words: tuple[str | bytes, ...]) -> None:
    done = subprocess.run(
        [COMMAND, words[0], "--json", *words[1:]],
        input=b"secret\n",
        capture_output=True,
        env=user.environment(),
        cwd=user.home,
        check=False,
    )
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    assert json.loads(done.stdout)["error"]["code"] in ("AUTH_CONFIG", "BAD_REF")
    if "m.prom" in words:
        assert 'image="127.0.0.1:1/\\\\xff"' in (user.home / "m.prom").read_text()


@pytest.mark.parametrize("word", ["--help", "--version", "help"])
def test_so_it_is_for_help_and_version(user: Cli, word: str) -> None:
    code, _, err = in_shell(user, ">/dev/full", word)
    assert (code, err.count(b"\n")) == (1, 1) and b"No space left on device [OUTPUT]" in err


def test_messages_that_cannot_be_written_change_nothing(user: Cli, server: FaultServer) -> None:
    code, out, _ = in_shell(user, "2>/dev/full", "pull", "--debug", PLAIN, server.reference)
    assert code == 0 and server.reference.encode() in out
    assert in_shell(user, "2>/dev/full", "verify", "--store", user.home / "none")[0] == 2


def test_standard_output_that_is_open_for_reading_is_an_error(user: Cli, server: FaultServer) -> None:
    user.pull(server.reference)
    code, _, err = in_shell(user, "1</dev/null", "ls")
    assert code == 1 and b"Bad file descriptor [OUTPUT]" in err


# --- what comes from outside the command line ----------------------------------------------------


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX"}])
def test_characters_that_the_locale_lacks_are_escaped(
    user: Cli, server: FaultServer, locale: dict[str, str]
) -> None:
    out = user.run("inspect", PLAIN, server.reference, code=0, **locale).out
    assert "label title" in out and ("Größe 日本 …" in out or "Gr\\xf6\\xdfe \\u65e5\\u672c \\u2026" in out)
    assert "ö" in user.run("ls", "--store", user.home / "ö").err
    assert "\\xf6" in user.run("ls", "--store", user.home / "ö", PYTHONIOENCODING="ascii").err


def test_a_working_directory_that_is_gone_matters_only_where_it_is_named(
    user: Cli, server: FaultServer
) -> None:
    gone = user.home / "gone"
    for words, expected in (
        (["pull", PLAIN, server.reference], 0),
        (["ls"], 0),
        (["verify", "--store", "relative"], 2),
        (["pull", PLAIN, "--to", "oci:relative", server.reference], 1),
        (["doctor", "--store", "relative"], 0),
        (["--version"], 0),
    ):
        gone.mkdir()
        command = shlex.join(user.command(*words))
        done = subprocess.run(
            ["sh", "-c", f"cd {gone} && rmdir {gone} && exec {command}"],
            capture_output=True,
            text=True,
            env=user.environment(),
        )
        assert done.returncode == expected, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [b"\xff", b"a\xff/b", b"\x1b[31m", "\u202e".encode(), b"\xed\xb0\x80"])
def test_arguments_of_any_bytes_are_understood_or_refused(user: Cli, name: bytes) -> None:
    for words in (
        ["pull"],
        ["inspect"],
        ["rm"],
        ["map"],
        ["pull", "--from"],
        ["pull", "--to"],
        ["verify", "--store"],
    ):
        command = [*map(str.encode, user.command(*words)), name, b"host.example/x:1"]
        if words[0] in ("map", "verify") or len(words) == 1:
            command.pop()
        done = subprocess.run(command, capture_output=True, env=user.environment())
        assert done.returncode in (1, 2), done.stderr
        text = done.stderr.decode()
        assert "Traceback" not in text and all(line.isprintable() for line in text.split("\n"))


# --- signals -------------------------------------------------------------------------------------


def held(image: BuiltImage, gate: Gate) -> FaultServer:
    """A registry that stops in the middle of the layer until the gate is opened."""
    layer = image.layers[0]
    return FaultServer(image, [on("blob", Held(gate, layer.size // 2), reference=layer.digest)])


def test_signals_that_were_ignored_stay_ignored(user: Cli, image: BuiltImage) -> None:
    gate = Gate()
    with held(image, gate) as server:
        command = user.command("pull", "-q", PLAIN, server.reference)
        ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
        with subprocess.Popen(ignoring, env=user.environment(), stderr=subprocess.PIPE) as process:
            gate.wait_arrived()
            process.send_signal(signal.SIGHUP)
            gate.open()
            assert process.communicate(timeout=240)[1] == b""
    assert process.returncode == 0


def test_sigterm_ends_a_pull_that_ctrl_c_may_not_end(user: Cli, image: BuiltImage) -> None:
    gate = Gate()
    with held(image, gate) as server:
        command = user.command("pull", PLAIN, server.reference)
        ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
        with subprocess.Popen(ignoring, env=user.environment(), stderr=subprocess.PIPE) as process:
            gate.wait_arrived()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            err = process.communicate(timeout=240)[1]
        gate.open()
    assert process.returncode == 143
    assert err.endswith(b"layertee: ended by SIGTERM; what has arrived is kept\n") and b"Traceback" not in err
    assert user.leftovers() == []


def test_ctrl_c_at_any_moment_of_the_start_shows_no_traceback(user: Cli) -> None:
    user.store.mkdir()
    for moment in range(20):
        with subprocess.Popen(
            user.command("doctor"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=user.environment(PYTHONVERBOSE="1"),
        ) as process:
            assert process.stderr is not None
            begun, seen = False, 0
            for line in process.stderr:  # one for each module that was imported
                begun = begun or line.startswith(b"import 'layertee.cli.main'")
                seen += begun
                if seen > 1 + 3 * moment:
                    process.send_signal(signal.SIGINT)
                    break
            err = process.communicate(timeout=240)[1]
        assert begun and b"Traceback (most" not in err
        assert process.returncode == 130
