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
    from rich.progress import ProgressColumn, Task, TaskID

    from ..pulling.report import Progress

LINE_EVERY_S = 10.0
LINE_AT_LEAST_S = 2.0
_NARROW, _WIDE = 60, 80  # columns of a terminal
RATE_OVER_S = 3.0


class BlobProgress(Protocol):
    """How far a verification is, or an export: of blobs, and of their bytes."""

    @property
    def n_done(self) -> int: ...
    @property
    def n_total(self) -> int: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class Display(Protocol):
    """Shows progress between ``__enter__`` and ``__exit__``; ``last`` is the newest snapshot."""

    last: Progress | None

    def begin(self, *lines: str) -> None:
        """Say what is about to be done, where that is not to be seen otherwise."""

    def __call__(self, progress: Progress) -> None: ...
    def blobs(self, progress: BlobProgress) -> None: ...
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

    def begin(self, *lines: str) -> None:
        return None

    def __call__(self, progress: Progress) -> None:
        self.last = progress

    def blobs(self, progress: BlobProgress) -> None:
        return None

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


def clock(seconds: float) -> str:
    """Minutes and seconds: ``1:05``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def eta(left: int, rate: float) -> str:
    """When ``left`` bytes will be done, as the end of a line; empty where that is not known."""
    return f", {clock(left / rate)} left" if left > 0 and rate > 0 else ""


def how_far(done: int, total: int, rate: float) -> str:
    """A line of progress."""
    percent = f" ({100 * done // total} %)" if total else ""
    return f"{human(done)} of {human(total)}{percent}, {human(int(rate))}/s{eta(total - done, rate)}"


def average(progress: Progress) -> str:
    """The rate of all of it, as the end of a line; empty for what took no time to speak of."""
    if progress.seconds < 1:
        return ""
    return f", {human(int(progress.bytes_done / progress.seconds))}/s"


class _Every:
    """Whether it is time for a line: every ten seconds, and every tenth of the whole; not in a burst."""

    def __init__(self) -> None:
        self._at = 0.0
        self._tenths = 0

    def due(self, seconds: float, done: int, total: int) -> bool:
        tenths = 10 * done // total if total else 0
        since = seconds - self._at
        if since < LINE_EVERY_S and (tenths <= self._tenths or since < LINE_AT_LEAST_S or done >= total):
            return False
        self._at, self._tenths = seconds, tenths
        return True


class _Lines(_Silent):
    """A line at the start, one per finished layer, one every ten seconds or tenth, and one at the end."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._told: set[int] = set()
        self._rate = Rate()
        self._every = _Every()

    def begin(self, *lines: str) -> None:
        self._say(*lines)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None and self.last is not None and self.last.bytes_done:
            self._say(f"{human(self.last.bytes_done)} in {clock(self.last.seconds)}{average(self.last)}")

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
        if self._every.due(progress.seconds, progress.bytes_done, progress.bytes_total):
            self._say(how_far(progress.bytes_done, progress.bytes_total, rate))

    def blobs(self, progress: BlobProgress) -> None:
        rate = self._rate.update(progress.seconds, progress.bytes_done)
        if self._every.due(progress.seconds, progress.bytes_done, progress.bytes_total):
            counted = f"{progress.n_done} of {progress.n_total} blobs, "
            self._say(counted + how_far(progress.bytes_done, progress.bytes_total, rate))

    def _say(self, *lines: str) -> None:
        tell(*lines, to=self._stream)


class _Bars(_Silent):
    """One bar per layer under way, and one for all. rich is imported here, on a terminal only."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import Progress as RichProgress

        # Of its own streams rich knows when a terminal changes its width.
        width = None if stream is sys.stderr else os.get_terminal_size(stream.fileno()).columns
        console = Console(file=cast(TextIO, Tolerant(stream)), width=width)
        self._rich: RichProgress = RichProgress(
            *_columns(console.width), console=console, refresh_per_second=8, transient=True, expand=True
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
        if not self._show_total(progress.bytes_done, progress.bytes_total):
            return
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

    def blobs(self, progress: BlobProgress) -> None:
        self._show_total(progress.bytes_done, progress.bytes_total)

    def _show_total(self, done: int, total: int) -> bool:
        """Whether it was time to draw."""
        if not total:
            return False  # nothing to do so far, and an empty bar says less than none
        now = time.monotonic()
        if now - self._drawn < 0.1 and done < total:
            return False
        self._drawn = now
        if self._total is None:
            self._total = self._rich.add_task("total", total=total)
        self._rich.update(self._total, completed=done, total=total)
        return True


def _columns(width: int) -> list[ProgressColumn]:
    """What fits into ``width``: the bar has what is left."""
    from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Amount(ProgressColumn):
        """In the units of all other output; rich has decimal ones for the rate."""

        def render(self, task: Task) -> Text:
            total = f" of {human(int(task.total))}" if task.total else ""
            return Text(f"{human(int(task.completed))}{total}", style="progress.download", justify="right")

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            text = f"{human(int(speed))}/s" if speed else ""
            return Text(text, style="progress.data.speed", justify="right")

    class Left(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            left = task.time_remaining
            return Text(clock(left) if left is not None else "", style="progress.remaining", justify="right")

    name = TextColumn("{task.description}", markup=False)
    columns: list[ProgressColumn] = [name, BarColumn(bar_width=None)]
    if width < _NARROW:
        return [*columns, TaskProgressColumn()]
    columns.append(Amount(Column(no_wrap=True)))
    if width < _WIDE:
        return columns
    return [*columns, Speed(Column(no_wrap=True)), Left(Column(no_wrap=True))]
