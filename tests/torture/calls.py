"""Every call fails, once or from there on; and the process ends beside every call that changes something.

A *case* is a scenario, a way, and a number: ``pull:ENOSPC-once:17`` fails the 17th call of a pull that may
need space on the disk, with ENOSPC. The full run tries numbers from 1 on until one is larger than the calls
are. A scaled run tries numbers by chance, and in proportion. After each case, what must hold:

- the commands end within 30 seconds, with an error of ours and the exit code of that, or in success;
- a call that was interrupted, or wrote less than it was to, has been made again, and nothing else was seen;
- ``layertee verify`` is content, and all files are what their names say;
- the next run completes, and fetches no byte of a layer that was finished.

One case in ten starts its commands as users do; the others fork them from a process that has loaded the
program. The order of calls differs between runs of several threads, so a number is not always the same call.
What it was is in the trace, the lines of which are part of a finding.
"""

from __future__ import annotations

import errno
import itertools
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from layertee.cli.exits import EXIT_NO_SPACE
from tests.support.ccore import fault_library
from tests.support.process import Cli, Ran
from tests.torture.forks import ForkedCli, Forks
from tests.torture.preload import EVERY_KIND, Action, Fault, Faults, Kind
from tests.torture.results import Budget, Findings
from tests.torture.scenarios import SCENARIOS, Scenario, World, world

PART = "calls"
MOMENTS = 2000  # of the full run, over all scenarios
_REPORTED = 100  # cases, after which a line is printed


@dataclass(frozen=True, slots=True)
class Way:
    """How a call goes wrong: which calls count, what is done, and what commands may make of it."""

    name: str
    kinds: Kind
    action: Action
    error: int = 0

    @property
    def survived(self) -> bool:
        """Whether a command must do as if nothing had happened."""
        return self.error == errno.EINTR or self.action is Action.SHORTEN

    @property
    def kills(self) -> bool:
        """Whether a process of the case ends."""
        return self.action in (Action.KILL_BEFORE, Action.KILL_AFTER, Action.KILL_WITHIN, Action.KILL_LATER)


def _failing(error: int, kinds: Kind, *, lasting: bool = True) -> Iterator[Way]:
    name = errno.errorcode[error]
    yield Way(f"{name}-once", kinds, Action.FAIL_ONCE, error)
    if lasting:
        yield Way(f"{name}-from", kinds, Action.FAIL_FROM, error)


# Which calls can fail with what: a full disk concerns no call that only reads.
_ALL = (
    *_failing(errno.ENOSPC, Kind.SPACE),
    *_failing(errno.EDQUOT, Kind.SPACE),
    *_failing(errno.EIO, EVERY_KIND),
    *_failing(errno.EROFS, Kind.CHANGE),
    *_failing(errno.EMFILE, Kind.OPEN),
    *_failing(errno.EINTR, Kind.WAIT, lasting=False),
    Way("short", Kind.WRITE, Action.SHORTEN),
    Way("kill-before", Kind.CHANGE, Action.KILL_BEFORE),
    Way("kill-after", Kind.CHANGE, Action.KILL_AFTER),
    Way("kill-within", Kind.WRITE, Action.KILL_WITHIN),
    Way("kill-at", EVERY_KIND, Action.KILL_LATER),  # so many microseconds after the first call
)
WAYS = {way.name: way for way in _ALL}
MOMENT = WAYS["kill-at"]
CALM = Way("calm", EVERY_KIND, Action.COUNT)


@dataclass(frozen=True, slots=True)
class Case:
    """One try."""

    scenario: str
    way: Way
    at: int

    def __str__(self) -> str:
        return f"{self.scenario}:{self.way.name}:{self.at}"

    @classmethod
    def parse(cls, name: str) -> Case:
        """Raises ValueError, KeyError for a name that is of no case."""
        scenario, way, at = name.split(":")
        return cls(SCENARIOS[scenario].name, (WAYS | {CALM.name: CALM})[way], int(at))

    @property
    def fault(self) -> Fault:
        """What is done."""
        return Fault(self.way.kinds, self.way.action, self.at, self.way.error)


class User(ForkedCli):
    """One whose commands are forked, up to two at a time; or started as users do, if ``starts``."""

    def __init__(self, home: Path, forks: Sequence[Forks]) -> None:
        super().__init__(home, forks[0])
        self.starts = False
        self._turn = itertools.cycle(forks)

    def start(self, name: str, *args: object, **more: str) -> subprocess.Popen[str]:
        """Begin a command; both outputs are pipes."""
        if self.starts:
            return Cli.start(self, name, *args, **more)
        return next(self._turn).start(self.command(name, *args), self.environment(**more))


@dataclass(slots=True)
class Slot:
    """Where one case runs at a time: a registry, a directory, and what scenarios begin with, made once."""

    here: World
    directory: Path
    forks: Sequence[Forks]
    templates: dict[str, Path] = field(default_factory=dict)

    def user(self, scenario: Scenario) -> User:
        """A user for one case, with files of a case's own."""
        home = self.directory / "home"
        shutil.rmtree(home, ignore_errors=True)
        if scenario.name not in self.templates:
            scenario.before(self.here, scenario.at(User(home, self.forks)))  # records name paths
            self.templates[scenario.name] = home.rename(self.directory / f"before-{scenario.name}")
        shutil.copytree(self.templates[scenario.name], home, symlinks=True)
        user = User(home, self.forks)
        scenario.ready(self.here, scenario.at(user))
        return user


@contextmanager
def slots(n: int) -> Iterator[queue.Queue[Slot]]:
    """``n`` of them; who takes one brings it back."""
    free: queue.Queue[Slot] = queue.Queue()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="layertee-calls-"))).resolve()
        for number in range(n):
            directory = root / str(number)
            directory.mkdir()
            environment = {
                "PATH": "/usr/bin:/bin",
                "PYTHONFAULTHANDLER": "1",
                "LD_PRELOAD": str(fault_library()),
            }
            forks = [stack.enter_context(Forks(environment)) for _ in range(2)]
            free.put(Slot(stack.enter_context(world()), directory, forks))
        yield free


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case came to: how many calls, or processes, were struck, and what the calls were."""

    n_faults: int
    length_s: float
    codes: tuple[int, ...]
    kinds: tuple[Kind, ...]

    def count(self, kinds: Kind) -> int:
        """How many calls were of one of ``kinds``."""
        return sum(bool(one & kinds) for one in self.kinds)


def try_case(slot: Slot, case: Case) -> Outcome:
    """Run it. AssertionError, with the calls that were struck, where a promise was broken."""
    scenario = SCENARIOS[case.scenario]
    cli = slot.user(scenario)
    faults = Faults(slot.directory / "faults", cli.home)
    faults.arm(case.fault)
    here = slot.here
    here.fetched()
    try:
        cli.starts = case.at % 10 == 0
        rans = scenario.act(here, cli, faults.environment())
        cli.starts = False
        codes = tuple(ran.code for ran in rans)
        outcome = Outcome(faults.n_faults, faults.length_s, codes, tuple(faults.kinds()))
        for ran in rans:
            judge(case.way, scenario, ran, struck=outcome.n_faults > 0)
        assert not case.way.kills or not outcome.n_faults or -signal.SIGKILL in outcome.codes
        # Looking at a store may mend it, so half of the cases go on without having looked.
        if case.at % 2:
            scenario.sound(here, cli)
        scenario.again(here, cli)
        scenario.sound(here, cli)
    except (AssertionError, OSError, ValueError) as exc:
        raise AssertionError(f"{exc!s}\n{faults.struck()}") from exc
    return outcome


_CODE = re.compile(r"^layertee: .*\[([A-Z_0-9]+)\]$", re.MULTILINE)


def judge(way: Way, scenario: Scenario, ran: Ran, *, struck: bool) -> None:
    """AssertionError unless a command of ``scenario`` may end like that."""
    if ran.code == 0:
        return
    if way.kills and struck and ran.code == -signal.SIGKILL:
        return
    said = _CODE.findall(ran.err)
    if scenario.busy and ran.code == 1 and said[:1] == ["STORE_BUSY"]:
        return
    assert struck, f"exit {ran.code}, though no call was touched\n{ran.err}"
    assert not way.survived and not way.kills, f"exit {ran.code}: it should go on\n{ran.err}"
    assert said, f"exit {ran.code} without an error of ours\n{ran.out}\n{ran.err}"
    full = way.error in (errno.ENOSPC, errno.EDQUOT) and said[0] != "MAP"  # SQLite does not say why
    assert ran.code == (EXIT_NO_SPACE if full else 1), f"exit {ran.code} {said}\n{ran.err}"


# --- the whole of it -------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """All cases of a budget."""

    budget: Budget
    findings: Findings
    free: queue.Queue[Slot]
    n_parallel: int
    is_over: bool = False
    began: float = field(default_factory=time.monotonic)
    cases: Counter[str] = field(default_factory=Counter)  # by way
    struck: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)  # struck, and all commands succeeded
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def try_all(self, cases: Sequence[Case]) -> list[Outcome | None]:
        """Each of them, several at once; None for one that broke a promise."""
        threads = ThreadPoolExecutor(self.n_parallel)
        try:
            return list(threads.map(self._try, cases))
        except KeyboardInterrupt:
            self.is_over = True
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _try(self, case: Case) -> Outcome | None:
        slot = self.free.get()
        try:
            outcome = try_case(slot, case)
        except AssertionError as exc:
            if not self.is_over:
                self.findings.add(str(case), exc)
            outcome = None
        finally:
            self.free.put(slot)
        if self.is_over:  # Ctrl-C reached the commands, too: this proves nothing
            return None
        with self._lock:
            self.cases[case.way.name] += 1
            if outcome is None or outcome.n_faults:
                self.struck[case.way.name] += 1
            if outcome is not None and outcome.n_faults and not any(outcome.codes):
                self.tolerated[case.way.name] += 1
            if self.cases.total() % _REPORTED == 0:
                self.say(f"{self.cases.total()} cases, now {case}")
        return outcome

    def say(self, line: str) -> None:
        """Print it, with what was found so far."""
        minutes = (time.monotonic() - self.began) / 60
        sys.stdout.write(f"{minutes:6.1f} min: {line}, {len(self.findings.found)} found\n")
        sys.stdout.flush()

    def try_everything(self, scenarios: Sequence[str]) -> None:
        """All numbers of all ways, scenario by scenario; or, of a scaled run, a share, in no order."""
        n_moments = self.budget.count(MOMENTS) // len(scenarios) + 1
        calm = {name: found for name in scenarios if (found := self._calm(name)) is not None}
        if self.budget.scale < 1.0:
            cases = [case for name, found in calm.items() for case in self._some(name, found, n_moments)]
            self.budget.random("order").shuffle(cases)
            self.say(f"{len(cases)} cases to try")
            self.try_all(cases)
            return
        for name, found in calm.items():
            for way in WAYS.values():
                if way is not MOMENT:
                    self._try_every(name, way, found.count(way.kinds))
            self.try_all(self._moments(name, found, n_moments))

    def _some(self, scenario: str, calm: Outcome, n_moments: int) -> list[Case]:
        """The share of all numbers of all ways that the budget asks for, and moments."""
        numbers = [
            (way, at)
            for way in WAYS.values()
            if way is not MOMENT
            for at in range(1, calm.count(way.kinds) + 1)
        ]
        chance = self.budget.random(scenario)
        chosen = chance.sample(numbers, _share(chance, len(numbers) * self.budget.scale))
        return [*(Case(scenario, *each) for each in chosen), *self._moments(scenario, calm, n_moments)]

    def _try_every(self, scenario: str, way: Way, n_calls: int) -> None:
        """Number by number, until one is larger than the calls are. Each run has its own idea of how many."""
        first, last = 1, n_calls
        while True:
            outcomes = self.try_all([Case(scenario, way, at) for at in range(first, last + 1)])
            if any(outcome is not None and not outcome.n_faults for outcome in outcomes[-self.n_parallel :]):
                return
            first, last = last + 1, last + self.n_parallel

    def _moments(self, scenario: str, calm: Outcome, count: int) -> list[Case]:
        chance = self.budget.random(scenario, MOMENT.name)
        return [Case(scenario, MOMENT, int(chance.uniform(0, calm.length_s) * 1e6)) for _ in range(count)]

    def _calm(self, scenario: str) -> Outcome | None:
        """The calls of a run that nothing happens to; None if it does not go well even so."""
        slot = self.free.get()
        case = Case(scenario, CALM, 0)
        try:
            return try_case(slot, case)
        except AssertionError as exc:
            self.findings.add(str(case), exc)
            return None
        finally:
            self.free.put(slot)


def _share(chance: random.Random, wish: float) -> int:
    """``wish``, rounded up or down by chance, so that many small shares add up to what was wished."""
    return int(wish) + (chance.random() < wish % 1)


def possible() -> list[str]:
    """The scenarios whose programs are on this machine."""
    return [name for name, each in SCENARIOS.items() if all(map(shutil.which, each.needs))]


def run(budget: Budget) -> Mapping[str, object]:
    """Every scenario in every way, as far as the budget goes. Ctrl-C ends it early; what was done counts."""
    n = len(os.sched_getaffinity(0))
    findings = Findings(PART, budget)
    scenarios = possible()
    ended_early = False
    with slots(n) as free:
        work = Run(budget, findings, free, n)
        try:
            if budget.cases:
                work.try_all([Case.parse(case) for case in budget.cases])
            else:
                work.try_everything(scenarios)
        except KeyboardInterrupt:
            ended_early = True
    ways = {
        way: {"cases": n, "struck": work.struck[way], "tolerated": work.tolerated[way]}
        for way, n in sorted(work.cases.items())
    }
    figures = {"scenarios": scenarios, "cases": work.cases.total(), "ways": ways, **findings.figures()}
    return figures | ({"ended_early": True} if ended_early else {})
