"""A filter of system calls, as a program for the kernel's BPF machine: pure, no I/O.

What is refused is what this program and those that it starts (gpgv, skopeo, helpers for logins) have no use
for, and what code that has been taken over would want: other processes, mounts and namespaces, the kernel
itself, its keys, and interfaces whose mistakes have let processes out before (io_uring, userfaultfd, bpf).
A list of what is allowed would be shorter on paper; it would also end with the next release of a library.

A refusal is an error that the caller sees, EPERM mostly: libraries that try something newer first go on with
what is older. A call by way of another architecture's numbers ends the process.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Final

# Of linux/audit.h; both have their low half of a 64-bit argument first.
ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers on x86_64 and on aarch64; None where it is not there.
REFUSED: Final[dict[str, tuple[int, int | None]]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # memory and queues that processes share by a number, which no rule of Landlock is for
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "memfd_secret": (447, 447),
    # whose a file is and who may use it, by a name: of any file there is, as Landlock does not see this
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    # what is where, for a process
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # the kernel
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "syslog": (103, 116),
    "lookup_dcookie": (212, 18),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    # its keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # the machine
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
}
# Refused for some arguments only, or in another way.
LOOKED_INTO: Final[dict[str, tuple[int, int | None]]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "prlimit64": (302, 261),
    "memfd_create": (319, 279),
    "fchown": (93, 55),
    "listen": (50, 201),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
}
INTERNET: Final = (2, 10)  # AF_INET, AF_INET6
NETLINK: Final = 16  # AF_NETLINK, by which libc asks for this machine's addresses: the protocol 0
TCP, UDP = (1, (0, 6)), (2, (0, 17))  # SOCK_STREAM and SOCK_DGRAM, each with its protocols
_NEVER_RUN: Final = 0x8  # MFD_NOEXEC_SEAL
LOCAL: Final = 1  # AF_UNIX: of what answers there, much does what root asks. Pairs are made otherwise.

_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEWNS, …CGROUP, …UTS, …IPC, …USER, …PID, …NET
_NEW_TIME: Final = 0x80  # CLONE_NEWTIME; in clone, a part of the number of a signal
_INTO_A_TERMINAL: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type for the user
_X32: Final = 0x40000000
_TYPE: Final = 0xF  # of a socket, without SOCK_CLOEXEC and SOCK_NONBLOCK
_FAST_OPEN: Final = 0x20000000  # MSG_FASTOPEN: connects, and Landlock is not asked
_FILTER: Final = struct.Struct("=HBBI")  # struct sock_filter
_NR, _ARCH, _FIRST, _SECOND, _THIRD, _FOURTH = 0, 4, 16, 24, 32, 40  # offsets in struct seccomp_data
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def is_known(machine: str | None = None) -> bool:
    """Whether there is a ``program`` for ``machine``."""
    return (machine or os.uname().machine) in ARCHITECTURES


def program(
    machine: str | None = None,
    *,
    connects: bool = True,
    listens: bool = False,
    asks: bool = False,
    gives_to: Collection[tuple[int, int]] = (),
    runs_memory: bool = False,
) -> bytes | None:
    """The filter for processes of ``machine``, by default this one; None where its numbers are not known.

    ``connects`` and ``listens``: what Landlock has rules for, and does not see in every form: connections
    that come about by sending, listening at any port, and protocols besides TCP. ``connects`` is UDP's, too.
    ``asks``: sockets of this machine can be made. ``gives_to``: users and groups that an open file can be
    given to. ``runs_memory``: a file in memory need not be one that is never run, as kernels before Linux 6.3
    have no other. An array of struct sock_filter.
    """
    machine = machine or os.uname().machine
    if not is_known(machine):
        return None
    column = list(ARCHITECTURES).index(machine)
    number = {name: numbers[column] for name, numbers in (REFUSED | LOOKED_INTO).items()}
    parts = [_step(_LOAD, _ARCH), _unless(_EQUAL, ARCHITECTURES[machine], _KILL), _step(_LOAD, _NR)]
    if machine == "x86_64":
        parts.append(_if(_AT_LEAST, _X32, _return(_KILL)))
    refuse = _refuse()
    parts += [_if(_EQUAL, nr, refuse) for name in REFUSED if (nr := number[name]) is not None]
    namespaces = {"clone": _NEW_NAMESPACES, "unshare": _NEW_NAMESPACES | _NEW_TIME}
    for name, flags in namespaces.items():
        parts.append(
            _if(_EQUAL, number[name], _step(_LOAD, _FIRST), _if(_ANY_OF, flags, _refuse()), _allow())
        )
    # Its flags are in memory, which a filter cannot read. libc goes on with clone.
    parts.append(_if(_EQUAL, number["clone3"], _refuse(errno.ENOSYS)))
    terminal = [_if(_EQUAL, request, _refuse()) for request in _INTO_A_TERMINAL]
    parts.append(_if(_EQUAL, number["ioctl"], _step(_LOAD, _SECOND), *terminal, _allow()))
    parts.append(_if(_EQUAL, number["socket"], *_sockets((TCP, UDP) if connects else (TCP,), asks=asks)))
    if not listens:
        parts.append(_if(_EQUAL, number["listen"], refuse))
    if not connects:
        for name, flags_at in (("sendto", _FOURTH), ("sendmsg", _THIRD), ("sendmmsg", _FOURTH)):
            fast = _if(_ANY_OF, _FAST_OPEN, refuse)
            parts.append(_if(_EQUAL, number[name], _step(_LOAD, flags_at), fast, _allow()))
    # Limits of one's own, which libc asks for by 0; by its number, a process is another one.
    own = _if(_EQUAL, 0, _allow())
    parts.append(_if(_EQUAL, number["prlimit64"], _step(_LOAD, _FIRST), own, _refuse()))
    # A program that is in no file of a directory is one that Landlock does not see.
    if not runs_memory:
        quiet = _if(_ANY_OF, _NEVER_RUN, _allow())
        parts.append(_if(_EQUAL, number["memfd_create"], _step(_LOAD, _SECOND), quiet, _refuse()))
    owners = [
        _if(_EQUAL, uid, _step(_LOAD, _THIRD), _if(_EQUAL, gid, _allow()), _step(_LOAD, _SECOND))
        for uid, gid in dict.fromkeys(gives_to)
    ]
    parts.append(_if(_EQUAL, number["fchown"], _step(_LOAD, _SECOND), *owners, _refuse()))
    return b"".join([*parts, _allow()])


def _sockets(kinds: Iterable[tuple[int, tuple[int, ...]]], *, asks: bool) -> Iterator[bytes]:
    """What is said to ``socket``, whatever it is asked for."""

    def protocols(allowed: Iterable[int]) -> tuple[bytes, ...]:
        known = (_if(_EQUAL, protocol, _allow()) for protocol in allowed)
        return _step(_LOAD, _THIRD), *known, _refuse(errno.EPROTONOSUPPORT)

    yield _step(_LOAD, _FIRST)
    if asks:
        yield _if(_EQUAL, LOCAL, _allow())
    of_type = [_if(_EQUAL, kind, *protocols(allowed)) for kind, allowed in kinds]
    for family in INTERNET:
        chosen = (_step(_LOAD, _SECOND), _step(_AND, _TYPE), *of_type, _refuse(errno.EPROTONOSUPPORT))
        yield _if(_EQUAL, family, *chosen)
    yield _if(_EQUAL, NETLINK, *protocols((0,)))
    yield _refuse(errno.EAFNOSUPPORT)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return _FILTER.pack(code, yes, no, value)


def _if(code: int, value: int | None, *then: bytes) -> bytes:
    """``then`` if what was loaded compares so, and what follows if it does not, or ``then`` has no return."""
    assert value is not None
    body = b"".join(then)
    return _step(code, value, 0, len(body) // 8) + body


def _unless(code: int, value: int, action: int) -> bytes:
    return _step(code, value, 1, 0) + _return(action)


def _return(action: int) -> bytes:
    return _step(_RETURN, action)


def _refuse(code: int = errno.EPERM) -> bytes:
    return _return(_ERROR | code)


def _allow() -> bytes:
    return _return(_ALLOW)
