"""What a core may say of a stream, and the exception that each verdict is.

The numbers are ``enum lt_status`` of csrc/lt_api.h. They stand here a second time because the fallback
core has to do without the C one; a test holds the two together.
"""

from __future__ import annotations

import enum
from types import MappingProxyType

from ..errors import DecodeError, OutputBudgetExceeded, WindowTooLarge


class Status(enum.IntEnum):
    """``enum lt_status``: each name without its ``LT_ERR_``."""

    OK = 0
    HEADER = -1
    DATA = -2
    CHECKSUM = -3
    LENGTH = -4
    TRUNCATED = -5
    TRAILING = -6
    HEADER_TOO_LONG = -7
    WINDOW = -8
    DICTIONARY = -9
    OUT_BUDGET = -10
    UNSUPPORTED = -11
    MEMORY = -20
    WRITE = -21
    THREAD = -22
    CANCELLED = -30
    MISUSE = -31
    UNKNOWN_NAME = -32
    NOT_BUILT = -33
    NO_CPU = -34


_REASONS = MappingProxyType(
    {
        Status.HEADER: ("header", "no valid gzip member or zstd frame header at byte {}"),
        Status.DATA: ("data", "the compressed data of the part that begins at byte {} is corrupt"),
        Status.CHECKSUM: ("checksum", "the part that begins at byte {} does not match its checksum"),
        Status.LENGTH: ("length", "the part that begins at byte {} does not have the length it states"),
        Status.TRUNCATED: ("truncated", "it ends at byte {}, in the middle"),
        Status.TRAILING: ("trailing", "surplus bytes follow the end of the compressed data, from byte {}"),
        Status.HEADER_TOO_LONG: ("header_too_long", "a gzip header field exceeds 64 KiB at byte {}"),
        Status.DICTIONARY: ("dictionary", "the zstd frame at byte {} needs a dictionary"),
        Status.UNSUPPORTED: ("unsupported", "this compression is not built in (byte {})"),
    }
)


def decode_error(
    status: int, offset: int, media_type: str, *, window: int = 0, window_max: int = 0
) -> Exception:
    """The exception for a negative ``enum lt_status`` of one stream.

    ``window`` and ``window_max`` are the bytes that a zstd frame asked for, and those that it may have.

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
    if status == Status.WINDOW:
        return WindowTooLarge(
            f"{what}: the zstd frame at byte {offset} wants a window of {_mib(window)}, and may have"
            f" {_mib(window_max)}",
            media_type=media_type,
            offset=offset,
            window=window,
            window_max=window_max,
        ).with_hint("zstd-window")
    known = _REASONS.get(Status(status)) if status in Status._value2member_map_ else None
    if known is None:
        return RuntimeError(f"{what}: the core answered {status}")
    reason, text = known
    return DecodeError(f"{what}: {text.format(offset)}", media_type=media_type, offset=offset, reason=reason)


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.10g} MiB"
