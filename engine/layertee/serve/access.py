"""Who may come in: names and passwords of an htpasswd file, with bcrypt alone, as docker's registry has it.

A check takes as long for a name that no line has. What was right is remembered for a minute, as a keyed hash,
so that a pull of forty layers costs one bcrypt; the file is looked at for every request, and a change of it
forgets everything.

Two checks run at once, and the others wait: what was right within the hour goes first, then the peers take
turns, so that many wrong logins of one keep out no other. A check that no client waits for is dropped, and of
too many the peer with most has to come again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import bcrypt

from ..aio import in_thread, until_done
from ..errors import ServeConfigError
from .answers import Code, Refusal

log = logging.getLogger(__name__)

REMEMBERED_S = 60.0
_FIRST_S = 3600.0  # what was right so recently does not wait behind what may be wrong
_AT_ONCE = 2  # a check takes a processor for a tenth of a second; the rest wait
_WAITING_MAX_OF_HOST = 32  # seconds' worth
_WAITING_MAX = 256
_COME_AGAIN_S = 2
_NETWORK_BITS = 64  # of an address of IPv6
_REMEMBERED_MAX = 1000
_FILE_MAX = 1 << 20
_PASSWORD_MAX = 72  # bcrypt looks at no more, and longer ones would agree with others
_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_COSTS = range(4, 17)  # 16 takes seconds
_Stamp = tuple[int, int, int]


class _Check:
    """One login that is being looked at, or waits for that. ``result``: None says that it never will be."""

    def __init__(self, name: bytes, password: bytes, key: bytes, host: str) -> None:
        self.name = name
        self.password = password
        self.key = key
        self.host = host
        self.n_clients = 0
        self.result: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()


class _Queue:
    """Checks that wait. Each host's are in order, and the hosts take turns."""

    def __init__(self) -> None:
        self._first: dict[_Check, None] = {}
        self._of: dict[str, dict[_Check, None]] = {}
        self._count = 0

    def put(self, check: _Check, *, is_first: bool) -> _Check | None:
        """The check that has to go in place of it, or because there are too many: it may be itself."""
        if is_first:
            self._first[check] = None
            return None
        own = self._of.get(check.host, {})
        if len(own) >= _WAITING_MAX_OF_HOST:
            return check
        refused = None
        if self._count >= _WAITING_MAX:
            longest = max(self._of.values(), key=len)
            if len(longest) <= len(own) + 1:
                return check
            self.drop(refused := next(reversed(longest)))
        self._of.setdefault(check.host, {})[check] = None
        self._count += 1
        return refused

    def take(self) -> _Check | None:
        """The next."""
        found = next(iter(self._first), None)
        if found is None:
            for host, checks in self._of.items():
                found = next(iter(checks))
                self._of[host] = self._of.pop(host)  # the others' turn
                break
        if found is not None:
            self.drop(found)
        return found

    def drop(self, check: _Check) -> None:
        """It waits no more, if it did."""
        self._first.pop(check, None)
        own = self._of.get(check.host, {})
        if check in own:
            del own[check]
            self._count -= 1
            if not own:
                del self._of[check.host]


class Access:
    """The logins in the file ``path``, as it is at any time. Raises ServeConfigError for no such file."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._key = os.urandom(32)
        self._right_at: dict[bytes, float] = {}
        self._checks: dict[tuple[str, bytes], _Check] = {}  # those of the queue, and those that run
        self._queue = _Queue()
        self._running: set[asyncio.Task[bool]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._stamp: _Stamp | None = _stamp_of(path)
        self._users: Mapping[bytes, bytes] = read_logins(path)
        self.n_checked = 0

    async def allows(self, authorization: str | None, peer: str = "") -> bool:
        """Whether the field Authorization of ``peer`` (HOST:PORT) has a name and the password of it.

        Raises Refusal where too many wait.
        """
        await self._read_again()
        login = _login(authorization)
        if login is None or not self._users:
            return False
        name, password = login
        key = hmac.digest(self._key, b"%d:%b:%b" % (len(name), name, password), "sha256")
        if self._was_right(key, REMEMBERED_S):
            return True
        host = _host_of(peer)
        check = self._checks.get((host, key))
        if check is None:
            check = self._enter(_Check(name, password, key, host))
        check.n_clients += 1
        try:
            is_right = await asyncio.shield(check.result)  # others may wait for the same
        finally:
            check.n_clients -= 1
            if check.n_clients == 0 and not check.result.done():
                self._leave(check)
        if is_right is None:
            raise _too_many()
        return is_right

    def _was_right(self, key: bytes, within_s: float) -> bool:
        right_at = self._right_at.get(key)
        return right_at is not None and self._clock() - right_at < within_s

    def _enter(self, check: _Check) -> _Check:
        refused = self._queue.put(check, is_first=self._was_right(check.key, _FIRST_S))
        if refused is check:
            raise _too_many()
        self._checks[check.host, check.key] = check
        if refused is not None:
            self._end(refused, None)
        self._see_who_is_next()
        return check

    def _leave(self, check: _Check) -> None:
        """No client waits for it. If it runs, it comes to its end, and what is right is remembered."""
        self._queue.drop(check)
        self._checks.pop((check.host, check.key), None)

    def _end(self, check: _Check, result: bool | None) -> None:
        if self._checks.get((check.host, check.key)) is check:
            del self._checks[check.host, check.key]
        if not check.result.done():
            check.result.set_result(result)

    def _see_who_is_next(self) -> None:
        while len(self._running) < _AT_ONCE and (check := self._queue.take()) is not None:
            task = asyncio.create_task(self._is_right(check))
            self._running.add(task)
            task.add_done_callback(partial(self._is_done, check))

    def _is_done(self, check: _Check, task: asyncio.Task[bool]) -> None:
        self._running.discard(task)
        if task.cancelled():  # all of the program ends
            check.result.cancel()
            return
        if (exc := task.exception()) is not None:
            log.error("a login could not be checked: %s", exc)
        self._end(check, exc is None and task.result())
        self._see_who_is_next()

    async def _is_right(self, check: _Check) -> bool:
        if self._was_right(check.key, REMEMBERED_S):  # it came from another host, too
            return True
        stamp = self._stamp
        wanted = self._users.get(check.name)
        compared = wanted or next(iter(self._users.values()), None)
        if compared is None:
            return False
        self.n_checked += 1
        is_right = await in_thread(bcrypt.checkpw, check.password[:_PASSWORD_MAX], compared)
        if wanted is None or not is_right or len(check.password) > _PASSWORD_MAX or stamp != self._stamp:
            return False
        if len(self._right_at) >= _REMEMBERED_MAX:
            self._right_at.clear()
        self._right_at[check.key] = self._clock()
        return True

    async def _read_again(self) -> None:
        for _ in range(2):  # it may have changed once more while another request had it read
            if self._stamp == _stamp_or_none(self._path):
                return
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
            reading = self._reading
            await until_done(reading)

    async def _read(self) -> None:
        stamp: _Stamp | None
        users: Mapping[bytes, bytes]
        try:
            stamp = _stamp_of(self._path)
            users = await in_thread(read_logins, self._path)
        except ServeConfigError as exc:
            if self._users:
                log.error("every login is refused until the file is mended: %s", exc)
            stamp, users = None, {}
        finally:
            self._reading = None
        self._stamp = stamp
        self._right_at.clear()
        self._users = users


def read_logins(path: Path) -> Mapping[bytes, bytes]:
    """The hash of each name's password. Raises ServeConfigError, which names the line and not its text."""
    try:
        # Nothing that has no end, and nothing that waits for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ServeConfigError(f"{path} is not a plain file")
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


def _stamp_or_none(path: Path) -> _Stamp | None:
    try:
        return _stamp_of(path)
    except ServeConfigError:
        return None


def _too_many() -> Refusal:
    wait = {"Retry-After": str(_COME_AGAIN_S)}
    return Refusal(429, Code.TOOMANYREQUESTS, "too many logins wait for their check", fields=wait)


def _host_of(peer: str) -> str:
    """Of HOST:PORT. All of a network of IPv6 are one: a machine has as many addresses there as it likes."""
    host = peer.rpartition(":")[0].partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[: _NETWORK_BITS // 8].hex()


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
