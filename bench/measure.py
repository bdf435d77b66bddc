"""One command, from spawn to exit: time, CPU, memory, and what its server did meanwhile."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CommandFailed", "Usage", "measure"]

_RSS_POLL_MS = 10
_TIMEOUT_S = 600


class CommandFailed(RuntimeError):
    """A measured command did not end well; the message carries its standard error."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process and the children that it waited for. Seconds, and MiB of RSS (the process alone)."""

    wall_s: float
    user_s: float
    sys_s: float
    rss_mib: float

    @property
    def cpu_s(self) -> float:
        """User and system."""
        return self.user_s + self.sys_s


def measure(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, watch: bool = True
) -> Usage:
    """Run ``command`` to its end. Raises CommandFailed if it fails or takes longer than ten minutes.

    The peak RSS is VmHWM, looked at a hundred times a second: ru_maxrss would be that of this process, from
    before the exec. Looking takes a little of the CPUs: not to ``watch`` leaves it at 0, for short commands.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment
        )
        peak_kib = 0
        ended = select.poll()
        process = os.pidfd_open(child.pid)
        try:
            ended.register(process, select.POLLIN)
            while not ended.poll(_RSS_POLL_MS if watch else 1000):
                peak_kib = max(peak_kib, _peak_kib(child.pid)) if watch else 0
                if time.perf_counter() - began > _TIMEOUT_S:
                    child.kill()
            wall = time.perf_counter() - began
        finally:
            os.close(process)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            stderr.seek(0)
            complaint = stderr.read().decode(errors="replace").strip()[-1000:]
            raise CommandFailed(f"{' '.join(command)} failed ({child.returncode}): {complaint}")
    return Usage(wall, usage.ru_utime, usage.ru_stime, peak_kib / 1024)


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
