"""What a person sees on stderr while a pull runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO, cast

from ..disk.space import human
from ..pulling.plan import Action
from .output import Tolerant, tell

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from ..pulling.report import Progress

LINE_EVERY_S = 10.0
RATE_OVER_S = 3.0


class Display(Protocol):
    """Shows progress between ``__enter__`` and ``__exit__``; ``last`` is the newest snapshot."""

    last: Progress | None

    def __call__(self, progress: Progress) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


def display(*, quiet: bool, stream: TextIO | None = None) -> Display:
    """The display that fits ``stream`` (stderr)."""
    stream = stream or sys.stderr
    if quiet:
        return _Silent()
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return _Bars(stream)
    return _Lines(stream)


class _Silent:
    def __init__(self) -> None:
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self.last = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None


class Rate:
    """Bytes per second over the last few seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def update(self, now: float, nbytes: int) -> float:
        self._points.append((now, nbytes))
        while len(self._points) > 2 and now - self._points[0][0] > RATE_OVER_S:
            self._points.popleft()
        then, before = self._points[0]
        return (nbytes - before) / (now - then) if now > then else 0.0


def eta(progress: Progress, rate: float) -> str:
    left = progress.bytes_total - progress.bytes_done
    if left <= 0 or rate <= 0:
        return ""
    seconds = int(left / rate)
    return f", {seconds // 60}:{seconds % 60:02d} left"


class _Lines(_Silent):
    """A line per finished layer, and one every ten seconds."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._told: set[int] = set()
        self._rate = Rate()
        self._next = LINE_EVERY_S

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        rate = self._rate.update(progress.seconds, progress.bytes_done)
        for layer in progress.layers:
            if layer.state == "done" and layer.index not in self._told:
                self._told.add(layer.index)
                if layer.action is not Action.HAVE:
                    count = f"{len(self._told)}/{len(progress.layers)}"
                    word = "fetched" if layer.action is Action.FETCH else "reused"
                    self._say(f"[{count}] {word} {layer.digest[:19]} {human(layer.size)}")
        if progress.seconds >= self._next:
            self._next = progress.seconds + LINE_EVERY_S
            done, total = human(progress.bytes_done), human(progress.bytes_total)
            self._say(f"{done} of {total}, {human(int(rate))}/s{eta(progress, rate)}")

    def _say(self, text: str) -> None:
        tell(text, to=self._stream)


class _Bars(_Silent):
    """One bar per layer under way, and one for all. rich is imported here, on a terminal only."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress

        self._rich: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=cast(TextIO, Tolerant(stream))),
            refresh_per_second=8,
            transient=True,
        )
        self._total: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._rich.stop()

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        if not progress.bytes_total:
            return  # nothing to do so far, and an empty bar says less than none
        now = time.monotonic()
        if now - self._drawn < 0.1 and progress.bytes_done < progress.bytes_total:
            return
        self._drawn = now
        if self._total is None:
            self._total = self._rich.add_task("total", total=progress.bytes_total)
        self._rich.update(self._total, completed=progress.bytes_done, total=progress.bytes_total)
        for layer in progress.layers:
            task = self._tasks.get(layer.index)
            if layer.state in ("checking", "running") and task is None:
                name = f"layer {layer.index} {layer.digest[7:19]}"
                task = self._tasks[layer.index] = self._rich.add_task(name, total=layer.size)
            if task is None:
                continue
            if layer.state == "done":
                self._rich.remove_task(task)
                del self._tasks[layer.index]
            else:
                self._rich.update(task, completed=layer.done, total=layer.size)
