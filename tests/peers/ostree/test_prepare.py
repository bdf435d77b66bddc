"""Preparing an upgrade: the refs that are made, and those that must not be; crashes, locks, and the way back.

The repository is a real one, and what is in it afterwards is read by the ostree command.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import DiffIDMismatch, LocalError, NotFound, StoreBusy, StoreCorrupt
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Basis
from layertee.places.ostree.place import OSTreePlace, Pairs, no_pairs
from layertee.places.ostree.prepare import Preparation, Prepare, Step, undo
from layertee.store.layout import Layout
from tests.contract.place_suite import STRANGER, diff_ids
from tests.support.process import in_child, snapshot
from tests.support.rig.images import BuiltImage, build_image, recompress
from tests.support.rig.layers import LayerSpec, incompressible_layer, text_layer
from tests.support.rig.ostree import IMAGES, OSTreeRig, layer_ref
from tests.support.rig.registry import RigError
from tests.support.store import AMD64

LOCAL = "containers-storage:localhost/os:1"
NAME = "registry.example.com/os:1"
RECORD = "extensions/layertee/prepared.json"
LAYERS: list[LayerSpec] = [
    text_layer({"usr/lib/os-release": "ID=rig\n"}),
    incompressible_layer(40_000),
    text_layer({"usr/bin/tool": "#!/bin/sh\n" * 500}),
    text_layer({"usr/share/doc": "words " * 2000}),
    text_layer({"etc/motd": "hello\n"}),
]
P, L, D = Step.PRESENT, Step.LINK, Step.DOWNLOAD


@pytest.fixture
def plain(tmp_path: Path) -> BuiltImage:
    """The image as it was built and installed from podman's store."""
    return build_image(tmp_path / "plain", LAYERS, compression="none")


@pytest.fixture
def pushed(plain: BuiltImage, tmp_path: Path) -> BuiltImage:
    """The same image as the registry has it."""
    return recompress(plain, "gzip", tmp_path / "pushed")


@pytest.fixture
def rig(tmp_path: Path) -> OSTreeRig:
    return OSTreeRig.create(tmp_path / "repo")


@pytest.fixture
def installed(rig: OSTreeRig, plain: BuiltImage, tmp_path: Path) -> dict[str, str]:
    """DiffID → commit, of the image in the repository."""
    return rig.take(plain, LOCAL, tmp_path)


def preparing(
    rig: OSTreeRig,
    image: BuiltImage,
    *,
    known: Pairs = no_pairs,
    attested: Pairs = no_pairs,
    trust: Basis = Basis.ATTESTED,
    name: str = NAME,
    timeout: float = 10.0,
) -> Prepare:
    found = Layout.open(image.root).resolve(image.ref, AMD64)
    return Prepare(
        rig.root,
        name,
        found.manifest,
        found.config,
        found.layers,
        known=known,
        attested=attested,
        trust=trust,
        timeout=timeout,
    )


def steps(found: Preparation) -> list[Step]:
    return [step.step for step in found.layers]


def new_refs(image: BuiltImage, commits: dict[str, str]) -> dict[str, str]:
    """What ``layers()`` of the repository must have besides: by the blobs' names, the DiffIDs' commits."""
    return {
        layer_ref(layer.digest).rpartition("/")[2]: commits[layer.diff_id]
        for layer in image.layers
        if layer.diff_id in commits
    }


def whole(rig: OSTreeRig) -> dict[str, tuple[int, str]]:
    """Every file of the repository, its mode and content."""
    return snapshot(rig.root)


# --- what it is for -------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_pushed_image_that_was_installed_from_podman_needs_no_download(
    rig: OSTreeRig, plain: BuiltImage, installed: dict[str, str], tmp_path: Path, compression: str
) -> None:
    pushed = recompress(plain, compression, tmp_path / compression)
    before = rig.layers()
    found = preparing(rig, pushed).run()
    assert steps(found) == [L] * 5
    assert found.bytes_to_download == 0
    assert rig.layers() == before | new_refs(pushed, installed)
    assert len(rig.layers()) == 10
    rig.check()


def test_a_layer_that_changed_is_all_that_remains(
    rig: OSTreeRig, installed: dict[str, str], tmp_path: Path
) -> None:
    changed = [*LAYERS[:2], text_layer({"usr/bin/tool": "new"}), *LAYERS[3:]]
    image = build_image(tmp_path / "new", changed, compression="gzip")
    found = preparing(rig, image).run()
    assert steps(found) == [L, L, D, L, L]
    assert found.bytes_to_download == image.layers[2].size
    assert layer_ref(image.layers[2].digest) not in rig.refs()


def test_content_under_the_name_of_another_registry_is_linked_if_computed_here(
    rig: OSTreeRig, pushed: BuiltImage, tmp_path: Path
) -> None:
    commits = rig.take(pushed, None, tmp_path)
    again = recompress(pushed, "zstd", tmp_path / "again")
    pairs = {Digest(layer.digest): DiffID(layer.diff_id) for layer in pushed.layers}
    assert steps(preparing(rig, again).look()) == [D] * 5
    assert steps(preparing(rig, again, attested=pairs.get, trust=Basis.COMPUTED).look()) == [D] * 5
    assert steps(preparing(rig, again, attested=pairs.get).look()) == [L] * 5
    found = preparing(rig, again, known=pairs.get, trust=Basis.COMPUTED).run()
    assert steps(found) == [L] * 5
    by_diff_id = {layer.diff_id: commits[layer.digest] for layer in pushed.layers}
    assert new_refs(again, by_diff_id).items() <= rig.layers().items()


def test_a_second_run_does_nothing(rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]) -> None:
    preparing(rig, pushed).run()
    before = whole(rig)
    assert steps(preparing(rig, pushed).run()) == [P] * 5
    assert whole(rig) == before


def test_a_look_writes_nothing(rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]) -> None:
    before = whole(rig)
    assert steps(preparing(rig, pushed).look()) == [L] * 5
    assert whole(rig) == before


def test_a_blob_that_the_image_repeats_is_counted_once(rig: OSTreeRig, tmp_path: Path) -> None:
    image = build_image(tmp_path / "twice", [LAYERS[0], LAYERS[1], LAYERS[0]], compression="gzip")
    rig.take(build_image(tmp_path / "other", [LAYERS[2]], compression="none"), LOCAL, tmp_path)
    found = preparing(rig, image).run()
    assert steps(found) == [D] * 3
    assert found.bytes_to_download == image.blob_bytes


def test_a_repeated_layer_that_is_there_is_linked(rig: OSTreeRig, tmp_path: Path) -> None:
    image = build_image(tmp_path / "twice", [LAYERS[0], LAYERS[1], LAYERS[0]], compression="gzip")
    rig.take(build_image(tmp_path / "other", LAYERS, compression="none"), LOCAL, tmp_path)
    assert steps(preparing(rig, image).run()) == [L] * 3
    assert steps(preparing(rig, image).run()) == [P] * 3


def test_hundreds_of_layers_are_prepared(rig: OSTreeRig, tmp_path: Path) -> None:
    layers = [text_layer({"etc/a": str(n)}) for n in range(150)]
    plain = build_image(tmp_path / "many", layers, compression="none")
    one = rig.take(build_image(tmp_path / "one", layers[:1], compression="none"), None, tmp_path)
    commit = one[plain.layers[0].digest]
    for layer in plain.layers:
        rig.ref_path(layer.digest).write_text(f"{commit}\n")
    pushed = recompress(plain, "gzip", tmp_path / "pushed")
    assert steps(preparing(rig, pushed).run()) == [L] * 150
    assert len(undo(rig.root).removed) == 150


# --- what is not believed -------------------------------------------------------------


def lie_about(index: int, diff_id: str) -> Any:
    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][index] = diff_id

    return lie


def test_the_claim_of_a_stored_image_is_used_only_when_asked(
    rig: OSTreeRig, pushed: BuiltImage, tmp_path: Path
) -> None:
    """A hostile image was imported once: its content, under the DiffID of a layer of the image to come."""
    evil = build_image(
        tmp_path / "evil",
        [text_layer({"usr/bin/tool": "evil"})],
        compression="gzip",
        edit_config=lie_about(0, pushed.layers[2].diff_id),
    )
    commits = rig.take(evil, "docker://evil.example.com/x:1", tmp_path)
    for trust in (Basis.COMPUTED, Basis.ATTESTED):
        found = preparing(rig, pushed, trust=trust).run()
        assert steps(found) == [D] * 5
        assert found.layers[2].held is not None
        assert found.layers[2].held.basis is Basis.CLAIMED
        assert (found.layers[2].hint, found.layers[1].hint) == ("trust-basis", "")
    assert rig.layers() == {
        layer_ref(evil.layers[0].digest).rpartition("/")[2]: commits[evil.layers[0].digest]
    }
    found = preparing(rig, pushed, trust=Basis.CLAIMED).run()
    assert steps(found) == [D, D, L, D, D]
    assert rig.commit_of(layer_ref(pushed.layers[2].digest)) == commits[evil.layers[0].digest]


def test_a_claim_that_was_used_stays_a_claim(rig: OSTreeRig, pushed: BuiltImage, tmp_path: Path) -> None:
    """Computing the pair of the blob later says nothing about a commit that was linked on a claim."""
    evil = build_image(
        tmp_path / "evil",
        [text_layer({"usr/bin/tool": "evil"})],
        compression="gzip",
        edit_config=lie_about(0, pushed.layers[2].diff_id),
    )
    rig.take(evil, "docker://evil.example.com/x:1", tmp_path)
    preparing(rig, pushed, trust=Basis.CLAIMED).run()
    rig.run("refs", "--delete", layer_ref(evil.layers[0].digest))
    pairs: Pairs = {Digest(pushed.layers[2].digest): DiffID(pushed.layers[2].diff_id)}.get
    (held,) = OSTreePlace(rig.root, known=pairs).find(diff_ids(pushed)).values()
    assert held.basis is Basis.CLAIMED
    again = recompress(pushed, "zstd", tmp_path / "again")
    assert steps(preparing(rig, again, known=pairs).look()) == [D] * 5


def test_an_image_that_contradicts_a_computed_pair_is_refused(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    before = whole(rig)
    known: Pairs = {Digest(pushed.layers[1].digest): STRANGER}.get
    with pytest.raises(DiffIDMismatch, match="refused"):
        preparing(rig, pushed, known=known).run()
    assert whole(rig) == before


def test_a_blob_that_a_stored_image_calls_something_else_is_downloaded(
    rig: OSTreeRig, plain: BuiltImage, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    liar = build_image(
        pushed.root.parent / "liar",
        LAYERS,
        compression="gzip",
        edit_config=lie_about(0, STRANGER),
    )
    assert liar.layers[0].digest == pushed.layers[0].digest
    rig.take_documents(liar, f"{IMAGES}/liar", list(installed.values())[:1])
    found = preparing(rig, pushed).run()
    assert steps(found) == [D, L, L, L, L]
    assert "do not agree" in found.layers[0].reason


def test_a_ref_that_is_there_stays_whatever_images_say_of_it(
    rig: OSTreeRig, pushed: BuiltImage, tmp_path: Path
) -> None:
    liar = build_image(tmp_path / "liar", LAYERS, compression="gzip", edit_config=lie_about(0, STRANGER))
    rig.take(liar, "docker://x.example.com/liar:1", tmp_path)
    before = rig.refs()
    found = preparing(rig, pushed).run()
    assert steps(found) == [P] * 5
    assert any(pushed.layers[0].digest in warning for warning in found.warnings)
    assert rig.refs() == before


def test_a_layer_imported_as_another_kind_is_downloaded(
    rig: OSTreeRig, plain: BuiltImage, tmp_path: Path
) -> None:
    """The objects of an ostree commit and the files of a derived layer are different commits of one tar."""
    label = {"ostree.final-diffid": plain.layers[1].diff_id}
    chunked = build_image(tmp_path / "chunked", LAYERS, compression="none", labels=label)
    rig.take(chunked, LOCAL, tmp_path)
    files = build_image(tmp_path / "files", LAYERS, compression="gzip")
    found = preparing(rig, files).look()
    assert steps(found) == [D, D, L, L, L]
    assert "another kind of layer (base)" in found.layers[0].reason
    same = build_image(tmp_path / "same", LAYERS, compression="gzip", labels=label)
    assert steps(preparing(rig, same).look()) == [L] * 5


def test_a_commit_that_is_not_whole_is_not_linked(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    rig.commit_path(installed[pushed.layers[0].diff_id]).unlink()
    found = preparing(rig, pushed).run()
    assert steps(found) == [D, L, L, L, L]
    assert any(pushed.layers[0].diff_id in warning for warning in found.warnings)


# --- for one image at a time ----------------------------------------------------------


def test_refs_made_for_another_image_go_when_the_next_is_prepared(
    rig: OSTreeRig, plain: BuiltImage, pushed: BuiltImage, installed: dict[str, str], tmp_path: Path
) -> None:
    """A lying image must not leave a wrong name behind for an honest one that has the same blob."""
    other = text_layer({"usr/bin/tool": "version 2"})
    honest = build_image(tmp_path / "honest", [other, *LAYERS[1:]], compression="gzip")
    lying = build_image(
        tmp_path / "lying",
        [other, *LAYERS[1:]],
        compression="gzip",
        edit_config=lie_about(0, plain.layers[0].diff_id),
    )
    assert lying.layers[0].digest == honest.layers[0].digest
    assert steps(preparing(rig, lying, name="evil.example.com/x:1").run()) == [L] * 5
    wrong = layer_ref(honest.layers[0].digest)
    assert rig.commit_of(wrong) == installed[plain.layers[0].diff_id]
    found = preparing(rig, honest).look()
    assert steps(found) == [D, L, L, L, L]
    assert len(found.stale) == 5
    found = preparing(rig, honest).run()
    assert steps(found) == [D, L, L, L, L]
    assert len(found.stale) == 5
    assert wrong not in rig.refs()
    assert len(rig.layers()) == 5 + 4


def test_refs_of_an_image_that_was_installed_since_stay(
    rig: OSTreeRig, plain: BuiltImage, pushed: BuiltImage, installed: dict[str, str], tmp_path: Path
) -> None:
    preparing(rig, pushed).run()
    rig.take_documents(
        pushed, f"{IMAGES}/docker_3A__2F__2F_registry_2E_example_2E_com/os_3A_1", list(installed.values())
    )
    after = rig.refs()
    assert len(undo(rig.root).in_use) == 5
    assert undo(rig.root).removed == ()
    assert rig.refs() == after
    again = recompress(pushed, "zstd", tmp_path / "again")
    found = preparing(rig, again).run()
    assert (steps(found), found.stale) == ([L] * 5, ())
    assert after.items() <= rig.refs().items()


def test_what_was_known_of_a_commit_outlives_the_ref_it_was_known_by(
    rig: OSTreeRig, plain: BuiltImage, pushed: BuiltImage, installed: dict[str, str], tmp_path: Path
) -> None:
    preparing(rig, pushed).run()
    rig.take_documents(pushed, f"{IMAGES}/new", list(installed.values()))
    for diff_id in installed:
        rig.run("refs", "--delete", layer_ref(diff_id))
    again = recompress(pushed, "zstd", tmp_path / "again")
    found = preparing(rig, again, trust=Basis.COMPUTED).run()
    assert steps(found) == [L] * 5
    assert new_refs(again, installed).items() <= rig.layers().items()


# --- the way back ---------------------------------------------------------------------


def test_undo_removes_exactly_what_was_made(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    before = rig.refs()
    preparing(rig, pushed).run()
    assert len(undo(rig.root, dry_run=True).removed) == 5
    assert len(rig.refs()) == len(before) + 5
    assert len(undo(rig.root, image="other.example.com/x:1").removed) == 0
    assert {row.digest for row in undo(rig.root, image=NAME).removed} == pushed.layer_digests
    assert rig.refs() == before
    assert not (rig.root / RECORD).exists()
    assert undo(rig.root).removed == ()
    rig.check()


def test_undo_leaves_refs_that_somebody_else_made_or_changed(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    theirs, changed, remade = (layer_ref(layer.digest) for layer in pushed.layers[:3])
    commits = list(installed.values())
    rig.run("refs", f"--create={theirs}", commits[0])
    preparing(rig, pushed).run()
    rig.run("refs", "--force", f"--create={changed}", commits[4])
    rig.run("refs", "--delete", remade)
    rig.run("refs", f"--create={remade}", commits[2])
    assert len(undo(rig.root, dry_run=True).removed) == 2
    assert len(undo(rig.root).removed) == 2
    left = rig.refs()
    assert (left[theirs], left[changed], left[remade]) == (commits[0], commits[4], commits[2])
    assert len(rig.layers()) == 5 + 3


def test_undo_where_nothing_was_prepared_writes_nothing(rig: OSTreeRig, installed: dict[str, str]) -> None:
    before = whole(rig)
    assert undo(rig.root).removed == ()
    assert whole(rig) == before


def test_a_damaged_record_is_refused_with_what_to_do(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    preparing(rig, pushed).run()
    good = json.loads((rig.root / RECORD).read_bytes())
    for spoilt in (b"{", json.dumps({"refs": [good["refs"][0] | {"basis": "rumour"}]}).encode()):
        (rig.root / RECORD).write_bytes(spoilt)
        with pytest.raises(StoreCorrupt, match="remove the file"):
            undo(rig.root)
        with pytest.raises(StoreCorrupt, match="remove the file"):
            preparing(rig, pushed).run()
        place = OSTreePlace(rig.root, known=no_pairs)
        found = place.find(diff_ids(pushed))
        assert found == {}
        assert len(found.warnings) == 1


# --- crashes --------------------------------------------------------------------------

_CALLS = ("open", "mkdir", "write", "fchmod", "fdatasync", "fsync", "link", "rename", "unlink", "utime")


@contextmanager
def dying_at(n: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process ends, with 42, in place of the ``n``-th call that writes."""
    count = 0

    def watched(real: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            writes = name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR)
            count += bool(writes)
            if count == n:
                os._exit(42)
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, watched(getattr(os, name), name))
        yield


def layers_as_files(rig: OSTreeRig) -> dict[str, str]:
    """The same as ``rig.layers()``, without a process for each."""
    directory = rig.root / "refs" / "heads" / "ostree" / "container" / "blob"
    return {path.name: path.read_text().strip() for path in directory.iterdir()}


def test_a_crash_at_any_step_leaves_a_correct_repository(
    rig: OSTreeRig,
    pushed: BuiltImage,
    installed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, wanted = rig.layers(), rig.layers() | new_refs(pushed, installed)
    for n in range(1, 200):
        copy = OSTreeRig(tmp_path / f"copy{n}")
        shutil.copytree(rig.root, copy.root, symlinks=True)

        def work(copy: OSTreeRig = copy, n: int = n) -> None:
            with dying_at(n, monkeypatch):
                preparing(copy, pushed).run()

        code = os.waitstatus_to_exitcode(in_child(work))
        assert before.items() <= layers_as_files(copy).items() <= wanted.items()
        copy.check()
        if n % 2:
            undo(copy.root)
            assert layers_as_files(copy) == before
        preparing(copy, pushed).run()
        assert layers_as_files(copy) == wanted
        undo(copy.root)
        assert layers_as_files(copy) == before
        shutil.rmtree(copy.root)
        if code == 0:
            break
    assert code == 0
    assert n > 30, "every step was tried"


def test_a_crash_during_undo_leaves_a_correct_repository(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rig.layers()
    for n in range(1, 100):
        preparing(rig, pushed).run()

        def work(n: int = n) -> None:
            with dying_at(n, monkeypatch):
                undo(rig.root)

        code = os.waitstatus_to_exitcode(in_child(work))
        assert before.items() <= layers_as_files(rig).items()
        undo(rig.root)
        assert layers_as_files(rig) == before
        if code == 0:
            break
    assert code == 0
    assert n > 8, "every step was tried"


def test_a_row_whose_ref_was_never_made_does_not_claim_the_one_of_another(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power fails between the record and the ref; then somebody makes that very ref."""

    def work() -> None:
        monkeypatch.setattr(os, "link", lambda *args, **kwargs: os._exit(42))
        preparing(rig, pushed).run()

    assert os.waitstatus_to_exitcode(in_child(work)) == 42
    assert len(json.loads((rig.root / RECORD).read_bytes())["refs"]) == 5
    ref = layer_ref(pushed.layers[0].digest)
    rig.run("refs", f"--create={ref}", installed[pushed.layers[0].diff_id])
    assert undo(rig.root).removed == ()
    assert ref in rig.refs()


def test_a_filesystem_without_nameless_files_will_do(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    before = rig.layers()
    assert steps(preparing(rig, pushed).run()) == [L] * 5
    assert rig.layers() == before | new_refs(pushed, installed)
    assert [path.name for path in (rig.root / "tmp").iterdir() if path.name.startswith("layertee")] == []
    assert len(undo(rig.root).removed) == 5


# --- other programs -------------------------------------------------------------------


@contextmanager
def locked(rig: OSTreeRig, kind: int) -> Iterator[None]:
    """The repository's lock, as libostree takes it."""
    fd = os.open(rig.root / ".lock", os.O_RDWR | os.O_CREAT, 0o660)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0))
        yield
    finally:
        os.close(fd)


def test_a_repository_that_is_being_pruned_is_waited_for(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    before = rig.refs()
    with locked(rig, fcntl.F_WRLCK), pytest.raises(StoreBusy, match="bootc, ostree") as caught:
        preparing(rig, pushed, timeout=0.2).run()
    assert caught.value.retryable
    assert rig.refs() == before
    assert steps(preparing(rig, pushed).run()) == [L] * 5


def test_a_commit_under_way_does_not_stop_preparing_and_stops_undo(
    rig: OSTreeRig, plain: BuiltImage, pushed: BuiltImage, installed: dict[str, str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = rig.start("commit", "--branch=other", "--tar-autocreate-parents", f"--tree=tar={pipe}")
    try:
        with pipe.open("wb") as tar:  # opened: the transaction has begun, and waits for the tar
            assert steps(preparing(rig, pushed).run()) == [L] * 5
            with pytest.raises(StoreBusy):
                undo(rig.root, timeout=0.2)
            tar.write(plain.blob_path(plain.layers[0].digest).read_bytes())
    finally:
        out, err = writer.communicate(timeout=100)
    assert writer.returncode == 0, out + err
    assert "other" in rig.refs()
    assert len(undo(rig.root).removed) == 5


def test_ostree_cannot_prune_while_refs_are_made(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run("config", "set", "core.lock-timeout-secs", "0")
    real, said = os.link, []

    def link(*args: Any, **kwargs: Any) -> None:
        with pytest.raises(RigError) as caught:
            rig.run("prune")
        said.append(str(caught.value))
        real(*args, **kwargs)

    monkeypatch.setattr(os, "link", link)
    preparing(rig, pushed).run()
    assert len(said) >= 5
    assert all("Locking repo exclusive failed" in text for text in said)
    rig.run("prune")


def test_a_ref_that_another_writer_makes_meanwhile_is_not_replaced(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, other = layer_ref(pushed.layers[0].digest), list(installed.values())[4]
    real = os.link

    def link(*args: Any, **kwargs: Any) -> None:
        with suppress(RigError):
            rig.run("refs", f"--create={theirs}", other)
        real(*args, **kwargs)

    monkeypatch.setattr(os, "link", link)
    found = preparing(rig, pushed).run()
    assert steps(found) == [P, L, L, L, L]
    assert "somebody else" in found.layers[0].reason
    assert rig.commit_of(theirs) == other
    assert len(undo(rig.root).removed) == 4
    assert rig.commit_of(theirs) == other


# --- where it cannot be done ----------------------------------------------------------


def test_what_is_no_repository_is_refused(tmp_path: Path, pushed: BuiltImage) -> None:
    with pytest.raises(NotFound, match="/sysroot/ostree/repo"):
        preparing(OSTreeRig(tmp_path / "absent"), pushed).run()
    with pytest.raises(StoreCorrupt, match="not an ostree repository"):
        preparing(OSTreeRig(pushed.root), pushed).run()
    with pytest.raises(StoreCorrupt, match="not an ostree repository"):
        undo(pushed.root)


@pytest.fixture
def read_only(rig: OSTreeRig) -> Iterator[OSTreeRig]:
    root = str(rig.root)
    mounts = [["mount", "--bind", root, root], ["mount", "-o", "remount,bind,ro", root]]
    if os.geteuid() != 0 or subprocess.run(mounts[0], check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(mounts[1], check=True)
        yield rig
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_read_only_filesystem_is_refused_with_what_to_do(
    installed: dict[str, str], pushed: BuiltImage, read_only: OSTreeRig
) -> None:
    with pytest.raises(LocalError, match="mounted read-only") as caught:
        preparing(read_only, pushed).run()
    assert caught.value.hint == "read-only-repository"
    assert steps(preparing(read_only, pushed).look()) == [L] * 5, "looking needs no more than reading"


def test_no_permission_is_refused_with_what_to_do(
    rig: OSTreeRig, pushed: BuiltImage, installed: dict[str, str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving up rights needs root")
    with tempfile.TemporaryDirectory(prefix="repo-", dir="/tmp") as root:
        os.chmod(root, 0o755)
        copy = OSTreeRig(Path(root) / "repo")
        shutil.copytree(rig.root, copy.root, symlinks=True)
        prepare = preparing(copy, pushed)

        def work() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            assert steps(prepare.look()) == [L] * 5
            with pytest.raises(LocalError, match=r"no permission.*root"):
                prepare.run()

        assert in_child(work) == 0
        assert copy.layers() == rig.layers()
