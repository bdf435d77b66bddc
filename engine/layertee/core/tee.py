"""The tee: one pass over a blob that hashes it, inflates it, and hashes what comes out.

Rules of this file. No sockets, files, threads or event loop. Two cores stand behind one face: the C
extension, and a fallback in Python for machines where that could not be built; the same tests hold for
both. ``LAYERTEE_CORE=c`` or ``=python`` is a demand, not a preference. A binary that was built from
another version of the sources is refused, not used.

What a tee *measured* is a :class:`TeeResult`. Nothing outside this package can make one, so whatever
asks for a TeeResult (the catalog, the sinks) cannot be handed a claim. Who only hashed a blob has a
:class:`BlobResult`, which says nothing about content, and which no catalog takes.
"""

from __future__ import annotations

import functools
import os
from dataclasses import InitVar, dataclass
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import DecodeError, LayerteeError, OutputBudgetExceeded
from ..image.document import Compression, DiffID, Digest
from .tee_python import PythonCore, Status, versions

__all__ = ["BlobResult", "Tee", "TeeResult", "core_name", "core_report"]

OUT_BUDGET = 64 << 30
WINDOW_MAX = 128 << 20  # zstd --long=27, and libzstd's own default limit
_ABI = 2  # LT_ABI of csrc/lt_tee.h
_WINDOW = 256 << 10  # output buffers from 128 KiB to 4 MiB are equally fast
_MEASURED = object()

ReadableBuffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobResult:
    """What one pass over a blob's bytes measured: ``digest`` and ``size`` of the bytes fed.

    ``compression`` is what the blob was said to be; only a TeeResult has seen that it is.
    """

    digest: Digest
    size: int
    compression: Compression
    _token: InitVar[object] = None

    def __post_init__(self, _token: object) -> None:
        if _token is not _MEASURED:
            raise TypeError(f"a {type(self).__name__} is what a tee measures; it cannot be made")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeeResult(BlobResult):
    """What one pass over a complete, well-formed blob measured.

    ``diff_id`` and ``uncompressed_size`` are of what it inflates to. ``decoder`` names the core and
    the library that inflated it.
    """

    diff_id: DiffID
    uncompressed_size: int
    decoder: str


def make_result(
    *,
    digest: bytes,
    diff_id: bytes,
    size: int,
    uncompressed_size: int,
    compression: Compression,
    core: str = "c",
) -> TeeResult:
    """For the cores and the pools over them, which have just measured it. Digests are 32 raw bytes."""
    return TeeResult(
        digest=Digest("sha256:" + digest.hex()),
        diff_id=DiffID("sha256:" + diff_id.hex()),
        size=size,
        uncompressed_size=uncompressed_size,
        compression=compression,
        decoder=f"{core}/{compression.value}",
        _token=_MEASURED,
    )


def make_blob_result(*, digest: bytes, size: int, compression: Compression) -> BlobResult:
    """For the pools, which have just hashed it and looked no further."""
    return BlobResult(
        digest=Digest("sha256:" + digest.hex()), size=size, compression=compression, _token=_MEASURED
    )


class _Core(Protocol):
    """``lt_tee`` of csrc/lt_api.h, with buffers for pointers."""

    @property
    def error_offset(self) -> int: ...
    def feed(self, data: memoryview, out: memoryview) -> tuple[int, int, int]: ...
    def finish(self) -> tuple[int, int, int, bytes, bytes]: ...


class Tee:
    """Hashes, inflates and hashes one blob. Its results exist only after :meth:`finish`.

    ``check_crc`` asks for gzip's CRC-32 (its length is always checked). A stream that inflates to more
    than ``out_budget`` bytes, or wants a zstd window above ``window_max``, is refused while it is
    decoded. ``media_type`` is for messages. ``core`` is a demand; None is :func:`core_name`'s choice.
    """

    __slots__ = (
        "_compression",
        "_core",
        "_core_name",
        "_done",
        "_media_type",
        "_out",
        "_pending",
        "_rest",
        "window",
    )

    def __init__(
        self,
        compression: Compression,
        *,
        check_crc: bool = True,
        out_budget: int = OUT_BUDGET,
        window_max: int = WINDOW_MAX,
        media_type: str = "",
        core: str | None = None,
    ) -> None:
        if out_budget < 0 or window_max < 0:
            raise ValueError("out_budget and window_max cannot be negative")
        self._core_name = _choose(core)
        self._core: _Core
        if self._core_name == "c":
            self._core = _CCore(compression, check_crc, out_budget, window_max)
        else:
            self._core = PythonCore(
                compression.value, check_crc=check_crc, out_budget=out_budget, window_max=window_max
            )
        self._compression = compression
        self._media_type = media_type
        self.window = _WINDOW
        self._out = memoryview(bytearray(_WINDOW))
        self._rest = memoryview(b"")
        self._pending = False
        self._done = False

    @property
    def pending(self) -> bool:
        """Whether there may be more output before more input is needed."""
        return self._pending

    def feed(self, chunk: ReadableBuffer) -> memoryview:
        """Hash and inflate ``chunk``; return the bytes inflated so far, valid until the next call.

        ``chunk`` may end anywhere, mid-header included. Output is at most ``self.window`` bytes (256 KiB);
        call again with ``b""`` while ``self.pending``, and leave ``chunk`` as it is until then: what is
        still unread is kept by reference. Not thread-safe; releases the GIL.
        Raises DecodeError (corrupt stream; ``offset`` = input byte). Members and frames concatenate:
        RFC 1952 §2.2, RFC 8878 §3.
        """
        if self._done:
            raise RuntimeError("this tee is finished")
        data = memoryview(chunk).cast("B")
        if self._pending:
            if len(data):
                raise RuntimeError("output is pending: feed b'' while pending is true")
            data = self._rest
        status, taken, made = self._core.feed(data, self._out)
        if status < 0:
            self._rest, self._pending = memoryview(b""), False
            raise decode_error(status, self._core.error_offset, self._media_type)
        self._rest = data[taken:]
        self._pending = len(self._rest) > 0 or made == len(self._out)
        return self._out[:made].toreadonly()

    def finish(self) -> TeeResult:
        """The input has ended: what was measured.

        Raises DecodeError if it ended inside a member or frame, RuntimeError while output is pending.
        Empty input is a complete, empty stream in every form.
        """
        if self._pending or self._done:
            raise RuntimeError("this tee is finished" if self._done else "output is pending")
        status, in_total, out_total, in_digest, out_digest = self._core.finish()
        if status != Status.OK:
            raise decode_error(status, self._core.error_offset, self._media_type)
        self._done = True
        return make_result(
            digest=in_digest,
            diff_id=out_digest,
            size=in_total,
            uncompressed_size=out_total,
            compression=self._compression,
            core=self._core_name,
        )


# --- errors ----------------------------------------------------------------------------

_REASONS = MappingProxyType(
    {
        Status.HEADER: ("header", "no valid gzip member or zstd frame header at byte {}"),
        Status.DATA: ("data", "the compressed data of the part that begins at byte {} is corrupt"),
        Status.CHECKSUM: ("checksum", "the part that begins at byte {} does not match its checksum"),
        Status.LENGTH: ("length", "the part that begins at byte {} does not have the length it states"),
        Status.TRUNCATED: ("truncated", "it ends at byte {}, in the middle"),
        Status.TRAILING: ("trailing", "surplus bytes follow the end of the compressed data, from byte {}"),
        Status.HEADER_TOO_LONG: ("header_too_long", "a gzip header field exceeds 64 KiB at byte {}"),
        Status.WINDOW: ("window", "the zstd frame at byte {} wants more memory than is allowed"),
        Status.DICTIONARY: ("dictionary", "the zstd frame at byte {} needs a dictionary"),
        Status.UNSUPPORTED: ("unsupported", "this compression is not built in (byte {})"),
    }
)


def decode_error(status: int, offset: int, media_type: str) -> Exception:
    """The exception for a negative ``enum lt_status`` of one stream.

    A machine that is out of memory or threads, or a bug of ours, is not a property of the stream:
    MemoryError and RuntimeError.
    """
    what = f"layer ({media_type})" if media_type else "layer"
    if status == Status.OUT_BUDGET:
        return OutputBudgetExceeded(
            f"{what}: it inflates to more bytes than it may",
            media_type=media_type,
            offset=offset,
            reason="out_budget",
        )
    if status == Status.MEMORY:
        return MemoryError(f"{what}: no memory for its decoder")
    known = _REASONS.get(Status(status)) if status in Status._value2member_map_ else None
    if known is None:
        return RuntimeError(f"{what}: the core answered {status}")
    reason, text = known
    return DecodeError(f"{what}: {text.format(offset)}", media_type=media_type, offset=offset, reason=reason)


# --- cores ------------------------------------------------------------------------------


class _CCore:
    """``lt_tee`` through cffi, which releases the GIL around each call."""

    def __init__(self, compression: Compression, check_crc: bool, out_budget: int, window_max: int) -> None:
        self._ffi, self._lib = c_core()
        raw = self._lib.lt_tee_new(c_format(compression), int(check_crc), out_budget, window_max)
        if raw == self._ffi.NULL:
            raise MemoryError("no memory for a decoder")
        self._tee = self._ffi.gc(raw, self._lib.lt_tee_free)
        self._counts = self._ffi.new("size_t[2]")

    @property
    def error_offset(self) -> int:
        return int(self._lib.lt_tee_error_offset(self._tee))

    def feed(self, data: memoryview, out: memoryview) -> tuple[int, int, int]:
        ffi, counts = self._ffi, self._counts
        with ffi.from_buffer(data) as src, ffi.from_buffer(out, require_writable=True) as dst:
            status = self._lib.lt_tee_feed(self._tee, src, len(data), dst, len(out), counts, counts + 1)
        return status, counts[0], counts[1]

    def finish(self) -> tuple[int, int, int, bytes, bytes]:
        ffi = self._ffi
        totals = ffi.new("uint64_t[2]")
        digests = ffi.new("uint8_t[64]")
        status = self._lib.lt_tee_finish(self._tee, totals, totals + 1, digests, digests + 32)
        raw = bytes(ffi.buffer(digests))
        return status, totals[0], totals[1], raw[:32], raw[32:]


def c_core() -> tuple[Any, Any]:
    """``(ffi, lib)`` of the C core. Raises LayerteeError where it cannot be used."""
    loaded, why = _load()
    if loaded is None:
        raise LayerteeError(f"the C core cannot be used: {why}")
    return loaded


def c_format(compression: Compression) -> int:
    """``enum lt_format``."""
    _, lib = c_core()
    formats = {
        Compression.NONE: lib.LT_FORMAT_NONE,
        Compression.GZIP: lib.LT_FORMAT_GZIP,
        Compression.ZSTD: lib.LT_FORMAT_ZSTD,
    }
    return int(formats[compression])


@functools.cache
def _load() -> tuple[tuple[Any, Any] | None, str]:
    """The C core or None, and why. Picks the SHA-256 kernel; the import lock makes that safe."""
    try:
        from ._ctee import ffi, lib
    except ModuleNotFoundError:
        return None, "it was not built"
    except ImportError as exc:
        return None, f"it does not load: {exc}"
    abi = lib.lt_abi() if hasattr(lib, "lt_abi") else None
    if abi != _ABI:
        return None, f"layertee.core._ctee is of another version (ABI {abi}, not {_ABI}); build it again"
    lib.lt_kernel_use(ffi.NULL)
    return (ffi, lib), "it was built and loads"


def _choose(core: str | None) -> str:
    """The core to use: a demand by argument, else by environment, else C where it works."""
    asked = core if core is not None else os.environ.get("LAYERTEE_CORE", "")
    if asked == "python":
        return "python"
    if asked == "c":
        c_core()
        return "c"
    if asked:
        raise LayerteeError(f"no such core: {asked!r}; LAYERTEE_CORE is 'c' or 'python'")
    return "c" if _load()[0] is not None else "python"


def core_name() -> str:
    """``"c"`` or ``"python"``. Raises LayerteeError if ``LAYERTEE_CORE`` demands what is not there."""
    return _choose(None)


def core_report() -> str:
    """Which core runs and why, its libraries and kernels: some lines for ``layertee doctor``."""
    name = core_name()
    asked = os.environ.get("LAYERTEE_CORE", "")
    loaded, why = _load()
    if name == "python":
        why = "LAYERTEE_CORE=python" if asked else f"the C core cannot be used: {why}"
        return f"core: python\n  why: {why}\n  libraries: {versions()}"
    assert loaded is not None
    ffi, lib = loaded
    lines = [
        "core: c",
        f"  why: {'LAYERTEE_CORE=c, and ' if asked else ''}{why}",
        f"  libraries: {ffi.string(lib.lt_build()).decode()}",
    ]
    index = 0
    while (raw := lib.lt_kernel_name(index)) != ffi.NULL:
        kernel = ffi.string(raw).decode()
        notes = [f"{lib.lt_kernel_lanes(index)} lane(s)"]
        if not lib.lt_kernel_runs_here(index):
            notes.append("not for this CPU")
        if raw == lib.lt_kernel_current():
            notes.append("in use")
        lines.append(f"  sha256 kernel {kernel}: {', '.join(notes)}")
        index += 1
    return "\n".join(lines)
