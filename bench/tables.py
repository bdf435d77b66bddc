"""Results as ``python -m bench`` writes them, read back: typed, grouped, and in medians.

The JSON is one object, ``"schema": 1``. Times are seconds, memory is MiB, sizes are bytes. What was not
measured is absent; it is never zero.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = 1
RESULTS = Path(__file__).with_name("results")

WORKS = {
    "decompress": "uncompressed tars written",
    "as-is": "blobs kept, both digests verified",
    "blob-digest": "blobs kept, blob digest verified",
    "copy": "blobs copied, blob digest verified",
    "download": "downloaded, nothing verified",
}
PEERS = {
    "skopeo-latest": "skopeo, built from the source of its newest release",
    "imagecopy": "a small program over the newest containers/image library, which skopeo is a front for",
}
REGIMES = {
    "loopback": "a docker-registry over loopback",
    "nginx": "an nginx over loopback",
    "capped": "40 MB/s per connection",
    "tls": "over TLS",
    "update": "update: some layers are here",
    "recompressed": "recompressed at the registry, all content here",
    "one-core": "the client on one CPU, the server on the others",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One command, from spawn to exit. ``server_cpu_s`` is what the server spent on it meanwhile."""

    regime: str
    shape: str
    compression: str
    dest: str
    n_cpus: int
    peer: str
    work: str
    wall_s: float
    user_s: float
    sys_s: float
    server_cpu_s: float | None
    rss_mib: float | None
    wire_nbytes: int | None

    @property
    def cpu_s(self) -> float:
        """Of the client: user and system."""
        return self.user_s + self.sys_s


@dataclass(frozen=True, slots=True)
class Where:
    """What is the same for all that is compared in one table."""

    regime: str
    shape: str
    compression: str
    dest: str
    n_cpus: int

    @classmethod
    def of(cls, run: Run) -> Where:
        return cls(run.regime, run.shape, run.compression, run.dest, run.n_cpus)

    @property
    def image(self) -> str:
        """For a heading or a row."""
        return f"{self.shape}, {self.compression}"


@dataclass(frozen=True, slots=True)
class Results:
    """One file of results. ``floor``, ``size`` and ``startup`` are rows as they were written; ``notes`` say
    what a reader must know and the numbers don't tell.
    """

    date: str
    command: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    images: Sequence[Mapping[str, Any]]
    runs: Sequence[Run]
    floor: Sequence[Mapping[str, Any]]
    size: Sequence[Mapping[str, Any]]
    startup: Sequence[Mapping[str, Any]]
    regimes: Sequence[Mapping[str, str]]
    notes: Sequence[str]

    def tables(self) -> dict[Where, dict[tuple[str, str], list[Run]]]:
        """Runs by where and, there, by (peer, work); in a fixed order, the fastest first."""
        found: dict[Where, dict[tuple[str, str], list[Run]]] = {}
        for run in self.runs:
            found.setdefault(Where.of(run), {}).setdefault((run.peer, run.work), []).append(run)
        return {
            where: dict(
                sorted(found[where].items(), key=lambda item: (median_of(item[1], "wall_s"), item[0]))
            )
            for where in sorted(found, key=_rank)
        }

    def select(self, **fields: object) -> list[Run]:
        """The runs that have all these values."""
        return [run for run in self.runs if all(getattr(run, name) == it for name, it in fields.items())]


def load(path: Path) -> Results:
    """Read a file of results. Raises ValueError if it is of another schema, KeyError if a field is gone."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {raw.get('schema')!r} instead of {SCHEMA}")
    return Results(
        date=raw["date"],
        command=raw["command"],
        machine=raw["machine"],
        versions=raw.get("versions", {}),
        images=raw.get("images", []),
        runs=[_run(row) for row in raw.get("runs", [])],
        floor=raw.get("floor", []),
        size=raw.get("size", []),
        startup=raw.get("startup", []),
        regimes=raw.get("regimes", []),
        notes=raw.get("notes", []),
    )


def newest(directory: Path = RESULTS) -> Path:
    """The newest file of results, by its name, which begins with the date. Raises FileNotFoundError."""
    found = sorted(directory.glob("[0-9]*.json"))  # other kinds of results are beside them
    if not found:
        raise FileNotFoundError(f"no results in {directory}; run: python -m bench")
    return found[-1]


def median_of(runs: Iterable[Run], field: str) -> float | None:
    """The median of a field (a property counts) over the runs that have it."""
    return _over(statistics.median, runs, field)


def highest_of(runs: Iterable[Run], field: str) -> float | None:
    """The largest value of a field over the runs that have it."""
    return _over(max, runs, field)


def lowest_of(runs: Iterable[Run], field: str) -> float | None:
    """The smallest value of a field over the runs that have it."""
    return _over(min, runs, field)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """``ours / theirs``, or None where there is nothing to divide (by)."""
    return ours / theirs if ours is not None and theirs else None


def row_value(rows: Iterable[Mapping[str, Any]], field: str, **fields: object) -> float | None:
    """The median of ``field`` over the rows of a plain table that have all these values."""
    values = [row[field] for row in rows if all(row.get(name) == it for name, it in fields.items())]
    return statistics.median(values) if values else None


def _over(reduce: Callable[[list[float]], float], runs: Iterable[Run], field: str) -> float | None:
    values = [value for run in runs if (value := getattr(run, field)) is not None]
    return reduce(values) if values else None


def _run(row: Mapping[str, Any]) -> Run:
    optional = ("server_cpu_s", "rss_mib", "wire_nbytes")
    values: dict[str, Any] = {
        name: row.get(name) if name in optional else row[name] for name in Run.__slots__
    }
    return Run(**values)


def _rank(where: Where) -> tuple[int, str, str, str, str, int]:
    """In the order of ``REGIMES``, unknown ones last; tmpfs before disk."""
    order = list(REGIMES)
    regime = order.index(where.regime) if where.regime in order else len(order)
    return regime, where.regime, where.shape, where.compression, "01"[where.dest != "tmpfs"], where.n_cpus
