"""What a person sees while a pull runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from layertee.cli import progress as console
from layertee.cli.progress import display
from layertee.pulling.plan import Action
from layertee.pulling.report import LayerProgress, Progress
from tests.support.compress import digest_number
from tests.support.process import wait_until

MIB = 1 << 20
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def progress(seconds: float, *layers: tuple[Action, str, int, int]) -> Progress:
    shown = (
        LayerProgress(index, digest_number(index), action, size, done, state)
        for index, (action, state, done, size) in enumerate(layers)
    )
    return Progress(tuple(shown), seconds)


def lines(*snapshots: Progress) -> list[str]:
    stream = io.StringIO()
    with display(quiet=False, stream=stream) as shown:
        for snapshot in snapshots:
            shown(snapshot)
    assert shown.last is (snapshots[-1] if snapshots else None)
    return stream.getvalue().splitlines()


# --- elsewhere than on a terminal ------------------------------------------------------------------


def test_each_layer_is_told_once_when_it_is_done() -> None:
    first = (Action.FETCH, "done", 3 * MIB, 3 * MIB)
    told = lines(
        progress(0.0, (Action.FETCH, "running", 0, 3 * MIB), (Action.REUSE, "waiting", 0, 1000)),
        progress(0.1, first, (Action.REUSE, "running", 500, 1000)),
        progress(0.2, first, (Action.REUSE, "running", 900, 1000)),
        progress(0.3, first, (Action.REUSE, "done", 1000, 1000)),
    )
    assert told == [
        f"[1/2] fetched {digest_number(0)[:19]} 3.0 MiB",
        f"[2/2] reused {digest_number(1)[:19]} 1000 B",
    ]


def test_a_layer_that_was_here_is_counted_but_not_told() -> None:
    have = (Action.HAVE, "done", 0, 5 * MIB)
    told = lines(progress(0.0, have), progress(0.1, have, (Action.FETCH, "done", 10, 10)))
    assert told == [f"[2/2] fetched {digest_number(1)[:19]} 10 B"]


def test_every_ten_seconds_a_line_says_how_far_and_how_fast_and_how_long_still() -> None:
    snapshots = [
        progress(n / 2, (Action.FETCH, "running", n * MIB, 200 * MIB)) for n in range(61)
    ]  # 2 MiB/s, for 30 s
    assert lines(*snapshots) == [
        "20.0 MiB of 200.0 MiB, 2.0 MiB/s, 1:30 left",
        "40.0 MiB of 200.0 MiB, 2.0 MiB/s, 1:20 left",
        "60.0 MiB of 200.0 MiB, 2.0 MiB/s, 1:10 left",
    ]


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = console.Rate()
    assert rate.update(0.0, 0) == 0.0
    assert rate.update(1.0, 1000) == 1000
    assert rate.update(2.0, 1000) == 500
    for second in range(3, 20):
        last = rate.update(float(second), 1000 + (second - 3) * 50)
    assert last == pytest.approx(50)
    assert rate.update(19.0, 10_000) > 50  # twice at the same moment divides by nothing


@pytest.mark.parametrize(
    ("done", "rate", "text"),
    [
        (0, 1000.0, ", 0:01 left"),
        (0, 10.0, ", 1:40 left"),
        (0, 0.1, ", 166:40 left"),
        (500, 10.0, ", 0:50 left"),
        (1000, 10.0, ""),
        (0, 0.0, ""),
        (0, -5.0, ""),
    ],
)
def test_what_is_left_is_said_only_if_it_is_known(done: int, rate: float, text: str) -> None:
    assert console.eta(progress(1.0, (Action.FETCH, "running", done, 1000)), rate) == text


def test_quiet_says_nothing_but_remembers() -> None:
    stream = io.StringIO()
    snapshot = progress(60.0, (Action.FETCH, "done", 1, 1))
    with display(quiet=True, stream=stream) as shown:
        assert shown.last is None
        shown(snapshot)
    assert shown.last is snapshot
    assert stream.getvalue() == ""


# --- on a terminal ---------------------------------------------------------------------------------------


@contextmanager
def terminal() -> Iterator[tuple[TextIO, list[bytes]]]:
    """One end of a pty, and what arrives at the other."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 120))
    seen: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(leader, 65536):
                seen.append(data)
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(follower, "w") as stream:
            yield stream, seen
    finally:
        reader.join()
        os.close(leader)


def wait_for_a_redraw(seen: list[bytes]) -> None:
    before = len(seen)
    wait_until(lambda: len(seen) > before, "the terminal is not drawn anew")


def text_of(seen: list[bytes]) -> str:
    return _ESCAPES.sub("", b"".join(seen).decode())


def test_a_terminal_has_a_bar_for_each_layer_under_way_and_one_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with terminal() as (stream, seen):
        with display(quiet=False, stream=stream) as shown:
            for n in range(5):
                running = (Action.FETCH, "running", n * 10 * MIB, 100 * MIB)
                shown(progress(n / 5, running, (Action.FETCH, "waiting", 0, 7), (Action.HAVE, "done", 0, 9)))
                wait_for_a_redraw(seen)
            half = (Action.FETCH, "done", 100 * MIB, 100 * MIB)
            shown(progress(1.1, half, (Action.FETCH, "running", 3, 7), (Action.HAVE, "done", 0, 9)))
            wait_for_a_redraw(seen)
            shown(progress(1.2, half, (Action.FETCH, "done", 7, 7), (Action.HAVE, "done", 0, 9)))
        print("end", file=stream, flush=True)
    text = text_of(seen)
    assert "total" in text
    assert f"layer 0 {digest_number(0)[7:19]}" in text
    assert f"layer 1 {digest_number(1)[7:19]}" in text
    assert "layer 2" not in text
    assert "100.0 MiB" in text or "100.0/100.0 MiB" in text
    assert re.search(r"[0-9.]+ [kM]?i?B/s", text)
    assert text.rstrip().endswith("end")  # the bars are gone, the cursor is on a line of its own
    assert b"\x1b[?25h" in b"".join(seen)  # and visible


def test_the_bars_go_when_the_pull_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as (stream, seen):
        with pytest.raises(KeyError), display(quiet=False, stream=stream) as shown:
            shown(progress(0.0, (Action.FETCH, "running", 1, 2)))
            raise KeyError
        assert shown.last is not None
    assert b"\x1b[?25h" in b"".join(seen)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal() as (stream, seen), display(quiet=False, stream=stream) as shown:
        shown(progress(0.0, (Action.FETCH, "done", 1, 1)))
    assert b"".join(seen) == f"[1/1] fetched {digest_number(0)[:19]} 1 B\r\n".encode()
