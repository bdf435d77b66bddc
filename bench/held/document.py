"""What a section of the measurements came to: one JSON document each, and how two of them compare.

A *ratio* is the median over rounds of ours over another's in the same round, so that what the machine did
meanwhile is in both. Below 1 is less. Ratios are compared with those of an earlier document only where
machine and profile (images, versions of the others) are the same: else they say nothing about each other.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results import machine
from bench.where import BUILT, RESULTS
from tests.support import ccore

__all__ = [
    "REGRESSION",
    "Body",
    "Document",
    "Load",
    "Ratio",
    "Shift",
    "busy_s",
    "identity",
    "incomparable",
    "load",
    "own_s",
    "paired",
    "require_built",
    "shifts",
    "store",
    "stored_at",
]

SCHEMA = 1
REGRESSION = 0.03
# More than this share of the CPUs for other programs, and the figures are not those of this machine.
BUSY = 0.05


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of ours to another's: medians of the rounds' own ratios, and their quartiles. None: not of interest.

    ``goal_wall`` and ``goal_cpu`` are what is to be reached, if anything.
    """

    key: str
    rounds: int
    wall: float | None = None
    wall_quartiles: tuple[float, float] | None = None
    cpu: float | None = None
    cpu_quartiles: tuple[float, float] | None = None
    goal_wall: float | None = None
    goal_cpu: float | None = None


@dataclass(slots=True)
class Body:
    """What a section measured. ``profile``: what must be the same for ratios to be comparable, by name.

    ``rows`` are figures by name, one row for each thing that was measured; ``facts`` what other sections
    take from it.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    profile: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    """A body, and the circumstances. ``others``: the share of the CPUs that other programs had meanwhile.

    ``small``: of a tenth of the content, for trying this program out. ``product``: a hash of the sources.
    """

    section: str
    command: str
    date: str
    machine: dict[str, Any]
    product: str
    small: bool
    others: float
    body: Body

    @property
    def quiet(self) -> bool:
        """No other program took a share of the CPUs that matters."""
        return self.others <= BUSY

    @property
    def counts(self) -> bool:
        """Whether its figures are a measurement that may be shown."""
        return self.quiet and not self.small


@dataclass(frozen=True, slots=True)
class Shift:
    """A ratio beside that of an earlier document. ``what`` is ``"wall"`` or ``"cpu"``.

    ``clear``: the two medians lie outside of one another's quartiles.
    """

    key: str
    what: str
    before: float
    now: float
    clear: bool

    @property
    def change(self) -> float:
        """0.03: three in a hundred more than before."""
        return self.now / self.before - 1

    @property
    def is_regression(self) -> bool:
        return self.change >= REGRESSION


def paired(
    key: str,
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
    *,
    wall: bool = True,
    cpu: bool = True,
    goal_wall: float | None = None,
    goal_cpu: float | None = None,
) -> Ratio:
    """Of two sequences of rounds, each with ``wall_s`` and ``cpu_s``, in the same order."""
    found = Ratio(key, len(ours), goal_wall=goal_wall, goal_cpu=goal_cpu)
    if wall:
        middle, quartiles = _spread(_ratios(ours, theirs, "wall_s"))
        found = dataclasses.replace(found, wall=middle, wall_quartiles=quartiles)
    if cpu:
        middle, quartiles = _spread(_ratios(ours, theirs, "cpu_s"))
        found = dataclasses.replace(found, cpu=middle, cpu_quartiles=quartiles)
    return found


def _ratios(
    ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], what: str
) -> list[float]:
    return [mine[what] / other[what] for mine, other in zip(ours, theirs, strict=True)]


def _spread(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    if len(values) == 1:
        return round(values[0], 4), (round(values[0], 4), round(values[0], 4))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return round(statistics.median(values), 4), (round(low, 4), round(high, 4))


# -- circumstances ---------------------------------------------------------------------


def busy_s() -> float:
    """Of all CPUs since boot: all but idle and waiting for a disk, with what the host took (proc(5))."""
    user, nice, system, _, _, irq, softirq, steal = _cpu_ticks()
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks() -> list[int]:
    first, _, _ = Path("/proc/stat").read_text().partition("\n")
    return [int(field) for field in first.split()[1:9]]


def own_s() -> float:
    """CPU seconds of this process, and of its children that have ended and were waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Load:
    """How much of the CPUs' time others than this process and its children took, since it was made.

    Children count when they have ended and were waited for. The arguments are clocks, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = busy_s,
        own: Callable[[], float] = own_s,
    ) -> None:
        self._clock, self._busy, self._own = clock, busy, own
        self._began, self._busy_s, self._own_s = clock(), busy(), own()

    def others(self) -> float:
        """Their share, 0 to 1."""
        elapsed = self._clock() - self._began
        others = (self._busy() - self._busy_s) - (self._own() - self._own_s)
        return max(0.0, round(others / (elapsed * (os.cpu_count() or 1)), 3))


def identity() -> str:
    """A hash of the sources of the product in this checkout: what was measured."""
    whole = hashlib.sha256()
    for top, kinds in ((ccore.ROOT / "engine" / "layertee", (".py",)), (ccore.CSRC, (".c", ".h"))):
        for path in sorted(top.rglob("*")):
            if path.suffix in kinds:
                whole.update(os.fsencode(path.relative_to(ccore.ROOT)))
                whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:12]


def require_built(checkout: Path) -> None:
    """Raise ValueError unless the C core of a checkout is there and not older than its sources.

    Else the core in Python would be measured, or that of another version.
    """
    built = max((checkout / "engine" / "layertee" / "core").glob("_ctee*.so"), default=None)
    sources = [path for path in (checkout / "csrc").rglob("*") if path.suffix in (".c", ".h")]
    if built is None:
        raise ValueError(f"{checkout} has no C core; run there: .ci/setup run python3 .venv")
    newest = max(sources, key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > built.stat().st_mtime:
        name = newest.relative_to(checkout)
        raise ValueError(
            f"the C core of {checkout} is older than {name};"
            " run there: rm -f .venv/.layertee-* && .ci/setup run python3 .venv"
        )


# -- files -----------------------------------------------------------------------------


def stored_at(section: str, slug: str, *, kept: bool = True) -> Path:
    """The file of a section on a machine: among the results, or where what does not count is written."""
    return (RESULTS if kept else BUILT / "results") / "held" / slug / f"{section}.json"


@contextmanager
def writing(section: str, command: str, *, small: bool) -> Iterator[tuple[Body, list[Document]]]:
    """A body to fill; when it is left, a document of it is in the list."""
    body, made = Body(), list[Document]()
    load_of_others = Load()
    yield body, made
    made.append(
        Document(
            section=section,
            command=command,
            date=str(datetime.date.today()),
            machine=machine(),
            product=identity(),
            small=small,
            others=load_of_others.others(),
            body=body,
        )
    )


def store(document: Document, path: Path) -> None:
    """Write it; one that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = {"schema": SCHEMA, **dataclasses.asdict(document)}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_one_row_a_line(raw), encoding="utf-8")
    temporary.rename(path)


def _one_row_a_line(raw: Mapping[str, Any]) -> str:
    """A diff of two documents then shows which rows differ."""
    parts = []
    for key, value in raw.items():
        if key == "body":
            parts.append(f'"body": {_one_row_a_line(value).rstrip()}')
        elif isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            parts.append(f"{json.dumps(key)}: [\n  {lines}\n ]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def load(path: Path) -> Document:
    """Read one back. Raises ValueError if it is of another schema, OSError."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} is of another schema than {SCHEMA}")
    body = raw.pop("body")
    ratios = [_ratio(entry) for entry in body.pop("ratios")]
    return Document(body=Body(ratios=ratios, **body), **raw)


def _ratio(entry: Mapping[str, Any]) -> Ratio:
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Ratio(**{**entry, **lists})


# -- comparing ---------------------------------------------------------------------------


def incomparable(before: Document, now: Document) -> str | None:
    """Why ratios of the two say nothing about each other, or None where they do."""
    for name in ("slug", "cpu", "n_cpus"):
        if before.machine.get(name) != now.machine.get(name):
            return f"another machine: {before.machine.get(name)}, now {now.machine.get(name)}"
    if before.small != now.small:
        return "one is of a tenth of the content"
    old, new = before.body.profile, now.body.profile
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            return f"another {name}: {old.get(name, 'none')}, now {new.get(name, 'none')}"
    return None


def shifts(before: Document, now: Document) -> list[Shift]:
    """Of every ratio that both have, in the order of ``now``. Both must be comparable."""
    earlier = {ratio.key: ratio for ratio in before.body.ratios}
    return [
        shift
        for ratio in now.body.ratios
        if ratio.key in earlier
        for shift in _of_one(earlier[ratio.key], ratio)
    ]


def _of_one(before: Ratio, now: Ratio) -> Iterable[Shift]:
    for what in ("wall", "cpu"):
        old, new = getattr(before, what), getattr(now, what)
        if old is None or new is None:
            continue
        old_low, old_high = getattr(before, f"{what}_quartiles")
        new_low, new_high = getattr(now, f"{what}_quartiles")
        clear = not (old_low <= new <= old_high or new_low <= old <= new_high)
        yield Shift(now.key, what, old, new, clear)
