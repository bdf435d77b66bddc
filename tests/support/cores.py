"""Which cores, and which of their inflaters, can be tested on this machine."""

from __future__ import annotations

from layertee.core.loading import c_core
from layertee.core.tee_python import INFLATERS
from layertee.errors import LayerteeError

# Of the C core, fastest first, as csrc/codec/inflate/lt_inflate.c has them.
C_INFLATERS = ("own", "isal", "zlib", "own-portable")
# Every way a gzip stream can be decoded: "c-own", "c-isal", "python-isal", …
CORES = [*(f"c-{each}" for each in C_INFLATERS), *(f"python-{each}" for each in INFLATERS)]


def c_core_missing() -> str | None:
    """Why the C core cannot be tested here, or None."""
    try:
        c_core()
    except LayerteeError as exc:
        return str(exc)
    return None


def not_built(inflater: str) -> str | None:
    """Why the C core has no such inflater here, or None."""
    ffi, lib = c_core()
    index = 0
    while (raw := lib.lt_inflater_name(index)) != ffi.NULL:
        if ffi.string(raw).decode() == inflater and lib.lt_inflater_state(index) == lib.LT_OK:
            return None
        index += 1
    return f"the C core was built without {inflater}"
