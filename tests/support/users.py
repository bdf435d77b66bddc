"""What a user who is not root would see, for tests that root may run too."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["bound_by_modes", "closed"]

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 capabilities
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # capabilities(7)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """The modes of files hold for this thread, and for threads that it begins, even if it is root's."""
    header, words = _Header(_VERSION, 0), (_Word * 2)()
    _call("capget", header, words)
    before = words[0].effective
    words[0].effective = before & ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _call("capset", header, words)
    try:
        yield
    finally:
        words[0].effective = before
        _call("capset", header, words)


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """``path`` is as good as a directory or file of another user: nobody may look into it."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with bound_by_modes():
            yield
    finally:
        path.chmod(mode)


def _call(name: str, header: _Header, words: ctypes.Array[_Word]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(ctypes.byref(header), ctypes.byref(words)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
