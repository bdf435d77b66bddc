"""As much of the GVariant format as it takes to read the metadata of an ostree commit.

A commit is ``(a{sv}aya(say)sstayay)``, its metadata the ``a{sv}`` in front. Framing offsets are little-endian
and as wide as the container is long; what breaks a rule is refused, never guessed at. No I/O.
https://docs.gtk.org/glib/gvariant-specification-1.0.html §2.3, §2.5
"""

from __future__ import annotations

from ...errors import DocumentError

# a{sv}, ay, a(say), s, s and the first of the last two ay: every member of variable size but the last.
_COMMIT_OFFSETS = 6
_ALIGNMENT = 8  # of a variant, and so of an entry that holds one


def commit_strings(raw: bytes) -> dict[str, str]:
    """The metadata of the commit ``raw`` that are strings; others are left out. Raises DocumentError."""
    width = _width(len(raw))
    if len(raw) < width * _COMMIT_OFFSETS:
        raise DocumentError(f"a commit of {len(raw)} bytes is too short")
    end = _offset(raw, len(raw) - width, width)
    if end > len(raw) - width * _COMMIT_OFFSETS:
        raise DocumentError("a commit's metadata runs past its end")
    return _dictionary(raw[:end])


def _dictionary(raw: bytes) -> dict[str, str]:
    """The strings of an ``a{sv}``."""
    if not raw:
        return {}
    width = _width(len(raw))
    table = _offset(raw, len(raw) - width, width)
    if table >= len(raw) or (len(raw) - table) % width:
        raise DocumentError("a commit's metadata have no valid table of offsets")
    found: dict[str, str] = {}
    start = 0
    for at in range(table, len(raw), width):
        end = _offset(raw, at, width)
        if not start < end <= table:
            raise DocumentError("the entries of a commit's metadata overlap")
        key, value = _entry(raw[start:end])
        if key in found:
            raise DocumentError(f"a commit's metadata have {key!r:.100} twice")
        if value is not None:
            found[key] = value
        start = _aligned(end)
    return found


def _entry(raw: bytes) -> tuple[str, str | None]:
    """One ``{sv}``: its key, and its value if that is a string."""
    width = _width(len(raw))
    end = _offset(raw, len(raw) - width, width)
    start = _aligned(end)
    if end > start or start > len(raw) - width:
        raise DocumentError("an entry of a commit's metadata runs past its end")
    key = _string(raw[:end])
    value, separator, kind = raw[start : len(raw) - width].rpartition(b"\0")
    if not separator:
        raise DocumentError(f"the value of {key!r:.100} has no type")
    return key, _string(value) if kind == b"s" else None


def _string(raw: bytes) -> str:
    if not raw or raw.find(b"\0") != len(raw) - 1:
        raise DocumentError("a string of a commit's metadata does not end where it should")
    try:
        return raw[:-1].decode()
    except UnicodeDecodeError:
        raise DocumentError("a string of a commit's metadata is not UTF-8") from None


def _width(nbytes: int) -> int:
    """Of an offset in a container of ``nbytes``."""
    return next(width for width in (1, 2, 4, 8) if nbytes < 1 << (8 * width))


def _offset(raw: bytes, at: int, width: int) -> int:
    return int.from_bytes(raw[at : at + width], "little")


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
