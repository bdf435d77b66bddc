"""The tee: one pass over a blob that hashes it, inflates it, and hashes what comes out.

Rules of this file. No sockets, files, threads or event loop. Two cores stand behind one face: the C
extension, and a fallback in Python for machines where that could not be built; the same tests hold for
both. Which one it is, loading.py decides.
"""

from __future__ import annotations

from typing import Protocol

from ..image.media import Compression
from .loading import c_core, c_format, choose, found_format, inflater_name
from .result import Measured, TeeResult, make_result
from .status import Status, decode_error
from .tee_python import PythonCore

OUT_BUDGET = 64 << 30
WINDOW_MAX = 128 << 20  # zstd --long=27, and libzstd's own default limit
_WINDOW = 256 << 10  # output buffers from 128 KiB to 4 MiB are equally fast

ReadableBuffer = bytes | bytearray | memoryview


class _Core(Protocol):
    """``lt_tee`` of csrc/lt_api.h, with buffers for pointers."""

    @property
    def error_offset(self) -> int: ...
    @property
    def error_window(self) -> int: ...
    def feed(self, data: memoryview, out: memoryview) -> tuple[int, int, int]: ...
    def finish(self) -> Measured: ...


class Tee:
    """Hashes, inflates and hashes one blob. Its results exist only after :meth:`finish`.

    ``compression`` says whether the blob is compressed at all: NONE takes any bytes as they are. For the
    others the first byte says whether it is gzip or zstd, whichever of the two was said: media types lie.
    ``check_crc`` asks for the checksums of contents, gzip's CRC-32 and zstd's XXH64 (lengths are always
    checked). A stream that inflates to more than ``out_budget`` bytes, or wants a zstd window above
    ``window_max``, is refused while it is decoded. ``media_type`` is for messages. ``core`` is a demand;
    None is :func:`core_name`'s choice.
    """

    __slots__ = (
        "_core",
        "_core_name",
        "_done",
        "_media_type",
        "_out",
        "_pending",
        "_rest",
        "_window_max",
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
        self._core_name = choose(core)
        self._core: _Core
        if self._core_name == "c":
            self._core = _CCore(compression, check_crc, out_budget, window_max)
        else:
            self._core = PythonCore(
                compression,
                check_crc=check_crc,
                out_budget=out_budget,
                window_max=window_max,
                inflater=inflater_name("python"),
            )
        self._media_type = media_type
        self._window_max = window_max
        self.window: int = _WINDOW
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
            raise self._error(status)
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
        measured = self._core.finish()
        if measured.status != Status.OK:
            raise self._error(measured.status)
        self._done = True
        return make_result(
            digest=measured.digest,
            diff_id=measured.diff_id,
            size=measured.size,
            uncompressed_size=measured.uncompressed_size,
            n_members=measured.n_members,
            compression=measured.compression,
            core=self._core_name,
        )

    def _error(self, status: int) -> Exception:
        core = self._core
        return decode_error(
            status, core.error_offset, self._media_type, window=core.error_window, window_max=self._window_max
        )


class _CCore:
    """``lt_tee`` through cffi, which releases the GIL around each call."""

    def __init__(self, compression: Compression, check_crc: bool, out_budget: int, window_max: int) -> None:
        self._ffi, self._lib = c_core()
        raw = self._lib.lt_tee_new(c_format(compression), int(check_crc), out_budget, window_max)
        if raw == self._ffi.NULL:
            raise MemoryError("no memory for a decoder")
        self._tee = self._ffi.gc(raw, self._lib.lt_tee_free)
        self._counts = self._ffi.new("size_t[2]")
        self._said = compression

    @property
    def error_offset(self) -> int:
        return int(self._lib.lt_tee_error_offset(self._tee))

    @property
    def error_window(self) -> int:
        return int(self._lib.lt_tee_error_window(self._tee))

    def feed(self, data: memoryview, out: memoryview) -> tuple[int, int, int]:
        ffi, counts = self._ffi, self._counts
        with ffi.from_buffer(data) as src, ffi.from_buffer(out, require_writable=True) as dst:
            status = self._lib.lt_tee_feed(self._tee, src, len(data), dst, len(out), counts, counts + 1)
        return status, counts[0], counts[1]

    def finish(self) -> Measured:
        raw = self._ffi.new("struct lt_result *")
        self._lib.lt_tee_finish(self._tee, raw)
        return Measured(
            status=raw.status,
            size=raw.in_total,
            uncompressed_size=raw.out_total,
            n_members=raw.n_members,
            compression=found_format(raw.format, self._said),
            digest=bytes(self._ffi.buffer(raw.in_digest)),
            diff_id=bytes(self._ffi.buffer(raw.out_digest)),
        )
