"""What is tortured: commands as users type them, from the files they find to what they promise.

A ``World`` is a registry with the images of all scenarios. One case at a time runs against a world: what its
registry was asked for is then what that case asked for. Cases that run side by side have worlds of their own.

    with world() as here:
        scenario = SCENARIOS["pull"]
        cli = Cli(directory)
        scenario.before(here, cli)              # files below cli.home: to copy, for many cases
        rans = scenario.act(here, cli, {…})     # the commands, with this in their environment
        scenario.again(here, cli)               # the next run: it must complete, fetch no finished byte again
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.compress import digest_of
from tests.support.process import PLAIN, Cli, Ran
from tests.support.rig.images import BuiltImage, build_image, push
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer

__all__ = ["SCENARIOS", "Scenario", "World", "assert_sound", "finished", "world"]

LATE_S = 30.0  # no command of a scenario takes that long, whatever fails: it hangs


@dataclass(frozen=True, slots=True)
class World:
    """A registry, and what it has: ``image`` under ``name``, and ``older``, with two layers of it, too."""

    registry: RegistryServer
    image: BuiltImage
    name: str
    older: BuiltImage
    older_name: str

    def fetched(self) -> dict[str, int]:
        """Bytes of each blob that went over the network since the last call; the config is one of them."""
        sent: dict[str, int] = {}
        for access in self.registry.accesses():
            if access.kind == "blob" and access.method == "GET" and access.status in (200, 206):
                assert access.reference is not None
                sent[access.reference] = sent.get(access.reference, 0) + access.nbytes
        self.registry.reset()
        return sent


@contextmanager
def world() -> Iterator[World]:
    """A registry of its own, with small images: one layer is noise, one inflates to much, one is tiny."""
    noise, text, tiny = (
        incompressible_layer(300 << 10, seed=5),
        text_layer({"text": "a line of text\n" * 60_000}),
        text_layer({"small": "s"}),
    )
    old: list[LayerSpec] = [noise, text_layer({"old": "o" * 5000})]
    with TemporaryDirectory(prefix="layertee-world-") as directory, RegistryServer() as registry:
        image = build_image(Path(directory) / "new", [noise, text, tiny])
        older = build_image(Path(directory) / "old", old)
        name, older_name = push(image, "os:2", registry), push(older, "os:1", registry)
        registry.reset()
        yield World(registry, image, name, older, older_name)


# --- what holds after everything -------------------------------------------------------------------


def finished(root: Path) -> set[str]:
    """Digests of the blobs that an OCI layout has under their names."""
    return {f"sha256:{path.name}" for path in (root / "blobs" / "sha256").glob("*")}


def assert_sound(cli: Cli) -> None:
    """``layertee verify`` finds nothing wrong, and each file under a blob's name is that blob.

    A store that does not exist yet is sound: the command ended before it made one.
    """
    if not (cli.store / "oci-layout").exists():
        return
    ran = cli.run("verify", "--json", code=None)
    assert ran.code == 0 and ran.json["ok"], f"verify: exit {ran.code}\n{ran.out}\n{ran.err}"
    for digest in finished(cli.store):
        assert digest_of(cli.blob(digest).read_bytes()) == digest, f"{digest} is not what its name says"


def fetches_nothing_again(here: World, root: Path, run: Callable[[], object]) -> None:
    """``run()`` asks the registry for no byte of a layer that the layout ``root`` has."""
    kept = finished(root)
    here.fetched()
    run()
    again = {digest: n for digest, n in here.fetched().items() if digest in kept and n}
    again = {digest: n for digest, n in again.items() if digest in here.image.layer_digests}
    assert not again, f"fetched again, though finished: {again}"


def finish(cli: Cli, processes: list[subprocess.Popen[str]]) -> list[Ran]:
    """Wait for all of them, with any exit code. One that hangs says where, and fails the case."""
    return [cli.finish(process, None, late_s=LATE_S) for process in processes]


# --- the scenarios ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way of using the program. All files of a case lie below the ``home`` of its ``Cli``.

    ``before`` makes what the commands find. ``act`` runs them to their ends with more in their environment,
    whatever their exit codes are; AssertionError if one hangs or says what only developers understand.
    ``again`` is the next run, undisturbed: AssertionError unless it completes and keeps what was kept.
    """

    name: str
    act: Callable[[World, Cli, Mapping[str, str]], list[Ran]]
    again: Callable[[World, Cli], None]
    before: Callable[[World, Cli], None] = lambda here, cli: None
    needs: tuple[str, ...] = ()  # programs of this machine


def _pull(*options: str) -> Scenario:
    def act(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        return finish(cli, [cli.start("pull", PLAIN, "--json", *options, here.name, **more)])

    def again(here: World, cli: Cli) -> None:
        fetches_nothing_again(here, cli.store, lambda: cli.pull(*options, here.name))
        for layer in here.image.layers:
            assert cli.blob(layer.diff_id if "uncompressed" in options else layer.digest).exists()

    return Scenario("pull-tars" if "uncompressed" in options else "pull", act, again)


SCENARIOS = {scenario.name: scenario for scenario in (_pull(), _pull("--layers", "uncompressed"))}
