"""A hash of a stream that remembers what it had come to on the way, so that a part can be checked alone.

Continued from the state before it, a part of the stream must come to the state after it. Who knows the
states of the right stream needs nothing else of it, and no part is hashed twice.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from .loading import c_core, core_name

if TYPE_CHECKING:
    from hashlib import _Hash

STEP: Final = 512 << 10
_STATE: Final = 32  # bytes of a state of SHA-256
_OBJECT: Final = 320  # bytes of memory that one of hashlib's takes, about


class Chain(Protocol):
    """What a stream hashes to after each block. All blocks but the last have one size, a multiple of STEP.

    Extended by one thread; then any may check. Both release the GIL.
    """

    @property
    def nbytes(self) -> int:
        """Of memory, about."""

    def extend(self, block: memoryview, *, is_last: bool) -> bytes | None:
        """One more block; with the last one, what all of the stream hashes to."""

    def is_right(self, number: int, block: memoryview, *, is_last: bool) -> bool:
        """Whether ``block`` is block ``number``, from 0, of a stream of which ``extend`` has seen all."""


def new_chain(algorithm: str, block_nbytes: int) -> Chain:
    """For a stream that is to be hashed with ``algorithm``, in blocks of ``block_nbytes``."""
    if block_nbytes % STEP or block_nbytes <= 0:
        raise ValueError(f"{block_nbytes} bytes are no block")
    if algorithm == "sha256" and core_name() == "c" and hasattr(c_core()[1], "lt_sha256_go_on_two"):
        return _CChain(block_nbytes)
    return _HashlibChain(algorithm)


class _HashlibChain(Chain):
    """With a hash object for each state."""

    def __init__(self, algorithm: str) -> None:
        self._states: list[_Hash] = [hashlib.new(algorithm)]

    @property
    def nbytes(self) -> int:
        return _OBJECT * len(self._states)

    def extend(self, block: memoryview, *, is_last: bool) -> bytes | None:
        state = self._states[-1].copy()
        state.update(block)
        self._states.append(state)
        return state.digest() if is_last else None

    def is_right(self, number: int, block: memoryview, *, is_last: bool) -> bool:
        state = self._states[number].copy()
        state.update(block)
        return state.digest() == self._states[number + 1].digest()


class _CChain(Chain):
    """By the C core, with a state for each STEP. Two steps are checked in two lanes, in little more time
    than one.
    """

    def __init__(self, block_nbytes: int) -> None:
        self._ffi, self._lib = c_core()
        self._steps_per_block = block_nbytes // STEP
        self._states = bytearray(_STATE)
        self._digest = b""
        self._lib.lt_sha256_begin(self._words(self._states))

    @property
    def nbytes(self) -> int:
        return len(self._states) + _OBJECT

    def extend(self, block: memoryview, *, is_last: bool) -> bytes | None:
        data = self._ffi.from_buffer(block)
        n_steps = len(block) // STEP
        for step in range(n_steps):
            to = bytearray(_STATE)
            last = self._words(self._states[-_STATE:])
            self._lib.lt_sha256_go_on(last, data + step * STEP, STEP, self._words(to))
            self._states += to
        if not is_last:
            return None
        self._digest = self._end(len(self._states) // _STATE - 1, block, n_steps)
        return self._digest

    def is_right(self, number: int, block: memoryview, *, is_last: bool) -> bool:
        data = self._ffi.from_buffer(block)
        states = self._words(self._states)
        first = number * self._steps_per_block
        n_steps = len(block) // STEP
        got = bytearray(n_steps * _STATE)
        to = self._words(got)
        for step in range(0, n_steps - 1, 2):
            at = first + step
            self._lib.lt_sha256_go_on_two(
                *(states + 8 * at, data + step * STEP, to + 8 * step),
                *(states + 8 * (at + 1), data + (step + 1) * STEP, to + 8 * (step + 1)),
                STEP,
            )
        if n_steps % 2:
            step = n_steps - 1
            self._lib.lt_sha256_go_on(states + 8 * (first + step), data + step * STEP, STEP, to + 8 * step)
        wanted = self._states[(first + 1) * _STATE : (first + 1 + n_steps) * _STATE]
        if got != wanted or (len(block) - n_steps * STEP and not is_last):
            return False
        return not is_last or self._end(first + n_steps, block, n_steps) == self._digest

    def _end(self, at: int, block: memoryview, n_steps: int) -> bytes:
        """The digest of the stream that ends with ``block``, from state ``at``, after ``n_steps`` of it."""
        tail = block[n_steps * STEP :]
        digest = bytearray(32)
        self._lib.lt_sha256_end(
            self._words(self._states[at * _STATE : (at + 1) * _STATE]),
            at * STEP,
            self._ffi.from_buffer(tail),
            len(tail),
            self._ffi.from_buffer("uint8_t[]", digest, require_writable=True),
        )
        return bytes(digest)

    def _words(self, states: bytearray) -> Any:
        return self._ffi.from_buffer("uint32_t[]", states)
