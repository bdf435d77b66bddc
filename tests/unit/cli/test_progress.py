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
from layertee.pulling.report import LayerProgress, Progress, VerifyProgress
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
        "3.0 MiB in 0:00",
    ]


def test_a_layer_that_was_here_is_counted_but_not_told() -> None:
    have = (Action.HAVE, "done", 0, 5 * MIB)
    told = lines(progress(0.0, have), progress(0.1, have, (Action.FETCH, "done", 10, 10)))
    assert told == [f"[2/2] fetched {digest_number(1)[:19]} 10 B", "10 B in 0:00"]


def test_every_ten_seconds_a_line_says_how_far_and_how_fast_and_how_long_still() -> None:
    snapshots = [
        progress(n / 2, (Action.FETCH, "running", n * MIB, 2000 * MIB)) for n in range(61)
    ]  # 2 MiB/s, for 30 s
    assert lines(*snapshots) == [
        "20.0 MiB of 2.0 GiB (1 %), 2.0 MiB/s, 16:30 left",
        "40.0 MiB of 2.0 GiB (2 %), 2.0 MiB/s, 16:20 left",
        "60.0 MiB of 2.0 GiB (3 %), 2.0 MiB/s, 16:10 left",
        "60.0 MiB in 0:30, 2.0 MiB/s",
    ]


def test_every_tenth_has_a_line_but_not_in_a_burst() -> None:
    """25 MiB/s: a tenth in 0.8 s, and a line in two."""
    snapshots = [progress(n / 10, (Action.FETCH, "running", n * 5 * MIB // 2, 200 * MIB)) for n in range(81)]
    assert [line.partition(",")[0] for line in lines(*snapshots)] == [
        "50.0 MiB of 200.0 MiB (25 %)",
        "100.0 MiB of 200.0 MiB (50 %)",
        "150.0 MiB of 200.0 MiB (75 %)",
        "200.0 MiB in 0:08",
    ]


def test_a_verification_has_lines_too() -> None:
    stream = io.StringIO()
    with display(quiet=False, stream=stream) as shown:
        shown.begin("about to begin")
        for n in range(41):
            shown.blobs(VerifyProgress(n // 10, 4, n * MIB, 40 * MIB, n / 2))
    assert stream.getvalue().splitlines()[:2] == [
        "about to begin",
        "0 of 4 blobs, 4.0 MiB of 40.0 MiB (10 %), 2.0 MiB/s, 0:18 left",
    ]
    assert len(stream.getvalue().splitlines()) == 10  # and 20 % to 90 %; the result says the rest


def test_nothing_is_said_at_the_end_of_what_failed() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), display(quiet=False, stream=stream) as shown:
        shown(progress(0.0, (Action.FETCH, "running", 1, 2)))
        raise KeyError
    assert stream.getvalue() == ""


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
    assert console.eta(1000 - done, rate) == text


def test_quiet_says_nothing_but_remembers() -> None:
    stream = io.StringIO()
    snapshot = progress(60.0, (Action.FETCH, "done", 1, 1))
    with display(quiet=True, stream=stream) as shown:
        assert shown.last is None
        shown.begin("x")
        shown(snapshot)
        shown.blobs(VerifyProgress(1, 2, 3, 4, 60.0))
    assert shown.last is snapshot
    assert stream.getvalue() == ""


# --- on a terminal ---------------------------------------------------------------------------------------


@contextmanager
def terminal(width: int = 120) -> Iterator[tuple[TextIO, list[bytes]]]:
    """One end of a pty, and what arrives at the other."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, width))
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
                wait_for_a_redraw(seen)  # which may have been under way
            wait_until(lambda: "40.0 MiB of 100.0 MiB" in text_of(seen), "the newest state is not drawn")
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
    assert re.search(r"[0-9.]+ ([KM]iB|B)/s", text) and not re.search(r"[0-9.]+ ?[kM]B", text)
    assert text.rstrip().endswith("end")  # the bars are gone, the cursor is on a line of its own
    assert b"\x1b[?25h" in b"".join(seen)  # and visible


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_bars_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with terminal(width) as (stream, seen), display(quiet=False, stream=stream) as shown:
        shown(progress(1.0, (Action.FETCH, "running", 30 * MIB, 1000 * MIB)))
        wait_for_a_redraw(seen)
        shown.blobs(VerifyProgress(1, 2, 31 * MIB, 1000 * MIB, 1.5))
        wait_for_a_redraw(seen)
    raw = re.split(r"[\r\n]+", b"".join(seen).decode())
    drawn = [line for line in (_ESCAPES.sub("", line) for line in raw) if "layer 0" in line]
    assert drawn and all(f"layer 0 {digest_number(0)[7:19]}" in line and "\u2501" in line for line in drawn)
    assert {len(line.rstrip()) <= width for line in drawn} == {True}


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
    told = b"".join(seen).decode().split("\r\n")
    assert told == [f"[1/1] fetched {digest_number(0)[:19]} 1 B", "1 B in 0:00", ""]
