"""What one transfer asks for next, and what it makes of the answers. No I/O, no clock, no task.

A blob is cut into *parts*, each for one connection at a time; a part may need several requests. The
caller sends the request that :meth:`BlobSchedule.asks` names, tells what came (``answered``,
``received``, ``ended``, ``failed``) and does what it is told. Five states:

==========  ==============================================  =========================================
state       parts in hand                                   leaves it
==========  ==============================================  =========================================
ONE_STREAM  one, to the end of the blob                     ``probe``: PROBING; its last byte: DONE
PROBING     one that begins at byte 0 or after what has     a 206: SPLIT; a 200, or a probe that
            come, whose range is the first question; or     fails: ONE_STREAM; the last byte of the
            one to the end, and a *probe* beyond it that    one to the end: DONE
            nobody counts on
SPLIT       any number up to ``frontier``; what is beyond   every byte has come: DONE; answers that do
            it is handed out by ``next_range``              not fit, again and again: ``restart``
DONE        none that is counted on                         never
FAILED      whatever was in hand                            never
==========  ==============================================  =========================================

From each of the first three, an error that is final, a part that is left undone and ``give_up`` lead to
FAILED; a RESTART leads to ONE_STREAM, at first without a part. What is asked of a state that does not
have it (``probe`` while SPLIT, ``next_range`` with nothing left) is a bug of the caller: RuntimeError.

Two rules say when a byte is safe. A byte belongs to exactly one part that is counted on, so it is
delivered once: a probe's range is taken from the part before it only when the server has answered the
probe properly, and only if that part is not there yet. And nothing is compared between answers but
where they begin and end: nodes of one registry give one blob different ETags and dates, and what was
put together is judged by the digest that names it.

An answer that does not fit what was asked (another range, another total, a refusal of any range) is
asked for again, since another node may give the next one. When that does not help, the blob is read once
more from its start as one stream, whose first bytes are dropped: what has come is in the layer already.
Once; a server that cannot do that either has failed.
"""

from __future__ import annotations

import enum

from ..backoff import asked_s, asks_too_much, backoff_s
from ..errors import (
    ConnectFailed,
    LayerteeError,
    RangeMismatch,
    RateLimited,
    RegistryError,
    ServerError,
    SizeMismatch,
)
from ..record import dataclass
from .limits import FetchLimits, RangeMode
from .ranges import Answer, ByteRange

# Progress below this does not make an attempt a success: a server that drops the connection
# after every few bytes is a failing server.
MIN_PROGRESS = 64 << 10
# Answers in a row that do not fit the range asked for, before the blob is read as one stream.
MISFITS = 3
# What servers without ranges say to one, besides 200 and 416 (RFC 9110 §15.5): none of it is about a login
# or about the blob. They may say it of one node, or of one moment.
_REFUSES_RANGES = frozenset({400, 405, 412, 501})


class State(enum.Enum):
    """Where a transfer stands; the module's text says what is legal in each."""

    ONE_STREAM = "one stream"
    PROBING = "probing"
    SPLIT = "split"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Part:
    """``[start, stop)`` of the blob; ``pos`` is how far it has come. Made and changed by the schedule only.

    ``probe``: it asks whether the server has ranges, and its bytes are not counted on yet. ``again``: its
    next request is for the whole blob, although a part of it is here. The rest is about its attempts:
    what the last one ``asked`` for (None: the whole blob) and where it began (``asked_at``), failures and
    misfits in a row, and what all connections of the caller had brought by the last failure (``served``).
    """

    start: int
    stop: int
    probe: bool = False
    again: bool = False
    pos: int = -1
    asked: ByteRange | None = None
    asked_at: int = -1
    failures: int = 0
    misfits: int = 0
    served: int | None = None

    def __post_init__(self) -> None:
        self.pos = self.asked_at = self.start

    @property
    def is_complete(self) -> bool:
        return self.pos >= self.stop


@dataclass(frozen=True, slots=True)
class Take:
    """Receive ``nbytes`` of the body and drop the first ``skip``; ``exact``: it must end with them."""

    nbytes: int
    skip: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again for the rest of the part, after so many seconds."""

    seconds: float


class Then(enum.Enum):
    """What else may follow an answer or an error."""

    LEAVE = "the part is not needed, the others go on"
    RESTART = "all parts are over; end their work, then call restart()"
    GIVE_UP = "the transfer has failed with this error"


class BlobSchedule:
    """The parts of a blob of ``size`` bytes. ``frontier`` is the end of what has been handed out.

    ``unit`` is the size of the caller's buffers: a part is never cut within one that is being filled.
    ``wide``: other connections are to be expected, so that the first request is for a range already.
    ``n_restarts`` is how often bytes that have come may still be asked for again. ``may_split``: ranges may
    be handed out, if the server has them. ``start``: the bytes before it are here from an earlier transfer.
    """

    def __init__(
        self,
        size: int,
        limits: FetchLimits,
        *,
        unit: int,
        wide: bool = False,
        may_split: bool = True,
        n_restarts: int = 1,
        start: int = 0,
    ) -> None:
        self.size = size
        self.start = start
        self.state = State.ONE_STREAM if start < size else State.DONE
        self.parts: list[Part] = []
        self.offers_ranges = False  # as of the last answer
        self._limits = limits
        self._unit = unit
        self.may_split = may_split and limits.ranges is not RangeMode.NEVER
        self.n_restarts = n_restarts
        self.frontier = size
        if wide and self.may_split and limits.range_nbytes < size - start:
            self.frontier = start + limits.range_nbytes
            self.state = State.PROBING

    @property
    def is_over(self) -> bool:
        """Nothing more is to be asked for."""
        return self.state in (State.DONE, State.FAILED)

    @property
    def has_more(self) -> bool:
        """There are ranges that nobody has."""
        return self.state is State.SPLIT and self.frontier < self.size

    @property
    def may_probe(self) -> bool:
        """The server says that it has ranges, and there is enough left to share."""
        return (
            self.state is State.ONE_STREAM
            and self.may_split
            and self.offers_ranges
            and len(self.parts) == 1
            and self._cut() < self.size
        )

    # --- parts ---

    def begin(self) -> Part:
        """The first part. Once, and not of a blob that is all here."""
        if self.parts or self.is_over:
            raise RuntimeError("begun before")
        return self._hand_out(Part(self.start, self.frontier))

    def probe(self) -> Part:
        """A part for a second connection, which asks whether the server has ranges."""
        if not self.may_probe:
            raise RuntimeError("nothing to probe")
        cut = self._cut()
        self.state = State.PROBING
        return self._hand_out(Part(cut, min(cut + self._limits.range_nbytes, self.size), probe=True))

    def next_range(self) -> Part:
        """The next range, while :attr:`has_more`. Towards the end they get shorter, so that all
        connections end together.
        """
        if not self.has_more:
            raise RuntimeError("no range is left")
        start = self.frontier
        share = (self.size - start) // (len(self.parts) + 1) // self._unit * self._unit
        self.frontier = min(start + min(self._limits.range_nbytes, max(share, self._unit)), self.size)
        return self._hand_out(Part(start, self.frontier))

    def restart(self, at: int) -> Part:
        """After RESTART: the only part, from byte ``at`` on, to which the caller has all that comes before.
        It is read as one stream, and so is what is missing of it if that breaks off.
        """
        if self.state is not State.ONE_STREAM or self.parts or not 0 <= at < self.size:
            raise RuntimeError("nothing to restart")
        return self._hand_out(Part(at, self.size, again=True))

    def leave(self, part: Part) -> None:
        """Nobody works on ``part`` any more: it is complete, not needed, or its work was cancelled.
        May be called again, and after RESTART.
        """
        if part not in self.parts:
            return
        self.parts.remove(part)
        if part.probe:
            if self.state is State.PROBING:
                self.state = State.ONE_STREAM
        elif part.is_complete:
            if self.frontier == self.size and all(other.probe for other in self.parts) and not self.is_over:
                self.state = State.DONE
        elif not self.is_over:
            self.state = State.FAILED

    def give_up(self) -> None:
        """Ask for nothing more: the transfer was cancelled, or its bytes are not wanted."""
        if self.state is not State.DONE:
            self.state = State.FAILED

    # --- what happens to a part ---

    def asks(self, part: Part) -> ByteRange | None:
        """The range to ask for now; None: ask for the whole blob, without one."""
        part.asked_at = part.pos
        whole = part.again or part.stop - part.pos == self.size
        part.asked = None if whole else ByteRange(part.pos, part.stop)
        return part.asked

    def answered(self, part: Part, answer: Answer, *, offers_ranges: bool) -> Take | Then:
        """What to do with the body of an answer to the last request for ``part``: Take, LEAVE or RESTART.

        Raises RangeMismatch, which is for ``failed``.
        """
        if part not in self.parts:
            return Then.LEAVE
        self.offers_ranges = offers_ranges
        if not answer.whole:
            return self._answered_range(part, answer)
        if part.asked is not None:
            return self._answered_whole(part)
        part.again = False  # if this breaks off, what is missing is asked for, and no more
        return Take(part.stop, part.pos, exact=part.stop == self.size)

    def received(self, part: Part, nbytes: int) -> None:
        """Bytes of ``part`` have come, beyond what was dropped."""
        part.pos += nbytes

    def ended(self, part: Part) -> None:
        """The body has ended as it should. Raises RangeMismatch when it brought next to nothing."""
        progress = part.pos - part.asked_at
        if not part.is_complete and progress < MIN_PROGRESS:
            raise RangeMismatch(f"the server answers ranges with {progress} bytes at a time")
        part.failures = part.misfits = 0

    def failed(self, part: Part, error: LayerteeError, *, served: int, serving: bool = False) -> Wait | Then:
        """A request for ``part``, or its body, ended in ``error``: Wait, LEAVE, RESTART or GIVE_UP.

        ``served`` counts what all connections of the caller have brought so far: one that is turned
        away while others are served is waiting in line, not failing. ``serving``: the server does serve
        others right now. It is then waited for, though not for longer than there is patience; else one that
        asks for more has failed.
        """
        if part.probe or part not in self.parts:
            self.leave(part)
            return Then.LEAVE
        if part.pos - part.asked_at >= MIN_PROGRESS:
            part.failures = part.misfits = 0
        others = 0 if part.served is None else served - part.served
        if not too_many(error) or others < MIN_PROGRESS:
            part.failures += 1
        part.served = served
        last = part.failures >= self._limits.attempts
        if not self._is_misfit(part, error):
            patience_s = self._limits.patience_s
            if not error.retryable or last or (not serving and asks_too_much(error, patience_s)):
                return self._fail()
        else:
            part.misfits += 1
            if part.misfits >= MISFITS or last:
                if self.n_restarts:
                    return self._start_over()
                if last or not error.retryable:
                    return self._fail()
        asked = min(asked_s(error), self._limits.patience_s)
        return Wait(backoff_s(max(1, part.failures), self._limits.backoff_s, asked_s=asked))

    # --- inside ---

    def _hand_out(self, part: Part) -> Part:
        self.parts.append(part)
        return part

    def _filling(self, part: Part) -> int:
        """Where the buffer that ``part`` is filling begins; it reaches as far as ``unit`` bytes on."""
        return part.pos - (part.pos - part.start) % self._unit

    def _cut(self) -> int:
        """Where a probe may begin: beyond the buffer that the one stream is filling, by one range."""
        return self._filling(self.parts[0]) + max(self._limits.range_nbytes, 2 * self._unit)

    def _fail(self) -> Then:
        self.state = State.FAILED
        return Then.GIVE_UP

    def _start_over(self) -> Then:
        self.n_restarts -= 1
        self.parts.clear()
        self.state, self.frontier = State.ONE_STREAM, self.size
        self.may_split = False
        return Then.RESTART

    def _is_misfit(self, part: Part, error: LayerteeError) -> bool:
        """Whether ``error`` says that the answer did not fit the range that was asked for."""
        if part.asked is None:
            return False
        if isinstance(error, RegistryError):
            # Some of it has come by now, so it exists: a node that does not have it yet is not the registry.
            return error.status in _REFUSES_RANGES or (error.status == 404 and part.pos > self.start)
        return isinstance(error, RangeMismatch | SizeMismatch)

    def _answered_range(self, part: Part, answer: Answer) -> Take | Then:
        if part.probe:
            head = next((other for other in self.parts if not other.probe), None)
            if (
                self.state is not State.PROBING
                or head is None
                or self._filling(head) + self._unit > part.start
            ):
                self.leave(part)  # it came too late: the one stream is there already
                return Then.LEAVE
            head.stop = part.start
            self.frontier = part.stop
            part.probe = False
            self.state = State.SPLIT
        elif self.frontier < self.size:
            self.state = State.SPLIT
        return Take(answer.nbytes, 0, exact=False)

    def _answered_whole(self, part: Part) -> Take | Then:
        """The server ignored the range: can this one stream serve?"""
        if part.probe:
            self.leave(part)
            return Then.LEAVE
        if part.pos:
            if not self.n_restarts:
                raise RangeMismatch(
                    f"the server sends the whole blob again instead of the rest from byte {part.pos}"
                )
            if self.state is State.SPLIT:
                return self._start_over()
            self.n_restarts -= 1
        if self.state is not State.SPLIT:  # nothing else was handed out that counts
            self.frontier = part.stop = self.size
            if not any(other.probe for other in self.parts):
                self.state = State.ONE_STREAM
        return Take(part.stop, part.pos, exact=part.stop == self.size)


def too_many(error: LayerteeError) -> bool:
    """Whether the server, or what stands before it, does not take another connection now."""
    if isinstance(error, ServerError):
        return error.status == 503
    return isinstance(error, RateLimited | ConnectFailed)
