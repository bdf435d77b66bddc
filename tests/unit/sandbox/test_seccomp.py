"""The filter of system calls: what it says to each, on either architecture, by an interpreter of its own."""

from __future__ import annotations

import errno
import itertools
import re
import struct
from pathlib import Path

import pytest

from layertee.sandbox.seccomp import ARCHITECTURES, INTERNET, LOCAL, LOOKED_INTO, NETLINK, REFUSED, program

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/aarch64-linux-gnu/include/asm-generic/unistd.h"),
}
MACHINES = list(ARCHITECTURES)
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
NOT_PERMITTED = 0x00050000 | errno.EPERM
NUMBERS = {"read": (0, 63), "openat": (257, 56), "execve": (59, 221), "landlock_create_ruleset": (444, 444)}


def answer(machine: str, number: int, *args: int, arch: int | None = None, code: bytes | None = None) -> int:
    """What the filter returns for a call (seccomp(2)): the few instructions that it is made of."""
    data = struct.pack("=iIQ6Q", number, arch or ARCHITECTURES[machine], 0, *args, *[0] * (6 - len(args)))
    code = code or program(machine)
    assert code is not None
    at, loaded = 0, 0
    while True:
        kind, yes, no, value = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if kind == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (loaded,) = struct.unpack_from("=I", data, value)
        elif kind == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            loaded &= value
        elif kind == 0x06:  # BPF_RET | BPF_K
            return int(value)
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[kind]
            at += yes if holds else no


def number_of(name: str, machine: str) -> int | None:
    return (REFUSED | LOOKED_INTO | NUMBERS)[name][MACHINES.index(machine)]


def known(name: str, machine: str) -> int:
    number = number_of(name, machine)
    assert number is not None
    return number


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]} here")
    text = HEADERS[machine].read_text()
    real = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)\n", text)}
    for name in REFUSED | LOOKED_INTO | NUMBERS:
        number = number_of(name, machine)
        is_newer = name not in real and (number or 0) > max(real.values())  # than these headers
        assert is_newer or number == real.get(name), name


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_refused_is_refused_and_what_a_pull_does_is_not(machine: str) -> None:
    for name in REFUSED:
        number = number_of(name, machine)
        assert number is None or answer(machine, number) == NOT_PERMITTED, name
    for name in NUMBERS:
        assert answer(machine, known(name, machine)) == ALLOWED
    assert answer(machine, known("clone3", machine)) == 0x00050000 | errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_namespaces_terminals_and_sockets_are_told_apart_by_their_arguments(machine: str) -> None:
    clone, unshare = known("clone", machine), known("unshare", machine)
    thread, fork = 0x3D0F00, 0x1200011  # of glibc
    assert answer(machine, clone, thread) == answer(machine, clone, fork) == ALLOWED
    assert answer(machine, unshare, 0x400) == ALLOWED  # CLONE_FILES
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(machine, clone, flag | 17) == answer(machine, unshare, flag) == NOT_PERMITTED
    assert answer(machine, unshare, 0x80) == NOT_PERMITTED  # CLONE_NEWTIME
    ioctl, socket = known("ioctl", machine), known("socket", machine)
    assert answer(machine, ioctl, 0, 0x5401) == ALLOWED  # TCGETS
    assert answer(machine, ioctl, 0, 0x5412) == answer(machine, ioctl, 0, 0x541C) == NOT_PERMITTED
    assert answer(machine, ioctl, 0, 0xFFFFFFFF00005412) == NOT_PERMITTED  # the kernel looks at 32 bits, too
    for family in range(64):
        asking = answer(machine, socket, family, 1, code=program(machine, asks=True))
        assert (asking == ALLOWED) == (family in (*INTERNET, NETLINK, LOCAL))
        wanted = ALLOWED if family in (*INTERNET, NETLINK) else 0x00050000 | errno.EAFNOSUPPORT
        assert answer(machine, socket, family, 1) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_are_of_tcp_and_of_udp_where_names_are_looked_up(machine: str) -> None:
    socket, quiet = known("socket", machine), program(machine, connects=False, listens=True)
    flags, tcp, udp, mptcp, sctp = 0o2004000, 6, 17, 262, 132
    no = 0x00050000 | errno.EPROTONOSUPPORT
    for family in INTERNET:
        for kind, protocol in itertools.product(range(1, 8), (0, 1, tcp, udp, 58, sctp, mptcp)):
            is_tcp, is_udp = kind == 1 and protocol in (0, tcp), kind == 2 and protocol in (0, udp)
            for args in ((family, kind, protocol), (family, kind | flags, protocol)):
                assert answer(machine, socket, *args) == (ALLOWED if is_tcp or is_udp else no)
                assert answer(machine, socket, *args, code=quiet) == (ALLOWED if is_tcp else no)
    assert answer(machine, socket, NETLINK, 3 | flags, 0) == ALLOWED
    assert answer(machine, socket, NETLINK, 3, 12) == no  # NETLINK_NETFILTER


@pytest.mark.parametrize("machine", MACHINES)
def test_no_port_is_listened_at_and_nobody_is_sent_to_where_landlock_is_not_asked(machine: str) -> None:
    quiet = program(machine, connects=False, listens=True)
    assert answer(machine, known("listen", machine), 3, 1) == NOT_PERMITTED
    assert answer(machine, known("listen", machine), 3, 1, code=quiet) == ALLOWED
    for name, before in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        number, args = known(name, machine), [1 << 31] * before
        for flags in (0, 0x4000, 0x20000000, 0x20004000):  # MSG_NOSIGNAL, MSG_FASTOPEN
            assert answer(machine, number, *args, flags) == ALLOWED
            wanted = NOT_PERMITTED if flags & 0x20000000 else ALLOWED
            assert answer(machine, number, *args, flags, code=quiet) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_limits_are_ones_own_memory_is_not_run_and_a_file_is_given_to_those_that_had_it(machine: str) -> None:
    limits, give = known("prlimit64", machine), known("fchown", machine)
    assert answer(machine, limits, 0) == ALLOWED
    assert answer(machine, limits, 1) == answer(machine, limits, 1 << 31) == NOT_PERMITTED
    memory = known("memfd_create", machine)
    assert answer(machine, memory, 0, 0x8 | 0x2) == ALLOWED  # never run, and to be sealed
    assert answer(machine, memory, 0, 0x2) == answer(machine, memory, 0, 0x10) == NOT_PERMITTED
    assert answer(machine, memory, 0, 0x2, code=program(machine, runs_memory=True)) == ALLOWED
    code = program(machine, gives_to=[(5, 6), (7, 8), (5, 9)])
    for uid, gid in ((5, 6), (7, 8), (5, 9), (5, 8), (7, 6), (6, 5), (0, 0)):
        wanted = ALLOWED if (uid, gid) in [(5, 6), (7, 8), (5, 9)] else NOT_PERMITTED
        assert answer(machine, give, 3, uid, gid, code=code) == wanted
        assert answer(machine, give, 3, uid, gid) == NOT_PERMITTED


def test_numbers_of_another_architecture_end_the_process() -> None:
    i386 = 0x40000003
    assert answer("x86_64", 0, arch=i386) == answer("aarch64", 0, arch=0x40000028) == KILLED
    assert answer("x86_64", 0x40000000) == KILLED  # x32
    assert program("riscv64") is None
