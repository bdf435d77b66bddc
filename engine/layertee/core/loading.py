"""Which core runs, with which inflater, and why.

``LAYERTEE_CORE=c`` or ``=python`` and ``LAYERTEE_INFLATE=own``, ``=isal`` or ``=zlib`` are demands, not
preferences: where they cannot be met, nothing runs in their stead. They are read each time that a tee or a
pool is made. A binary that was built from another version of the sources is refused, not used.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import LayerteeError
from ..image.media import Compression
from .tee_python import INFLATERS, versions

_ABI = 7  # LT_ABI of csrc/lt_api.h


def c_core() -> tuple[Any, Any]:
    """``(ffi, lib)`` of the C core. Raises LayerteeError where it cannot be used."""
    loaded, why = _load()
    if loaded is None:
        raise LayerteeError(f"the C core cannot be used: {why}")
    return loaded


def c_format(compression: Compression) -> int:
    """``enum lt_format``: as it is, or whatever the first byte says."""
    _, lib = c_core()
    return int(lib.LT_FORMAT_NONE if compression is Compression.NONE else lib.LT_FORMAT_DETECT)


def found_format(number: int, said: Compression) -> Compression:
    """What ``lt_result.format`` says; ``said`` where nothing was found, as the stream was empty."""
    _, lib = c_core()
    formats = {
        lib.LT_FORMAT_NONE: Compression.NONE,
        lib.LT_FORMAT_GZIP: Compression.GZIP,
        lib.LT_FORMAT_ZSTD: Compression.ZSTD,
    }
    return formats.get(number, said)


@functools.cache
def _load() -> tuple[tuple[Any, Any] | None, str]:
    """The C core or None, and why. Picks the SHA-256 kernel; the import lock makes that safe."""
    try:
        from ._ctee import ffi, lib
    except ModuleNotFoundError:
        return None, "it was not built"
    except ImportError as exc:
        return None, f"it does not load: {exc}"
    abi = getattr(lib, "LT_ABI", None)
    if abi != _ABI:
        return None, f"layertee.core._ctee is of another version (ABI {abi}, not {_ABI}); build it again"
    lib.lt_kernel_use(ffi.NULL)
    lib.lt_inflater_use(ffi.NULL)
    return (ffi, lib), "it was built and loads"


def choose(core: str | None = None) -> str:
    """The core to use: a demand by argument, else by environment, else C where it works.

    Raises LayerteeError for a demand that cannot be met, the one for an inflater included.
    """
    asked = core if core is not None else os.environ.get("LAYERTEE_CORE", "")
    if asked not in ("", "c", "python"):
        raise LayerteeError(f"no such core: {asked!r}; LAYERTEE_CORE is 'c' or 'python'")
    if asked == "c":
        c_core()
    name = asked or ("c" if _load()[0] is not None else "python")
    inflater_name(name)
    return name


def inflater_name(core: str) -> str:
    """The inflater that the next gzip stream of ``core`` gets: the one demanded, else the fastest.

    Raises LayerteeError for one that there is not. A stream keeps the one it began with.
    """
    asked = os.environ.get("LAYERTEE_INFLATE", "")
    if core == "python":
        if asked and asked not in INFLATERS:
            raise _no_inflater(asked, INFLATERS)
        return asked or INFLATERS[0]
    ffi, lib = c_core()
    names = list(_names(ffi, lib.lt_inflater_name))
    wanted = asked or next(name for i, name in enumerate(names) if lib.lt_inflater_state(i) == lib.LT_OK)
    # The library has one choice for the process, which workers read: touched only where it is another.
    if wanted.encode() != ffi.string(lib.lt_inflater_current()):
        status = lib.lt_inflater_use(wanted.encode())
        if status == lib.LT_ERR_UNKNOWN_NAME:
            raise _no_inflater(wanted, names)
        if status != lib.LT_OK:
            raise LayerteeError(f"LAYERTEE_INFLATE={wanted}: the C core was built without it")
    return wanted


def _no_inflater(asked: str, names: Sequence[str]) -> LayerteeError:
    known = " or ".join(map(repr, names))
    return LayerteeError(f"no such inflater: {asked!r}; LAYERTEE_INFLATE is {known}")


def core_name() -> str:
    """``"c"`` or ``"python"``. Raises LayerteeError if ``LAYERTEE_CORE`` demands what is not there."""
    return choose(None)


def why_python() -> str:
    """Why the core in Python runs, where it does."""
    asked = os.environ.get("LAYERTEE_CORE", "")
    return "LAYERTEE_CORE=python" if asked else f"the C core cannot be used: {_load()[1]}"


def core_report() -> str:
    """Which core runs and why, its libraries and kernels: some lines for ``layertee doctor``."""
    name = core_name()
    asked = os.environ.get("LAYERTEE_CORE", "")
    loaded, why = _load()
    if name == "python":
        lines = ["core: python", f"  why: {why_python()}", f"  libraries: {versions()}"]
        lines += [_line("inflater", each, each == inflater_name(name)) for each in INFLATERS]
        return "\n".join(lines)
    assert loaded is not None
    ffi, lib = loaded
    lines = [
        "core: c",
        f"  why: {'LAYERTEE_CORE=c, and ' if asked else ''}{why}",
        f"  libraries: {ffi.string(lib.lt_build()).decode()}",
    ]
    using = ffi.string(lib.lt_inflater_current())
    for index, each in enumerate(_names(ffi, lib.lt_inflater_name)):
        notes = [] if lib.lt_inflater_state(index) == lib.LT_OK else ["not built"]
        lines.append(_line("inflater", each, each.encode() == using, notes))
    using = ffi.string(lib.lt_kernel_current())
    for index, each in enumerate(_names(ffi, lib.lt_kernel_name)):
        notes = [f"{lib.lt_kernel_lanes(index)} lane(s)"]
        if lib.lt_kernel_state(index) == lib.LT_ERR_NOT_BUILT:
            notes = ["not built"]
        elif lib.lt_kernel_state(index) == lib.LT_ERR_NO_CPU:
            notes.append("not for this CPU")
        lines.append(_line("sha256 kernel", each, each.encode() == using, notes))
    return "\n".join(lines)


def _names(ffi: Any, name_of: Callable[[int], Any]) -> Iterator[str]:
    """A table of the C core by the names of its entries."""
    index = 0
    while (raw := name_of(index)) != ffi.NULL:
        yield ffi.string(raw).decode()
        index += 1


def _line(what: str, name: str, in_use: bool, notes: Sequence[str] = ()) -> str:
    text = ", ".join([*notes, *(["in use"] if in_use else [])])
    return f"  {what} {name}: {text or 'available'}"
