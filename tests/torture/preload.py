"""Failing one call of a command, or ending it there: the Python side of preload.c.

faults = Faults(directory / "faults", root=cli.home)
faults.arm(Fault(Kind.SPACE, Action.FAIL_ONCE, at=17, error=errno.ENOSPC))
cli.run("pull", …, **faults.environment())
faults.n_calls, faults.n_faults, faults.trace()
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.support.ccore import fault_library

__all__ = ["EVERY_KIND", "Action", "Fault", "Faults", "Kind"]

_MAGIC = 0x31746C7561664C54
_PATH = 4096
_TRACE = 1 << 20
_HEAD = struct.Struct("=QIIiIQQQQQQ")  # struct control of preload.c, up to its strings
_SIZE = _HEAD.size + _PATH + _TRACE


class Kind(enum.IntFlag):
    """What calls do: see preload.c."""

    OPEN = 1
    CHANGE = 2
    SPACE = 4
    WAIT = 8
    WRITE = 16
    SYNC = 32
    LOCK = 64
    MAP = 128


EVERY_KIND = ~Kind(0)


class Action(enum.IntEnum):
    """What becomes of a call: see preload.c."""

    COUNT = 0
    FAIL_ONCE = 1
    FAIL_FROM = 2
    KILL_BEFORE = 3
    KILL_AFTER = 4
    KILL_WITHIN = 5
    SHORTEN = 6
    KILL_LATER = 7


@dataclass(frozen=True, slots=True)
class Fault:
    """``action`` at call number ``at``, counting calls of ``kinds`` from 1; of KILL_LATER, microseconds."""

    kinds: Kind = EVERY_KIND
    action: Action = Action.COUNT
    at: int = 0
    error: int = 0


class Faults:
    """What happens to calls below ``root``, and what was counted; kept in the file ``path``.

    Any number of processes may run with ``environment()``: they count together.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._root = os.fsencode(root.resolve())
        with path.open("wb") as file:
            file.truncate(_SIZE)
        self.arm(Fault())

    def arm(self, fault: Fault) -> None:
        """Count from nothing, and do this. No process that has the library may run."""
        kinds = int(fault.kinds) & 0xFFFF
        head = _HEAD.pack(_MAGIC, kinds, fault.action, fault.error, 0, fault.at, 0, 0, 0, 0, 0)
        with self._path.open("r+b") as file:
            file.write(head + self._root.ljust(_PATH, b"\0"))

    def environment(self) -> dict[str, str]:
        """What a command has to be run with. Raises NoCompiler where the library can't be built."""
        return {"LD_PRELOAD": str(fault_library()), "LAYERTEE_FAULTS": str(self._path)}

    @property
    def n_calls(self) -> int:
        """Calls of these kinds so far."""
        return self._head()[6]

    @property
    def n_faults(self) -> int:
        """Calls that were failed, or processes that were ended."""
        return self._head()[7]

    @property
    def length_s(self) -> float:
        """From the first call to the last."""
        first, last = self._head()[8:10]
        return max(0, last - first) / 1e9

    def trace(self) -> list[str]:
        """A line for each call: number, what was done to it or ``-``, process id, kinds, name, path."""
        with self._path.open("rb") as file:
            file.seek(_HEAD.size + _PATH)
            text = file.read(min(self._head()[10], _TRACE))
        return text.decode(errors="replace").splitlines()

    def kinds(self) -> list[Kind]:
        """What the calls of the trace do, in their order."""
        return [Kind(int(line.split()[3])) for line in self.trace()]

    def struck(self) -> str:
        """The lines of the trace in which something was done, and the two before the first of them."""
        lines = self.trace()
        hit = [at for at, line in enumerate(lines) if line.split()[1:2] not in (["-"], [])]
        if not hit:
            return "no call was touched"
        return "\n".join([*lines[max(0, hit[0] - 2) : hit[0]], *(lines[at] for at in hit[:5])])

    def _head(self) -> tuple[int, ...]:
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), _HEAD.size, prot=mmap.PROT_READ) as view:
            return _HEAD.unpack(view[: _HEAD.size])
