"""Progress for programs: what is written to the descriptor, and what becomes of it when nobody reads."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from layertee.cli import events as module
from layertee.cli.events import Events
from layertee.errors import InvalidReference
from layertee.pulling.plan import Action
from layertee.pulling.report import LayerProgress, Progress, VerifyProgress
from tests.support.compress import digest_number

MIB = 1 << 20
PAGE = 4096


@pytest.fixture(autouse=True)
def every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out because the one before was just now."""
    monkeypatch.setattr(module, "EVERY_S", 0.0)


def progress(*layers: tuple[Action, str, int, int]) -> Progress:
    shown = (
        LayerProgress(index, digest_number(index), action, size, done, state)
        for index, (action, state, done, size) in enumerate(layers)
    )
    return Progress(tuple(shown), 1.0)


def read_all(fd: int) -> list[dict[str, Any]]:
    """What was written, when the other end is closed."""
    data = b""
    while piece := os.read(fd, 65536):
        data += piece
    os.close(fd)
    return [json.loads(line) for line in data.decode().splitlines()]


def test_a_pull_is_told_in_bootcs_shape() -> None:
    reader, writer = os.pipe()
    events = Events(writer)
    events.resolving("r.test/os:1")
    events.progress(
        progress(
            (Action.HAVE, "done", 0, 9 * MIB),
            (Action.FETCH, "done", 5 * MIB, 5 * MIB),
            (Action.FETCH, "running", MIB, 4 * MIB),
            (Action.REUSE, "waiting", 0, 2 * MIB),
        )
    )
    events.last(0, {"image": "r.test/os:1"})
    os.close(writer)
    start, resolving, pulling, last = read_all(reader)
    assert start == {"type": "Start", "version": "0.1.0"}
    assert (resolving["type"], resolving["task"], resolving["id"]) == (
        "ProgressSteps",
        "resolving",
        "r.test/os:1",
    )
    assert pulling["type"] == "ProgressBytes"
    assert (pulling["bytesCached"], pulling["bytes"], pulling["bytesTotal"]) == (9 * MIB, 6 * MIB, 11 * MIB)
    assert (pulling["stepsCached"], pulling["steps"], pulling["stepsTotal"]) == (1, 1, 3)
    assert [(one["id"], one["bytes"], one["bytesTotal"]) for one in pulling["subtasks"]] == [
        (digest_number(2), MIB, 4 * MIB)
    ]
    assert last == {
        "type": "Result",
        "schema": 1,
        "exitCode": 0,
        "result": {"image": "r.test/os:1"},
        "error": None,
    }


def test_a_verification_is_told_too() -> None:
    reader, writer = os.pipe()
    events = Events(writer)
    events.verifying(VerifyProgress(1, 4, MIB, 9 * MIB, 2.0))
    os.close(writer)
    told = read_all(reader)[1]
    assert (told["task"], told["bytes"], told["bytesTotal"]) == ("verifying", MIB, 9 * MIB)
    assert (told["steps"], told["stepsTotal"]) == (1, 4)


def test_between_two_events_of_progress_is_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 1e6)
    reader, writer = os.pipe()
    events = Events(writer)
    for _ in range(3):
        events.progress(progress((Action.FETCH, "running", 1, 2)))
    events.last(0, {})
    os.close(writer)
    assert [one["type"] for one in read_all(reader)] == ["Start", "ProgressBytes", "Result"]


def test_progress_that_is_not_read_is_left_out_and_the_last_event_is_there() -> None:
    """A pipe of four pages, which nobody reads until the command is over."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4 * PAGE)
    events = Events(writer)
    for n in range(1000):
        events.progress(progress((Action.FETCH, "running", n, 2000)))
    events.last(4, None, {"code": "CONNECT", "message": "x" * 1000})
    os.close(writer)
    told = read_all(reader)
    assert told[0]["type"] == "Start" and told[-1]["error"]["code"] == "CONNECT"
    assert 2 < len(told) < 100


def test_an_event_larger_than_the_pipe_arrives_whole_once_it_is_read() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    events = Events(writer)
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.extend(read_all(reader)))
    thread.start()
    events.last(0, {"text": "x" * 300_000})
    os.close(writer)
    thread.join()
    assert len(found[-1]["result"]["text"]) == 300_000


def test_a_reader_that_takes_nothing_is_waited_for_no_longer_than_agreed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LAST_S", 0.01)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    Events(writer).last(0, {"text": "x" * 300_000})
    os.close(writer)
    os.close(reader)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    events = Events(writer)
    os.close(reader)
    events.progress(progress((Action.FETCH, "running", 1, 2)))
    events.last(0, {})
    os.close(writer)


def test_a_socket_that_blocks_and_is_not_read_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_S", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        events = Events(theirs.fileno())
        for n in range(2000):
            events.progress(progress((Action.FETCH, "running", n, 2000)))
        events.last(0, {"text": "x" * 300_000})
        assert ours.recv(1 << 20).startswith(b'{"type":"Start"')


def test_a_file_gets_all_of_it_and_children_get_none(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "events", os.O_WRONLY | os.O_CREAT)
    os.set_inheritable(fd, True)
    events = Events(fd)
    assert os.get_inheritable(fd) is False
    events.last(0, {})
    os.close(fd)
    lines = (tmp_path / "events").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["Start", "Result"]


def test_what_cannot_be_written_to_is_refused_at_once() -> None:
    reader, writer = os.pipe()
    try:
        for fd, why in (
            (2, "standard stream"),
            (reader, "for reading only"),
            (1 << 30, "Bad file descriptor"),
        ):
            with pytest.raises(InvalidReference, match=f"--progress-fd {fd}: .*{why}"):
                Events(fd)
    finally:
        os.close(reader)
        os.close(writer)
