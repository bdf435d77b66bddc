"""Which files this process may reach, and whom by TCP: Landlock's rules, as far as the kernel has them.

Rules of this file: what is not named is refused; a path that is not there when the rules are made is left
out, and refused when it comes to be; rules follow the file that a name led to, so a file that others replace
has to be named by its directory. What is open already stays open. Looking at a file's owner and mode is no
access in Landlock's sense, and neither is connecting to a socket in the filesystem.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from ..record import dataclass
from . import kernel

LEAST_ABI: Final = 2
"""Before it, no file could be moved from one directory to another, which a store does with each blob."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_SOCK, _MAKE_SYM, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 9, 1 << 12, 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_RUN = _READ | _EXECUTE
_CHANGE = _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_SYM | _REFER
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _CHANGE
_DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_NAME = os.O_PATH | os.O_CLOEXEC
_BIND, _CONNECT = 1 << 0, 1 << 1
_TO_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What stays possible. Paths are files, or directories with all that is in them; as texts, as it is a
    hundred of them, at every start.

    ``read``, ``run`` (and read) and ``write`` (and read, but not run). ``devices`` are read, written, asked.
    ``connects``: to other machines, by TCP, to any port; and UDP, by which names are looked up. ``listens``:
    at TCP ports. ``asks``: other programs of this machine, by sockets in the filesystem. ``speaks``: by those
    without a file, too. ``gives_to``: users and groups that a file which is open can be given to.
    """

    read: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    connects: bool = True
    listens: bool = False
    asks: bool = False
    speaks: bool = False
    gives_to: tuple[tuple[int, int], ...] = ()


def restrict(rules: Rules, abi: int) -> None:
    """From now on, for this thread and what it starts. ``abi`` is the kernel's, at least LEAST_ABI.

    Raises OSError.
    """
    handled = (1 << (13 + min(abi, 3) - 1)) - 1 | (_IOCTL_DEV if abi >= 5 else 0)
    net = (_BIND | _CONNECT) & ~((_CONNECT if rules.connects else 0) | (_BIND if rules.listens else 0))
    scoped = _SIGNALS | (0 if rules.speaks else _TO_ABSTRACT_SOCKETS)
    attributes = struct.pack("=QQQ", handled, net, scoped)
    ruleset = kernel.create_ruleset(attributes[: 8 if abi < 4 else 16 if abi < 6 else 24])
    try:
        granted = (
            (rules.read, _READ),
            (rules.run, _RUN),
            (rules.write, _WRITE),
            (rules.devices, _DEVICE),
        )
        for paths, access in granted:
            _allow(ruleset, paths, access & handled)
        kernel.set_no_new_privs()
        kernel.restrict_self(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, paths: Iterable[str], access: int) -> None:
    for path in dict.fromkeys(paths):
        try:
            fd = os.open(path, _NAME)
        except OSError:  # it is not there, nobody may go there, or it is no name that a file can have
            continue
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            kernel.allow_beneath(ruleset, access if is_directory else access & _OF_FILES, fd)
        except OSError as exc:
            if (
                exc.errno != errno.EBADFD
            ):  # a pipe, as /dev/stdin may be one: of no filesystem, nor of Landlock
                raise
        finally:
            os.close(fd)
