"""A Debian for ARMv8, and programs of that machine that are started as if they were this one's.

The kernel gives such a program to qemu where it has been told to. It is told in a namespace of users, which
has a binfmt_misc of its own (Linux 6.7 and newer): nothing changes for other programs on the machine.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from release.debs import Apt
from release.project import ReleaseError
from tests.support.rig import hosts_without, kept
from tests.support.rig.registry import NotInstalled, RigError

# How a program for ARMv8 begins, and which of its bits count: as Debian's qemu-user-static has it.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# It says that it has its namespace, waits for the users in there, and tells the kernel. Of the flags, F opens
# qemu here and now, and not in the root that a program runs in.
_ENTER = """\
echo; read -r mapped
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc &&
printf %s "$1" >/proc/sys/fs/binfmt_misc/register || exit 125
shift; exec "$@" </dev/null
"""
_NOT_ENTERED = 125
_IN_ROOT = """\
mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$@"
"""


def run(
    *command: str | Path, root: Path | None = None, env: Mapping[str, str] = hosts_without.ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in ``root`` if there is one. It, and those that it starts, may be for ARMv8.

    Raises NotInstalled where that can't be had.
    """
    inside = [] if root is None else ["sh", "-c", _IN_ROOT, "sh", str(root)]
    told = f":layertee-armv8:M::{_MAGIC}:{_MASK}:{_qemu()}:F"
    words = ["unshare", "--user", "--mount", "sh", "-c", _ENTER, "sh", told, *inside, *map(str, command)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=dict(env)) as process:
        assert process.stdout is not None
        if is_entered := process.stdout.readline() == "\n":
            for name in ("uid_map", "gid_map"):  # everybody remains who they are
                Path(f"/proc/{process.pid}/{name}").write_text("0 0 4294967295\n")
        stdout, stderr = process.communicate("mapped\n" if is_entered else None)
    if not is_entered or process.returncode == _NOT_ENTERED:
        raise NotInstalled(f"this kernel starts no programs of another machine: {stderr.strip()}")
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


@cache
def _qemu() -> Path:
    """One that needs no library, so that it runs in any root. Raises NotInstalled."""

    def build() -> Path:
        try:
            (package,) = Apt(platform.machine()).fetch(["qemu-user-static"])
            package.unpack(Path(directory))
        except ReleaseError as exc:
            raise NotInstalled(f"qemu is a package of Debian: {exc}") from exc
        return Path(directory, "usr/bin/qemu-aarch64-static")

    if found := shutil.which("qemu-aarch64-static"):
        return Path(found)
    with tempfile.TemporaryDirectory(prefix="layertee-qemu-") as directory:
        return kept.kept("qemu-aarch64-static", [Path(__file__).read_bytes()], build)


def debian() -> Path:
    """A tar file with a minimal Debian for ARMv8; made in minutes, and kept. Raises RigError."""
    name = f"debian-{hosts_without.SUITE}-arm64.tar"
    return kept.kept(name, [hosts_without.MIRROR.encode(), Path(__file__).read_bytes()], _debootstrap)


def _debootstrap() -> Path:
    run("true")  # or nothing need be fetched
    with tempfile.TemporaryDirectory(prefix="layertee-debian-") as directory:
        root = Path(directory) / "root"
        hosts_without.first_stage("arm64", root)
        # In a namespace of users no device is made; those that are needed are there from the first stage.
        second = ("/debootstrap/debootstrap", "--second-stage")
        done = run(*second, root=root, env=hosts_without.ENVIRONMENT | {"container": "lxc"})
        if done.returncode:
            raise RigError(f"debootstrap, second stage:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return hosts_without.packed(root, kept.root() / "debian-arm64.part")
