"""A systemd of this machine's, run as the first process of namespaces of its own, with units of a test.

The root is this machine's, and what is written to it is gone afterwards; so are /proc/sys and /sys, which are
read-only. The network is the machine's, for the servers that a test runs on 127.0.0.1. Nothing of what the
machine itself would start is started: the units are those that are given, and the few that these build upon.

Where namespaces, an overlay, control groups (v2) or systemd are not to be had, the test is skipped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.ccore import ROOT
from tests.support.process import COMMAND

SYSTEMD = Path("/lib/systemd/systemd")
_LIMIT_S = 60.0
_NOT_AFTER_US = ("setpriv", "--pdeathsig", "KILL", "--")  # a test run that is killed leaves nothing running
# What systemd needs namespaces, mounts and filters for.
_PROBE = """\
[Service]
Type=oneshot
ExecStart=/bin/true
PrivateUsers=yes
PrivateNetwork=yes
PrivateDevices=yes
ProtectSystem=strict
ProtectKernelTunables=yes
RestrictNamespaces=yes
"""
_TARGETS = ("sysinit", "basic", "sockets", "timers", "network-online", "shutdown", "booted")
_TARGET = "[Unit]\nDescription=%p\nDefaultDependencies=no\n"
# PATH has no layertee but this checkout's, where systemd looks for programs that are named without a path.
_LAYERTEE = f'#!/bin/sh\nexec {shlex.quote(COMMAND)} "$@"\n'
_INIT = """\
set -e
cd {own}
mount -t tmpfs tmpfs writes
mkdir writes/upper writes/work
mount -t overlay overlay -o lowerdir=/,upperdir=writes/upper,workdir=writes/work root
for one in {kept}; do
    mkdir -p "root$one"
    mount --bind "$one" "root$one"
    mount -o remount,bind,ro "root$one"
done
mount -t proc proc root/proc
mount --bind root/proc/sys root/proc/sys
mount -o remount,bind,ro root/proc/sys
mount -t sysfs -o ro sysfs root/sys
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount -t tmpfs tmpfs root/run
mount --rbind /dev root/dev
mkdir root/run/shared root/run/units root/run/none
mount --bind shared root/run/shared
cp -a units/. root/run/units/
rm -rf root/var/lib/layertee* root/var/lib/private root/var/lib/systemd/timers
rm -rf root/etc/layertee root/etc/containers
cp -a etc/. root/etc/
install -D -m 755 layertee root/usr/local/bin/layertee
cd root
mkdir -p run/before
pivot_root . run/before
umount -l run/before
mount --make-rshared /
exec env -i container=test PATH="$PATH" NOTIFY_SOCKET=/run/shared/notify \\
    SYSTEMD_UNIT_PATH=/run/units \\
    SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \\
    {systemd} --system --unit=booted.target --show-status=no --log-target=null
"""


class Machine:
    """What runs, while :func:`booted` lasts. ``shared`` is this directory of the test, there /run/shared."""

    def __init__(self, init: int, shared: Path) -> None:
        self._init = init
        self.shared = shared

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` inside, as root, beside the services; however it ends."""
        # Not in its user namespace, which is this one.
        inside = ("nsenter", f"--target={self._init}", "-m", "-u", "-i", "-p", "-C", "-r", "-w", "--")
        return subprocess.run(
            [*inside, *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )

    def did(self, *command: str) -> str:
        """Standard output of ``command``, which must succeed inside."""
        done = self.run(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self.logs())
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        """What ``systemctl show`` says of it."""
        return self.did("systemctl", "show", "--property", name, "--value", unit).strip()

    def logs(self) -> dict[str, str]:
        """What services wrote, by the names of their units."""
        return {path.name: path.read_text() for path in sorted(self.shared.glob("log-*"))}


@contextmanager
def booted(directory: Path, units: Path, etc: Mapping[str, str | bytes]) -> Iterator[Machine]:
    """A machine with the units of the directory ``units``, and these files in /etc, in ``directory``.

    Its services write to a file in ``shared``, and see this checkout and its Python, wherever they are.
    """
    if os.geteuid() != 0:
        pytest.skip("to start systemd needs root")
    if not SYSTEMD.exists():
        pytest.skip("no systemd here")
    own = directory / "machine"
    for name in ("writes", "root", "shared", "units", "etc"):
        (own / name).mkdir(parents=True)
    shutil.copytree(units, own / "units", dirs_exist_ok=True)
    for name in _TARGETS:
        (own / "units" / f"{name}.target").write_text(_TARGET)
    (own / "units/probe.service").write_text(_PROBE)
    kept = sorted({str(ROOT), sys.prefix, sys.base_prefix} - {"/usr"})
    drop_in = own / "units/service.d/test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(
        f"[Service]\nStandardOutput=append:/run/shared/log-%n\nBindReadOnlyPaths={' '.join(kept)}\n"
    )
    for name, content in etc.items():
        path = own / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (own / "layertee").write_text(_LAYERTEE)
    (own / "init").write_text(
        _INIT.format(
            own=shlex.quote(str(own)),
            kept=" ".join(map(shlex.quote, kept)),
            systemd=shlex.quote(str(SYSTEMD)),
        )
    )
    with _control_group() as join, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(_LIMIT_S)
        notify.bind(str(own / "shared/notify"))
        said = (own / "said").open("w+")
        namespaces = ("--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child")
        outer = subprocess.Popen(
            [
                *_NOT_AFTER_US,
                "sh",
                "-c",
                'echo $$ > "$0" && exec unshare "$@"',
                join,
                *namespaces,
                "--",
                "sh",
                own / "init",
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            _until_ready(outer, notify, said.name)
            machine = Machine(_child(outer), own / "shared")
            confined = machine.run("systemctl", "start", "probe.service")
            if confined.returncode:
                pytest.skip(f"services cannot be confined on this machine: {confined.stderr.strip()}")
            yield machine
        finally:
            _end(outer)
            said.close()


def _until_ready(outer: subprocess.Popen[bytes], notify: socket.socket, said: str) -> None:
    """Until systemd says that its start is over. Skips the test where it cannot be started at all."""
    notify.settimeout(0.2)
    for _ in range(int(_LIMIT_S / 0.2)):
        with suppress(TimeoutError):
            if b"READY=1" in notify.recv(4096):
                return
        if outer.poll() is not None:
            pytest.skip(f"systemd cannot be started on this machine: {Path(said).read_text().strip()}")
    raise AssertionError(f"systemd did not start: {Path(said).read_text()}")


def _child(outer: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())


def _end(outer: subprocess.Popen[bytes]) -> None:
    """Kill the first process, with which the kernel ends all others before its parent hears of it."""
    try:
        os.kill(_child(outer), signal.SIGKILL)
    except (OSError, ValueError):  # it has ended, or has not begun
        outer.kill()
    outer.wait()


@contextmanager
def _control_group() -> Iterator[str]:
    """The file by which a process joins a new control group of version 2, which is removed afterwards."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2" and "rw" in mount[3].split(",")]
    if not roots:
        pytest.skip("no control groups of version 2 that can be written to")
    group = roots[0] / f"layertee-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made: {exc}")
    try:
        yield str(group / "cgroup.procs")
    finally:
        for inner, _, _ in os.walk(group, topdown=False):
            os.rmdir(inner)
