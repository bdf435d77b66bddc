"""``--metrics-file``: how a command went, for Prometheus: a file for node_exporter's textfile collector.

One file is of one command: several commands, or timers, have a file each. The labels ``command`` and
``image`` keep their rows apart. The names are documented in docs/reference/metrics.md, and are kept.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ..errors import InvalidReference
from .exits import EXIT_OK
from .output import clean
from .targets import stores_of
from .textfile import see_that_it_can_be_written, write_whole

SUFFIX = ".prom"
LAST_SUCCESS = "layertee_last_success_timestamp_seconds"
_COMMON = ("command", "image")
# Keys of results, and the metrics that they are.
_AMOUNTS = {
    "bytes_fetched": ("layertee_last_run_fetched_bytes", "Bytes that came over the network."),
    "bytes_reused": ("layertee_last_run_reused_bytes", "Bytes of blobs that did not have to come."),
    "bytes_to_download": (
        "layertee_last_run_left_to_download_bytes",
        "Bytes that the upgrade itself will download.",
    ),
    "blobs": ("layertee_last_run_verified_blobs", "Blobs that were hashed."),
    "bytes": ("layertee_last_run_verified_bytes", "Bytes that were hashed."),
    "bad": ("layertee_last_run_bad_blobs", "Blobs that were not what their names say."),
    "missing": ("layertee_last_run_missing_blobs", "Blobs that images need and the store lacks."),
}


class MetricsFile:
    """The file of the command of ``args``, begun now.

    Raises InvalidReference for a name that node_exporter passes over, LocalError where it cannot be written.
    """

    def __init__(self, path: Path, args: argparse.Namespace) -> None:
        if not path.name.endswith(SUFFIX):
            raise InvalidReference(f"--metrics-file {path}: node_exporter reads files that end in {SUFFIX}")
        self._stores = stores_of(args)
        see_that_it_can_be_written(path, self._stores)
        self._path = path
        self._command: str = args.command
        given = getattr(args, "images", None) or [getattr(args, "image", None) or ""]
        self._images: Sequence[str] = [""] if self._command == "verify" else list(dict.fromkeys(given))
        self._began = time.monotonic()

    @classmethod
    def of_none_begun(cls, path: Path, command: str) -> Self:
        """For a ``command`` that did not begin, so that its images are not known: they are those of the file
        as it is. Raises as the constructor.
        """
        file = cls(path, argparse.Namespace(command=command))
        known = [image for of, image in file._known("layertee_last_run_exit_code") if of == command]
        file._images = known or [""]
        return file

    def write(
        self, exit_code: int, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None
    ) -> None:
        """How it ended: with the object of ``--json``, or that of an error. Raises LocalError."""
        rows = result.get("images") if result is not None else None
        if rows is None:
            rows = [{**(result or {}), "error": error}] * len(self._images)
            runs = [
                Run((self._command, clean(image)), row, exit_code)
                for image, row in zip(self._images, rows, strict=True)
            ]
        else:  # of several images each has an end of its own
            runs = [Run((self._command, clean(row["image"])), row, _code_of(row)) for row in rows]
        runs = list({run.labels: run for run in runs}.values())  # a file has each series once
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Runs(runs, time.time(), time.monotonic() - self._began, self._successes()))
        write_whole(self._path, generate_latest(registry), self._stores)

    def _successes(self) -> dict[tuple[str, str], float]:
        """When each command and image last succeeded, as the file has it that is to be replaced."""
        return self._known(LAST_SUCCESS)

    def _known(self, name: str) -> dict[tuple[str, str], float]:
        """A metric by command and image, as the file has it that is to be replaced."""
        found = {}
        try:
            for family in text_string_to_metric_families(self._path.read_text(encoding="utf-8")):
                for sample in family.samples:
                    if sample.name == name:
                        found[sample.labels["command"], sample.labels["image"]] = float(sample.value)
        except (OSError, ValueError, KeyError):  # none yet, or of another program
            return {}
        return found


class Run:
    """How the command went for what ``labels`` name: its ``row`` of the result, and its exit code."""

    def __init__(self, labels: tuple[str, str], row: Mapping[str, Any], exit_code: int) -> None:
        self.labels = labels
        self.row = row
        self.exit_code = exit_code

    @property
    def error(self) -> str | None:
        """The code of what it failed with."""
        error = self.row.get("error")
        return str(error["code"]) if error else None


class Runs(Collector):
    """The metrics of ``runs``, which ended at ``ended`` after ``seconds``."""

    def __init__(
        self,
        runs: Sequence[Run],
        ended: float,
        seconds: float,
        successes: Mapping[tuple[str, str], float],
    ) -> None:
        self._runs = runs
        self._ended = ended
        self._seconds = seconds
        self._successes = successes

    def collect(self) -> Iterator[Metric]:
        """For the registry. A metric without a value is left out."""
        runs, ended = self._runs, self._ended
        yield _gauge(
            "layertee_last_run_timestamp_seconds",
            "When it last ended.",
            [(run.labels, ended) for run in runs],
        )
        yield _gauge(
            "layertee_last_run_duration_seconds",
            "How long it took, for all images together.",
            [(run.labels, self._seconds) for run in runs],
        )
        yield _gauge(
            "layertee_last_run_exit_code",
            "What it ended with.",
            [(run.labels, run.exit_code) for run in runs],
        )
        done = {run.labels: ended for run in runs if run.exit_code == EXIT_OK}
        known = {run.labels: self._successes.get(run.labels) for run in runs} | done
        times = [(labels, at) for labels, at in known.items() if at is not None]
        if times:
            yield _gauge(LAST_SUCCESS, "When it last succeeded; kept while it fails.", times)
        failed = [((*run.labels, run.error), 1.0) for run in runs if run.error is not None]
        if failed:
            yield _gauge("layertee_last_run_error", "The code of what it failed with.", failed, "code")
        for key, (name, text) in _AMOUNTS.items():
            amounts = [(run.labels, _amount(run.row[key])) for run in runs if key in run.row]
            if amounts:
                yield _gauge(name, text, amounts)
        layers = [
            ((*run.labels, action), float(number))
            for run in runs
            for action, number in _actions(run.row).items()
        ]
        if layers:
            yield _gauge("layertee_last_run_layers", "Layers, by what became of them.", layers, "action")


def _gauge(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], *more: str
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(*_COMMON, *more))
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _amount(value: Any) -> float:
    return float(len(value) if isinstance(value, list) else value)


def _actions(row: Mapping[str, Any]) -> Mapping[str, int]:
    """How many layers there are of each action, or step of ``prepare``."""
    return Counter(layer.get("action") or layer["step"] for layer in row.get("layers", ()))


def _code_of(row: Mapping[str, Any]) -> int:
    error = row.get("error")
    return int(error["exit_code"]) if error else EXIT_OK
