"""Plots out of results, as SVG: ``python -m bench.plots [JSON]`` (needs matplotlib: the extra ``bench``).

Beside the JSON: every comparison of targets.py; wall time and CPU of every client, one file per regime; CPU
against the floor; memory over layer size. Colours are those of Okabe and Ito, which people who see colours
differently can tell apart, and no plot says anything by colour alone. The same JSON and the same matplotlib
give the same bytes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.tables import (
    REGIMES,
    Results,
    Run,
    Where,
    highest_of,
    load,
    lowest_of,
    median_of,
    newest,
    row_value,
)
from bench.targets import COMPARISONS, OURS, RSS_MIB, Comparison, efficiency, figures

OURS_COLOR, THEIRS_COLOR, LIMIT_COLOR = "#0072B2", "#B5B5B5", "#D55E00"
TEXT_COLOR = "#333333"
# In the order of the stack. Blue stays ours.
KERNELS = (
    ("inflate_s", "inflate", "#009E73"),
    ("hash2_s", "SHA-256, two lanes", "#56B4E9"),
    ("write_out_s", "write", "#E69F00"),
    ("receive_s", "receive", "#333333"),
)
# Smaller and smaller marks, since these lines hardly differ.
LINES = (("#0072B2", "o", 9), ("#E69F00", "s", 7), ("#009E73", "^", 5), ("#CC79A7", "D", 3))
WORKS = {
    "decompress": "tars written",
    "as-is": "blobs kept, both digests",
    "blob-digest": "blobs kept, blob digest",
    "copy": "blobs kept, blob digest",
    "download": "unverified",
}
STYLE: dict[str, Any] = {
    "svg.hashsalt": "layertee",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": TEXT_COLOR,
    "axes.labelcolor": TEXT_COLOR,
    "axes.edgecolor": "#999999",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
}


def draw(results: Results, json_path: Path) -> list[Path]:
    """Write every plot that there are data for; return the files. Raises ImportError without matplotlib."""
    # By name, since the types are checked also where it is not installed.
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")

    makers: dict[str, Callable[[Any, Results], Any]] = {
        "overview": _overview,
        "floor": _floor,
        "rss": _rss,
    }
    written = []
    for name in figures(results):
        with matplotlib.rc_context(STYLE):
            figure = makers[name](pyplot, results) if name in makers else _regime(pyplot, results, name)
            path = json_path.with_name(f"{json_path.stem}-{name}.svg")
            figure.savefig(
                path, metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.15
            )
            pyplot.close(figure)
        written.append(path)
    return written


# -- clients -------------------------------------------------------------------------


def _regime(pyplot: Any, results: Results, regime: str) -> Any:
    """Two columns, wall time and CPU; a row for each image and destination."""
    found = {where: runs for where, runs in results.tables().items() if where.regime == regime}
    heights = [len(runs) for runs in found.values()]
    figure, grid = pyplot.subplots(
        len(found),
        2,
        figsize=(9.5, sum(0.24 * height + 0.75 for height in heights) + 0.5),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for (where, runs), axes in zip(found.items(), grid, strict=True):
        _bars(axes[0], runs, "wall_s", f"{_title(where)}: wall time, s")
        _bars(axes[1], runs, "cpu_s", "CPU time of the client, s")
        axes[1].set_yticklabels([])
    what = REGIMES.get(regime, regime)
    figure.suptitle(what[0].upper() + what[1:], x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _title(where: Where) -> str:
    return f"{where.image}, to {where.dest}"


def _bars(axes: Any, found: dict[tuple[str, str], list[Run]], field: str, title: str) -> None:
    names = list(found)
    ends = [
        _bar(axes, place, 0.72, found[name], field, OURS_COLOR if name[0] == OURS else THEIRS_COLOR)
        for place, name in enumerate(names)
    ]
    _scale(axes, [f"{peer}, {WORKS.get(work, work)}" for peer, work in names], max(ends), title)
    for label, (peer, _) in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if peer == OURS else "normal")


def _bar(axes: Any, place: float, height: float, runs: list[Run], field: str, color: str) -> float:
    """The median, as a bar and in figures, with a whisker from the lowest to the highest run; its end."""
    low, middle, high = (of(runs, field) or 0.0 for of in (lowest_of, median_of, highest_of))
    axes.barh(
        place,
        middle,
        height=height,
        color=color,
        xerr=[[middle - low], [high - middle]] if low < high else None,
        error_kw={"ecolor": TEXT_COLOR, "elinewidth": 0.9, "capsize": 2},
    )
    _figure(axes, high, place, f"{middle:.2f}")
    return high


def _figure(axes: Any, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)


def _scale(axes: Any, labels: Sequence[str], end: float, title: str) -> None:
    """Labelled rows from top to bottom, and from zero to a little more than ``end``."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, end * 1.14)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_title(title)


# -- ours beside a peer's ------------------------------------------------------------


def _overview(pyplot: Any, results: Results) -> Any:
    """Every comparison that there are runs for, as a pair of bars: ours, and skopeo's or its library's."""
    found = [(it, *it.runs(results)) for it in COMPARISONS]
    pairs = [(it, ours, theirs) for it, ours, theirs in found if ours and theirs]
    peers = " or ".join(dict.fromkeys(theirs[0].peer for _, _, theirs in pairs))
    figure, grid = pyplot.subplots(1, 2, figsize=(9.5, 0.5 * len(pairs) + 1.0), layout="constrained")
    for axes, field, title in zip(grid, ("wall_s", "cpu_s"), ("Wall time, s", "CPU time, s"), strict=True):
        ends = [
            _bar(axes, place + shift, 0.36, runs, field, color)
            for place, (_, ours, theirs) in enumerate(pairs)
            for runs, shift, color in ((ours, -0.2, OURS_COLOR), (theirs, 0.2, THEIRS_COLOR))
        ]
        _scale(axes, [_label(it) for it, _, _ in pairs], max(ends), title)
    grid[1].set_yticklabels([])
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=color) for color in (OURS_COLOR, THEIRS_COLOR)]
    figure.legend(handles, [OURS, peers], loc="outside lower left", ncols=2)
    return figure


def _label(it: Comparison) -> str:
    regime = {"loopback": "", "capped": "40 MB/s a connection, ", "tls": "TLS, "}[it.regime]
    other = "" if it.work != "as-is" else " (peer: tars)"
    return f"{it.image}\n{regime}{WORKS[it.work]}{other}"


# -- floor ---------------------------------------------------------------------------


def _floor(pyplot: Any, results: Results) -> Any:
    """For each image the kernels, stacked, and below them what a pull took."""
    rows = [row for row in results.floor if row["dest"] == "tmpfs"] or list(results.floor)
    figure, axes = pyplot.subplots(figsize=(9.5, 0.95 * len(rows) + 1.1), layout="constrained")
    labels, places, right = [], [], 0.0
    for number, row in enumerate(rows):
        place, left = number * 2.6, 0.0
        for name, text, color in KERNELS:
            axes.barh(
                place, row[name], left=left, height=0.9, color=color, label=text if number == 0 else None
            )
            left += row[name]
        labels.append(f"{row['shape']}, {row['compression']}: floor")
        places.append(place)
        _figure(axes, left, place, f"{left:.2f}")
        floor, ours = efficiency(results, str(row["shape"]), str(row["compression"]))
        if floor is not None and ours is not None and row["dest"] == "tmpfs":
            axes.barh(place + 1, ours, height=0.9, color=OURS_COLOR)
            _figure(axes, ours, place + 1, f"{ours:.2f}: the floor is {floor / ours:.0%} of it")
            labels.append("layertee")
            places.append(place + 1)
            left = max(left, ours)
        right = max(right, left)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlim(0, right * 1.25)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_title("CPU time, s, of the kernels alone and of whole pulls (uncompressed tars written)", pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=len(KERNELS), borderaxespad=0.2)
    return figure


# -- memory --------------------------------------------------------------------------


def _rss(pyplot: Any, results: Results) -> Any:
    """A line for each compression and form, from zero, with the limit that we set ourselves."""
    figure, axes = pyplot.subplots(figsize=(9.5, 3.4), layout="constrained")
    sizes = sorted({int(row["layer_mib"]) for row in results.size})
    kinds = sorted({(str(row["compression"]), str(row["form"])) for row in results.size})
    highest = float(RSS_MIB)
    for number, (compression, form) in enumerate(kinds):
        color, marker, width = LINES[number % len(LINES)]
        points = [
            (size, value)
            for size in sizes
            if (
                value := row_value(
                    results.size, "rss_mib", layer_mib=size, compression=compression, form=form
                )
            )
            is not None
        ]
        highest = max([highest, *(value for _, value in points)])
        axes.plot(
            *zip(*points, strict=True),
            color=color,
            marker=marker,
            markersize=width,
            label=f"{compression}, {form}",
        )
    axes.axhline(RSS_MIB, color=LIMIT_COLOR, linewidth=1)
    axes.annotate(
        f"{RSS_MIB} MiB: the goal",
        (sizes[0], RSS_MIB),
        xytext=(0, 4),
        textcoords="offset points",
        color=LIMIT_COLOR,
        fontsize=8,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size} MiB" if size < 1024 else f"{size / 1024:g} GiB" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, highest * 1.2)
    axes.set_xlabel("uncompressed size of the layer")
    axes.grid(axis="y")
    axes.set_title("Peak memory (RSS) of a pull, MiB")
    axes.legend(loc="lower right")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; 1, with a reason, if that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", help="results (default: the newest in bench/results)")
    args = parser.parse_args(argv)
    try:
        path: Path = args.json or newest()
        for written in draw(load(path), path):
            print(f"wrote {written}")
    except (ImportError, OSError, ValueError) as exc:
        print(f"bench.plots: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
