"""The schedule of one transfer: its states by tables, and every way through a small blob. No socket."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertee.errors import (
    ConnectFailed,
    LayerteeError,
    NotInRegistry,
    RangeMismatch,
    RateLimited,
    RegistryError,
    ServerError,
    SizeMismatch,
    Timeout,
    TLSFailed,
    TruncatedBody,
    Unauthorized,
)
from layertee.transfer.limits import FetchLimits, RangeMode
from layertee.transfer.ranges import Answer, ByteRange
from layertee.transfer.schedule import (
    MIN_PROGRESS,
    MISFITS,
    BlobSchedule,
    Part,
    State,
    Take,
    Then,
    Wait,
    too_many,
)

U = MIN_PROGRESS  # sizes are counted in these
LIMITS = FetchLimits(range_nbytes=2 * U, attempts=4, backoff_s=0.01)
SIZE = 10 * U
LOST = TruncatedBody("lost", got=0, want=1)
ODD = RangeMismatch("odd")


def one_stream(n_restarts: int = 1) -> tuple[BlobSchedule, Part]:
    schedule = BlobSchedule(SIZE, LIMITS, unit=U, n_restarts=n_restarts)
    return schedule, schedule.begin()


def whole(schedule: BlobSchedule, part: Part, *, offers: bool = True) -> Take | Then:
    return schedule.answered(part, Answer(0, schedule.size, whole=True), offers_ranges=offers)


def ranged(schedule: BlobSchedule, part: Part, nbytes: int | None = None) -> Take | Then:
    n = part.stop - part.pos if nbytes is None else nbytes
    return schedule.answered(part, Answer(part.pos, n, whole=False), offers_ranges=True)


def streaming(pos: int = 0, n_restarts: int = 1) -> tuple[BlobSchedule, Part]:
    """One stream of a server that has ranges, ``pos`` bytes in."""
    schedule, part = one_stream(n_restarts=n_restarts)
    assert schedule.asks(part) is None
    assert whole(schedule, part) == Take(SIZE, 0, exact=True)
    schedule.received(part, pos)
    return schedule, part


def split(pos: int = 0) -> tuple[BlobSchedule, Part, Part]:
    schedule, head = streaming(pos)
    probe = schedule.probe()
    schedule.asks(probe)
    assert isinstance(ranged(schedule, probe), Take)
    assert schedule.state is State.SPLIT
    return schedule, head, probe


def finish(schedule: BlobSchedule, part: Part) -> None:
    schedule.received(part, part.stop - part.pos)
    schedule.leave(part)


# --- the states, one after the other ----------------------------------------------------------------


def test_a_blob_begins_as_one_stream_and_is_done_with_its_last_byte() -> None:
    schedule, part = streaming()
    assert (part.start, part.stop, schedule.state) == (0, SIZE, State.ONE_STREAM)
    schedule.received(part, SIZE)
    schedule.ended(part)
    schedule.leave(part)
    assert schedule.state is State.DONE and schedule.is_over and not schedule.parts


def test_an_empty_blob_is_done_before_it_begins() -> None:
    schedule = BlobSchedule(0, LIMITS, unit=U, wide=True)
    assert schedule.state is State.DONE
    with pytest.raises(RuntimeError):
        schedule.begin()


def test_a_probe_asks_beyond_what_is_being_filled_and_changes_nothing_yet() -> None:
    schedule, head = streaming(3 * U)
    probe = schedule.probe()
    assert schedule.state is State.PROBING
    assert (probe.start, probe.stop, probe.probe) == (5 * U, 7 * U, True)
    assert (head.stop, schedule.frontier) == (SIZE, SIZE)
    assert not schedule.may_probe and not schedule.has_more


def test_a_206_to_the_probe_cuts_the_one_stream_before_it() -> None:
    schedule, head, helper = split(3 * U)
    assert (head.stop, helper.probe, schedule.frontier) == (5 * U, False, 7 * U)
    assert schedule.has_more
    third = schedule.next_range()
    assert (third.start, third.stop) == (7 * U, 8 * U)  # not below a buffer
    last = schedule.next_range()
    assert (last.start, last.stop) == (8 * U, 9 * U)
    end = schedule.next_range()
    assert (end.start, end.stop) == (9 * U, SIZE)
    assert not schedule.has_more
    for part in (helper, end, third, head):
        finish(schedule, part)
        assert schedule.state is State.SPLIT
    finish(schedule, last)
    assert schedule.state is State.DONE


def test_a_probe_is_taken_up_as_long_as_no_buffer_reaches_into_its_range() -> None:
    schedule, head = streaming()
    probe = schedule.probe()
    schedule.asks(probe)
    schedule.received(head, 2 * U - 1)
    assert isinstance(ranged(schedule, probe), Take)
    assert (schedule.state, head.stop) == (State.SPLIT, 2 * U)


def test_a_probe_that_is_answered_too_late_is_left() -> None:
    schedule, head = streaming()
    probe = schedule.probe()
    schedule.asks(probe)
    schedule.received(head, 2 * U)  # the buffer being filled now does
    assert ranged(schedule, probe) is Then.LEAVE
    assert (schedule.state, head.stop) == (State.ONE_STREAM, SIZE)
    assert schedule.parts == [head]


@pytest.mark.parametrize("error", [ODD, LOST, ServerError("5", status=503), Unauthorized("no", status=403)])
def test_a_probe_that_fails_harms_nobody(error: LayerteeError) -> None:
    schedule, head = streaming()
    probe = schedule.probe()
    schedule.asks(probe)
    assert schedule.failed(probe, error, served=0) is Then.LEAVE
    assert (schedule.state, schedule.parts, head.stop) == (State.ONE_STREAM, [head], SIZE)
    assert schedule.may_probe


def test_a_probe_that_is_ignored_leaves_one_stream() -> None:
    schedule, head = streaming()
    probe = schedule.probe()
    schedule.asks(probe)
    assert whole(schedule, probe) is Then.LEAVE
    assert (schedule.state, schedule.parts) == (State.ONE_STREAM, [head])


def test_a_stream_that_ends_before_the_probe_is_answered_is_all_there_is() -> None:
    schedule, head = streaming()
    probe = schedule.probe()
    schedule.asks(probe)
    finish(schedule, head)
    assert schedule.state is State.DONE
    assert ranged(schedule, probe) is Then.LEAVE
    assert schedule.state is State.DONE and not schedule.parts


@pytest.mark.parametrize(
    ("limits", "options", "offers"),
    [
        (dataclasses.replace(LIMITS, ranges=RangeMode.NEVER), {}, True),
        (LIMITS, {"may_split": False}, True),
        (LIMITS, {}, False),
        (dataclasses.replace(LIMITS, range_nbytes=SIZE), {}, True),
    ],
    ids=["never", "single", "not offered", "nothing to share"],
)
def test_what_may_not_be_probed(limits: FetchLimits, options: dict[str, bool], offers: bool) -> None:
    schedule = BlobSchedule(SIZE, limits, unit=U, wide=limits.range_nbytes == SIZE, **options)
    part = schedule.begin()
    schedule.asks(part)
    whole(schedule, part, offers=offers)
    assert not schedule.may_probe
    with pytest.raises(RuntimeError):
        schedule.probe()
    with pytest.raises(RuntimeError):
        schedule.next_range()


def test_where_help_is_expected_the_first_request_is_the_question() -> None:
    schedule = BlobSchedule(SIZE, LIMITS, unit=U, wide=True)
    part = schedule.begin()
    assert schedule.asks(part) == ByteRange(0, 2 * U)
    assert (schedule.state, schedule.has_more, schedule.may_probe) == (State.PROBING, False, False)
    assert ranged(schedule, part) == Take(2 * U, 0, exact=False)
    assert schedule.state is State.SPLIT and schedule.has_more


def test_a_200_to_the_first_range_is_the_one_stream() -> None:
    schedule = BlobSchedule(SIZE, LIMITS, unit=U, wide=True)
    part = schedule.begin()
    schedule.asks(part)
    assert whole(schedule, part, offers=False) == Take(SIZE, 0, exact=True)
    assert (schedule.state, part.stop) == (State.ONE_STREAM, SIZE)


def test_nothing_is_asked_of_a_transfer_that_was_given_up() -> None:
    schedule, head, _ = split()
    schedule.give_up()
    assert schedule.state is State.FAILED and not schedule.has_more
    finish(schedule, head)
    assert schedule.state is State.FAILED
    with pytest.raises(RuntimeError):
        schedule.next_range()


def test_what_is_complete_stays_complete() -> None:
    schedule, head = streaming()
    finish(schedule, head)
    schedule.give_up()
    assert schedule.state is State.DONE


def test_a_part_left_undone_ends_the_transfer() -> None:
    schedule, head, _ = split()
    schedule.leave(head)
    assert schedule.state is State.FAILED


# --- attempts ------------------------------------------------------------------------------------------


def test_what_broke_off_is_asked_for_from_the_next_byte() -> None:
    schedule, part = streaming(3 * U)
    assert isinstance(schedule.failed(part, LOST, served=0), Wait)
    assert schedule.asks(part) == ByteRange(3 * U, SIZE)
    assert ranged(schedule, part) == Take(7 * U, 0, exact=False)
    assert schedule.state is State.ONE_STREAM


def test_a_shorter_range_than_asked_for_is_progress_and_a_crumb_is_not() -> None:
    schedule, part = streaming(3 * U)
    schedule.failed(part, LOST, served=0)
    for nbytes in (2 * U, U):
        schedule.asks(part)
        ranged(schedule, part, nbytes)
        schedule.received(part, nbytes)
        schedule.ended(part)
    schedule.asks(part)
    ranged(schedule, part, 10)
    schedule.received(part, 10)
    with pytest.raises(RangeMismatch, match="10 bytes at a time"):
        schedule.ended(part)


def fail(schedule: BlobSchedule, part: Part, error: LayerteeError, *, served: int = 0) -> Wait | Then:
    schedule.asks(part)
    return schedule.failed(part, error, served=served)


@pytest.mark.parametrize(
    ("error", "at", "verdicts"),
    [
        (LOST, 0, "wwwG"),
        (LOST, 3, "wwwG"),
        (Timeout("slow"), 3, "wwwG"),
        (ServerError("5", status=500), 3, "wwwG"),
        (RateLimited("wait", retry_after=1), 3, "wwwG"),
        (TLSFailed("who?"), 3, "G"),
        (Unauthorized("no", status=403), 3, "G"),
        (RegistryError("teapot", status=418), 3, "G"),
        (SizeMismatch("size", want=1, got=2), 0, "G"),
        (RegistryError("bad", status=400), 0, "G"),
        (ODD, 0, "wwwG"),
        (ODD, 3, "wwR"),
        (RegistryError("bad", status=400), 3, "wwR"),
        (RegistryError("method", status=405), 3, "wwR"),
        (NotInRegistry("gone", status=404), 0, "G"),
        (NotInRegistry("gone", status=404), 3, "wwR"),
        (RegistryError("precondition", status=412), 3, "wwR"),
        (ServerError("not implemented", status=501), 3, "wwR"),
        (SizeMismatch("size", want=1, got=2), 3, "wwR"),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, LayerteeError) else str(value),
)
def test_what_follows_an_error_at_a_byte(error: LayerteeError, at: int, verdicts: str) -> None:
    """w: wait and ask again, R: once more as one stream, G: give up. At byte 0 no range was asked for."""
    schedule, part = streaming(at * U)
    said = ""
    while not said or said[-1] == "w":
        then = fail(schedule, part, error)
        said += "w" if isinstance(then, Wait) else "R" if then is Then.RESTART else "G"
        if isinstance(error, RateLimited) and isinstance(then, Wait):
            assert then.seconds >= 1
    assert said == verdicts
    assert schedule.state is (State.FAILED if verdicts[-1] == "G" else State.ONE_STREAM)


def test_without_a_restart_left_misfits_are_failures() -> None:
    schedule, part = streaming(3 * U, n_restarts=0)
    verdicts = [fail(schedule, part, ODD) for _ in range(LIMITS.attempts)]
    assert verdicts[-1] is Then.GIVE_UP and all(isinstance(then, Wait) for then in verdicts[:-1])
    schedule, part = streaming(3 * U, n_restarts=0)
    refused = RegistryError("bad", status=400)
    assert [fail(schedule, part, refused) for _ in range(MISFITS)][-1] is Then.GIVE_UP


def test_progress_makes_a_new_start() -> None:
    schedule, part = streaming()
    for _ in range(9):
        schedule.asks(part)
        schedule.received(part, U)
        for _ in range(LIMITS.attempts - 1):
            assert isinstance(schedule.failed(part, LOST, served=0), Wait)
            schedule.asks(part)


def test_who_is_turned_away_while_others_are_served_waits_in_line() -> None:
    schedule, part = one_stream()
    refused = RateLimited("wait", retry_after=1)
    for n in range(50):
        assert isinstance(fail(schedule, part, refused, served=n * U), Wait)
    verdicts = [fail(schedule, part, refused, served=50 * U) for _ in range(LIMITS.attempts)]
    assert verdicts[-1] is Then.GIVE_UP


def test_a_server_that_asks_for_more_than_there_is_patience_has_failed_unless_it_serves_others() -> None:
    patience_s = LIMITS.patience_s
    schedule, part = one_stream()
    then = fail(schedule, part, RateLimited("wait", retry_after=patience_s))
    assert isinstance(then, Wait) and patience_s <= then.seconds <= patience_s * 1.25 + 1
    longer = RateLimited("wait", retry_after=patience_s * 10)
    then = schedule.failed(part, longer, served=0, serving=True)
    assert isinstance(then, Wait) and patience_s <= then.seconds <= patience_s * 1.25 + 1
    assert longer.hint == ""
    assert schedule.failed(part, longer, served=0) is Then.GIVE_UP
    assert (schedule.state, longer.hint) == (State.FAILED, "patience")


@pytest.mark.parametrize(
    ("error", "is_too_many"),
    [
        (RateLimited("429"), True),
        (ServerError("503", status=503), True),
        (ServerError("500", status=500), False),
        (ConnectFailed("refused"), True),
        (LOST, False),
    ],
)
def test_which_errors_say_that_there_are_too_many(error: LayerteeError, is_too_many: bool) -> None:
    assert too_many(error) is is_too_many


# --- the second time from the start -------------------------------------------------------------------


def test_a_200_to_a_resumed_stream_is_used_and_what_is_here_is_dropped() -> None:
    schedule, part = streaming(3 * U)
    schedule.failed(part, LOST, served=0)
    schedule.asks(part)
    assert whole(schedule, part, offers=False) == Take(SIZE, 3 * U, exact=True)
    schedule.received(part, 2 * U)
    schedule.failed(part, LOST, served=0)
    schedule.asks(part)
    with pytest.raises(RangeMismatch, match="the whole blob again instead of the rest from byte"):
        whole(schedule, part, offers=False)


def test_a_200_to_one_of_several_parts_makes_one_stream_of_them() -> None:
    schedule, head, helper = split(3 * U)
    schedule.asks(helper)
    assert whole(schedule, helper, offers=False) is Then.RESTART
    assert not schedule.parts and not schedule.may_probe and not schedule.has_more
    for part in (head, helper):  # what their connections still do is of no account
        assert schedule.failed(part, TLSFailed("x"), served=0) is Then.LEAVE
        assert whole(schedule, part) is Then.LEAVE
        schedule.leave(part)
    assert schedule.state is State.ONE_STREAM
    again = schedule.restart(4 * U)
    assert schedule.asks(again) is None
    assert whole(schedule, again) == Take(SIZE, 4 * U, exact=True)
    assert not schedule.may_probe
    schedule.received(again, U)
    schedule.failed(again, LOST, served=0)
    assert schedule.asks(again) == ByteRange(5 * U, SIZE)  # and is no reason to read it all once more


def test_a_200_to_the_first_of_several_parts_serves_it() -> None:
    schedule, head, _ = split()
    schedule.asks(head)
    assert whole(schedule, head) == Take(head.stop, 0, exact=False)


def test_a_restart_that_nobody_asked_for_is_a_mistake() -> None:
    schedule, head = streaming()
    with pytest.raises(RuntimeError):
        schedule.restart(0)
    schedule.leave(head)
    with pytest.raises(RuntimeError):
        schedule.restart(0)


# --- every way through ------------------------------------------------------------------------------------


class Walk:
    """A schedule, and what its caller keeps: which bytes have come, and which of them in order."""

    def __init__(self, schedule: BlobSchedule) -> None:
        self.schedule = schedule
        self.unit = U
        self.n_got = [0] * (schedule.size // U)
        self.receiving: dict[int, tuple[int, int]] = {}  # of a part, by its start: bytes to skip, to take
        self.restart = False
        if not schedule.is_over:
            schedule.begin()

    @property
    def next_byte(self) -> int:
        return next((i for i, n in enumerate(self.n_got) if n == 0), len(self.n_got)) * U

    def key(self) -> object:
        s = self.schedule
        parts = tuple(
            (p.start, p.stop, p.pos, p.probe, p.again, str(p.asked), p.asked_at, p.failures, p.misfits)
            for p in s.parts
        )
        receiving = tuple(sorted(self.receiving.items()))
        return s.state, s.frontier, s.offers_ranges, s.n_restarts, parts, tuple(self.n_got), receiving

    def moves(self) -> Iterator[Callable[[Walk], None]]:
        """Everything that may happen next; each move takes the walk it is to be made on."""
        s = self.schedule
        if s.is_over:
            return
        if self.restart:
            yield Walk.start_over
            return
        if s.may_probe and 0 in self.receiving:
            yield lambda w: void(w.schedule.probe())
        if s.has_more:
            yield lambda w: void(w.schedule.next_range())
        for i, part in enumerate(s.parts):
            if part.start not in self.receiving:
                for answer in ("range", "short", "whole", "odd", "lost", "fatal"):
                    yield lambda w, i=i, answer=answer: w.answer(w.schedule.parts[i], answer)  # type: ignore[misc]
            else:
                yield lambda w, i=i: w.receive(w.schedule.parts[i])  # type: ignore[misc]
                yield lambda w, i=i: w.fail(w.schedule.parts[i], LOST)  # type: ignore[misc]

    def start_over(self) -> None:
        self.restart = False
        at = self.next_byte
        for i in range(at // U, len(self.n_got)):
            self.n_got[i] = 0  # what came out of order is dropped
        self.schedule.restart(at)

    def answer(self, part: Part, answer: str) -> None:
        s = self.schedule
        asked = s.asks(part)
        try:
            match answer:
                case "lost":
                    raise LOST
                case "fatal":
                    raise TLSFailed("who?")
                case "odd":
                    raise ODD
                case "whole":
                    then = whole(s, part, offers=True)
                case _ if asked is None:
                    then = whole(s, part, offers=False)
                case "short":
                    then = ranged(s, part, U)
                case _:
                    then = ranged(s, part)
        except LayerteeError as exc:
            self.fail(part, exc)
            return
        if isinstance(then, Take):
            self.receiving[part.start] = (then.skip, then.nbytes - then.skip)
        else:
            self.follow(then)

    def receive(self, part: Part) -> None:
        """One unit of the body, or all that is to be dropped."""
        skip, left = self.receiving[part.start]
        if skip:
            self.receiving[part.start] = (0, left)
            return
        self.n_got[part.pos // U] += 1
        assert self.n_got[part.pos // U] == 1, "a byte was delivered twice"
        self.schedule.received(part, U)
        self.receiving[part.start] = (0, left - U)
        if part.is_complete:
            del self.receiving[part.start]
            self.schedule.leave(part)
        elif left == U:
            del self.receiving[part.start]
            self.schedule.ended(part)

    def fail(self, part: Part, error: LayerteeError) -> None:
        self.receiving.pop(part.start, None)
        self.follow(self.schedule.failed(part, error, served=0))

    def follow(self, then: Wait | Then) -> None:
        if then is Then.RESTART:
            self.restart = True
            self.receiving.clear()

    def check(self) -> None:
        """What holds after every move."""
        s = self.schedule
        sure = [part for part in s.parts if not part.probe]
        probes = [part for part in s.parts if part.probe]
        if s.state is State.DONE:
            assert all(n == 1 for n in self.n_got) and not sure
            return
        if s.state is State.FAILED:
            assert not s.has_more and not s.may_probe
            return
        assert 0 < s.frontier <= s.size
        assert len(probes) <= 1 and (not probes or s.state is State.PROBING)
        if s.state is State.ONE_STREAM:
            assert len(s.parts) <= 1 and s.frontier == s.size
            assert all(part.stop == s.size for part in s.parts)
        if s.state is State.PROBING:
            assert len(sure) == 1
        if self.restart:
            assert not s.parts
            return
        # Below the frontier a byte has come, or is of exactly one part; beyond it, neither.
        for i in range(len(self.n_got)):
            owners = [part for part in sure if part.pos <= i * U < part.stop]
            assert len(owners) + self.n_got[i] == (1 if i * U < s.frontier else 0)

    def finish(self) -> None:
        """With a server that does everything right from now on. Raises when that does not end."""
        for _ in range(500):
            s = self.schedule
            if s.is_over:
                return
            if self.restart:
                self.start_over()
            elif s.has_more and len(s.parts) < 3:
                s.next_range()
            elif waiting := [part for part in s.parts if part.start not in self.receiving]:
                self.answer(waiting[0], "range")
            else:
                self.receive(s.parts[-1])
            self.check()
        raise AssertionError("the schedule is stuck")


def void(_: object) -> None:
    """A move's result is of no account."""


@pytest.mark.parametrize("wide", [False, True])
def test_every_way_through_a_small_blob_assigns_each_byte_once_and_ends(wide: bool) -> None:
    limits = dataclasses.replace(LIMITS, attempts=2)
    first = Walk(BlobSchedule(4 * U, limits, unit=U, wide=wide))
    seen = {first.key()}
    todo = [first]
    states = set()
    while todo:
        walk = todo.pop()
        walk.check()
        states.add(walk.schedule.state)
        moves = list(walk.moves())
        assert moves or walk.schedule.is_over, "nothing can happen any more"
        for move in moves:
            step = copy.deepcopy(walk)
            move(step)
            key = (step.key(), step.restart)
            if key not in seen:
                seen.add(key)
                todo.append(step)
    assert states == set(State)


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(1, 40),
    range_units=st.integers(1, 8),
    wide=st.booleans(),
    choices=st.lists(st.integers(0, 1000), max_size=120),
)
def test_any_walk_keeps_every_byte_and_a_good_server_ends_it(
    size: int, range_units: int, wide: bool, choices: list[int]
) -> None:
    limits = dataclasses.replace(LIMITS, range_nbytes=range_units * U)
    walk = Walk(BlobSchedule(size * U, limits, unit=U, wide=wide))
    for choice in choices:
        moves = list(walk.moves())
        if not moves:
            break
        moves[choice % len(moves)](walk)
        walk.check()
    failed = walk.schedule.state is State.FAILED
    walk.finish()
    assert walk.schedule.state is (State.FAILED if failed else State.DONE)


# --- a blob of which the beginning is here ------------------------------------------------------------


def resumed(at: int, *, wide: bool = False) -> BlobSchedule:
    return BlobSchedule(SIZE, LIMITS, unit=U, wide=wide, start=at)


def test_what_is_missing_is_asked_for_by_range() -> None:
    schedule = resumed(3 * U + 1)
    part = schedule.begin()
    assert (part.pos, part.stop) == (3 * U + 1, SIZE)
    assert schedule.asks(part) == ByteRange(3 * U + 1, SIZE)
    assert ranged(schedule, part) == Take(SIZE - 3 * U - 1, 0, exact=False)
    assert schedule.state is State.ONE_STREAM and schedule.may_probe
    probe = schedule.probe()
    assert probe.start == 3 * U + 1 + 2 * U


def test_when_others_will_help_the_first_range_is_short() -> None:
    schedule = resumed(3 * U, wide=True)
    part = schedule.begin()
    assert schedule.asks(part) == ByteRange(3 * U, 5 * U)
    ranged(schedule, part)
    assert schedule.next_range().start == 5 * U


def test_too_little_is_missing_for_others_to_help() -> None:
    schedule = resumed(SIZE - 2 * U, wide=True)
    assert (schedule.begin().stop, schedule.state) == (SIZE, State.ONE_STREAM)


def test_nothing_is_asked_for_when_all_is_here() -> None:
    schedule = resumed(SIZE)
    assert schedule.is_over
    with pytest.raises(RuntimeError):
        schedule.begin()


def test_a_server_without_ranges_sends_again_what_is_here() -> None:
    schedule = resumed(3 * U)
    part = schedule.begin()
    schedule.asks(part)
    assert whole(schedule, part) == Take(SIZE, 3 * U, exact=True)


def test_a_blob_that_has_gone_since_is_not_there() -> None:
    schedule = resumed(3 * U)
    part = schedule.begin()
    schedule.asks(part)
    gone = NotInRegistry("gone", status=404)
    assert schedule.failed(part, gone, served=0) is Then.GIVE_UP
