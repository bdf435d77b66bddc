"""The store: what it keeps, what counts as held, who may do what at once, and a catalog that fails."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layertee.disk.locks import try_lock
from layertee.errors import (
    CatalogError,
    DiffIDMismatch,
    LocalError,
    NotFound,
    SizeMismatch,
    StoreBusy,
    StoreCorrupt,
    UnsafePath,
)
from layertee.image.document import Descriptor, Digest, Layer
from layertee.image.holding import Basis, Form
from layertee.image.media import Compression, media_type_of
from layertee.store.catalog import Catalog
from layertee.store.gc import gc
from layertee.store.store import Store, default_root
from tests.support.compress import digest_number, pack
from tests.support.process import in_child
from tests.support.rig.images import BuiltImage
from tests.support.store import (
    assert_store_is_sound,
    bring,
    contradicting,
    fill,
    gzip_layer,
    measure,
    only_hashed,
    pull,
    visible_blobs,
)

TAR, BLOB, RESULT = gzip_layer("one layer")


@pytest.fixture
def layer() -> Layer:
    """The layer that ``BLOB`` is in an image."""
    descriptor = Descriptor(media_type_of(Compression.GZIP), RESULT.digest, len(BLOB))
    return Layer(0, descriptor, RESULT.diff_id, Compression.GZIP)


# --- opening ------------------------------------------------------------------------


def test_a_private_store_is_closed_to_others(store: Store, root: Path) -> None:
    holding = bring(store, BLOB, Compression.GZIP)
    for directory, names, files in os.walk(root):
        for name in names:
            assert stat.S_IMODE((Path(directory) / name).stat().st_mode) == 0o700
        for name in files:
            assert (Path(directory) / name).stat().st_mode & 0o077 == 0
    assert holding.path is not None
    assert stat.S_IMODE(holding.path.stat().st_mode) == 0o400


def test_a_public_store_keeps_only_its_own_room_closed(root: Path) -> None:
    with Store.open(root, private=False) as store:
        holding = bring(store, BLOB, Compression.GZIP)
    assert holding.path is not None
    assert stat.S_IMODE(holding.path.stat().st_mode) == 0o644
    assert stat.S_IMODE((root / "index.json").stat().st_mode) == 0o644
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "layertee").stat().st_mode) == 0o700


def test_a_store_that_others_could_write_to_is_refused_with_the_remedy(root: Path) -> None:
    Store.open(root).close()
    root.chmod(0o777)
    with pytest.raises(LocalError, match=f"chmod go-w {root}"):
        Store.open(root)
    root.chmod(0o755)
    Store.open(root).close()


@pytest.mark.parametrize("at", ["blobs", "blobs/sha256", "layertee"])
def test_a_part_of_the_store_that_others_could_write_to_is_refused(root: Path, at: str) -> None:
    Store.open(root).close()
    (root / at).chmod(0o777)
    with pytest.raises(UnsafePath, match=f"chmod go-w {root / at}"):
        Store.open(root)


def test_a_store_is_refused_where_others_could_replace_it_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    for root in (tmp_path / "open/x/store", tmp_path / "link/x/store"):
        with pytest.raises(UnsafePath, match=f"chmod go-w {tmp_path}/open$"):
            Store.open(root)
    assert not any((tmp_path / "open").iterdir())
    (tmp_path / "open").chmod(0o1777)  # as /tmp is
    Store.open(tmp_path / "open/store").close()


def test_in_a_layout_that_others_may_write_to_no_file_is_taken_on_trust(tmp_path: Path) -> None:
    """They may have replaced one since it was checked: it counts once it was hashed again."""
    room = tmp_path / "shared"
    room.mkdir()
    room.chmod(0o777)
    result = measure(TAR)
    descriptor = Descriptor(media_type_of(Compression.NONE), result.digest, len(TAR))
    layer = Layer(0, descriptor, result.diff_id, Compression.NONE)
    with Store.open(room / "layout", private=False) as store:
        with store.blobs.writer(result.digest) as writer:
            held = store.blobs.commit(fill(writer, TAR), result, Form.AS_IS)
        assert held.basis is Basis.COMPUTED
        assert store.blobs.held(result.diff_id) == []
        assert [claim.path for claim in store.blobs.unchecked(layer)] == [held.path]
        assert store.blobs.adopt(result).basis is Basis.COMPUTED
    room.chmod(0o755)
    with Store.open(room / "layout", private=False) as store:
        assert store.blobs.forms(layer) == [held]


def test_a_store_of_another_user_is_refused(root: Path, monkeypatch: Any) -> None:
    Store.open(root).close()
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid + 1)
    with pytest.raises(LocalError, match="belongs to user"):
        Store.open(root)


def test_a_directory_with_other_things_is_no_store(root: Path) -> None:
    root.mkdir()
    (root / "photo.jpg").write_bytes(b"")
    with pytest.raises(StoreCorrupt, match=r"photo\.jpg"):
        Store.open(root)
    with pytest.raises(NotFound):
        Store.open(root.parent / "nowhere", create=False)


def test_a_layout_of_another_tool_becomes_a_store_and_stays_what_it_was(image: BuiltImage) -> None:
    before = visible_blobs(image.root)
    with Store.open(image.root) as store:
        assert [found.name for found in store.images.all()] == ["latest"]
        assert store.images.all()[0].pulled_at is None
        assert {layer.digest for _, layer in store.images.layers().layers} == image.layer_digests
        assert store.rebuild_reason is not None
    assert visible_blobs(image.root) == before


@pytest.mark.parametrize(
    ("uid", "data", "expected"),
    [
        (0, "/data", "/var/lib/layertee"),
        (1000, "/data", "/data/layertee"),
        (1000, "", "/home/u/.local/share/layertee"),
        (1000, "relative", "/home/u/.local/share/layertee"),
    ],
)
def test_the_default_root_is_where_such_things_go(
    monkeypatch: Any, uid: int, data: str, expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_DATA_HOME", data)
    monkeypatch.setenv("HOME", "/home/u")
    assert str(default_root()) == expected


# --- layers ---------------------------------------------------------------------------


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("form", list(Form))
def test_a_layer_is_kept_in_the_form_asked_for(store: Store, compression: Compression, form: Form) -> None:
    blob = pack(TAR, compression)
    holding = bring(store, blob, compression, form)
    plain = form is Form.UNCOMPRESSED or compression is Compression.NONE
    content = TAR if plain else blob
    assert holding.path is not None
    assert holding.path.read_bytes() == content
    assert holding.digest == Digest.of(content)
    assert (holding.size, holding.uncompressed_size) == (len(content), len(TAR))
    assert holding.basis is Basis.COMPUTED
    assert store.blobs.held(holding.diff_id) == [holding]
    assert store.catalog.diff_id(measure(blob, compression).digest) == holding.diff_id


def test_a_layer_may_be_there_in_several_forms(store: Store) -> None:
    forms = [
        bring(store, pack(TAR, compression), compression, form)
        for compression in (Compression.GZIP, Compression.ZSTD)
        for form in Form
    ]
    found = store.blobs.held(RESULT.diff_id)
    assert {held.digest for held in found} == {held.digest for held in forms}
    assert len(found) == 3, "the tar is the same of both"
    assert forms[0].path is not None
    forms[0].path.unlink()
    assert len(store.blobs.held(RESULT.diff_id)) == 2


@pytest.mark.parametrize("damage", ["gone", "short", "symlink", "directory"])
def test_a_row_without_its_file_is_no_holding(store: Store, damage: str) -> None:
    path = bring(store, BLOB, Compression.GZIP).path
    assert path is not None
    path.unlink()
    if damage == "short":
        path.write_bytes(BLOB[:-1])
    elif damage == "symlink":
        path.with_name("x").write_bytes(BLOB)
        path.symlink_to("x")
    elif damage == "directory":
        path.mkdir()
    assert store.blobs.held(RESULT.diff_id) == []


def test_a_file_without_its_row_is_to_be_checked_and_not_fetched(store: Store, layer: Layer) -> None:
    held = bring(store, BLOB, Compression.GZIP)
    assert store.blobs.unchecked(layer) == []
    assert store.blobs.forms(layer) == [held]
    store.catalog.forget(RESULT.digest)
    assert store.blobs.held(RESULT.diff_id) == []
    (claim,) = store.blobs.unchecked(layer)
    assert (claim.digest, claim.path, claim.basis) == (RESULT.digest, held.path, Basis.CLAIMED)
    assert store.blobs.forms(layer) == [claim]
    assert store.blobs.adopt(measure(BLOB, Compression.GZIP)) == held
    assert store.blobs.forms(layer) == [held]


def test_a_file_under_the_name_of_the_tar_is_a_claim_too(store: Store, layer: Layer) -> None:
    store.layout.blob_path(layer.tar_digest).write_bytes(TAR)
    (claim,) = store.blobs.unchecked(layer)
    assert (claim.digest, claim.size, claim.compression, claim.basis) == (
        *(layer.tar_digest, len(TAR), Compression.NONE),
        Basis.CLAIMED,
    )


def test_a_file_of_another_size_than_the_blob_is_no_claim(store: Store, layer: Layer) -> None:
    store.layout.blob_path(layer.digest).write_bytes(BLOB + b"?")
    assert store.blobs.forms(layer) == []


def test_a_blob_that_was_only_hashed_is_kept_and_stays_a_claim(store: Store, layer: Layer) -> None:
    hashed = only_hashed(BLOB)
    held = store.blobs.commit(fill(store.blobs.writer(layer.digest), BLOB), hashed, Form.AS_IS, claim=layer)
    assert (held.digest, held.diff_id, held.basis) == (RESULT.digest, layer.diff_id, Basis.CLAIMED)
    assert store.catalog.pairs() == [] and store.catalog.holdings() == []
    assert store.blobs.forms(layer) == [held]
    assert store.blobs.adopt(hashed, claim=layer) == held
    assert store.catalog.pairs() == []
    assert store.blobs.adopt(RESULT).basis is Basis.COMPUTED
    assert store.blobs.unchecked(layer) == []


def test_what_was_only_hashed_is_nothing_without_a_claim(store: Store, layer: Layer) -> None:
    hashed = only_hashed(BLOB)
    with pytest.raises(ValueError, match="not inflated"):
        store.blobs.commit(fill(store.blobs.writer(layer.digest), BLOB), hashed, Form.AS_IS)
    with pytest.raises(ValueError, match="not inflated"):
        store.blobs.adopt(hashed)
    assert visible_blobs(store.root) == {}
    assert list(store.room.ingest.iterdir()) == []


def test_two_blobs_that_claim_one_content_are_brought_side_by_side(store: Store, layer: Layer) -> None:
    """Until they were inflated nobody knows whether they are what the image says."""
    other = pack(b"something else", Compression.GZIP)
    liar = replace(layer, descriptor=replace(layer.descriptor, digest=Digest.of(other), size=len(other)))
    assert liar.diff_id == layer.diff_id
    first, second = store.blobs.lock(layer.digest), store.blobs.lock(liar.digest)
    assert first is not None and second is not None
    with first, second:
        writers = store.blobs.writer(layer.digest), store.blobs.writer(liar.digest)
        for writer, content in zip(writers, (BLOB, other), strict=True):
            fill(writer, content)
        for writer, content, claim in zip(writers, (BLOB, other), (layer, liar), strict=True):
            store.blobs.commit(writer, only_hashed(content), Form.AS_IS, claim=claim)
    assert visible_blobs(store.root).keys() == {layer.digest, liar.digest}
    assert [held.digest for held in store.blobs.forms(layer)] == [layer.digest]
    assert [held.digest for held in store.blobs.forms(liar)] == [liar.digest]
    store.blobs.adopt(measure(other, Compression.GZIP))
    assert store.blobs.held(layer.diff_id) == [], "it is no form of the layer that it claimed to be"
    store.blobs.adopt(RESULT)
    assert [held.digest for held in store.blobs.held(layer.diff_id)] == [layer.digest]


def test_only_a_file_that_is_there_can_be_adopted(store: Store) -> None:
    with pytest.raises(NotFound):
        store.blobs.adopt(RESULT)
    store.layout.blob_path(RESULT.digest).write_bytes(BLOB[:-1])
    with pytest.raises(NotFound):
        store.blobs.adopt(RESULT)


def test_a_file_that_nobody_checked_gives_way_to_bytes_that_were(store: Store) -> None:
    rotten = store.layout.blob_path(RESULT.digest)
    rotten.write_bytes(BLOB[:-1] + b"?")
    assert bring(store, BLOB, Compression.GZIP).path == rotten
    assert rotten.read_bytes() == BLOB


def test_a_checked_file_stays_when_the_same_layer_comes_again(store: Store) -> None:
    path = bring(store, BLOB, Compression.GZIP).path
    assert path is not None
    inode = path.stat().st_ino
    bring(store, BLOB, Compression.GZIP)
    assert path.stat().st_ino == inode


def test_a_contradiction_to_a_computed_pair_is_refused_before_anything_is_visible(store: Store) -> None:
    bring(store, BLOB, Compression.GZIP, Form.UNCOMPRESSED)
    lie = contradicting(RESULT)
    writer = fill(store.blobs.writer(lie.digest), BLOB)
    with pytest.raises(DiffIDMismatch):
        store.blobs.commit(writer, lie, Form.AS_IS)
    assert list(visible_blobs(store.root)) == [RESULT.diff_id]
    assert list(store.room.ingest.iterdir()) == []


def test_a_result_of_other_bytes_than_written_is_refused(store: Store) -> None:
    writer = fill(store.blobs.writer(RESULT.digest), BLOB[:-1])
    with pytest.raises(SizeMismatch):
        store.blobs.commit(writer, RESULT, Form.AS_IS)
    assert visible_blobs(store.root) == {}
    assert store.catalog.pairs() == []


def test_what_a_dead_process_left_is_removed_by_the_next_writer(store: Store) -> None:
    part = store.room.ingest / f"{RESULT.digest.hex}.part"
    part.write_bytes(b"half a lay")
    assert bring(store, BLOB, Compression.GZIP).size == len(BLOB)
    assert list(store.room.ingest.iterdir()) == []


def test_a_wrong_blob_is_taken_out_row_first(store: Store) -> None:
    path = bring(store, BLOB, Compression.GZIP).path
    assert path is not None
    aside = store.blobs.quarantine(RESULT.digest)
    assert aside is not None
    assert aside.read_bytes() == BLOB
    assert not path.exists()
    assert store.blobs.held(RESULT.diff_id) == []
    assert store.catalog.holdings() == []
    assert store.blobs.quarantine(RESULT.digest) is None


# --- locks --------------------------------------------------------------------------


def test_one_process_at_a_time_brings_a_layer(store: Store, root: Path) -> None:
    held = store.blobs.lock(RESULT.digest)
    assert held is not None
    with Store.open(root) as other:
        assert other.blobs.lock(RESULT.digest) is None
        assert other.blobs.lock(digest_number(1)) is not None
        held.release()
        held.release()
        again = other.blobs.lock(RESULT.digest)
    assert again is not None
    again.release()


def test_the_lock_of_a_dead_process_is_free(store: Store, root: Path) -> None:
    def die_with_the_lock() -> None:
        with Store.open(root) as mine:
            assert mine.blobs.lock(RESULT.digest) is not None
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_child(die_with_the_lock)) == signal.SIGKILL
    held = store.blobs.lock(RESULT.digest)
    assert held is not None
    held.release()


def test_a_lock_file_removed_under_an_acquirer_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "lock"
    first = try_lock(path)
    assert first is not None
    real = os.open

    def open_then_lose(name: Any, *args: Any, **kwargs: Any) -> int:
        fd = real(name, *args, **kwargs)
        monkeypatch.setattr(os, "open", real)
        first.discard()  # the holder removes the file that has just been opened
        return fd

    monkeypatch.setattr(os, "open", open_then_lose)
    second = try_lock(path)
    assert second is not None
    assert path.exists()
    assert try_lock(path) is None, "the second one holds the file that is there"
    second.release()


def test_pulls_share_the_store_and_gc_has_it_alone(store: Store) -> None:
    with store.shared(), store.shared(timeout=0.01):
        with pytest.raises(StoreBusy, match=str(store.root / "layertee" / "lock")):
            store.exclusive(timeout=0.01)
        with pytest.raises(StoreBusy):
            gc(store, timeout=0.01)
    with store.exclusive(), pytest.raises(StoreBusy) as caught:
        store.shared(timeout=0.01)
    assert caught.value.retryable


# --- the catalog fails ------------------------------------------------------------------


def test_a_damaged_catalog_is_rebuilt_from_what_is_there(root: Path, image: BuiltImage) -> None:
    with Store.open(root) as store:
        pull(store, image.root, "latest", "x:1")
        before = store.catalog.holdings()
    (root / "layertee" / "catalog.sqlite").write_bytes(b"not a database" * 1000)
    with Store.open(root) as store:
        assert store.rebuild_reason is not None
        assert store.warnings == (store.rebuild_reason,)
        for _, layer in store.images.layers().layers:
            (claim,) = store.blobs.unchecked(layer)
            assert claim.path is not None
            store.blobs.adopt(measure(claim.path.read_bytes(), layer.compression))
        after = store.catalog.holdings()
        assert [row.digest for row in after] == [row.digest for row in before]
        assert pull(store, image.root, "latest", "x:1").bytes_to_fetch == 0
    assert_store_is_sound(root)


def test_a_deleted_catalog_says_that_the_store_is_to_be_scanned(root: Path, image: BuiltImage) -> None:
    with Store.open(root) as store:
        assert store.rebuild_reason is None
        pull(store, image.root, "latest", "x:1")
    shutil.rmtree(root / "layertee")
    for _ in range(2):  # looking does not make it whole
        with Store.open(root) as store:
            assert store.rebuild_reason is not None
    with Store.open(root) as store:
        assert set(store.layout.blobs()) == set(visible_blobs(root))


def test_a_catalog_of_a_newer_version_does_not_stop_a_pull(root: Path, image: BuiltImage) -> None:
    Store.open(root).close()
    db = sqlite3.connect(root / "layertee" / "catalog.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = (root / "layertee" / "catalog.sqlite").read_bytes()
    with Store.open(root) as store:
        assert "newer version" in store.warnings[0]
        pull(store, image.root, "latest", "x:1")
        assert pull(store, image.root, "latest", "x:2").bytes_to_fetch == 0
    assert (root / "layertee" / "catalog.sqlite").read_bytes() == before


def test_what_a_blob_inflates_to_is_not_known_while_the_catalog_fails(store: Store, monkeypatch: Any) -> None:
    assert store.blobs.content_of(RESULT.digest) is None
    bring(store, BLOB, Compression.GZIP)
    assert store.blobs.content_of(RESULT.digest) == RESULT.diff_id

    def fail(*args: object) -> Any:
        raise CatalogError("the map is on fire")

    monkeypatch.setattr(Catalog, "diff_id", fail)
    assert store.blobs.content_of(RESULT.digest) is None
    assert store.warnings == ("the map is on fire",)


def test_a_catalog_that_fails_in_the_middle_becomes_a_warning(
    store: Store, image: BuiltImage, monkeypatch: Any
) -> None:
    def fail(*args: object, **kwargs: object) -> Any:
        raise CatalogError("the map is on fire")

    for name in ("check", "record", "holds", "holdings", "put_image", "images", "forget", "remove_image"):
        monkeypatch.setattr(Catalog, name, fail)
    holding = bring(store, BLOB, Compression.GZIP)
    assert holding.path is not None
    assert holding.path.read_bytes() == BLOB
    assert store.blobs.held(RESULT.diff_id) == []
    pull(store, image.root, "latest", "x:1")
    assert [found.name for found in store.images.all()] == ["x:1"]
    store.blobs.quarantine(RESULT.digest)
    store.images.remove("x:1")
    assert store.warnings == ("the map is on fire",)
