"""Entering the sandbox: Landlock and seccomp together, once, before the process has threads."""

from __future__ import annotations

import enum
import os
from typing import Final

from ..errors import LayerteeError
from ..record import dataclass
from . import kernel, seccomp
from .landlock import LEAST_ABI, Rules, restrict

# What root is left with: files of other users, as a store of podman has them, the user ids of helpers, ports
# below 1024, its own limits, and the blocks that a filesystem keeps for root.
_KEPT: Final = (
    *(kernel.CHOWN, kernel.DAC_OVERRIDE, kernel.DAC_READ_SEARCH, kernel.FOWNER, kernel.FSETID, kernel.KILL),
    *(kernel.SETGID, kernel.SETUID, kernel.NET_BIND_SERVICE, kernel.SYS_RESOURCE),
)


class SandboxError(LayerteeError):
    """The process was to give rights away before it begins, and the kernel, or its state, does not let it."""

    code = "SANDBOX"
    hint = "sandbox"


class Sandbox(enum.Enum):
    """Whether a process gives rights away: as the kernel lets it, never, or all that is wanted or nothing."""

    AUTO = "auto"
    OFF = "off"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class Support:
    """What there is of it: ``landlock`` is the version of its interface, 0 without it."""

    landlock: int
    seccomp: bool

    @property
    def lacking(self) -> tuple[str, ...]:
        """What is wanted and is not there, for a person."""
        without = []
        if not self.landlock:
            without.append("the kernel has no Landlock, or it is not among those of its parameter lsm=")
        elif self.landlock < LEAST_ABI:
            without.append(f"the kernel has version {self.landlock} of Landlock, and {LEAST_ABI} is needed")
        if not self.seccomp:
            without.append("no filter of system calls: not in the kernel, or not for this architecture")
        return tuple(without)


def support() -> Support:
    """What this kernel has."""
    return Support(kernel.landlock_abi(), kernel.has_seccomp() and seccomp.is_known())


def enter(rules: Rules, mode: Sandbox) -> Support:
    """Give away all but ``rules``, for good; what was there to do it with. Children inherit it.

    With OFF nothing is done. Raises SandboxError if REQUIRE cannot be had: then nothing was given away
    unless it failed half-way.
    """
    if mode is Sandbox.OFF:
        return Support(0, seccomp=False)
    found = support()
    if mode is Sandbox.REQUIRE and found.lacking:
        raise SandboxError(f"no sandbox: {'; '.join(found.lacking)}")
    if _n_threads() > 1:
        raise SandboxError("no sandbox: this process has threads already, which it would not hold for")
    program = None
    if found.seccomp:
        program = seccomp.program(
            connects=rules.connects,
            listens=rules.listens,
            asks=rules.asks,
            gives_to=rules.gives_to,
            runs_memory=not kernel.has_memory_that_is_not_run(),
        )
    try:
        if found.landlock >= LEAST_ABI:
            restrict(rules, found.landlock)
        if program is not None:
            kernel.set_no_new_privs()
            kernel.set_filter(program)
        kernel.keep_capabilities(_KEPT)
    except OSError as exc:
        raise SandboxError(f"no sandbox: the kernel refused it: {exc.strerror}") from exc
    return found


def _n_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1
