"""Power cuts: a pull loses its disk, and its process, at every moment, and nothing that was finished is lost.

One case is: a store on a file system in a file; a command; a moment. At that moment the file system is shut
down without flushing anything (the ioctl that its own developers test crashes with) and the process is
killed. Mounted again, the journal is replayed, and then:

1. every blob has the bytes that its name says; ``layertee verify`` finds nothing wrong, and warns of nothing;
2. an image that was whole before is named and whole;
3. what the command reported as finished had been flushed to the disk by then;
4. the next pull completes, and asks the registry for nothing that was finished.

Moments are the calls that change the file system, one after the other (``cut.c`` counts them), or random
points of time. Another program on the same disk may flush the journal in between, which brings names to the
disk, but not the contents that they are of.

What is on the loop device counts as on the disk: a disk that forgets what it has acknowledged is not played.

    python -m tests.torture --only cuts [--seed N] [--scale F] [--case CASE …]
"""

from __future__ import annotations

import argparse
import json
import random
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
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer
from tests.support.rig.registry import NotInstalled
from tests.torture.evidence import Origin, Witness, blobs_are_true
from tests.torture.filesystems import (
    KINDS,
    UNAVAILABLE,
    Kind,
    Unavailable,
    build_cut,
    cut_power,
    freeze,
    inside,
    mounted,
)
from tests.torture.forks import ForkedCli, Forks
from tests.torture.results import Budget, Findings

__all__ = ["Case", "Machine", "Wrong", "run"]

NAME = "torture/os:stable"
OTHER = "torture/other:1"
RATE = 4_000_000  # bytes per second and connection, where the moment is a time: a pull takes half a second
DISKS = {"big": 1 << 30, "huge": 4 << 30}  # what is to inflate to an unknown size needs room for much
BIG_RATE = 50_000_000
MOMENTS = 80  # random points of time, for each file system
BIG_MOMENTS = 40
HUGE_MOMENTS = 10
AGAIN_AFTER_CUT, AGAIN_AFTER_KILL = 64 << 20, 16 << 20  # bytes of a layer that has begun to arrive
ENOUGH = 5  # cuts that notice what is wrong with a control
REF_NAME = "org.opencontainers.image.ref.name"
ORIGINAL = "dev.layertee.original-manifest"


class Wrong(AssertionError):
    """A promise was broken; the text says which."""


@dataclass(frozen=True, slots=True)
class Story:
    """What the store has before (images by name), and the command that loses its power."""

    name: str
    form: str = "as-is"
    before: Mapping[str, str] = field(default_factory=dict)
    wanted: str = "new"
    under: str = NAME
    command: str = "pull"
    forgotten: tuple[str, ...] = ()

    @property
    def whole(self) -> dict[str, str]:
        """Images that were whole before, and must be afterwards, unless the command replaces them."""
        return {name: image for name, image in self.before.items() if name not in self.forgotten}


STORIES = {
    story.name: story
    for story in (
        Story("as-is"),
        Story("tars", "uncompressed"),
        Story("update", before={NAME: "old"}),
        Story("update-tars", "uncompressed", before={NAME: "old", OTHER: "other"}),
        Story("gc", before={NAME: "old", OTHER: "other"}, wanted="old", command="gc", forgotten=(OTHER,)),
        Story("big", wanted="big"),
        Story("big-tars", "uncompressed", wanted="big"),
        Story("huge", wanted="huge"),
        Story("huge-tars", "uncompressed", wanted="huge"),
    )
}
BIG = ("big", "big-tars")
HUGE = ("huge", "huge-tars")
SMALL = ("as-is", "tars", "update", "update-tars", "gc")


@dataclass(frozen=True, slots=True)
class Case:
    """One cut: after the call number ``call``, or ``after_s`` seconds after the pull was heard of.

    ``killed``: the process alone ends then, and the disk keeps what was written, flushed or not.
    ``sync_at`` and ``sync``: after which call another program flushes what. ``lie``: see cut.c; for controls.
    """

    kind: str
    story: str
    call: int = 0
    after_s: float = 0.0
    killed: bool = False
    sync_at: int = 0
    sync: str = "journal"
    lie: str = ""

    def __str__(self) -> str:
        moment = f"call={self.call}" if self.call else f"{self._word}={self.after_s:.4f}"
        neighbour = f",{self.sync}={self.sync_at}" if self.sync_at else ""
        lie = f",lie={self.lie}" if self.lie else ""
        return f"{self.kind},{self.story},{moment}{neighbour}{lie}"

    @property
    def _word(self) -> str:
        return "killed" if self.killed else "after"

    @classmethod
    def parse(cls, text: str) -> Self:
        """As ``str`` gives it. Raises ValueError."""
        kind, story, *rest = text.split(",")
        if kind not in KINDS or story not in STORIES:
            raise ValueError(f"no such case: {text}")
        found = cls(kind, story)
        for word in rest:
            key, _, value = word.partition("=")
            match key:
                case "call":
                    found = replace(found, call=int(value))
                case "after" | "killed":
                    found = replace(found, after_s=float(value), killed=key == "killed")
                case "lie":
                    found = replace(found, lie=value)
                case "journal" | "all":
                    found = replace(found, sync=key, sync_at=int(value))
                case _:
                    raise ValueError(f"not known: {word}")
        return found


@dataclass(slots=True)
class Figures:
    """What was done, for people and for the record."""

    cuts: Counter[str] = field(default_factory=Counter)
    finished_layers: int = 0
    unfinished: int = 0
    fetched_again: int = 0
    most_twice: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    """Bytes of a layer that was under way, by whether the process was killed."""
    longest_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For the record."""
        return {
            "cuts": sum(self.cuts.values()),
            "by_file_system_and_story": dict(sorted(self.cuts.items())),
            "commands_cut_before_their_end": self.unfinished,
            "layers_finished_before_a_cut": self.finished_layers,
            "of_those_fetched_again": self.fetched_again,
            "most_of_a_layer_fetched_again_after_a_cut": self.most_twice[False],
            "most_of_a_layer_fetched_again_after_a_kill": self.most_twice[True],
            "longest_case_s": round(self.longest_s, 2),
        }


class Machine:
    """Carries out cases. ``work`` is a directory outside of the file systems that lose their power.

    Runs in namespaces of its own (``inside``), with all that it starts.
    """

    def __init__(self, work: Path, seed: int) -> None:
        self.figures = Figures()
        self.kinds: dict[str, Kind] = {}
        """Those that this machine can make and mount."""
        self.left_out: dict[str, str] = {}
        """The others, and why."""
        self._work = work
        self._library = build_cut(work)
        self._mount = work / "mnt"
        self._mount.mkdir()
        self._seed = seed
        self._images: dict[str, BuiltImage] = {}
        self._real = Origin()
        self._slow = Origin(RATE)
        self._wide = Origin(BIG_RATE)
        self._n_users = 0
        environment = Cli(work / "home").environment(LD_PRELOAD=str(self._library))
        self._forks = Forks(environment)

    def __enter__(self) -> Self:
        for kind in KINDS.values():
            probe = self._work / f"probe-{kind.name}"
            try:
                kind.create(probe)
                with mounted(kind, probe, self._mount):
                    self.kinds[kind.name] = kind
            except Unavailable as exc:
                self.left_out[kind.name] = str(exc)
        if not self.kinds:
            raise Unavailable("; ".join(self.left_out.values()))
        with ExitStack() as stack:
            stack.enter_context(self._forks)
            for server in (self._real, self._slow, self._wide):
                server.start()
                stack.callback(server.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- what can be cut ----------------------------------------------------------------

    def calls_of(self, kind: str, story: str) -> int:
        """How many calls change the file system when nothing is cut."""
        case = Case(kind, story)
        with self._mounted(case) as cli:
            cli.finish(self._start(case, cli))
        return Witness.read(self._log).n_calls

    # -- one case -----------------------------------------------------------------------

    def play(self, case: Case) -> None:
        """Raises Wrong."""
        began = time.monotonic()
        try:
            self._play(case)
        except AssertionError as exc:
            raise Wrong(str(exc)) from exc
        self.figures.cuts[f"{case.kind}/{case.story}"] += 1
        self.figures.longest_s = max(self.figures.longest_s, time.monotonic() - began)

    def _play(self, case: Case) -> None:
        with self._mounted(case) as cli:
            process = self._start(case, cli)
            try:
                if not case.call:
                    self._wait_for_a_pull(self._server(case), process)
                    time.sleep(case.after_s)
                was_cut = not case.call and process.poll() is None
                if was_cut and not case.killed:
                    freeze(process.pid)
                    cut_power(self._mount)
                if was_cut:
                    process.kill()
                ran = cli.finish(process, None)
            finally:
                process.kill()
                process.wait()
            if not was_cut and not Witness.read(self._log).was_cut:  # it was done before the moment came
                assert ran.code == 0, f"exit {ran.code} before the power was cut\n{ran.err}"
                cut_power(self._mount)
        self.figures.unfinished += ran.code != 0
        with mounted(KINDS[case.kind], self._disk, self._mount):
            self._check(case, cli, ran, Witness.read(self._log))

    def _wait_for_a_pull(self, server: Origin, process: subprocess.Popen[str]) -> None:
        wait_until(lambda: server.was_asked() or process.poll() is not None, "no pull begins")

    def _check(self, case: Case, cli: Cli, ran: Ran, witness: Witness) -> None:
        story, server = STORIES[case.story], self._server(case)
        image = self._image(story.wanted)
        names = {(layer.digest if story.form == "as-is" else layer.diff_id): layer for layer in image.layers}
        finished = {layer.digest for name, layer in names.items() if name[7:] in witness.durable}
        before = server.sent()
        said = {layer.digest for layer in image.layers if f"{layer.digest}: fetch" in ran.err}
        assert said <= finished, f"reported as finished, and not flushed: {said - finished}"
        self.figures.finished_layers += len(finished)

        blobs_are_true(cli)
        checked = cli.run("verify", "--json", code=None)
        if checked.code == 2:  # no more than the beginning of a store
            assert not finished and not story.before, f"there is no store any more\n{checked.err}"
            assert list(cli.store.glob("blobs/*/*")) == [], "and still there are blobs"
        else:
            assert checked.code == 0, f"verify: {checked.code}\n{checked.out}\n{checked.err}"
            found = checked.json["ok"], checked.json["missing"], checked.err
            assert found == (True, [], ""), f"verify: {found}"
        for name, layer in names.items():
            assert layer.digest not in finished or cli.blob(name).exists(), (
                f"{name} was finished, and is gone"
            )
        for name, known in story.whole.items():
            allowed = {known, story.wanted} if name == story.under else {known}
            assert self._named(cli, server, name) in allowed, f"{name} is not what it was"
        if ran.code == 0 and story.command == "pull":
            assert self._named(cli, server, story.under) == story.wanted, "the pulled image is gone"

        server.forget()
        again = cli.pull("--layers", story.form, f"{server.host}/{story.under}")
        after = server.sent()
        fetched = set(after) & image.layer_digests
        there = finished | {
            layer.digest for known in story.whole.values() for layer in self._image(known).layers
        }
        self.figures.fetched_again += len(fetched & there)
        assert not fetched & there, f"finished before, and fetched again: {sorted(fetched & there)}"
        if ran.code == 0 and story.command == "pull":
            assert not fetched, "the whole image was there"
        if story.wanted in DISKS:
            limit = AGAIN_AFTER_KILL if case.killed else AGAIN_AFTER_CUT
            twice = max(before[layer.digest] + after[layer.digest] - layer.size for layer in image.layers)
            self.figures.most_twice[case.killed] = max(self.figures.most_twice[case.killed], twice)
            assert twice <= limit, f"{twice} bytes of a layer were fetched again"
        assert set(again.actions) <= {"have", "fetch"}, again.actions
        assert "warning" not in again.err, again.err
        blobs_are_true(cli)
        for name in names:
            assert cli.blob(name).exists(), f"{name} is not there after the second pull"
        assert self._named(cli, server, story.under) == story.wanted
        if case.call % 8 == 0:
            cli.run("gc")
            assert cli.leftovers() == []
            report = cli.verified()
            assert report["missing"] == []

    # -- inside -------------------------------------------------------------------------

    def _server(self, case: Case) -> Origin:
        if STORIES[case.story].wanted in DISKS:
            return self._wide
        return self._slow if case.after_s else self._real

    @property
    def _log(self) -> Path:
        return self._work / "calls.log"

    @property
    def _disk(self) -> Path:
        return self._work / "disk"

    @contextmanager
    def _mounted(self, case: Case) -> Iterator[Cli]:
        """A user whose store is on a disk as the story has it before."""
        story, kind, server = STORIES[case.story], KINDS[case.kind], self._server(case)
        base = self._base(kind, story, server)
        subprocess.run(["cp", "--sparse=auto", base, self._disk], check=True)
        server.serve(self._image(story.wanted), NAME)
        server.forget()
        self._log.unlink(missing_ok=True)
        with mounted(kind, self._disk, self._mount):
            yield self._user

    @property
    def _user(self) -> Cli:
        """One in ten starts its commands as users do, which takes three times as long."""
        self._n_users += 1
        home = self._work / "home"
        cli = Cli(home) if self._n_users % 10 == 1 else ForkedCli(home, self._forks)
        cli.store = self._mount / "store"
        return cli

    def _base(self, kind: Kind, story: Story, server: Origin) -> Path:
        """A file with the file system as it is before; made once."""
        path = self._work / f"{kind.name}-{story.name}-{server.host}"
        if not path.exists():
            kind.create(path, DISKS.get(story.wanted))
            with mounted(kind, path, self._mount):
                for name, image in story.before.items():
                    server.serve(self._image(image), name)
                    self._user.pull("--layers", story.form, f"{server.host}/{name}")
                for name in story.forgotten:
                    self._user.run("rm", f"{server.host}/{name}")
        return path

    def _start(self, case: Case, cli: Cli) -> subprocess.Popen[str]:
        story = STORIES[case.story]
        more = {
            "LD_PRELOAD": str(self._library),
            "LT_CUT_MOUNT": str(self._mount),
            "LT_CUT_LOG": str(self._log),
        }
        more |= {"LT_CUT_AT": str(case.call), "LT_CUT_SYNC_AT": str(case.sync_at), "LT_CUT_SYNC": case.sync}
        if case.lie:
            more["LT_CUT_LIE"] = case.lie
        words: tuple[object, ...] = ()
        if story.command == "pull":
            reference = f"{self._server(case).host}/{story.under}"
            words = (PLAIN, "-v", "--json", "--layers", story.form, reference)
            if story.wanted == "huge":  # at the rate of one connection
                words = ("--ranges", "never", *words)
        return cli.start(story.command, *words, **more)

    def _image(self, name: str) -> BuiltImage:
        if name not in self._images:
            root, layers = self._work / "images" / name, _layers(name, self._seed)
            labels = {"image": name}
            self._images[name] = build_image(root, layers, compression="gzip-fast", labels=labels)
        return self._images[name]

    def _named(self, cli: Cli, server: Origin, name: str) -> str | None:
        """Which of our images the store has under that name."""
        for entry in json.loads((cli.store / "index.json").read_bytes())["manifests"]:
            if entry["annotations"].get(REF_NAME) == f"{server.host}/{name}":
                document = json.loads(cli.blob(entry["digest"]).read_bytes())
                digest = document.get("annotations", {}).get(ORIGINAL, entry["digest"])
                known = {image.digest: known for known, image in self._images.items()}
                return known.get(digest, str(digest))
        return None


def _layers(image: str, seed: int) -> list[LayerSpec]:
    """Small images that share a layer, and some with a large layer."""
    first = 1 + seed % 1000
    shared = incompressible_layer(300_000, seed=first)
    match image:
        case "old":
            return [shared, text_layer({"etc/os-release": f"VERSION={seed}\n" * 5_000})]
        case "other":
            return [incompressible_layer(200_000, seed=first + 1)]
        case "new":
            text = text_layer({"usr/text": "a line\n" * 100_000})
            return [shared, text, incompressible_layer(1_500_000, seed=first + 2)]
        case "big":
            return [incompressible_layer(48 << 20, seed=first + 3), shared]
    return [incompressible_layer(200 << 20, seed=first + 4), shared]


def cases(machine: Machine, budget: Budget) -> list[Case]:
    """Every call of every story on every file system, and random moments besides, in random order."""
    chance = budget.random("cuts")
    found = []
    # Threads are never twice as fast: the numbers of calls are about these. One more is a cut after the end.
    kinds = list(machine.kinds)
    n_calls = {story: machine.calls_of(kinds[0], story) for story in SMALL}
    for at, kind in enumerate(kinds):
        for story, n in n_calls.items():
            at += 1
            for call in chance.sample(range(1, n + 2), min(n, budget.count(n, least=at % 2))):
                found.append(_with_neighbour(Case(kind, story, call), chance))
        for moments, stories, longest_s in (
            (MOMENTS, SMALL[:4], 0.6),
            (BIG_MOMENTS, BIG, 1.6),
            (HUGE_MOMENTS, HUGE, 5.0),
        ):
            for at in range(budget.count(moments, least=kind == kinds[0] and stories is not HUGE)):
                after_s = chance.uniform(0.001, longest_s)
                killed = stories in (BIG, HUGE) and at % 3 == 2
                found.append(Case(kind, chance.choice(stories), after_s=after_s, killed=killed))
    chance.shuffle(found)
    return found


def _with_neighbour(case: Case, chance: random.Random) -> Case:
    sync = chance.choice(("", "journal", "journal", "all"))
    return replace(case, sync=sync, sync_at=chance.randint(1, case.call)) if sync else case


CONTROLS = (
    ("contents not flushed, ext4", "ext4", ".part"),
    ("contents not flushed, xfs", "xfs", ".part"),
    ("names not flushed, ext4", "ext4", "/blobs/sha256"),
)


def control(machine: Machine, budget: Budget, kind: str, lie: str) -> int:
    """Cuts of commits that flush less than they must, until some are noticed; how many were."""
    n_calls = machine.calls_of(kind, "as-is")
    caught = 0
    for call in budget.random(kind, lie).sample(range(n_calls // 3, n_calls), 40):
        try:
            machine.play(Case(kind, "as-is", call, lie=lie))
        except Wrong:
            caught += 1
        if caught == budget.count(ENOUGH):
            break
    return caught


def run(budget: Budget) -> Mapping[str, object]:
    """Cuts after each call, and at random moments; ``budget.scale`` 1 is more than 2,000 of them.

    Raises Unavailable.
    """
    words = ["--seed", str(budget.seed), "--scale", str(budget.scale), "--cases", *budget.cases]
    figures = dict(inside("tests.torture.cuts", words))
    findings = Findings("cuts", budget)
    for case, what in figures.pop("wrong"):
        findings.add(case, what)
    return {**figures, **findings.figures()}


def _run(budget: Budget, machine: Machine, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    wrong: list[tuple[str, str]] = []
    caught: dict[str, int] = {}
    if not budget.cases:
        for name, kind, lie in CONTROLS:
            if kind not in machine.kinds:
                continue
            caught[name] = control(machine, budget, kind, lie)
            if not caught[name]:
                wrong.append((name, "the machine is blind: no cut of 40 noticed"))
        machine.figures = Figures()
    chosen = [Case.parse(text) for text in budget.cases] or cases(machine, budget)
    for n, case in enumerate(chosen, 1):
        if seconds and time.monotonic() - began > seconds:
            break
        try:
            machine.play(case)
        except Wrong as exc:
            wrong.append((str(case), str(exc)))
            sys.stderr.write(f"{case}: {exc}\n")
        if n % 100 == 0:
            taken = time.monotonic() - began
            sys.stderr.write(f"cuts: {n} of {len(chosen)} after {taken:.0f} s, {len(wrong)} wrong\n")
    return {
        **machine.figures.to_json(),
        "controls_caught": caught,
        "left_out": machine.left_out,
        "wrong": wrong,
    }


def main() -> int:
    """For ``inside``: progress on standard error, figures on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--cases", nargs="*", default=())
    given = parser.parse_args()
    budget = Budget(given.seed, given.scale, tuple(given.cases))
    try:
        with TemporaryDirectory(prefix="layertee-cuts-") as work, Machine(Path(work), budget.seed) as machine:
            sys.stdout.write(json.dumps(_run(budget, machine, given.seconds)))
    except NotInstalled as exc:
        sys.stdout.write(str(exc))
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
