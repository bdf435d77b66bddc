"""Disks that are full, turn read-only, or are slow: a pull says so, or waits, and nothing finished is lost.

- *full*: room for so many bytes, from none to enough, on a tmpfs, ext4 and xfs, in both forms of layers, with
  the usual part kept free and with none. The pull completes, or ends with STORE_FULL, exit code 5, and names
  the place. Then ``verify`` is clean; with more room it is clean, too, and the next pull completes without
  fetching what was finished.
- *gone*: in the middle of a pull the file system turns read-only (as the kernel makes it when its journal
  fails) or answers every write with an error. The pull ends by itself, with one line that names the place.
  When the disk is back, the same holds.
- *slow*: a flush, or a write, that takes as long as one on a worn card or a busy array. No server is blamed,
  and none is asked again: neither ``--stall-timeout`` nor ``--min-rate`` counts the time in which the disk is
  waited for. ``--deadline`` bounds all of it; then what has arrived is kept.

    python -m tests.torture --only disks [--seed N] [--scale F] [--case CASE …]
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from tests.support.process import PLAIN, Cli, Ran, wait_until
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.rig.registry import NotInstalled
from tests.torture.evidence import Origin, Witness, blobs_are_true
from tests.torture.filesystems import (
    KINDS,
    UNAVAILABLE,
    Kind,
    Unavailable,
    build_cut,
    cut_power,
    inside,
    mounted,
    tmpfs,
)
from tests.torture.forks import ForkedCli, Forks
from tests.torture.results import Budget, Findings

__all__ = ["Case", "Machine", "Wrong", "run"]

NAME = "torture/disk:1"
FORMS = ("as-is", "uncompressed")
# Without blocks that only root may use: "no room" then is none for root, too.
DISKS = {
    "ext4": replace(KINDS["ext4"], make=(*KINDS["ext4"].make, "-m", "0")),
    "xfs": KINDS["xfs"],
}
RATE = 4_000_000  # bytes a second: the small image takes half a second
WIDE_RATE = 80_000_000
BIG = 72 << 20  # far more than all buffers of a pull
LATE_S = 90.0
PAGE, STEP = 4096, 64 << 10
BEGINNING = 96 << 10  # where a store is being made; and what it needs besides the layers
GONE = 60  # cases for each file system and way


class Wrong(AssertionError):
    """A promise was broken; the text says which."""


@dataclass(frozen=True, slots=True)
class Case:
    """One disk. ``what``: full, gone or slow; the rest is as it is written."""

    what: str
    disk: str
    form: str
    size: int = 0
    keep: str = ""
    way: str = ""
    after_s: float = 0.0
    ms: int = 0

    def __str__(self) -> str:
        match self.what:
            case "full":
                rest = f"keep={self.keep or 'usual'},size={self.size}"
            case "gone":
                rest = f"way={self.way},after={self.after_s:.4f}"
            case _:
                rest = f"way={self.way},ms={self.ms}"
        return f"{self.what},{self.disk},{self.form},{rest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """As ``str`` gives it. Raises ValueError."""
        what, disk, form, *rest = text.split(",")
        words = dict(word.split("=", 1) for word in rest)
        if what not in ("full", "gone", "slow") or disk not in ("tmpfs", *DISKS) or form not in FORMS:
            raise ValueError(f"no such case: {text}")
        found = cls(what, disk, form)
        for key, value in words.items():
            match key:
                case "size":
                    found = replace(found, size=int(value))
                case "keep":
                    found = replace(found, keep="" if value == "usual" else value)
                case "way":
                    found = replace(found, way=value)
                case "after":
                    found = replace(found, after_s=float(value))
                case "ms":
                    found = replace(found, ms=int(value))
                case _:
                    raise ValueError(f"not known: {key}={value}")
        return found


@dataclass(slots=True)
class Figures:
    """What was done, for people and for the record."""

    cases: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    finished_layers: int = 0
    longest_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For the record."""
        return {
            "cases": sum(self.cases.values()),
            "by_kind": dict(sorted(self.cases.items())),
            "exit_codes": dict(sorted(self.exits.items())),
            "messages": dict(self.said.most_common(20)),
            "layers_finished_before": self.finished_layers,
            "longest_case_s": round(self.longest_s, 2),
        }


class Machine:
    """Carries out cases. ``work`` is a directory outside of the disks. Runs ``inside``."""

    def __init__(self, work: Path, seed: int) -> None:
        self.figures = Figures()
        self.disks: dict[str, Kind] = {}
        self.left_out: dict[str, str] = {}
        self._work = work
        self._mount = work / "mnt"
        self._mount.mkdir()
        self._library = build_cut(work)
        first = 1 + seed % 1000
        small = [
            incompressible_layer(300_000, seed=first),
            text_layer({"usr/text": "a line\n" * 50_000}),
            incompressible_layer(1_300_000, seed=first + 1),
        ]
        self._small = build_image(work / "small", small, compression="gzip-fast")
        self._big = build_image(
            work / "big", [incompressible_layer(BIG, seed=first + 2), small[0]], compression="gzip-fast"
        )
        self._real, self._slow, self._wide = Origin(), Origin(RATE), Origin(WIDE_RATE)
        environment = Cli(work / "home").environment(LD_PRELOAD=str(self._library))
        self._forks = Forks(environment)

    def __enter__(self) -> Self:
        for name, kind in DISKS.items():
            try:
                kind.create(self._work / f"fresh-{name}")
                with mounted(kind, self._work / f"fresh-{name}", self._mount):
                    self.disks[name] = kind
            except Unavailable as exc:
                self.left_out[name] = str(exc)
        with tmpfs(self._mount, 1 << 20):
            pass
        with ExitStack() as stack:
            stack.enter_context(self._forks)
            for server, image in (
                (self._real, self._small),
                (self._slow, self._small),
                (self._wide, self._big),
            ):
                server.start()
                stack.callback(server.stop)
                server.serve(image, NAME)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, case: Case) -> None:
        """Raises Wrong."""
        began = time.monotonic()
        self._log.unlink(missing_ok=True)
        for server in (self._real, self._slow, self._wide):
            server.forget()
        try:
            play = {"full": self._full, "gone": self._gone, "slow": self._slow_disk}
            play[case.what](case)
        except AssertionError as exc:
            raise Wrong(str(exc)) from exc
        self.figures.cases[f"{case.what}/{case.disk}{'/' * bool(case.way)}{case.way}"] += 1
        self.figures.longest_s = max(self.figures.longest_s, time.monotonic() - began)

    def sizes(self, form: str) -> list[int]:
        """Of disks: from a page to more than enough, by pages where a page makes the difference."""
        layers = self._small.layers
        need = sum(layer.size if form == "as-is" else layer.uncompressed_size for layer in layers)
        near = range(need - 4 * PAGE, need + 2 * BEGINNING, PAGE)
        return [*range(PAGE, BEGINNING, PAGE), *range(BEGINNING, need, STEP), *near, 2 * need]

    # -- full ---------------------------------------------------------------------------

    def _full(self, case: Case) -> None:
        server = self._real
        words = ["--keep-free", case.keep] if case.keep else []
        with self._room(case) as make_room:
            cli = self._user()
            ran = self._pull(cli, server, case.form, *words)
            self.figures.exits[f"full: {ran.code}"] += 1
            if ran.code:
                self._is_full(ran)
            else:
                self._is_whole(cli, server, case.form)
            self._is_sound(cli, may_be_full=True)
            make_room()
            self._is_sound(cli)
            self._completes(cli, server, self._small, case.form)

    def _is_full(self, ran: Ran) -> None:
        """Exit code 5, and one line that names the place; and what is needed, if there are layers to come."""
        self._is_said(ran, 5, "STORE_FULL")
        is_known = re.search(r"needs [\d.]+ [KM]?i?B", ran.err)
        beside = r"(creating the directory|locking) |/document-|/\.?(index\.json|oci-layout)"
        assert is_known or re.search(beside, ran.err), ran.err

    @contextmanager
    def _room(self, case: Case) -> Iterator[Any]:
        """Room for ``case.size`` bytes; what is yielded makes it much."""
        if case.disk == "tmpfs":
            with tmpfs(self._mount, case.size):
                yield lambda: subprocess.run(
                    ["mount", "-o", "remount,size=64m", self._mount], check=True, capture_output=True
                )
            return
        with self._disk(case):
            ballast = self._mount / "ballast"
            _fill(ballast, case.size)
            yield ballast.unlink

    # -- gone ---------------------------------------------------------------------------

    def _gone(self, case: Case) -> None:
        server = self._slow
        kind = DISKS[case.disk]
        with self._disk(case):
            cli = self._user()
            process = self._start(cli, server, case.form)
            try:
                wait_until(lambda: server.was_asked() or process.poll() is not None, "no pull begins")
                time.sleep(case.after_s)
                witness = Witness.read(self._log)  # a flush that is under way then proves nothing: see freeze
                self._take_away(case.way)
                ran = cli.finish(process, None, late_s=LATE_S)
            finally:
                process.kill()
                process.wait()
            self.figures.exits[f"gone: {ran.code}"] += 1
            if ran.code and case.way == "filled":
                self._is_full(ran)
            elif ran.code:
                self._is_said(ran, 1, "STORE_IO")
            if case.way == "filled":
                (self._mount / "ballast").unlink()
        with mounted(kind, self._work / "disk", self._mount):
            if ran.code == 0:
                self._is_whole(cli, server, case.form)
            self._is_sound(cli)
            self._completes(cli, server, self._small, case.form, witness)

    def _take_away(self, way: str) -> None:
        """Fill the file system, make it read-only, or let every write fail, while files are being written."""
        if way == "error":
            cut_power(self._mount)
        elif way == "filled":
            _fill(self._mount / "ballast", 0)
        else:  # what ext4 does by itself when its journal cannot be written
            subprocess.run(["mount", "-o", "remount,abort", self._mount], check=False, capture_output=True)

    # -- slow ---------------------------------------------------------------------------

    def _slow_disk(self, case: Case) -> None:
        server, image = self._wide, self._big
        seconds = case.ms / 1000
        more = {"LT_CUT_SLOW": "/blobs/sha256" if case.way == "directory" else "/ingest/"}
        # One stream each: where a layer gets help, what was sent ahead on the stream that is cut counts, too.
        words = ["--ranges", "never", "--stall-timeout", f"{max(1, case.ms // 4000)}"]
        match case.way:
            case "write":
                more |= {"LT_CUT_WRITE_MS": str(case.ms), "LT_CUT_WRITES": "2"}
            case "rate":
                more |= {"LT_CUT_FLUSH_MS": str(case.ms)}
                words += ["--min-rate", "1M"]
            case "deadline":
                more |= {"LT_CUT_FLUSH_MS": str(case.ms)}
                words += ["--deadline", f"{max(1, case.ms // 2000)}s"]
            case _:
                more |= {"LT_CUT_FLUSH_MS": str(case.ms)}
        with tmpfs(self._mount, 4 * BIG):
            cli = self._user()
            began = time.monotonic()
            ran = self._pull(cli, server, case.form, *words, late_s=LATE_S + 20 * seconds, **more)
            taken = time.monotonic() - began
            self.figures.exits[f"slow: {ran.code}"] += 1
            if case.way == "deadline":
                self._is_said(ran, 4, "DEADLINE", where="")
            else:
                assert ran.code == 0, f"exit {ran.code}\n{ran.err}"
                assert taken > seconds, f"the disk was not slow: {taken:.1f} s"
                sent = server.sent()
                for layer in image.layers:
                    got = sent[layer.digest]
                    assert got == layer.size, f"{got} bytes were sent of a layer of {layer.size}"
                self._is_whole(cli, server, case.form)
            self._is_sound(cli)
            self._completes(cli, server, image, case.form)

    # -- what holds ---------------------------------------------------------------------

    def _is_said(self, ran: Ran, code: int, word: str, where: str | None = None) -> None:
        """The command ended with ``code``, and one line that ends in ``word`` and names the place."""
        where = str(self._mount) if where is None else where
        assert ran.code == code, f"exit {ran.code}, not {code}\n{ran.err}"
        lines = [line for line in ran.err.splitlines() if line.startswith("layertee: ")]
        errors = [line for line in lines if not line.startswith("layertee: warning:")]
        assert len(errors) == 1 and errors[0].endswith(f"[{word}]") and where in errors[0], ran.err
        self.figures.said[
            re.sub(r"[0-9a-f]{64}|[\d.]+ [KMG]iB", "#", errors[0]).replace(where or "?", "DISK")
        ] += 1

    def _is_sound(self, cli: Cli, *, may_be_full: bool = False) -> None:
        """Every blob is what it says, and ``verify`` finds nothing wrong, if there is a store."""
        blobs_are_true(cli)
        checked = cli.run("verify", "--json", code=None)
        if checked.code == 2:
            assert list(cli.store.glob("blobs/*/*")) == [], f"there are blobs, and no store\n{checked.err}"
        elif checked.code == 5 and may_be_full:
            self._is_said(checked, 5, "STORE_FULL")
        else:
            assert checked.code == 0, f"verify: {checked.code}\n{checked.out}\n{checked.err}"
            found = checked.json["ok"], checked.json["missing"]
            assert found == (True, []), f"verify: {found}"
            assert may_be_full or checked.err == "", f"verify: {checked.err}"

    def _is_whole(self, cli: Cli, server: Origin, form: str) -> None:
        """A pull said that all is there: the image has its name, and its layers are there."""
        index = json.loads((cli.store / "index.json").read_bytes())
        names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
        assert names == [f"{server.host}/{NAME}"], names
        image = self._big if server is self._wide else self._small
        for layer in image.layers:
            assert cli.blob(layer.digest if form == "as-is" else layer.diff_id).exists()

    def _completes(
        self, cli: Cli, server: Origin, image: BuiltImage, form: str, witness: Witness | None = None
    ) -> None:
        """The next pull completes, and fetches nothing that was finished; nothing is left over."""
        witness = witness or Witness.read(self._log)
        names = {(layer.digest if form == "as-is" else layer.diff_id): layer for layer in image.layers}
        finished = {layer.digest for name, layer in names.items() if name[7:] in witness.durable}
        self.figures.finished_layers += len(finished)
        server.forget()
        again = cli.pull("--layers", form, f"{server.host}/{NAME}")
        fetched = set(server.sent()) & finished
        assert not fetched, f"finished before, and fetched again: {sorted(fetched)}"
        assert "warning" not in again.err, again.err
        self._is_whole(cli, server, form)
        blobs_are_true(cli)
        cli.run("gc")
        assert cli.leftovers() == []

    # -- inside -------------------------------------------------------------------------

    @property
    def _log(self) -> Path:
        return self._work / "calls.log"

    def _user(self) -> Cli:
        cli = ForkedCli(self._work / "home", self._forks)
        cli.store = self._mount / "store"
        return cli

    @contextmanager
    def _disk(self, case: Case) -> Iterator[None]:
        image = self._work / "disk"
        subprocess.run(["cp", "--sparse=auto", self._work / f"fresh-{case.disk}", image], check=True)
        with mounted(DISKS[case.disk], image, self._mount):
            yield

    def _start(self, cli: Cli, server: Origin, form: str, *words: str, **more: str) -> subprocess.Popen[str]:
        more |= {"LD_PRELOAD": str(self._library), "LT_CUT_LOG": str(self._log)}
        more |= {"LT_CUT_MOUNT": str(self._mount)}
        words = (PLAIN, "--json", "--layers", form, *words, f"{server.host}/{NAME}")
        return cli.start("pull", *words, **more)

    def _pull(
        self, cli: Cli, server: Origin, form: str, *words: str, late_s: float = LATE_S, **more: str
    ) -> Ran:
        return cli.finish(self._start(cli, server, form, *words, **more), None, late_s=late_s)


def _fill(ballast: Path, leave: int) -> None:
    """Make the file ``ballast``, so large that ``leave`` bytes are free beside it, as far as that can be."""
    with ballast.open("xb") as file:
        found = os.statvfs(ballast.parent)
        fill = found.f_bavail * found.f_frsize - leave
        while fill > 0:
            try:
                os.posix_fallocate(file.fileno(), 0, fill)
                return
            except OSError as exc:  # somebody else was faster, or its own records take room
                if exc.errno != errno.ENOSPC:
                    raise
                fill -= 64 << 10


def cases(machine: Machine, budget: Budget) -> list[Case]:
    """Sizes from nothing to enough; moments of a pull; flushes and writes of some seconds."""
    chance = budget.random("disks")
    found: list[Case] = []
    for disk in ("tmpfs", *machine.disks):
        for form in FORMS:
            sizes = machine.sizes(form)
            for keep in ("", "0"):
                chosen = sorted(chance.sample(sizes, min(len(sizes), budget.count(len(sizes)))))
                found += [Case("full", disk, form, size=size, keep=keep) for size in chosen]
    for disk in machine.disks:
        for way in ("error", "read-only", "filled"):
            if way == "read-only" and DISKS[disk].type != "ext4":
                continue
            for at in range(budget.count(GONE)):
                after_s = chance.uniform(0.001, 0.6)
                found.append(Case("gone", disk, FORMS[at % 2], way=way, after_s=after_s))
    ms = 30_000 if budget.scale >= 1 else 2_500
    for way in ("flush", "write", "deadline", *(("directory", "rate") if budget.scale >= 1 else ())):
        for form in FORMS if budget.scale >= 1 else (chance.choice(FORMS),):
            found.append(Case("slow", "tmpfs", form, way=way, ms=70_000 if way == "rate" else ms))
    chance.shuffle(found)
    return found


def run(budget: Budget) -> Mapping[str, object]:
    """Disks that are full, go away, or are slow. Raises Unavailable."""
    words = ["--seed", str(budget.seed), "--scale", str(budget.scale), "--cases", *budget.cases]
    figures = dict(inside("tests.torture.disks", words))
    findings = Findings("disks", budget)
    for case, what in figures.pop("wrong"):
        findings.add(case, what)
    return {**figures, **findings.figures()}


def _run(budget: Budget, machine: Machine) -> dict[str, Any]:
    began = time.monotonic()
    wrong: list[tuple[str, str]] = []
    chosen = [Case.parse(text) for text in budget.cases] or cases(machine, budget)
    for n, case in enumerate(chosen, 1):
        try:
            machine.play(case)
        except Wrong as exc:
            wrong.append((str(case), str(exc)))
            sys.stderr.write(f"{case}: {exc}\n")
        if n % 100 == 0:
            taken = time.monotonic() - began
            sys.stderr.write(f"disks: {n} of {len(chosen)} after {taken:.0f} s, {len(wrong)} wrong\n")
    return {**machine.figures.to_json(), "left_out": machine.left_out, "wrong": wrong}


def main() -> int:
    """For ``inside``: progress on standard error, figures on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--cases", nargs="*", default=())
    given = parser.parse_args()
    budget = Budget(given.seed, given.scale, tuple(given.cases))
    try:
        with (
            TemporaryDirectory(prefix="layertee-disks-") as work,
            Machine(Path(work), budget.seed) as machine,
        ):
            sys.stdout.write(json.dumps(_run(budget, machine)))
    except NotInstalled as exc:
        sys.stdout.write(str(exc))
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
