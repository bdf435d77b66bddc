"""The system calls that restrict a process, for which Python has no functions.

Each raises OSError as the kernel answers. ctypes is imported with this module, which takes 2 ms.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

# landlock(7): the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ONLY_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2

MFD_NOEXEC_SEAL = 0x8  # of linux/memfd.h
_CAPABILITIES_VERSION = 0x20080522  # of linux/capability.h: two words of 32 bits for each set
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID = range(8)
NET_BIND_SERVICE, SYS_RESOURCE = 10, 24

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_A_RULE, _NO_FLAGS, _PATH = ctypes.c_long(_ADD_RULE), ctypes.c_uint32(0), struct.Struct("=Qi")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def landlock_abi() -> int:
    """The version of Landlock that the kernel has; 0 where it has none, or has it turned off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ONLY_VERSION))
    except OSError:
        return 0


def create_ruleset(attributes: bytes) -> int:
    """A descriptor of rules for what ``attributes`` (struct landlock_ruleset_attr) name."""
    return _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))


def allow_beneath(ruleset: int, access: int, fd: int) -> None:
    """``access`` to the file ``fd``, or to all that is beneath that directory."""
    _checked(_libc.syscall(_A_RULE, ruleset, _PATH_BENEATH, _PATH.pack(access, fd), _NO_FLAGS))


def allow_port(ruleset: int, access: int, port: int) -> None:
    """``access`` by TCP to this port."""
    _call(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", access, port), ctypes.c_uint32(0))


def restrict_self(ruleset: int) -> None:
    """For this thread, and for what it starts, from now on: nothing but what the rules allow."""
    _call(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))


def set_no_new_privs() -> None:
    """For this thread, and for what it starts: no program gets rights from its file."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def has_seccomp() -> bool:
    """Whether the kernel has filters of system calls. One that is in force does not count."""
    try:
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None)
    except OSError as exc:
        return exc.errno == errno.EFAULT  # it would have read the program
    return False


def has_memory_that_is_not_run() -> bool:
    """Whether a file in memory can be one that is no program: MFD_NOEXEC_SEAL, since Linux 6.3."""
    try:
        os.close(os.memfd_create("layertee", os.MFD_CLOEXEC | MFD_NOEXEC_SEAL))
    except OSError as exc:
        return exc.errno != errno.EINVAL
    return True


def set_filter(program: bytes) -> None:
    """Put each system call of this thread, and of what it starts, to ``program`` (struct sock_filter)."""
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program) // 8, program)))


def keep_capabilities(kept: Iterable[int]) -> None:
    """Give away all capabilities but ``kept``, as far as this thread has them. After set_no_new_privs, what
    it starts cannot get them again.
    """
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, sets))
    mask = sum(1 << one for one in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    found = struct.unpack("=6I", sets.raw)  # effective, permitted, inheritable; the same of the higher ones
    left = [have & (low if at < 3 else high) for at, have in enumerate(found)]
    if list(found) != left:
        _checked(_libc.capset(header, struct.pack("=6I", *left)))


def _call(number: int, *args: object) -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *args))


def _prctl(option: int, first: int = 0, second: object = 0) -> None:
    given = ctypes.c_ulong(second) if isinstance(second, int) else second
    _checked(_libc.prctl(option, ctypes.c_ulong(first), given, ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _checked(found: int) -> int:
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found
