"""A program is bounded in all that it could use up, and gone when its caller goes on."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from layertee.errors import PolicyRefused
from layertee.signatures.openpgp.confined import Ended, run_confined, wrappers
from layertee.sync import run
from tests.support.process import until, wait_until

LONG = "exec sleep 300"


def confined(
    script: str, directory: Path, given: bytes = b"", *, most: int = 1 << 20, limit_s: float = 20
) -> Ended:
    return run(
        run_confined("/bin/sh", "-c", script, given=given, directory=directory, most=most, limit_s=limit_s)
    )


def test_it_has_its_input_and_its_output_and_complaints_are_told(tmp_path: Path) -> None:
    given = os.urandom(3 << 20)
    ended = confined("echo bad >&2; exec cat", tmp_path, given, most=3 << 20)
    assert ended == Ended(0, given, "bad\n")


def test_it_need_not_read_its_input(tmp_path: Path) -> None:
    assert confined("exit 3", tmp_path, bytes(3 << 20)).status == 3


def test_it_has_one_directory_and_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GNUPGHOME", "GPG_AGENT_INFO", "LD_PRELOAD", "LANG", "DISPLAY", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "/nowhere")
    said = confined("pwd; exec env", tmp_path).output.decode().splitlines()
    assert said[0] == str(tmp_path)
    names = {line.partition("=")[0] for line in said[1:]}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"LC_ALL", "PATH", "HOME", "TMPDIR"}
    assert f"HOME={tmp_path}" in said


def test_its_limits_stand_before_it_has_its_input(tmp_path: Path) -> None:
    script = "read line; ulimit -c; ulimit -t; ulimit -f; ulimit -n; ulimit -v"
    for _ in range(5):
        core, cpu_s, blocks, files, memory = confined(script, tmp_path, b"go\n").output.split()
        assert (int(core), int(cpu_s), int(files)) == (0, 5, 64)
        assert int(blocks) * 512 == 64 << 20
        assert int(memory) * 1024 == 1 << 30


def test_it_cannot_fill_the_disk(tmp_path: Path) -> None:
    ended = confined("read line; exec dd if=/dev/zero of=large bs=1048576 count=100", tmp_path, b"go\n")
    assert ended.status != 0
    assert (tmp_path / "large").stat().st_size == 64 << 20


def test_more_output_than_allowed_ends_it(tmp_path: Path) -> None:
    assert len(confined("exec head -c 1000 /dev/zero", tmp_path, most=1000).output) == 1000
    with pytest.raises(PolicyRefused, match="more than 1000 bytes"):
        confined("exec cat /dev/zero", tmp_path, most=1000)


def test_only_the_end_of_many_complaints_is_kept(tmp_path: Path) -> None:
    assert confined("exec head -c 2000000 /dev/zero >&2", tmp_path).said == "\0" * 8192


def is_running(file: Path) -> bool:
    """The process whose number is in ``file``; one that has ended and was not reaped counts, too."""
    try:
        os.kill(int(file.read_text()), 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{file.read_text().strip()}/status").read_text()


def test_it_ends_with_its_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(PolicyRefused, match=r"sh did not end within 0\.5 s"):
        confined(f"echo $$ > first; {LONG}", tmp_path, limit_s=0.5)
    assert time.monotonic() - begun < 10
    assert not is_running(tmp_path / "first")


@pytest.mark.skipif(os.geteuid() != 0, reason="only a program of root's can start another")
def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="did not end"):
        confined(f"sh -c 'echo $$ > second; {LONG}' & {LONG}", tmp_path, limit_s=0.5)
    wait_until(lambda: not is_running(tmp_path / "second"), "the second process to end")


@pytest.mark.skipif(os.geteuid() == 0, reason="root is not bound by this limit")
def test_it_cannot_start_another(tmp_path: Path) -> None:
    assert confined("read line; (exec true) || exit 5; exit 6", tmp_path, b"go\n").status not in (0, 6)


def test_it_ends_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        script = f"echo $$ > first; {LONG}"
        task = asyncio.ensure_future(
            run_confined("/bin/sh", "-c", script, directory=tmp_path, most=1, limit_s=300)
        )
        first = tmp_path / "first"
        await until(lambda: first.exists() and first.read_text().endswith("\n"), "the process to begin")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(tmp_path / "first")

    run(main())


def test_what_is_not_there_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="/nowhere/gpg cannot be started: No such file"):
        run(run_confined("/nowhere/gpg", directory=tmp_path, most=1, limit_s=1))


def test_the_last_resort_is_no_wrapper() -> None:
    assert wrappers()[-1] == ()


def test_behind_a_wrapper_there_is_no_network_and_no_way_to_more_rights(tmp_path: Path) -> None:
    best = wrappers()[0]
    script = "exec cat /proc/self/status /proc/net/dev"
    ended = run(run_confined(*best, "/bin/sh", "-c", script, directory=tmp_path, most=10000, limit_s=20))
    if ended.status != 0:
        pytest.skip(f"this kernel does not let this user: {ended.said}")
    status, _, devices = ended.output.decode().partition("Inter-")
    assert "\nNoNewPrivs:\t1\n" in status
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
