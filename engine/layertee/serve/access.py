"""Who may come in: names and passwords of an htpasswd file, with bcrypt alone, as docker's registry has it.

A check takes as long for a name that no line has. What was right is remembered for a minute, as a keyed hash,
so that a pull of forty layers costs one bcrypt; the file is looked at for every request, and a change of it
forgets everything.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import bcrypt

from ..aio import in_thread, until_done
from ..errors import ServeConfigError

log = logging.getLogger(__name__)

REMEMBERED_S = 60.0
_AT_ONCE = 2  # a check takes a processor for a tenth of a second; the rest wait
_REMEMBERED_MAX = 1000
_FILE_MAX = 1 << 20
_PASSWORD_MAX = 72  # bcrypt looks at no more, and longer ones would agree with others
_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_COSTS = range(4, 17)  # 16 takes seconds
_Stamp = tuple[int, int, int]


class Access:
    """The logins in the file ``path``, as it is at any time. Raises ServeConfigError for no such file."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._key = os.urandom(32)
        self._known: dict[bytes, float] = {}
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._stamp = _stamp_of(path)
        self._users: Mapping[bytes, bytes] = read_logins(path)
        self.n_checked = 0

    async def allows(self, authorization: str | None) -> bool:
        """Whether the field Authorization has a name and the password of it."""
        self._read_again()
        login = _login(authorization)
        if login is None:
            return False
        name, password = login
        key = hmac.digest(self._key, b"%d:%b:%b" % (len(name), name, password), "sha256")
        if self._known.get(key, 0.0) > self._clock():
            return True
        if key not in self._checks:
            task = asyncio.create_task(self._check(name, password, key))
            self._checks[key] = task
            task.add_done_callback(lambda _: self._checks.pop(key, None))
        check = self._checks[key]
        await until_done(check)  # others may wait for the same
        return check.result()

    async def _check(self, name: bytes, password: bytes, key: bytes) -> bool:
        stamp = self._stamp
        wanted = self._users.get(name)
        compared = wanted or next(iter(self._users.values()), None)
        if compared is None:
            return False
        async with self._turns:
            self.n_checked += 1
            is_right = await in_thread(bcrypt.checkpw, password[:_PASSWORD_MAX], compared)
        if wanted is None or not is_right or len(password) > _PASSWORD_MAX or stamp != self._stamp:
            return False
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = self._clock() + REMEMBERED_S
        return True

    def _read_again(self) -> None:
        try:
            if (stamp := _stamp_of(self._path)) == self._stamp:
                return
            self._stamp = stamp
            self._known.clear()
            self._users = read_logins(self._path)
        except ServeConfigError as exc:
            if self._users:
                log.error("every login is refused until the file is mended: %s", exc)
            self._stamp = (0, 0, 0)
            self._known.clear()
            self._users = {}


def read_logins(path: Path) -> Mapping[bytes, bytes]:
    """The hash of each name's password. Raises ServeConfigError, which names the line and not its text."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_MAX + 1)
    except OSError as exc:
        raise ServeConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if len(raw) > _FILE_MAX:
        raise ServeConfigError(f"{path} is larger than 1 MiB, and no file of logins")
    users: dict[bytes, bytes] = {}
    for number, line in enumerate(raw.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        name, colon, hashed = text.partition(b":")
        match = _HASH.fullmatch(hashed)
        if not name or not colon or match is None:
            raise ServeConfigError(
                f"{path}:{number}: this is not NAME:HASH as 'htpasswd -B' makes it, with bcrypt"
            )
        if int(match[1]) not in _COSTS:
            raise ServeConfigError(f"{path}:{number}: the cost of the hash is not one from 4 to 16")
        if name in users:
            raise ServeConfigError(f"{path}:{number}: that name has a line already")
        users[name] = hashed
    if not users:
        raise ServeConfigError(f"{path} has no login in it, so no client could come in")
    return users


def _stamp_of(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as exc:
        raise ServeConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    return status.st_ino, status.st_size, status.st_mtime_ns


def _login(authorization: str | None) -> tuple[bytes, bytes] | None:
    """Name and password of the scheme Basic (RFC 7617); None for anything else."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic" or not rest.isascii():
        return None
    try:
        plain = base64.b64decode(rest.strip().encode(), validate=True)
    except binascii.Error:
        return None
    name, colon, password = plain.partition(b":")
    return (name, password) if colon and b"\0" not in password else None
