"""tar-split put together with the files of its layer, by the C core: see csrc/lt_api.h.

It takes what it knows at sight, and leaves all else to a caller who can do everything, only slower.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .loading import c_core, core_name

MORE: Final = 0
LINE: Final = 1
FILE: Final = 2


class Moved(NamedTuple):
    """``status``: MORE is wanted (lines, or room), or the caller is to take the next LINE, or the FILE.

    ``n_in`` bytes of lines were taken, and ``n_out`` bytes came out.
    """

    status: int
    n_in: int
    n_out: int


class GivenUp(NamedTuple):
    """``left`` bytes of the file ``name``, from byte ``at`` on."""

    name: bytes
    at: int
    left: int


class Splitter:
    """Beneath the directory of the descriptor ``tree``, which stays the caller's. One thread at a time."""

    def __init__(self, tree: int) -> None:
        """Only where ``is_there``. Raises MemoryError."""
        self._ffi, self._lib = c_core()
        raw = self._lib.lt_split_new(tree)
        if raw == self._ffi.NULL:
            raise MemoryError("no memory to put layers together")
        self._split = self._ffi.gc(raw, self._lib.lt_split_free)
        self._bounds = self._ffi.new("struct lt_split_bounds *")
        self._counts = self._ffi.new("size_t[2]")

    @staticmethod
    def is_there() -> bool:
        """Whether the core in use is one that has it."""
        return core_name() == "c" and hasattr(c_core()[1], "lt_split_read")

    def read(self, lines: bytes, at: int, view: memoryview | None, nbytes: int, bounds: list[int]) -> Moved:
        """Lines from byte ``at`` of ``lines``, what they stand for into ``view``; None passes over it.

        ``nbytes`` is how far. ``bounds`` are the bytes and the lines that may still come, and are counted
        down. Blocks, and releases the GIL.
        """
        ffi, bound, counts = self._ffi, self._bounds, self._counts
        bound.nbytes, bound.n_entries = bounds
        text = ffi.from_buffer(lines)
        room = ffi.NULL if view is None else ffi.from_buffer(view, require_writable=True)
        status = self._lib.lt_split_read(
            self._split, text + at, len(lines) - at, room, nbytes, bound, counts, counts + 1
        )
        bounds[:] = bound.nbytes, bound.n_entries
        return Moved(status, counts[0], counts[1])

    def give_up_file(self) -> GivenUp:
        """After FILE: what the caller goes on with before the next ``read``."""
        found = self._ffi.new("struct lt_split_file *")
        self._lib.lt_split_give_up_file(self._split, found)
        return GivenUp(bytes(self._ffi.buffer(found.name, found.name_nbytes)), found.at, found.left)

    def close(self) -> None:
        """Harmless when repeated."""
        self._ffi.release(self._split)
