"""Who else could change what a path leads to.

What was checked stays what it is only if nobody else can put another thing in its place, at any step of the
way: sshd's StrictModes, for all that is kept as true or run. The way is walked as the kernel walks it, from
``/``, with the target of each symlink in its turn. Each step has to belong to root or to this user, and no
other user may write to it. In a directory like /tmp, where the sticky bit lets only the owner of a thing
replace it, others may make what they like: the next step is not theirs.

A group may write where it is known to have no other members, as on systems where each user has a group, and
umask 002. Group 0 is root's. An access control list says more than the mode does, and is not weighed: where
one lets a group or another user write, that is a refusal.

A filesystem without modes of its own is judged like any other: its mount says whose all files are, and who
may write to them.

In a user namespace whose ``/`` belongs to nobody, as in ``podman unshare``, "nobody" is how all users look
that are not mapped, the machine's root among them. In such a namespace it counts as root.

Where all this says no and cannot be changed, as in a container whose volume everybody may write to, the user
can say in the environment that whoever may write to a directory is trusted.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ..errors import UnsafePath
from ..record import dataclass
from .files import check_path, disk_error
from .mounts import MOUNTINFO, mount_of

ENVIRONMENT: Final = "LAYERTEE_TRUSTED_DIRS"
"""Names directories, with colons between them, that are not judged; what is above and beneath them is."""

_LINKS: Final = 40  # as many as the kernel follows
_OVERFLOW_UID: Final = 65534
_ACL: Final = "system.posix_acl_access"
_ALL_USERS: Final = ["0", "0", "4294967295"]  # uid_map of the machine's own user namespace


@dataclass(frozen=True, slots=True)
class Step:
    """One name on the way, and what is there: a directory, a symlink, or what the path leads to."""

    path: str
    uid: int
    gid: int
    mode: int
    device: int
    is_last: bool


def refuse_reachable(
    path: Path,
    *,
    own: bool = False,
    absent: bool = False,
    environ: Mapping[str, str] = os.environ,
    mountinfo: Path = MOUNTINFO,
) -> None:
    """Raise UnsafePath if somebody else could change what ``path`` leads to, or any step of the way.

    ``own``: what it leads to has to be this user's, and not only root's. ``absent``: what is not there yet is
    not looked at. Raises LocalError where nobody can tell. Blocks.
    """
    check_path(path)
    try:
        start = "/" if path.is_absolute() else os.getcwd()
    except OSError as exc:
        raise disk_error(exc, "finding the current directory, for", path) from exc
    try:
        trusted = trusted_users()
        excused = frozenset(map(os.path.normpath, environ.get(ENVIRONMENT, "").split(":")))
        for step in _way(path, start):
            if step.path not in excused or not stat.S_ISDIR(step.mode):
                _judge(step, trusted, mountinfo, own=own)
    except FileNotFoundError as exc:
        if not absent:
            raise disk_error(exc, "looking at", path) from exc
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc


def refuse_foreign(path: Path, *, mountinfo: Path = MOUNTINFO) -> None:
    """``refuse_reachable`` for what is in a directory that was judged: only ``path`` itself is looked at.

    It has to be this user's, and not a symlink. Raises UnsafePath, LocalError.
    """
    try:
        step = _step(str(path), is_last=True)
    except OSError as exc:
        raise disk_error(exc, "looking at", path) from exc
    if stat.S_ISLNK(step.mode):
        raise UnsafePath(f"{path} is a symlink, which is not followed", path=str(path))
    _judge(step, trusted_users(), mountinfo, own=True)


def others_may_write(path: Path) -> bool:
    """Whether somebody else could change what ``path`` leads to. Raises LocalError. Blocks."""
    try:
        refuse_reachable(path)
    except UnsafePath:
        return True
    return False


def trusted_users() -> frozenset[int]:
    """Root, this user, and in some user namespaces the one whose number stands for the machine's root."""
    users = {0, os.geteuid()}
    if not _is_mapped_in_full():
        nobody = _overflow_uid()
        if os.stat("/").st_uid == nobody:
            users.add(nobody)
    return frozenset(users)


def _way(path: Path, start: str) -> Iterator[Step]:
    """Every step from ``/`` to what ``path`` leads to, symlinks and targets included. Raises OSError.

    ``start`` is where a relative path begins.
    """
    at = "/"
    yield _step(at, is_last=False)
    todo = _names(os.path.join(start, path))
    n_links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            at = os.path.dirname(at)
            continue
        there = os.path.join(at, name)
        step = _step(there, is_last=not todo)
        yield step
        if not stat.S_ISLNK(step.mode):
            at = there
            continue
        n_links += 1
        if n_links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(there)
        todo += _names(target)
        if target.startswith("/"):
            at = "/"


def _names(path: str) -> list[str]:
    """The names in ``path``, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _step(path: str, *, is_last: bool) -> Step:
    found = os.lstat(path)
    return Step(path, found.st_uid, found.st_gid, found.st_mode, found.st_dev, is_last)


def _judge(step: Step, trusted: frozenset[int], mountinfo: Path, *, own: bool) -> None:
    """Raises UnsafePath."""
    path, me = step.path, os.geteuid()
    is_link = stat.S_ISLNK(step.mode)
    if step.uid not in trusted or (own and step.is_last and not is_link and step.uid != me):
        command = f"chown {'-h ' if is_link else ''}{me} {shlex.quote(path)}"
        raise UnsafePath(
            f"{path} belongs to user {step.uid}, not to this one ({me}), so that user could change it; use"
            f" another place, or {_remedy(step, me, command, mountinfo)}",
            path=path,
        ).with_hint("trusted-dirs")
    if is_link:  # its mode says nothing; to replace it takes its directory
        return
    if stat.S_ISDIR(step.mode) and step.mode & stat.S_ISVTX and not step.is_last:
        return
    by_group = step.mode & stat.S_IWGRP and not _is_private(path, step.gid, trusted)
    if by_group or step.mode & stat.S_IWOTH:
        raise UnsafePath(
            f"others may write to {path}, and so replace what is kept or run there;"
            f" {_remedy(step, me, f'chmod go-w {shlex.quote(path)}', mountinfo)}",
            path=path,
        ).with_hint("trusted-dirs")


def _remedy(step: Step, me: int, command: str, mountinfo: Path) -> str:
    """What to do about a step: ``command``, unless its filesystem does not keep what that changes."""
    mount = mount_of(step.device, mountinfo)
    if mount is None or mount.has_modes:
        return f"run: {command}"
    return (
        f"its files have no owners and modes but those of the mount ({mount.kind} on {mount.path}): mount it"
        f" with -o {mount.options_for(me)}"
    )


def _is_private(path: str, gid: int, trusted: frozenset[int]) -> bool:
    """Whether nobody else is known to be in the group that may write to ``path``."""
    try:
        if _ACL in os.listxattr(path, follow_symlinks=False):
            return False  # the bit of the group is the mask of a list
    except OSError:
        pass  # a filesystem without such lists
    names = {entry.pw_name for entry in map(_passwd, trusted) if entry}
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        # A number that no user has: what was given it, was given it for this, like a volume's in a container.
        return all(entry.pw_gid != gid or entry.pw_uid in trusted for entry in pwd.getpwall())
    if not members <= names:
        return False
    if gid == 0:
        return True
    primary = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid}
    # One without any known member may have some that only a directory service knows.
    return primary <= trusted and bool(primary or members)


def _passwd(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _is_mapped_in_full() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text().split() == _ALL_USERS
    except OSError:
        return True


def _overflow_uid() -> int:
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return _OVERFLOW_UID
