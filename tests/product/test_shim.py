"""The ``skopeo`` that is put before the real one: real shells, the real skopeo, and what words lead to."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee.cli import install_shim as shimcmd
from layertee.cli import main as cli
from layertee.cli.exits import EXIT_ERROR
from layertee.errors import LayerteeError, LocalError, UnsafePath
from layertee.skopeo.find import SHIM_MARKER, first_on_path, is_shim
from layertee.skopeo.shim import install, remove, script
from layertee.store.store import Store
from tests.support.ccore import ROOT
from tests.support.imageproxy import ImageProxy

SKOPEO = "/usr/bin/skopeo"
SHELLS = [shell for name in ("dash", "bash", "busybox", "mksh", "zsh") if (shell := shutil.which(name))]
PYTHON = Path(sys.executable)
PATH = "/usr/local/bin:/usr/bin:/bin"
PROXY = "experimental-image-proxy"
# Prints its arguments with NULs between them, its input and its environment, and fails in its own way.
RECORDER = """\
#!/bin/sh
printf '%s\\0' "$0" "$@"
echo input:
cat
env
echo said by the recorder >&2
exit 42
"""
AWKWARD = ["", " ", "a b", "line\nline\n", "'", '"', "$HOME", "`id`", "*", "\\", "-", "é", "\x01"]


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: bytes
    err: bytes

    @property
    def words(self) -> list[str]:
        """The arguments that the recorder was given."""
        return os.fsdecode(self.out.rpartition(b"\0input:\n")[0]).split("\0")[1:]


def ran(*words: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
    """A finished command, with times taken out of what skopeo logs."""
    done = subprocess.run(
        words, input=stdin, capture_output=True, env={"PATH": PATH} if env is None else env, timeout=60
    )
    return Ran(done.returncode, done.stdout, re.sub(rb'time="[^"]*"', b"", done.stderr))


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """Stands for the real skopeo."""
    return program(tmp_path / "real/skopeo", RECORDER)


@pytest.fixture
def shim(tmp_path: Path, recorder: Path) -> Path:
    """A shim with the recorder behind it."""
    return install(tmp_path / "bin", python=PYTHON, path=PATH, skopeo=recorder).path


@pytest.fixture
def real_shim(tmp_path: Path) -> Path:
    """A shim with the real skopeo behind it."""
    return install(tmp_path / "bin", python=PYTHON, path=PATH).path


# --- what goes to the real skopeo ------------------------------------------------------------------


@pytest.mark.parametrize("words", [*itertools.chain([[w] for w in AWKWARD], [AWKWARD, ["--", PROXY]])])
def test_arguments_input_output_and_status_pass_unchanged(
    shim: Path, recorder: Path, words: list[str]
) -> None:
    env = {"PATH": PATH, "STORAGE_OPTS": "a b", "real": "1", "dir": "2", "IFS": ":"}
    through = ran(shim, "copy", *words, stdin=b"in\0put\n", env=env)
    direct = ran(recorder, "copy", *words, stdin=b"in\0put\n", env=env)
    assert through == direct
    assert (through.code, through.words, through.err) == (42, ["copy", *words], b"said by the recorder\n")


@pytest.mark.parametrize(
    "words",
    [
        ["copy", "dir:/nonexistent/a", "dir:/nonexistent/b"],
        ["inspect", "--raw", "oci:/nonexistent"],
        ["--version"],
        ["-v"],
        ["--debug", "--policy", "/nonexistent", "copy", "dir:/nonexistent/a", "dir:/nonexistent/b"],
        ["--override-arch", "s390x", "--command-timeout=3s", "list-tags", "--help"],
        ["manifest-digest", "/dev/stdin"],
        ["nosuch"],
        ["--nosuch"],
        ["--tmpdir"],
        ["help", "copy"],
        ["copy", "--help"],
        ["copy", PROXY, PROXY],
        ["--tmpdir", "/nonexistent", "copy", PROXY],
        ["", "copy"],
        ["--", "copy"],
        [],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("shell", SHELLS)
def test_the_real_skopeo_answers_as_without_the_shim(real_shim: Path, words: list[str], shell: str) -> None:
    applet = ["sh"] if shell.endswith("busybox") else []
    through = ran(shell, *applet, real_shim, *words, stdin=b"{}")
    assert through == ran(SKOPEO, *words, stdin=b"{}")
    assert through == ran(real_shim, *words, stdin=b"{}")


def test_it_is_replaced_by_what_it_runs_and_signals_reach_that(shim: Path, recorder: Path) -> None:
    program(recorder, "#!/bin/sh\necho $$\nexec sleep 60\n")
    with subprocess.Popen([shim, "copy"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.terminate()
        assert process.wait(20) == -15


def test_a_descriptor_reaches_what_it_runs(shim: Path, recorder: Path) -> None:
    program(recorder, '#!/bin/sh\nexec cat "/proc/self/fd/$2"\n')
    reader, writer = os.pipe()
    try:
        os.write(writer, b"through a descriptor")
        os.close(writer)
        words = [str(shim), "copy", str(reader)]
        done = subprocess.run(words, pass_fds=(reader,), capture_output=True, timeout=60)
    finally:
        os.close(reader)
    assert done.stdout == b"through a descriptor"


# --- what goes to layertee ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        [],
        ["--debug"],
        ["--policy", "/p"],
        ["--policy=/p"],
        ["--policy", ""],
        ["--tmpdir", "copy"],
        ["--registries.d", "a b", "--insecure-policy", "--override-os=linux"],
        ["--a-flag-of-tomorrow"],
        ["--a-flag-of-tomorrow", "value"],
        ["--a-flag-of-tomorrow", "--policy", "/p"],
        ["--debug=true", "-x", ""],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("shell", SHELLS)
def test_the_image_proxy_is_layertee_whatever_comes_before(
    tmp_path: Path, recorder: Path, before: list[str], shell: str
) -> None:
    options = ["--store", "/a b'c\"d$e\n", "", *AWKWARD]
    python = program(tmp_path / "my python/bin/python", RECORDER)
    text = program(tmp_path / "skopeo", os.fsdecode(script(python, recorder, options)))
    after = ["--sockfd", "3", *AWKWARD]
    applet = ["sh"] if shell.endswith("busybox") else []
    done = ran(shell, *applet, text, *before, PROXY, *after, stdin=b"packet")
    ours = ["-I", "-m", "layertee", "image-proxy", "--skopeo", str(recorder), *options]
    assert done.words == [*ours, *before, PROXY, *after]
    assert (done.code, done.err) == (42, b"said by the recorder\n")
    assert b"input:\npacket" in done.out


def test_the_image_proxy_needs_no_real_skopeo(tmp_path: Path) -> None:
    python = program(tmp_path / "python", RECORDER)
    text = program(tmp_path / "skopeo", os.fsdecode(script(python, None, ["--debug"])))
    done = ran(text, PROXY, env={"PATH": "/nonexistent"})
    assert done.words == ["-I", "-m", "layertee", "image-proxy", "--debug", PROXY]


def test_a_layertee_that_is_gone_is_said_and_nothing_else_is_run(tmp_path: Path, recorder: Path) -> None:
    text = program(tmp_path / "skopeo", os.fsdecode(script(tmp_path / "gone/python", recorder, [])))
    done = ran(text, PROXY)
    assert (done.code, done.out) == (127, b"")
    assert done.err.decode() == (
        f"skopeo: layertee is gone from {tmp_path}/gone/python; install it there again, or remove {text}\n"
    )
    assert ran(text, "copy").code == 42


# --- help ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--debug", "--help"], ["--help", "copy"]])
def test_help_is_skopeos_and_names_the_flag_that_clients_look_for(real_shim: Path, words: list[str]) -> None:
    through, direct = ran(real_shim, *words), ran(SKOPEO, *words)
    assert through.out.startswith(direct.out)
    assert b"--user-agent-prefix" in through.out
    assert (through.code, through.err) == (0, direct.err)
    assert len(through.out.splitlines()) - len(direct.out.splitlines()) <= 1


def test_help_that_names_the_flag_is_left_as_it_is(shim: Path, recorder: Path) -> None:
    program(recorder, "#!/bin/sh\nprintf 'flags:\\n --user-agent-prefix x\\n\\n\\n'\n")
    assert ran(shim, "--help").out == b"flags:\n --user-agent-prefix x\n\n\n"


def test_help_that_fails_fails_alike(shim: Path, recorder: Path) -> None:
    program(recorder, "#!/bin/sh\nprintf half\necho why >&2\nexit 42\n")
    assert ran(shim, "--help") == ran(recorder, "--help")


def test_help_without_a_real_skopeo_says_so_and_names_the_flag(tmp_path: Path) -> None:
    shim = install(tmp_path / "bin", python=PYTHON, path="/nonexistent").path
    done = ran(shim, "--help", env={"PATH": "/nonexistent"})
    assert (done.code, done.err) == (0, b"")
    assert b"the real skopeo is not installed" in done.out
    assert b"--user-agent-prefix" in done.out


# --- finding the real one ----------------------------------------------------------------------------


def test_a_real_skopeo_that_moved_is_found_on_the_path(shim: Path, recorder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "else where" / "skopeo"
    moved.parent.mkdir()
    recorder.rename(moved)
    for path in (f"{shim.parent}:{moved.parent}", f"::relative:{moved.parent}:{shim.parent}"):
        done = ran(shim, "copy", env={"PATH": f"{path}:/bin"})
        assert done.words == ["copy"]
        assert done.out.startswith(os.fsencode(f"{moved}\0"))


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_real_skopeo_it_says_so_and_never_calls_itself(
    shim: Path, recorder: Path, tmp_path: Path, shell: str
) -> None:
    recorder.unlink()
    for name in ("linked", "copied"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked/skopeo").symlink_to(shim)
    shutil.copy(shim, tmp_path / "copied/skopeo")
    (tmp_path / "skopeo").mkdir()
    path = f"{tmp_path}/linked:{tmp_path}/copied:{shim.parent}:{tmp_path}:.:"
    applet = ["sh"] if shell.endswith("busybox") else []
    done = ran(shell, *applet, shim, "copy", env={"PATH": path})
    assert (done.code, done.out) == (127, b"")
    assert done.err.decode() == (
        f"skopeo: the real skopeo is not installed; {shim} has only experimental-image-proxy\n"
    )


def test_a_shim_behind_a_shim_leads_to_what_that_one_displaced(tmp_path: Path) -> None:
    system = program(tmp_path / "usr/skopeo", RECORDER).parent
    first = install(tmp_path / "first", python=PYTHON, path=str(system))
    assert first.real == system / "skopeo"
    second = install(system, python=PYTHON, path=f"{tmp_path}/first:{system}", force=True)
    assert second.real == second.kept == system / "skopeo.before-layertee"
    for shim in (first.path, second.path):
        assert ran(shim, "copy", env={"PATH": f"{tmp_path}/first:{system}:/bin"}).words == ["copy"]
    third = install(tmp_path / "third", python=PYTHON, path=f"{tmp_path}/first:{system}")
    assert third.real is None  # nothing of the name is a real one; it is found when it is run
    assert ran(third.path, "copy", env={"PATH": f"{tmp_path}/first:{system}:/bin"}).words == ["copy"]


def test_the_first_on_a_path_is_the_first_that_can_be_run(tmp_path: Path, shim: Path, recorder: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/skopeo").write_text("not executable")
    path = f"relative::{tmp_path}/plain:{shim.parent}:{recorder.parent}"
    assert first_on_path(path, shims=True) == shim
    assert first_on_path(path, shims=False) == recorder
    assert first_on_path("", shims=True) is None


# --- installing and removing ---------------------------------------------------------------------------


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_it_is_an_executable_with_its_mark_and_nothing_else_is_left(shim: Path) -> None:
    assert is_shim(shim)
    assert shim.read_text().splitlines()[1] == SHIM_MARKER
    assert stat.S_IMODE(shim.stat().st_mode) == 0o755
    assert os.listdir(shim.parent) == ["skopeo"]
    assert not is_shim(Path(SKOPEO))
    assert remove(shim.parent) is None
    assert os.listdir(shim.parent) == []
    assert remove(shim.parent) is None


def test_installing_again_takes_the_new_options(shim: Path, recorder: Path) -> None:
    install(shim.parent, python=PYTHON, path=PATH, skopeo=recorder, options=["--cache-max", "7G"])
    assert "--cache-max 7G" in shim.read_text()
    assert os.listdir(shim.parent) == ["skopeo"]


@pytest.mark.parametrize("kind", ["file", "symlink", "dangling"])
def test_a_foreign_file_is_displaced_only_by_force_and_put_back(
    tmp_path: Path, recorder: Path, kind: str
) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    if kind == "file":
        shutil.copy2(recorder, bin / "skopeo")
    else:
        (bin / "skopeo").symlink_to("../real/skopeo" if kind == "symlink" else "nowhere")
    before = os.lstat(bin / "skopeo")
    with pytest.raises(LocalError, match=r"is there already, and is not a shim$") as caught:
        install(bin, python=PYTHON, path=PATH)
    assert caught.value.hint == "displace"
    assert os.listdir(bin) == ["skopeo"]
    done = install(bin, python=PYTHON, path="/nonexistent", force=True)
    assert done.kept == bin / "skopeo.before-layertee"
    assert os.lstat(done.kept).st_ino == before.st_ino
    assert done.real == (None if kind == "dangling" else done.kept)
    if kind != "dangling":
        assert ran(done.path, "copy", "a b").words == ["copy", "a b"]
    again = install(bin, python=PYTHON, path="/nonexistent")
    assert (again.real, again.kept) == (done.real, done.kept)
    assert remove(bin) == bin / "skopeo"
    assert os.listdir(bin) == ["skopeo"]
    assert os.lstat(bin / "skopeo").st_ino == before.st_ino
    with pytest.raises(LocalError, match="is not a shim of layertee"):
        remove(bin)


def test_what_is_displaced_may_be_named_as_the_real_one(tmp_path: Path) -> None:
    file = program(tmp_path / "bin/skopeo", RECORDER)
    done = install(file.parent, python=PYTHON, path=PATH, skopeo=file, force=True)
    assert done.real == done.kept
    assert ran(file, "copy").words == ["copy"]


def test_two_displaced_files_are_one_too_many(tmp_path: Path) -> None:
    bin = tmp_path / "bin"
    program(bin / "skopeo", "new")
    program(bin / "skopeo.before-layertee", "old")
    with pytest.raises(LocalError, match="keep one of the two"):
        install(bin, python=PYTHON, path=PATH, force=True)
    assert contents(bin) == {"skopeo": "new", "skopeo.before-layertee": "old"}


def test_an_installation_that_was_cut_short_can_be_finished_or_taken_back(tmp_path: Path) -> None:
    file = program(tmp_path / "bin/skopeo", RECORDER)
    os.link(file, tmp_path / "bin/skopeo.before-layertee")
    assert remove(tmp_path / "bin") == file
    assert contents(tmp_path / "bin") == {"skopeo": RECORDER}
    os.link(file, tmp_path / "bin/skopeo.before-layertee")
    assert install(tmp_path / "bin", python=PYTHON, path=PATH, force=True).kept is not None
    assert is_shim(file)
    file.unlink()  # by hand
    assert remove(tmp_path / "bin") == file
    assert contents(tmp_path / "bin") == {"skopeo": RECORDER}


def test_a_disk_that_fails_leaves_the_old_file(
    tmp_path: Path, recorder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin = tmp_path / "bin"
    shutil.copytree(recorder.parent, bin)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write", "fdatasync", "rename"):
        with monkeypatch.context() as patch, pytest.raises(LayerteeError) as caught:
            patch.setattr(os, name, fail)
            install(bin, python=PYTHON, path=PATH, force=True)
        assert caught.value.code == "STORE_FULL"
        assert contents(bin).pop("skopeo") == RECORDER
        assert set(os.listdir(bin)) <= {"skopeo", "skopeo.before-layertee"}


def test_places_that_others_can_write_to_are_refused(tmp_path: Path) -> None:
    for mode in (0o777, 0o757):
        bin = tmp_path / f"bin{mode:o}"
        bin.mkdir()
        bin.chmod(mode)
        with pytest.raises(LocalError, match="others may write to"):
            install(bin, python=PYTHON, path=PATH)
    (tmp_path / "open/bin").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(LocalError, match=f"others may write to {tmp_path}/open, .*chmod go-w"):
        install(tmp_path / "open/bin", python=PYTHON, path=PATH)
    with pytest.raises(LocalError, match=f"others may write to {tmp_path}/open, .*chmod go-w"):
        install(tmp_path / "open/other", python=PYTHON, path=PATH)
    assert os.listdir(tmp_path / "open") == ["bin"] and os.listdir(tmp_path / "open/bin") == []


def test_a_program_that_others_can_replace_is_not_put_behind_the_shim(tmp_path: Path, recorder: Path) -> None:
    python = program(tmp_path / "venv/python", f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    install(tmp_path / "bin", python=python, path=PATH, skopeo=recorder)
    for step in (recorder, recorder.parent, python.parent):
        mode = step.stat().st_mode
        step.chmod(0o777)
        with pytest.raises(UnsafePath, match=f"chmod go-w {step}$"):
            install(tmp_path / "other", python=python, path=PATH, skopeo=recorder)
        with pytest.raises(UnsafePath) if step != python.parent else nullcontext():
            install(tmp_path / f"by-path-{step.name}", python=PYTHON, path=f"{recorder.parent}:{PATH}")
        step.chmod(mode)
    assert not (tmp_path / "other/skopeo").exists()


def test_a_directory_that_cannot_be_made_or_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="file"):
        install(tmp_path / "file/bin", python=PYTHON, path=PATH)
    with pytest.raises(LocalError):
        install(Path("/proc/layertee"), python=PYTHON, path=PATH)
    (tmp_path / "bin/skopeo").mkdir(parents=True)
    with pytest.raises(LocalError, match="neither a file nor a symlink"):
        install(tmp_path / "bin", python=PYTHON, path=PATH, force=True)


@pytest.mark.parametrize("what", ["shim", "plain", "missing"])
def test_a_real_skopeo_that_is_none_is_refused(tmp_path: Path, shim: Path, what: str) -> None:
    (tmp_path / "plain").write_text("not executable")
    given = {"shim": shim, "plain": tmp_path / "plain", "missing": tmp_path / "missing"}[what]
    with pytest.raises(LocalError, match="is not the real skopeo"):
        install(tmp_path / "other", python=PYTHON, path=PATH, skopeo=given)
    assert os.listdir(tmp_path / "other") == []


def test_an_interpreter_that_has_layertee_only_by_pythonpath_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.symlink_to(os.path.realpath(sys.executable))  # outside of any virtual environment
    package = next(path for path in sys.path if Path(path, "layertee/errors.py").exists())
    monkeypatch.setenv("PYTHONPATH", package)
    assert ran(python, "-c", "import layertee", env=dict(os.environ)).code == 0
    with pytest.raises(LocalError, match="needs no PYTHONPATH"):
        install(tmp_path / "bin", python=python, path=PATH)


# --- the command ----------------------------------------------------------------------------------------


def command(directory: Path, options: Sequence[str] = (), **given: object) -> int:
    args = {"dir": directory, "skopeo": None, "force": False, "remove": False, "options": list(options)}
    return shimcmd.install(argparse.Namespace(**args | given))


def test_the_command_says_what_it_did_and_what_is_left_to_do(
    tmp_path: Path, recorder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bin = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(recorder.parent))
    assert command(bin, ["--cache-max", "7G"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"installed {bin}/skopeo",
        f"everything but experimental-image-proxy goes to {recorder}",
        f"clients will use it once {bin} is on their PATH before {recorder.parent}",
    ]
    assert "--cache-max 7G" in (bin / "skopeo").read_text()
    monkeypatch.setenv("PATH", f"{bin}:{recorder.parent}")
    assert command(bin) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"everything but experimental-image-proxy goes to {recorder}"
    ]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert command(bin) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == [f"clients will use it once {bin} is on their PATH"]
    assert "there is no skopeo on PATH" in printed.err
    assert command(bin, remove=True) == 0
    assert capsys.readouterr().out == f"removed {bin}/skopeo\n"
    assert command(bin, remove=True) == 0
    assert capsys.readouterr().out == f"there is no shim in {bin}\n"


def test_the_command_displaces_and_puts_back(
    recorder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bin = recorder.parent
    monkeypatch.setenv("PATH", str(bin))
    assert command(bin, force=True) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"installed {bin}/skopeo",
        f"what was there before is {bin}/skopeo.before-layertee",
        f"everything but experimental-image-proxy goes to {bin}/skopeo.before-layertee",
    ]
    assert command(bin, remove=True) == 0
    assert capsys.readouterr().out == f"{bin}/skopeo is again what it was before\n"
    assert recorder.read_text() == RECORDER


# --- under a client, and under systemd ------------------------------------------------------------------

PAGE = ROOT / "docs/guides/bootc.md"
DROP_IN = ROOT / "release/systemd/bootc-fetch-apply-updates.service.d/layertee.conf"


@pytest.mark.slow
def test_a_client_that_starts_skopeo_talks_to_layertee(tmp_path: Path) -> None:
    options = ["--store", str(tmp_path / "a store")]
    shim = install(tmp_path / "bin", python=PYTHON, path=PATH, options=options).path
    env = {"PATH": f"{shim.parent}:{PATH}", "HOME": str(tmp_path)}
    with ImageProxy(["skopeo", PROXY, "--insecure-policy"], env) as proxy:
        assert proxy.value("Initialize") == "0.2.8"
        assert "unknown" in proxy.refused("NoSuchMethod")
        proxy.send(b'{"method":"Shutdown","args":[]}')
        assert proxy.exit_status() == 0, proxy.stderr()
    assert (tmp_path / "a store").is_dir()


@pytest.mark.slow
def test_the_lines_of_the_page_run_one_after_the_other(tmp_path: Path) -> None:
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    places = re.compile(r"(?<![\w.:])/(?=usr/local/lib|etc/)")
    env = {"PATH": f"{PYTHON.parent}:{PATH}", "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    lines = [places.sub(f"{tmp_path}/", line) for block in blocks for line in block.splitlines()]
    assert len(lines) > 5
    drop_in = tmp_path / "etc/systemd/system" / DROP_IN.parent.name / DROP_IN.name
    written = []
    for line in lines:
        if line.startswith("layertee gc"):
            Store.open(tmp_path / "store").close()
            line += f" --store {tmp_path}/store"  # the default one is the machine's
        done = ran("sh", "-ec", line, env=env)
        assert done.code == 0, (line, done)
        if drop_in.exists():
            written.append(drop_in.read_text().replace(str(tmp_path), ""))
    settings = [line for line in DROP_IN.read_text().splitlines() if not line.startswith("#")]
    assert written[0].splitlines() == settings
    assert not drop_in.exists()
    assert not (tmp_path / "usr/local/lib/layertee/bin/skopeo").exists()


def test_the_page_leads_to_files_that_are_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text())
    assert len(links) >= 2
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    unit = tmp_path / "bootc-fetch-apply-updates.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=/bin/true upgrade --apply\n")
    shutil.copytree(DROP_IN.parent, tmp_path / f"{unit.name}.d")
    env = {"PATH": PATH, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    assert ran("systemd-analyze", "verify", "--man=no", unit, env=env) == Ran(0, b"", b"")
    with (tmp_path / f"{unit.name}.d" / DROP_IN.name).open("a") as file:
        file.write("NoSuchSetting=1\n")
    assert b"NoSuchSetting" in ran("systemd-analyze", "verify", "--man=no", unit, env=env).err


@pytest.mark.parametrize("option", ["--from=nowhere", "--client-repo=a:b"])
def test_what_image_proxy_would_refuse_is_not_installed(tmp_path: Path, option: str) -> None:
    assert cli.main(["install-shim", str(tmp_path / "bin"), "--", option]) == EXIT_ERROR
    assert not (tmp_path / "bin").exists()


@pytest.mark.parametrize("option", ["--cache-max=much", "--ahead=10%", "--nonsense", "--sockfd=-1"])
def test_what_image_proxy_cannot_read_is_not_installed(tmp_path: Path, option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["install-shim", str(tmp_path / "bin"), "--", option])
    assert caught.value.code == EXIT_ERROR
    assert not (tmp_path / "bin").exists()


def test_doctor_says_whether_clients_start_the_shim_and_what_the_policy_is(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    shim = install(tmp_path / "bin", python=PYTHON, path=PATH, options=[]).path
    command = [str(PYTHON), "-m", "layertee", "doctor", "--store", str(tmp_path / "store")]
    env = {"HOME": str(tmp_path), "CONTAINERS_POLICY_JSON": str(policy)}
    without = ran(*command, env=env | {"PATH": PATH}).out.decode()
    assert "not the shim" in without
    told = ran(*command, env=env | {"PATH": f"{shim.parent}:{PATH}"}).out.decode()
    assert f"skopeo on PATH is {shim}, the shim" in told
    assert "for other transports: /usr/bin/skopeo" in told
    assert f"policy: {policy}; by default: reject" in told
    policy.unlink()
    told = ran(*command, env=env | {"PATH": PATH}).out.decode()
    assert "no image will be opened" in told and str(policy) in told
