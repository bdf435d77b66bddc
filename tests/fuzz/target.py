"""What a fuzz target of a parser is, and the property that all of them have.

Any input gives a value or an error of a kind that the parser's contract names, never another one, within a
bounded time and memory. What else must hold of the value, a target asserts itself.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from layertee.errors import LayerteeError

LIMIT_S: Final = 1.0  # of processor time, for an input of LARGEST bytes at most
LARGEST: Final = 1 << 20


class TooSlow(AssertionError):
    """The input took longer than any of its size may."""


@dataclass(frozen=True, slots=True)
class Target:
    """``parse`` takes any bytes; it may raise what ``raises`` has. ``seeds`` are inputs that make sense.

    ``words`` are what an input is likely to be made of. ``max_len`` bytes have those that a fuzzer makes up,
    ``largest`` those whose time is bounded: what a name, a field of a head or a variable can have.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    raises: tuple[type[Exception], ...] = (LayerteeError,)
    max_len: int = 4096
    largest: int = LARGEST

    def check(self, raw: bytes, limit_s: float = LIMIT_S) -> bool:
        """Whether ``raw`` gave a value. Raises whatever breaks the property."""
        began = time.thread_time()
        try:
            self.parse(raw)
            return True
        except self.raises as exc:
            str(exc)
            return False
        finally:
            took = time.thread_time() - began
            if took > limit_s:
                raise TooSlow(f"{self.name}: {len(raw)} bytes took {took:.2f} s")


@cache
def scratch() -> Path:
    """A directory of this process, in memory where there is such a one; gone with the process."""
    memory = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(
        prefix="layertee-fuzz-", dir=memory if os.access(memory, os.W_OK) else None
    )
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def file_of(raw: bytes, name: str) -> Path:
    """A file with these bytes. It is there until the next one of that name."""
    path = scratch() / name
    path.write_bytes(raw)
    return path


def text_of(raw: bytes) -> str:
    """``raw`` as text, with halves of characters where it is not UTF-8: as the command line has it."""
    return raw.decode("utf-8", "surrogateescape")


def parts_of(raw: bytes, n: int) -> list[bytes]:
    """``raw`` in ``n`` parts, which a line of ``%%`` separates; those that are missing are empty."""
    parts = raw.split(b"\n%%\n", n - 1)
    return parts + [b""] * (n - len(parts))
