"""Locks: what excludes what, both ways of waiting, and that a cancelled task holds nothing."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from layertee.disk.locks import (
    HeldLock,
    Lock,
    lock,
    lock_directory,
    try_lock,
    try_lock_description,
    try_lock_directory,
    wait_for,
    when_free,
)
from layertee.errors import LocalError, StoreBusy

Kind = Callable[[Path], HeldLock | None]

KINDS: dict[str, Kind] = {
    "file": lambda room: try_lock(room / "lock"),
    "directory": lambda room: try_lock_directory(room),
    "description": lambda room: try_lock_description(room / "lock", Lock.EXCLUSIVE, mode=0o600),
}


@pytest.fixture(params=KINDS)
def attempt(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], HeldLock | None]:
    """One attempt at an exclusive lock of each kind, on the same thing each time."""
    kind = KINDS[request.param]
    return lambda: kind(tmp_path)


def taken(attempt: Callable[[], HeldLock | None]) -> HeldLock:
    held = attempt()
    assert held is not None
    return held


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_lock_excludes_until_it_is_released(attempt: Callable[[], HeldLock | None]) -> None:
    with taken(attempt) as held:
        assert attempt() is None
        held.release()
        held.release()
        taken(attempt).release()


def test_nothing_stays_open_whatever_an_attempt_comes_to(attempt: Callable[[], HeldLock | None]) -> None:
    before = open_files()
    with taken(attempt):
        assert attempt() is None
        assert len(open_files()) == len(before) + 1
    assert open_files() == before


@pytest.mark.parametrize(
    "try_one",
    [try_lock, lambda path, how: try_lock_description(path, how, mode=0o600)],
    ids=["file", "description"],
)
def test_shared_locks_exclude_exclusive_ones_only(
    tmp_path: Path, try_one: Callable[[Path, Lock], HeldLock | None]
) -> None:
    path = tmp_path / "lock"
    with taken(lambda: try_one(path, Lock.SHARED)), taken(lambda: try_one(path, Lock.SHARED)):
        assert try_one(path, Lock.EXCLUSIVE) is None
    with taken(lambda: try_one(path, Lock.EXCLUSIVE)):
        assert try_one(path, Lock.SHARED) is None


def test_the_kinds_do_not_see_each_other(tmp_path: Path) -> None:
    """Why libostree's lock has to be taken as libostree takes it."""
    with (
        taken(lambda: try_lock(tmp_path / "lock")),
        taken(lambda: try_lock_description(tmp_path / "lock", Lock.EXCLUSIVE, mode=0o600)),
    ):
        pass


def test_a_description_lock_is_not_lost_when_another_descriptor_is_closed(tmp_path: Path) -> None:
    """As the classic kind of fcntl lock is."""
    path = tmp_path / "lock"
    with taken(lambda: try_lock_description(path, Lock.EXCLUSIVE, mode=0o600)):
        os.close(os.open(path, os.O_RDONLY))
        assert try_lock_description(path, Lock.EXCLUSIVE, mode=0o600) is None


def test_a_symlink_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    for kind in ("file", "description"):
        with pytest.raises(LocalError) as caught:
            KINDS[kind](tmp_path)
        assert caught.value.path == str(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_filesystem_that_cannot_lock_excludes_nobody_or_is_an_error(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "lock"
    with pytest.raises(LocalError, match=os.strerror(code)):
        try_lock(path)
    with taken(lambda: try_lock(path, required=False)), taken(lambda: try_lock(path, required=False)):
        pass
    with taken(lambda: try_lock_directory(tmp_path)), taken(lambda: try_lock_directory(tmp_path)):
        pass


def test_whoever_waits_too_long_hears_what_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path, timeout=0):
        with pytest.raises(StoreBusy, match=r"lock is locked by another process, still after 0 s") as caught:
            lock(path, timeout=0)
        assert caught.value.path == str(path)
        with pytest.raises(StoreBusy, match=r"by a neighbour, still after 0\.01 s"):
            wait_for(lambda: try_lock(path), path, 0.01, holder="a neighbour")
        with pytest.raises(StoreBusy, match=r"still after 0\.01 s"):
            asyncio.run(when_free(lambda: try_lock(path), path, 0.01))
    with lock_directory(tmp_path, timeout=0), pytest.raises(StoreBusy):
        lock_directory(tmp_path, timeout=0)


def test_a_thread_that_waits_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    tried = threading.Event()

    def attempt() -> HeldLock | None:
        held = try_lock(path)
        tried.set()
        return held

    first = lock(path, timeout=0)

    def release() -> None:
        tried.wait(10)
        first.release()

    releaser = threading.Thread(target=release)
    releaser.start()
    wait_for(attempt, path, 60).release()
    releaser.join()


def test_a_task_that_waits_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    async def main() -> None:
        first = lock(path, timeout=0)
        tried = asyncio.Event()

        def attempt() -> HeldLock | None:
            held = try_lock(path)
            tried.set()
            return held

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(when_free(attempt, path, math.inf))
            await tried.wait()
            assert not waiting.done()
            first.release()
            (await waiting).release()

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_waits_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    async def main() -> None:
        before = open_files()
        tried = asyncio.Event()

        def attempt() -> HeldLock | None:
            tried.set()
            return try_lock(path)

        with lock(path, timeout=0):
            waiting = asyncio.create_task(when_free(attempt, path, math.inf))
            await tried.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert open_files() == before
        lock(path, timeout=0).release()

    asyncio.run(main())
