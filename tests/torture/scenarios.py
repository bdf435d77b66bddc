"""What is tortured: commands as users type them, from the files they find to what they promise.

A ``World`` is a registry with the images of all scenarios. One case at a time runs against a world: what its
registry was asked for is then what that case asked for. Cases that run side by side have worlds of their own.

    with world() as here:
        scenario = SCENARIOS["pull"]
        cli = scenario.at(Cli(directory))
        scenario.before(here, cli)              # files below cli.home: to copy, for many cases
        scenario.ready(here, cli)               # and those that are not the same in a copy
        rans = scenario.act(here, cli, {…})     # the commands, with this in their environment
        scenario.sound(here, cli)               # what must hold now, whatever happened
        scenario.again(here, cli)               # the next run: it must complete, fetch no finished byte again
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests.support.compress import digest_of
from tests.support.imageproxy import Disconnected, ImageProxy
from tests.support.process import NOT_FOR_USERS, PLAIN, Cli, Ran, flip_a_byte
from tests.support.rig.images import BuiltImage, BuiltLayer, build_image, push, recompress
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer
from tests.support.rig.ostree import OSTreeRig
from tests.support.rig.registry import RegistryServer

__all__ = [
    "LATE_S",
    "SCENARIOS",
    "Scenario",
    "World",
    "assert_sound",
    "fetches_nothing_again",
    "finished",
    "world",
]

CliOfAKind = TypeVar("CliOfAKind", bound=Cli)
LATE_S = 30.0  # no command of a scenario takes that long, whatever fails: it hangs


@dataclass(frozen=True, slots=True)
class World:
    """A registry, and what it has.

    ``image`` has three layers; ``older`` has the first of them, and another one. Both with their names.
    ``plain``, which is not there, is ``image`` with uncompressed layers: the same contents by other names.
    """

    registry: RegistryServer
    image: BuiltImage
    name: str
    older: BuiltImage
    older_name: str
    plain: BuiltImage

    def fetched(self) -> dict[str, int]:
        """Bytes of each blob that went over the network since the last call; a config is one of them."""
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
        root = Path(directory)
        image, older = build_image(root / "new", [noise, text, tiny]), build_image(root / "old", old)
        plain = recompress(image, "none", root / "plain")
        name, older_name = push(image, "os:2", registry), push(older, "os:1", registry)
        registry.reset()
        yield World(registry, image, name, older, older_name, plain)


# --- what holds after everything -------------------------------------------------------------------


def finished(root: Path) -> set[str]:
    """Digests of the blobs that an OCI layout has under their names."""
    return {f"sha256:{path.name}" for path in (root / "blobs" / "sha256").glob("*")}


def assert_sound(here: World, cli: Cli) -> None:
    """``layertee verify`` finds nothing wrong, and each file under a blob's name is that blob.

    A store that is not there yet, or not finished, and has nothing in it, is sound: ``verify`` says so.
    """
    ran = cli.run("verify", "--json", code=None)
    if not (cli.store / "index.json").exists():
        assert ran.code == 2 and not finished(cli.store), f"verify: exit {ran.code}\n{ran.out}\n{ran.err}"
        return
    assert ran.code == 0 and ran.json["ok"], f"verify: exit {ran.code}\n{ran.out}\n{ran.err}"
    _assert_blobs(cli)


def _assert_blobs(cli: Cli) -> None:
    for digest in finished(cli.store):
        assert digest_of(cli.blob(digest).read_bytes()) == digest, f"{digest} is not what its name says"


def fetches_nothing_again(here: World, image: BuiltImage, cli: Cli, run: Callable[[], object]) -> None:
    """``run()`` asks the registry for no byte of ``image`` that the store has.

    That is all of a layer that is there in any form, and the beginning of one that has begun to arrive. A
    beginning that is wrong costs what was believed to be missing, and then the whole layer.
    """
    there = finished(cli.store)
    missing = {layer.digest: layer.size - _arrived(image, layer, cli) for layer in image.layers}
    missing |= {layer.digest: 0 for layer in image.layers if {layer.digest, layer.diff_id} & there}
    here.fetched()
    run()
    again = {digest: n for digest, n in here.fetched().items() if n > missing.get(digest, n)}
    assert not again, f"fetched again, though it was here: {again}, where {missing} was missing"


def _part(cli: Cli, digest: str) -> Path:
    """Where the store keeps the beginning of a blob."""
    return cli.store / "layertee" / "parts" / f"{digest.removeprefix('sha256:')}.part"


def _arrived(image: BuiltImage, layer: BuiltLayer, cli: Cli) -> int:
    """How many bytes need not be fetched: those kept of the blob; less than none, if they are wrong."""
    path = _part(cli, layer.digest)
    kept = path.read_bytes() if path.exists() else b""
    if image.blob_path(layer.digest).read_bytes().startswith(kept):
        return len(kept)
    return min(0, len(kept) - layer.size)


def _leaves_nothing(cli: Cli) -> None:
    """What a command could not remove is removed by ``layertee gc``."""
    cli.run("gc", "--store", cli.store)
    left = [*cli.leftovers(), *(cli.store / "layertee" / "parts").iterdir()]
    assert not left, f"left: {left}"
    parts = [path.name for path in cli.store.iterdir() if path.name.endswith(".part")]
    assert not parts, f"left: {parts}"


def _finish(cli: Cli, *processes: subprocess.Popen[str]) -> list[Ran]:
    """Wait for all of them, with any exit code. One that hangs says where, and fails the case."""
    return [cli.finish(process, None, late_s=LATE_S) for process in processes]


def _nothing_before(here: World, cli: Cli) -> None:
    """A fresh machine."""


# --- the scenarios ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way of using the program. All files of a case lie below the ``home`` of its ``Cli``.

    ``before`` makes what the commands find, which may be copied; ``ready`` makes of it what may not. ``act``
    runs them to their ends with more in their environment, whatever their exit codes are; AssertionError if
    one hangs or says what only developers understand. ``sound`` is what holds at any time. ``again`` is the
    next run, undisturbed: AssertionError unless it completes and keeps what was kept. ``busy``: one of the
    commands may refuse, since others are at work.
    """

    name: str
    act: Callable[[World, Cli, Mapping[str, str]], list[Ran]]
    again: Callable[[World, Cli], None]
    before: Callable[[World, Cli], None] = _nothing_before
    ready: Callable[[World, Cli], None] = _nothing_before
    sound: Callable[[World, Cli], None] = assert_sound
    store: str = "store"
    busy: bool = False
    needs: tuple[str, ...] = ()  # programs of this machine

    def at(self, cli: CliOfAKind) -> CliOfAKind:
        """``cli``, with the store of this scenario."""
        cli.store = cli.home / self.store
        return cli


def _pull(
    name: str,
    *options: str,
    before: Callable[[World, Cli], None] = _nothing_before,
    layout: str = "",
    beside: int = 0,
) -> Scenario:
    """Pulls of one image at once, into the store or a ``layout``; ``beside``: how many more than one."""

    def words(here: World, cli: Cli) -> list[str]:
        to = ["--to", f"oci:{cli.home / layout}:new"] if layout else []
        return [PLAIN, "--json", *options, *to, here.name]

    def act(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        return _finish(cli, *(cli.start("pull", *words(here, cli), **more) for _ in range(beside + 1)))

    def again(here: World, cli: Cli) -> None:
        fetches_nothing_again(here, here.image, cli, lambda: cli.run("pull", *words(here, cli)))
        for layer in here.image.layers:
            assert {layer.digest, layer.diff_id} & finished(cli.store), f"{layer.digest} is not there"
        _leaves_nothing(cli)

    return Scenario(name, act, again, before, store=layout or "store")


def _older(*options: str) -> Callable[[World, Cli], None]:
    def before(here: World, cli: Cli) -> None:
        cli.pull(*options, here.older_name)

    return before


def _begun(*, wrong: bool = False) -> Callable[[World, Cli], None]:
    """An earlier pull was ended within the first layer; or what it left has been damaged since."""

    def before(here: World, cli: Cli) -> None:
        cli.pull(here.older_name)
        cli.run("rm", here.older_name)
        cli.run("gc")
        layer = here.image.layers[0]
        path = _part(cli, layer.digest)
        path.write_bytes(here.image.blob_path(layer.digest).read_bytes()[: layer.size // 2])
        path.chmod(0o600)
        if wrong:
            flip_a_byte(path)
        assert set(cli.partial()) == {layer.digest}

    return before


def _gc_beside_a_pull() -> Scenario:
    def before(here: World, cli: Cli) -> None:
        cli.pull(here.older_name)
        cli.run("rm", here.older_name)

    def act(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        pull = cli.start("pull", PLAIN, "--json", here.name, **more)
        return _finish(cli, pull, cli.start("gc", **more))

    def again(here: World, cli: Cli) -> None:
        fetches_nothing_again(here, here.image, cli, lambda: cli.pull(here.name))
        _leaves_nothing(cli)
        assert len(finished(cli.store)) == 5  # the image's own: layers, config, manifest

    return Scenario("gc-beside-pull", act, again, before, busy=True)


def _repair() -> Scenario:
    def before(here: World, cli: Cli) -> None:
        cli.pull(here.name)
        flip_a_byte(cli.blob(here.image.layers[0].digest))
        cli.blob(here.image.layers[2].digest).unlink()

    def repair(here: World, cli: Cli) -> list[str]:
        return ["--repair", here.name, PLAIN, "--json"]

    def act(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        return _finish(cli, cli.start("verify", *repair(here, cli), **more))

    def sound(here: World, cli: Cli) -> None:
        """It may still be damaged; looking at it does no harm."""
        ran = cli.run("verify", "--json", code=None)
        assert ran.code == (0 if ran.json["ok"] else 3), f"verify: exit {ran.code}\n{ran.out}\n{ran.err}"
        _assert_blobs(cli)  # what was wrong is in quarantine now

    def again(here: World, cli: Cli) -> None:
        there = {layer.digest for layer in here.image.layers if _is_true(cli, layer.digest)}
        here.fetched()
        cli.run("verify", *repair(here, cli))
        assert not there & set(here.fetched()), "fetched again, though finished"
        assert_sound(here, cli)

    return Scenario("repair", act, again, before, sound=sound)


def _is_true(cli: Cli, digest: str) -> bool:
    path = cli.blob(digest)
    return path.exists() and digest_of(path.read_bytes()) == digest


def _prepare(undo: bool) -> Scenario:
    def words(here: World, cli: Cli, *more: str) -> list[str]:
        return ["--ostree-repo", str(cli.home / "repo"), PLAIN, *more, here.name]

    def before(here: World, cli: Cli) -> None:
        OSTreeRig.create(cli.home / "repo").take(here.plain, "containers-storage:localhost/os:1", cli.home)

    def ready(here: World, cli: Cli) -> None:
        if undo:
            cli.run("prepare", *words(here, cli))

    def act(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        option = ["--undo"] if undo else []
        return _finish(cli, cli.start("prepare", *words(here, cli, *option), **more))

    def sound(here: World, cli: Cli) -> None:
        """Each ref is on the commit with that content; the importer's own are all there."""
        rig = OSTreeRig(cli.home / "repo")
        refs = {name: (rig.root / "refs/heads" / name).read_text().strip() for name in _refs(rig)}
        assert all(_ref_of(layer.digest) in refs for layer in here.plain.layers), "a ref of another is gone"
        for old, new in zip(here.plain.layers, here.image.layers, strict=True):
            made = refs.get(_ref_of(new.digest))
            assert made in (None, refs[_ref_of(old.digest)]), f"{new.digest} is on {made}"
        rig.check()

    def again(here: World, cli: Cli) -> None:
        rig = OSTreeRig(cli.home / "repo")
        made = {_ref_of(layer.digest) for layer in here.image.layers}
        if not undo:
            cli.run("prepare", *words(here, cli))
            assert made <= set(_refs(rig)), f"not made: {made - set(_refs(rig))}"
        cli.run("prepare", *words(here, cli, "--undo"))
        assert not made & set(_refs(rig)), f"not removed: {made & set(_refs(rig))}"

    return Scenario("undo" if undo else "prepare", act, again, before, ready, sound, needs=("ostree",))


def _refs(rig: OSTreeRig) -> list[str]:
    heads = rig.root / "refs" / "heads"
    return [str(path.relative_to(heads)) for path in heads.glob("ostree/container/blob/*")]


def _ref_of(digest: str) -> str:
    return f"ostree/container/blob/{digest.replace(':', '_3A_')}"


def _image_proxy() -> Scenario:
    def act(here: World, cli: Cli, more: Mapping[str, str]) -> list[Ran]:
        words = ["--store", cli.store, "--insecure-policy", "--ahead", "0", PLAIN]
        proxy = ImageProxy(cli.command("image-proxy", *words), cli.environment(**more))
        proxy.socket.settimeout(LATE_S)
        refused: list[str] = []
        try:
            _read_all_of(here, proxy, refused)
        except Disconnected:
            refused.append("disconnected")
        except TimeoutError:
            proxy.kill()
            raise AssertionError(f"the server does not answer\n{proxy.stderr()}") from None
        proxy.hang_up()
        try:
            code = proxy.exit_status(LATE_S)
        except subprocess.TimeoutExpired:
            proxy.kill()
            raise AssertionError(f"the server outlives its client\n{proxy.stderr()}") from None
        said = proxy.stderr()
        assert not any(word in text for word in NOT_FOR_USERS for text in (said, *refused)), said
        with proxy:
            return [Ran(code, json.dumps({"refused": refused}), said)]

    def again(here: World, cli: Cli) -> None:
        def run() -> None:
            (ran,) = act(here, cli, {})
            assert (ran.code, json.loads(ran.out)) == (0, {"refused": []}), ran

        fetches_nothing_again(here, here.image, cli, run)

    return Scenario("image-proxy", act, again)


def _read_all_of(here: World, proxy: ImageProxy, refused: list[str]) -> None:
    """What a client does with one image; what it is given is right, or is refused with a reason."""

    def ask(method: str, *words: object) -> bytes | int | None:
        reply = proxy.call(method, *words)
        if not reply.success:
            assert reply.error
            refused.append(f"{method}: {reply.error}")
            return None
        if not reply.fds:
            return reply.value if isinstance(reply.value, int) else 0
        content, end = proxy.drain(reply)
        if not end.success:
            refused.append(f"FinishPipe: {end.error}")
            return None
        return content

    ask("Initialize")
    number = ask("OpenImage", f"docker://{here.name}")
    if number is None:
        return
    manifest = ask("GetManifest", number)
    assert manifest in (None, here.image.manifest)
    for layer in here.image.layers:
        content = ask("GetBlob", number, layer.digest, layer.size)
        assert content is None or (isinstance(content, bytes) and digest_of(content) == layer.digest)
    ask("CloseImage", number)


_ALL = (
    _pull("pull"),
    _pull("pull-tars", "--layers", "uncompressed"),
    _pull("pull-reuse", before=_older("--layers", "uncompressed")),
    _pull("pull-layout", layout="out"),
    _pull("pull-rest", before=_begun()),
    _pull("pull-rest-tars", "--layers", "uncompressed", before=_begun()),
    _pull("pull-wrong-rest", before=_begun(wrong=True)),
    _pull("two-pulls", beside=1),
    _gc_beside_a_pull(),
    _repair(),
    _prepare(undo=False),
    _prepare(undo=True),
    _image_proxy(),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
