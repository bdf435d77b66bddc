"""What a command that takes long reports while it runs, and at its end: to people, and to other programs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .. import backoff
from ..aio import unwrapped_group
from ..config.registries import Registries
from ..disk.space import human
from ..errors import LayerteeError, LocalError
from ..image.reference import Reference, parse_name
from ..pulling.plan import Action
from .exits import EXIT_ERROR, EXIT_OK
from .failure import describe
from .output import counted, tell, warn
from .progress import display

if TYPE_CHECKING:
    from ..pulling.imageplan import ImagePlan
    from ..pulling.report import Progress, VerifyProgress
    from ..store.copies import CopyProgress
    from .events import Events
    from .metrics import MetricsFile

SILENT_S = 5.0  # a person wonders what is going on
AGAIN_S = 10.0


class Reporting:
    """Of one command, inside ``with``: whoever leaves it by an error has that reported.

    ``args``: those of the command; of these ``progress_fd`` and ``metrics_file`` are heeded. ``quiet``:
    nothing is said of what is under way; unless it ``shows`` that, only of what takes long to begin. Raises
    InvalidReference and LocalError for a descriptor or a file that cannot be written to.
    """

    def __init__(self, args: argparse.Namespace, *, quiet: bool = False, shows: bool = True) -> None:
        self._args = args
        self._quiet = quiet
        self._events = _events_of(args)
        self._metrics = _metrics_of(args)
        args.is_reported = True
        self._result: Mapping[str, Any] | None = None
        self._exit_code = EXIT_OK
        self._heard = _Heard(self._waits)
        self._asked_to_wait_until = float("-inf")
        self._nbytes = 0
        self.shown = display(quiet=quiet or not shows)

    def __enter__(self) -> Self:
        backoff.log.addHandler(self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        backoff.log.removeHandler(self._heard)
        if self._events is None and self._metrics is None:
            return
        error = describe(exc, self._args.arrived) if exc is not None else None
        code = self._exit_code if exc is None else int(error["exit_code"]) if error else EXIT_ERROR
        if self._metrics is not None:
            try:
                self._metrics.write(code, self._result, error)
            except LocalError as failed:  # the command has its own end
                warn([str(failed)])
        if self._events is not None:
            self._events.last(code, _without_layers(self._result), error)

    # --- what is under way ---

    @asynccontextmanager
    async def resolving(self, image: str) -> AsyncIterator[None]:
        """A block in which an image is looked for: if that takes long, it is said what is waited for."""
        self.shown.begin(f"looking for {image}")
        if self._events is not None:
            self._events.resolving(image)
        if self._quiet:
            yield
            return
        async with unwrapped_group() as group:
            waiting = group.create_task(self._wait(image))
            try:
                yield
            finally:
                waiting.cancel()

    def planned(self, plan: ImagePlan) -> None:
        """The image was found, and this is going to be done."""
        self.shown.begin(_in_words(plan))
        if self._events is not None:
            self._events.planned(plan)

    def __call__(self, progress: Progress) -> None:
        """How far the pull is."""
        # What a registry asked for was said; that nothing comes meanwhile is not to be said as well.
        if progress.bytes_done != self._nbytes or not self._was_asked_to_wait:
            self.shown(progress)
        self._nbytes = progress.bytes_done
        if self._events is not None:
            self._events.progress(progress)

    def verifying(self, progress: VerifyProgress) -> None:
        """How far the verification is."""
        self.shown.blobs(progress)
        if self._events is not None:
            self._events.verifying(progress)

    def exporting(self, progress: CopyProgress) -> None:
        """How far an export is."""
        self.shown.blobs(progress)
        if self._events is not None:
            self._events.exporting(progress)

    def preparing(self, image: str, n_made: int, n_there: int, n_total: int) -> None:
        """Of the layers of ``image``, names were made for so many, and so many had theirs."""
        if self._events is not None:
            self._events.preparing(image, n_made, n_there, n_total)

    def done(self, result: Mapping[str, Any], exit_code: int = EXIT_OK) -> None:
        """What came out of it."""
        self._result = result
        self._exit_code = exit_code

    def _waits(self, wait: backoff.AskedWait) -> None:
        """A server has asked for a wait, which is being said on standard error."""
        self._asked_to_wait_until = time.monotonic() + wait.seconds
        if self._events is not None:
            self._events.waiting(wait)

    @property
    def _was_asked_to_wait(self) -> bool:
        return time.monotonic() < self._asked_to_wait_until

    async def _wait(self, image: str) -> None:
        """Until cancelled."""
        waited = SILENT_S
        await asyncio.sleep(SILENT_S)
        where = asked_for(image, self._args)
        while True:
            if not self._was_asked_to_wait:
                tell(f"layertee: waiting for {where}, for {waited:.0f} s so far")
            await asyncio.sleep(AGAIN_S)
            waited += AGAIN_S


class _Heard(logging.Handler):
    """Hears of the waits that servers ask for, where they are logged."""

    def __init__(self, hear: Callable[[backoff.AskedWait], None]) -> None:
        super().__init__(logging.WARNING)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        wait = getattr(record, "wait", None)
        if isinstance(wait, backoff.AskedWait):
            self._hear(wait)


def _without_layers(result: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """For an event, which has to stay small."""
    if result is None:
        return None
    kept = {name: value for name, value in result.items() if name != "layers"}
    if isinstance(images := kept.get("images"), list):
        kept["images"] = [_without_layers(image) for image in images]
    return kept


def asked_for(image: str, args: argparse.Namespace) -> str:
    """Who has to answer before ``image`` is found: the endpoints that its registry has on this machine."""
    with suppress(LayerteeError):  # the engine says what is wrong with them
        named = parse_name(image)
        if isinstance(named, Reference):
            found = Registries.read(path=args.registries_conf).endpoints(named)
            return ", then ".join(endpoint.reference.registry for endpoint in found)
    return image


def _in_words(plan: ImagePlan) -> str:
    layers = {action: plan.layers_to(action) for action in Action}
    there = len(layers[Action.HAVE])
    if there == len(plan.layers):
        return f"all {there} layers are here" if there != 1 else "its layer is here"
    words = []
    if fetched := layers[Action.FETCH]:
        asked = [endpoint.name.partition("/")[0] for endpoint in plan.asked]
        source = f" from {', else '.join(dict.fromkeys(asked))}" if asked else ""
        words.append(f"{len(fetched)} to fetch{source}, {human(plan.bytes_to_fetch)}")
    if reused := layers[Action.REUSE]:
        words.append(f"{len(reused)} to copy on this machine")
    if there:
        words.append(f"{there} here")
    return f"{counted(len(plan.layers), 'layer')}: {'; '.join(words)}"


def _metrics_of(args: argparse.Namespace) -> MetricsFile | None:
    if args.metrics_file is None or getattr(args, "dry_run", False):  # nothing was done that counts
        return None
    from .metrics import MetricsFile  # few ask for it, and its library takes long to import

    return MetricsFile(args.metrics_file, args)


def _events_of(args: argparse.Namespace) -> Events | None:
    fd: int | None = args.progress_fd
    if fd is None:
        return None
    from .events import Events  # few ask for it

    return Events(fd)
