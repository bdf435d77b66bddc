"""What is mounted for a case is gone when the case is, however it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import wait_until
from tests.torture.filesystems import KINDS, Unavailable, build_cut, inside

pytestmark = [pytest.mark.slow, pytest.mark.needs("unshare", "mkfs.ext4"), pytest.mark.needs_root("mounts")]

MODULE = """
import json, os, subprocess, sys, time
from pathlib import Path
from tests.torture.filesystems import KINDS, UNAVAILABLE, Unavailable, mounted
work = Path(sys.argv[2])
if sys.argv[1] == "cut":
    kind, mnt = KINDS[sys.argv[3]], work / "mnt"
    write = (
        "import os, sys; os.chdir(sys.argv[1])\\n"
        "for name in ('flushed', 'other'):\\n"
        "    fd = os.open(name, os.O_CREAT | os.O_WRONLY); os.write(fd, b'kept')\\n"
        "    if name == 'flushed': os.fsync(fd); os.fsync(os.open('.', os.O_RDONLY))\\n"
    )
    try:
        kind.create(work / "disk")
        with mounted(kind, work / "disk", mnt):
            more = {"LD_PRELOAD": sys.argv[4], "LT_CUT_MOUNT": str(mnt), "LT_CUT_AT": "6"}
            done = subprocess.run([sys.executable, "-c", write, mnt], env=os.environ | more)
    except Unavailable as exc:
        print(exc)
        sys.exit(UNAVAILABLE)
    with mounted(kind, work / "disk", mnt):
        found = {path.name: path.read_text() for path in mnt.glob("*e*") if path.is_file()}
    print(json.dumps({"status": done.returncode, **found}))
    sys.exit()
KINDS["ext4"].create(work / "disk")
with mounted(KINDS["ext4"], work / "disk", work / "mnt"):
    (work / "mnt" / "file").write_text("there")
    if sys.argv[1] == "stay":
        os.fork()
        (work / "mounted").write_text("")
        while True:
            time.sleep(1)
print(json.dumps({"file": (work / "mnt" / "file").exists(), "pid": os.getpid()}))
"""


def _is_attached(disk: Path) -> bool:
    devices = Path("/sys/block").glob("loop*/loop/backing_file")
    return any(str(disk) in path.read_text(errors="replace") for path in devices if path.exists())


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mounting.py").write_text(MODULE)
    (tmp_path / "mnt").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    return "mounting"


def test_a_program_inside_prints_figures_and_leaves_nothing_mounted(module: str, tmp_path: Path) -> None:
    assert inside(module, ["end", str(tmp_path)]) == {"file": False, "pid": 1}
    wait_until(lambda: not _is_attached(tmp_path / "disk"), "the loop device is still in use")


def test_nothing_stays_mounted_of_a_run_that_is_killed(module: str, tmp_path: Path) -> None:
    code = f"from tests.torture.filesystems import inside; inside({module!r}, ['stay', {str(tmp_path)!r}])"
    runner = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until((tmp_path / "mounted").exists, "nothing is mounted")
        assert _is_attached(tmp_path / "disk")
    finally:
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait()
    wait_until(lambda: not _is_attached(tmp_path / "disk"), "the loop device is still in use")
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_power_takes_what_was_not_flushed_and_nothing_else(
    module: str, tmp_path: Path, kind: str
) -> None:
    """The program writes two files, flushes one, and is cut off after its last call."""
    try:
        found = inside(module, ["cut", str(tmp_path), kind, str(build_cut(tmp_path))])
    except Unavailable as exc:
        pytest.skip(str(exc))
    assert found == {"status": -signal.SIGKILL, "flushed": "kept"}
