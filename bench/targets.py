"""The figures this project sets itself, as data, and what became of them.

A ratio is of medians: ours over a peer's in the same regime, on the same image, to the same kind of
destination; below one is less. The peer is skopeo at its newest: built from its newest source, or else a
small program over the newest library that it is a front for, or else what is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.tables import REGIMES, Results, Run, highest_of, median_of, ratio, row_value

OURS = "layertee"
NEWEST = ("skopeo-latest", "imagecopy", "skopeo")
RSS_MIB = 128
# The pool is still filling while a smaller layer is already at its end.
FLAT_FROM_MIB = 256
FLAT = 1.1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against a peer's on one image. ``wall`` and ``cpu`` are the ratios to reach, if any."""

    what: str
    regime: str
    shape: str
    compression: str
    work: str
    peer_work: str
    wall: float | None
    cpu: float | None
    dest: str = "tmpfs"

    @property
    def image(self) -> str:
        """For a row of a table."""
        return f"{self.shape}, {self.compression}"

    def runs(self, results: Results) -> tuple[list[Run], list[Run]]:
        """Our runs and the peer's, either of which may be none."""
        place = {name: getattr(self, name) for name in ("regime", "shape", "compression", "dest")}
        ours = results.select(peer=OURS, work=self.work, **place)
        for peer in NEWEST:
            if theirs := results.select(peer=peer, work=self.peer_work, **place):
                return ours, theirs
        return ours, []

    def peer(self, theirs: list[Run]) -> str:
        """Who the other side is and what it did, for a cell."""
        return f"{theirs[0].peer}, {'plain copy' if self.peer_work == 'copy' else 'tars written'}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One goal. ``value`` is None where it was not measured; ``text`` has the figures behind it."""

    goal: str
    want: str
    value: float | None
    reached: bool | None
    text: str = ""
    unit: str = ""

    @property
    def verdict(self) -> str:
        """``"reached"``, ``"not reached"`` or ``"not measured"``."""
        if self.reached is None:
            return "not measured"
        return "reached" if self.reached else "not reached"


def _comparisons() -> Iterator[Comparison]:
    tars = "uncompressed tars, both digests verified"
    kept = "blobs kept, both digests verified"
    blob = "blobs kept, blob digest only"
    for shape, compression, wall, cpu in (
        ("chunked", "gzip", 1 / 2.4, 1 / 2.5),
        ("big", "gzip", 1 / 2.8, 1 / 2.5),
        ("chunked", "zstd", 1 / 1.85, 1 / 1.8),
        ("big", "zstd", 1 / 1.85, 1 / 1.8),
    ):
        yield Comparison(tars, "loopback", shape, compression, "decompress", "decompress", wall, cpu)
    for shape in ("chunked", "big"):
        yield Comparison(kept, "loopback", shape, "gzip", "as-is", "decompress", 1 / 2.8, 1 / 2.9)
    for compression in ("gzip", "zstd"):
        for shape in ("chunked", "big"):
            yield Comparison(blob, "loopback", shape, compression, "blob-digest", "copy", 0.95, 0.9)
    capped = f"40 MB/s per connection: {tars}"
    yield Comparison(capped, "capped", "big", "gzip", "decompress", "decompress", 1 / 3.3, None)
    for shape in ("chunked", "big"):
        tls = f"over TLS: {tars}"
        yield Comparison(tls, "tls", shape, "gzip", "decompress", "decompress", 1 / 2.3, 1 / 2.4)


COMPARISONS = tuple(_comparisons())
# CPU of the floor over ours: 1 would be the floor itself.
EFFICIENCIES = tuple(
    (shape, compression, want)
    for compression, want in (("gzip", 0.92), ("zstd", 0.85))
    for shape in ("chunked", "big")
)


def outcomes(results: Results) -> list[Outcome]:
    """Every goal, in a fixed order, with what was measured."""
    found = [outcome for comparison in COMPARISONS for outcome in _compare(results, comparison)]
    found += _recompressed(results)
    found += [_efficiency(results, *goal) for goal in EFFICIENCIES]
    found += [_peak(results), _flatness(results), _startup(results)]
    return found


def figures(results: Results) -> dict[str, str]:
    """The plots that there are data for: name, as in ``<results>-<name>.svg``, and caption."""
    found: dict[str, str] = {}
    if any(all(comparison.runs(results)) for comparison in COMPARISONS):
        found["overview"] = "layertee beside its peer: wall time and CPU"
    for where in results.tables():
        found.setdefault(where.regime, f"{REGIMES.get(where.regime, where.regime)}: time per client")
    if results.floor:
        found["floor"] = "CPU of the kernels alone, and of layertee"
    if results.size:
        found["rss"] = "peak memory over layer size"
    return found


def efficiency(results: Results, shape: str, compression: str) -> tuple[float | None, float | None]:
    """CPU seconds of the floor and of our own pull, to tmpfs, uncompressed."""
    place = {"shape": shape, "compression": compression, "dest": "tmpfs"}
    ours = results.select(regime="loopback", peer=OURS, work="decompress", **place)
    return row_value(results.floor, "floor_decompress_s", **place), median_of(ours, "cpu_s")


def flatness(results: Results) -> float | None:
    """How much the peak RSS grows from ``FLAT_FROM_MIB`` to the largest layer, at its worst: a factor."""
    growths = []
    for compression, form in sorted({(row["compression"], row["form"]) for row in results.size}):
        rows = [row for row in results.size if (row["compression"], row["form"]) == (compression, form)]
        sizes = sorted(row["layer_mib"] for row in rows if row["layer_mib"] >= FLAT_FROM_MIB)
        if len(set(sizes)) > 1:
            small, large = (row_value(rows, "rss_mib", layer_mib=size) for size in (sizes[0], sizes[-1]))
            growths.append(ratio(large, small))
    return max((growth for growth in growths if growth is not None), default=None)


def _at_most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


def _outcome(
    goal: str, want: str, value: float | None, holds: Callable[[float], bool], text: str = "", unit: str = ""
) -> Outcome:
    return Outcome(goal, want, value, None if value is None else holds(value), text, unit)


def _compare(results: Results, comparison: Comparison) -> Iterator[Outcome]:
    ours, theirs = comparison.runs(results)
    for name, field, limit in (("wall", "wall_s", comparison.wall), ("CPU", "cpu_s", comparison.cpu)):
        if limit is None:
            continue
        mine, other = median_of(ours, field), median_of(theirs, field)
        value = ratio(mine, other)
        text = "" if value is None else f"{mine:.2f} s against {other:.2f} s of {comparison.peer(theirs)}"
        goal = f"{comparison.image}: {comparison.what}: {name}"
        yield _outcome(goal, f"≤ {limit:.3f}", value, _at_most(limit), text)


def _recompressed(results: Results) -> Iterator[Outcome]:
    """The slowest of our ways to keep it, and the worst of all runs."""
    goal = "image recompressed at the registry, all content present"
    groups = [found for where, found in results.tables().items() if where.regime == "recompressed"]
    ours = [runs for found in groups for (peer, _), runs in found.items() if peer == OURS]
    slowest = max((median_of(runs, "wall_s") or 0.0 for runs in ours), default=None)
    yield _outcome(f"{goal}: wall", "< 0.5 s", slowest, lambda wall: wall < 0.5, unit="s")
    wire = highest_of((run for runs in ours for run in runs), "wire_nbytes")
    yield _outcome(f"{goal}: layer bytes", "0", wire, lambda nbytes: nbytes == 0, unit="B")


def _efficiency(results: Results, shape: str, compression: str, want: float) -> Outcome:
    floor, ours = efficiency(results, shape, compression)
    value = ratio(floor, ours)
    text = "" if value is None else f"{floor:.2f} s of {ours:.2f} s"
    return _outcome(
        f"{shape}, {compression}: CPU of the floor over ours",
        f"≥ {want:.2f}",
        value,
        lambda it: it >= want,
        text,
    )


def _peak(results: Results) -> Outcome:
    peaks = [run.rss_mib for run in results.select(peer=OURS) if run.rss_mib is not None]
    peaks += [row["rss_mib"] for row in results.size]
    value = max(peaks, default=None)
    return _outcome("peak RSS of any pull", f"≤ {RSS_MIB} MiB", value, _at_most(RSS_MIB), unit="MiB")


def _flatness(results: Results) -> Outcome:
    largest = max((row["layer_mib"] for row in results.size), default=0)
    goal = f"peak RSS, largest layer over one of {FLAT_FROM_MIB} MiB"
    text = f"up to {largest:,} MiB" if largest else ""
    return _outcome(goal, f"≤ {FLAT}", flatness(results), _at_most(FLAT), text)


def _startup(results: Results) -> Outcome:
    wall = row_value(results.startup, "wall_s", command="layertee --version")
    value = None if wall is None else wall * 1000
    return _outcome("layertee --version", "≤ 100 ms", value, _at_most(100), unit="ms")
