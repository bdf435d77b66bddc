"""The runs of one case: rounds in shuffled order, each command into a directory prepared for it, and checked.

The first round warms the caches and is not counted; what it wrote is hashed. Of every other run, exit code
and the sizes of all files are checked.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.contenders import Contender, Source, WrongResult, check
from bench.measure import CommandFailed, measure
from bench.regimes import Case, Server
from bench.results import Row
from tests.support.rig.images import BuiltImage

__all__ = ["Round", "require_space", "run_case", "space_needed"]


class Round:
    """What all runs of a case share: its server, its images, and a scratch directory."""

    def __init__(
        self, case: Case, server: Server, images: Mapping[tuple[str, str], BuiltImage], scratch: Path
    ) -> None:
        self.case = case
        self._server = server
        self._scratch = scratch
        self._target = scratch / "out"
        self.source = self._publish(images, case.pulled)
        self._before = self._publish(images, case.present) if case.present else None
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(scratch),
            "XDG_RUNTIME_DIR": str(scratch),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, contender: Contender, *, counted: bool, cpu: int | None = None) -> Row:
        """One run; ``cpu`` is what the client is bound to. Raises CommandFailed or WrongResult."""
        self._prepare(contender)
        command = self._command(contender, self.source, self._target, cpu)
        environment = self._environment | contender.environment(self.source)
        self._server.reset()
        spent = self._server.cpu_s()
        usage = measure(command, environment=environment)
        spent = self._server.cpu_s() - spent
        check(contender, self._target, self._left_behind(contender), hashed=not counted)
        return Row(
            regime=self.case.regime.name,
            shape=self.case.shape,
            compression=self.case.compression,
            dest=self.case.dest,
            n_cpus=len(os.sched_getaffinity(0)) if cpu is None else 1,
            peer=contender.peer,
            work=contender.work,
            wall_s=round(usage.wall_s, 4),
            user_s=round(usage.user_s, 4),
            sys_s=round(usage.sys_s, 4),
            server_cpu_s=round(spent, 2),
            rss_mib=round(usage.rss_mib, 1),
            wire_nbytes=self._server.layer_bytes(self.source.image),
        )

    def _publish(self, images: Mapping[tuple[str, str], BuiltImage], key: tuple[str, str]) -> Source:
        return self._server.publish(images[key], "-".join(key).replace(":", "-"))

    def _command(self, contender: Contender, source: Source, target: Path, cpu: int | None) -> list[str]:
        bound = ["taskset", "-c", str(cpu)] if cpu is not None else []
        return [*bound, *contender.command(source, target)]

    def _prepare(self, contender: Contender) -> None:
        """An empty place, or one with what this contender itself wrote of the image before."""
        shutil.rmtree(self._target, ignore_errors=True)
        if self._before and contender.resumes:
            seed = self._scratch / f"before-{contender.peer}-{contender.work}"
            if not seed.exists():
                environment = self._environment | contender.environment(self._before)
                measure(self._command(contender, self._before, seed, None), environment=environment)
            shutil.copytree(seed, self._target, copy_function=_link_blob)
        if self.case.dest == "disk":
            os.sync()  # or the next run waits for what the one before left to be written

    def _left_behind(self, contender: Contender) -> BuiltImage:
        """The image whose files must be there: layertee goes on using blobs that have the same content."""
        if self._before and self.case.regime.name == "recompressed" and contender.peer == "layertee":
            return self._before.image
        return self.source.image


def run_case(
    it: Round, field: Sequence[Contender], runs: int, cpu: int | None
) -> tuple[list[Row], list[str]]:
    """``runs`` counted rounds of all of ``field``; the rows, and who was left out and why.

    Raises CommandFailed or WrongResult if layertee fails; a peer that does is left out.
    """
    left = list(field)
    rows: list[Row] = []
    notes: list[str] = []
    for number in range(runs + 1):
        for contender in random.sample(left, len(left)):
            try:
                row = it.run(contender, counted=number > 0, cpu=cpu)
            except (CommandFailed, WrongResult) as error:
                if contender.peer == "layertee":
                    raise
                left.remove(contender)
                rows = [kept for kept in rows if (kept.peer, kept.work) != (contender.peer, contender.work)]
                where = f"{it.case.regime.name}, {it.case.shape}, {it.case.compression}"
                notes.append(f"{where}: {contender.peer}, {contender.work} left out: {error}")
                print(notes[-1], flush=True)
                continue
            if number:
                rows.append(row)
    return rows, notes


def space_needed(case: Case, image: BuiltImage, field: Sequence[Contender]) -> int:
    """Bytes that a case takes at its destination: one result, and what is kept of the image before."""
    sizes = [(sum(contender.expected(image).values()), contender.resumes) for contender in field]
    before = sum(size for size, resumes in sizes if resumes) if case.present else 0
    return max(size for size, _ in sizes) + before + (64 << 20)


def require_space(directory: Path, nbytes: int) -> None:
    """Raise OSError with a message for the user if ``nbytes`` are not free in ``directory``."""
    free = shutil.disk_usage(directory).free
    if free < nbytes:
        raise OSError(
            f"{directory} has {free >> 20:,} MiB free, {nbytes >> 20:,} MiB are needed; try --small"
        )


def _link_blob(source: str, target: str) -> None:
    """Blobs are never written to again by anyone; everything else is a file of its own."""
    if "/blobs/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
