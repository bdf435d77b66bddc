"""Hosts that have no Python: a Debian as it is installed at the least, and one with nothing but glibc.

They are directories to chroot into, so the registry of the rig is at 127.0.0.1 for them, too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.support.rig import kept
from tests.support.rig.registry import NotInstalled, RigError

SUITE = "bookworm"
MIRROR = os.environ.get("LAYERTEE_DEBIAN_MIRROR", "http://deb.debian.org").rstrip("/") + "/debian"
# Of no use to a test, and half of what debootstrap leaves.
_CHAFF = (
    *("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo"),
    *("var/cache/apt", "var/lib/apt/lists"),
)
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


class NoDebootstrap(NotInstalled):
    """A Debian can't be made on this machine."""


def debian() -> Path:
    """A tar file with a minimal Debian, made by debootstrap once and then kept. Raises RigError."""
    return kept.kept(f"debian-{SUITE}.tar", [MIRROR.encode(), *map(str.encode, _CHAFF)], _debootstrap)


def _debootstrap() -> Path:
    with tempfile.TemporaryDirectory(prefix="layertee-debian-") as directory:
        root = Path(directory) / "root"
        _bootstrapped(root)
        return packed(root, kept.root() / f"debian-{SUITE}.part")


def first_stage(architecture: str, root: Path) -> None:
    """What this machine can do of a Debian for another one, at ``root``. Raises NoDebootstrap."""
    _bootstrapped(root, "--foreign", f"--arch={architecture}")


def _bootstrapped(root: Path, *options: str) -> None:
    program = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("tar") is None or os.geteuid() != 0:
        raise NoDebootstrap("making a Debian takes debootstrap (Debian package debootstrap) and root")
    try:
        _run(program, "--variant=minbase", *options, SUITE, root, MIRROR)
    except RigError as exc:  # no mirror, or no right to make device nodes
        raise NoDebootstrap(f"no Debian can be made here: {exc}") from exc


def packed(root: Path, archive: Path) -> Path:
    """``archive``, with a Debian but for what no test needs, which is removed. Raises RigError."""
    for name in _CHAFF:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    _run("tar", "-C", root, "--one-file-system", "-cf", archive, ".")
    return archive


def unpack_debian(archive: Path, root: Path) -> Path:
    """``root``, with a Debian of its own that may be changed. Raises RigError."""
    root.mkdir(parents=True)
    _run("tar", "-C", root, "--numeric-owner", "-xpf", archive)
    return root


def glibc_only(debian_root: Path, root: Path) -> Path:
    """``root``, with the files of that Debian's glibc, directories to mount on, and nothing else."""
    for loader in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"):
        if (debian_root / loader).exists():
            (root / loader).parent.mkdir(parents=True)
            shutil.copy(debian_root / loader, root / loader)
    (libc,) = (debian_root / "usr/lib").glob("*-linux-gnu/libc.so.6")
    library = root / "lib" / libc.parent.name
    library.mkdir(parents=True)
    for name in ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"):
        shutil.copy(libc.with_name(name), library / name)
    for name in ("dev", "proc", "usr/lib", "root"):
        (root / name).mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    return root


@cache
def _mounting_is_allowed() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        command = ["unshare", "--mount", "mount", "-t", "proc", "proc", directory]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def enter(root: Path) -> list[str]:
    """The words before a command that is to run in ``root``, with /proc and /dev mounted for it alone.

    The command is found by its path in there. Raises NotInstalled where mounting is not allowed.
    """
    if not _mounting_is_allowed():
        raise NotInstalled("nothing can be mounted on this machine")
    where = shlex.quote(str(root))
    script = (
        f"mount -t proc proc {where}/proc && mount --rbind /dev {where}/dev && exec chroot {where} " + '"$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def run_in(root: Path, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command of that host to its end; it inherits ``ENVIRONMENT`` and ``more``."""
    return subprocess.run(
        [*enter(root), *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | more,
    )


def _run(*command: str | Path) -> None:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RigError(f"{' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
