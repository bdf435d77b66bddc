"""What stays of the layers that were served, and what goes first when there is need of room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.disk.space import KeepFree, Space, free_space
from layertee.errors import InvalidReference, StoreBusy
from layertee.image.document import Digest
from layertee.image.media import Compression
from layertee.store.cache import CacheLimit, keep_within, make_room
from layertee.store.gc import trim
from layertee.store.store import Store
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer
from tests.support.store import assert_store_is_sound, bring, gzip_layer, pull, visible_blobs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "built", [incompressible_layer(20_000, seed=5)])


def cached(store: Store, n: int) -> list[Digest]:
    """``n`` layers that no image has, the first the one that was not used for longest."""
    digests = []
    for at in range(n):
        digest = bring(store, gzip_layer(f"layer {at}")[1], Compression.GZIP).digest
        os.utime(store.layout.blob_path(digest), (0, 1_000_000 + at))
        digests.append(digest)
    return digests


def size(store: Store, digests: list[Digest]) -> int:
    return sum(store.layout.blob_size(digest) or 0 for digest in digests)


def test_what_was_not_used_for_longest_goes_first(store: Store) -> None:
    digests = cached(store, 5)
    keep_within(store, CacheLimit(size(store, digests[2:])))
    assert set(visible_blobs(store.root)) == set(digests[2:])
    assert {row.digest for row in store.catalog.holdings()} == set(digests[2:])
    assert_store_is_sound(store.root)


def test_layers_of_images_stay_and_do_not_count(store: Store, image: BuiltImage) -> None:
    pull(store, image.root, "latest", "x:1")
    named = set(visible_blobs(store.root))
    digests = cached(store, 2)
    keep_within(store, CacheLimit(size(store, digests)))
    assert set(visible_blobs(store.root)) == named | set(digests)
    keep_within(store, CacheLimit(0))
    assert set(visible_blobs(store.root)) == named
    assert_store_is_sound(store.root)


def test_a_share_is_of_what_would_be_free_without_the_cache(store: Store) -> None:
    free, _ = free_space(store.root, KeepFree(0))
    assert CacheLimit.parse("50%").of(store, 1 << 40) == pytest.approx((free + (1 << 40)) / 2, rel=0.01)


def test_nothing_goes_while_there_is_room_for_what_comes(store: Store) -> None:
    digests = cached(store, 3)
    make_room(store, Space(store.root, KeepFree(0)), 1 << 20, ())
    assert set(visible_blobs(store.root)) == set(digests)


def test_as_much_goes_as_what_comes_needs_but_nothing_of_what_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = cached(store, 3)
    monkeypatch.setattr("layertee.disk.space.free_space", lambda *_: (150, 50))
    make_room(store, Space(store.root, KeepFree()), 100 + size(store, digests[1:2]), {digests[0]})
    assert set(visible_blobs(store.root)) == {digests[0], digests[2]}


def test_a_store_that_is_in_use_is_left_alone(store: Store) -> None:
    digests = cached(store, 2)
    with store.shared():
        with pytest.raises(StoreBusy):
            trim(store, lambda _: 0)
        keep_within(store, CacheLimit(0))
    assert set(visible_blobs(store.root)) == set(digests)
    keep_within(store, CacheLimit(0))
    assert visible_blobs(store.root) == {}


def test_parts_of_processes_that_were_killed_go_as_well(store: Store) -> None:
    (store.room.ingest / "dead.part").write_bytes(b"12345")
    keep_within(store, CacheLimit(1 << 30))
    assert list(store.room.ingest.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "nbytes", "share"),
    [
        *[("0", 0, 0.1), ("5G", 5_000_000_000, 0.1), ("5Gi", 5 << 30, 0.1), ("1.5M", 1_500_000, 0.1)],
        *[("10%", None, 0.1), ("0%", None, 0.0), ("2TB", 2_000_000_000_000, 0.1)],
    ],
)
def test_limits_are_sizes_or_shares(text: str, nbytes: int | None, share: float) -> None:
    assert CacheLimit.parse(text) == CacheLimit(nbytes, share)


@pytest.mark.parametrize("text", ["", "much", "-1", "101%", "5X", "5 %G", "1e9", "%"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match=r"5G.*10%"):
        CacheLimit.parse(text)
