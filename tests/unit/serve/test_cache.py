"""Layers that are asked for again are kept, and nothing that goes wrong with that reaches a client."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import DigestMismatch, ServeConfigError
from layertee.image.document import DiffID, Digest
from layertee.serve.blocks import BLOCK
from layertee.serve.cache import Cache
from layertee.serve.offer import Sendable
from layertee.serve.sending import Sending
from layertee.serve.wheres import directories_of, parse_offered
from layertee.store.cache import CacheLimit
from layertee.store.store import Store
from tests.support.sending import Assembled, open_files, sent

SIZE = 2 * BLOCK + 77


def run(main: Coroutine[Any, Any, None]) -> None:
    """``main``, after which no file is left open."""
    before = open_files()
    asyncio.run(main)
    assert open_files() == before


def layer(seed: int) -> tuple[bytes, Assembled, Sendable]:
    data = random.Random(seed).randbytes(SIZE)
    content = Assembled(data)
    return data, content, Sendable(Digest.of(data), SIZE, content, "containers-storage:")


def kept(root: Path) -> set[DiffID]:
    """The layers that a store of its own has, by what its catalog says."""
    with Store.open(root, create=False) as store:
        rows = store.catalog.holdings()
        assert {row.digest for row in rows} == set(store.layout.blobs())
        return {DiffID(row.digest) for row in rows}


async def get(sending: Sending, blob: Sendable, start: int = 0, stop: int = SIZE) -> bytes:
    return await sent(await sending.open(blob, start, stop), stop - start)


def wait_until_kept(cache: Cache, blob: Sendable) -> None:
    deadline = time.monotonic() + 20
    while (piece := cache.piece(blob)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    piece.close()


def test_what_is_asked_for_again_is_kept_and_comes_from_there(tmp_path: Path) -> None:
    async def main() -> None:
        data, content, blob = layer(1)
        cache = Cache.open(tmp_path / "cache")
        sending = Sending(cache=cache)
        assert await get(sending, blob) == data
        assert await asyncio.to_thread(cache.piece, blob) is None
        assert await get(sending, blob) == data
        await asyncio.to_thread(wait_until_kept, cache, blob)
        opened = content.opened
        assert opened == 3
        content.data.clear()  # whatever becomes of the place
        assert await get(sending, blob) == data
        assert await get(sending, blob, 5, BLOCK + 5) == data[5 : BLOCK + 5]
        assert content.opened == opened
        await sending.close()
        assert kept(tmp_path / "cache") == {DiffID(blob.digest)}

    run(main())


def test_many_at_once_wait_for_the_one_that_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        data, content, blob = layer(1)
        sending = Sending(at_once=1, patience_s=0.0, idle_s=60.0, cache=Cache.open(tmp_path / "cache"))
        slow = await sending.open(blob, 0, SIZE)
        got = await asyncio.gather(*(get(sending, blob) for _ in range(50)))
        assert all(one == data for one in got)
        assert content.opened == 2
        assert await sent(slow, SIZE) == data
        await sending.close()

    run(main())


def test_the_cache_stays_within_its_limit_and_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache = Cache.open(root, CacheLimit(2 * SIZE))
    blobs = [layer(seed)[2] for seed in range(3)]
    for at, blob in enumerate(blobs[:2]):
        cache.keep(blob)
        os.utime(root / "blobs" / "sha256" / blob.digest.hex, (0, 1_000_000 + at))
    piece = cache.piece(blobs[0])
    assert piece is not None  # used now
    piece.close()
    cache.keep(blobs[2])
    assert kept(root) == {DiffID(blobs[0].digest), DiffID(blobs[2].digest)}
    assert cache.piece(blobs[1]) is None
    cache.close()


@pytest.mark.parametrize("how", ["changed", "unreadable", "too large", "directory gone"])
def test_what_cannot_be_kept_is_sent_all_the_same_or_refused_as_ever(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        data, content, blob = layer(1)
        root = tmp_path / "cache"
        limit = CacheLimit(SIZE - 1 if how == "too large" else 10 * SIZE)
        sending = Sending(at_once=1, patience_s=0.0, idle_s=60.0, cache=Cache.open(root, limit))
        slow = await sending.open(blob, 0, SIZE)
        if how == "changed":
            content.data[-1] ^= 1
        elif how == "unreadable":
            content.fails_at = SIZE - 1
        elif how == "directory gone":
            os.rename(root, tmp_path / "elsewhere")
        if how in ("changed", "unreadable"):
            with pytest.raises(Exception, match=r"hashes to|cannot be read") as caught:
                await get(sending, blob)
            assert how != "changed" or isinstance(caught.value, DigestMismatch)
        else:
            assert await get(sending, blob) == data
        await slow.close()
        await sending.close()
        if how != "directory gone":
            assert kept(root) == set()
            assert os.listdir(root / "layertee" / "ingest") == []

    run(main())


def test_a_server_that_ends_while_a_layer_is_being_kept_leaves_nothing_half(tmp_path: Path) -> None:
    async def main() -> None:
        data, _, blob = layer(1)
        sending = Sending(cache=Cache.open(tmp_path / "cache"))
        assert await get(sending, blob) == data
        assert await get(sending, blob) == data
        await sending.close()
        assert kept(tmp_path / "cache") <= {DiffID(blob.digest)}
        assert os.listdir(tmp_path / "cache" / "layertee" / "ingest") == []

    run(main())


# --- where it may be ------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["layout", "layout/cache", ".", "link", "link/cache", "store", "a.tar"])
def test_it_is_not_where_images_are(tmp_path: Path, root: str) -> None:
    for name in ("layout", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "link").symlink_to("layout")
    before = sorted(tmp_path.rglob("*"))
    places = parse_offered([f"oci:{tmp_path}/layout", f"oci-archive:{tmp_path}/a.tar", "store"])
    with pytest.raises(ServeConfigError):
        Cache.open(tmp_path / root, apart_from=directories_of(places, tmp_path / "store"))
    assert sorted(tmp_path.rglob("*")) == before


def test_it_is_not_in_the_store_of_podman_and_may_be_beside_it(tmp_path: Path) -> None:
    places = parse_offered([f"containers-storage:[overlay@{tmp_path}/graph+{tmp_path}/run]"])
    apart_from = directories_of(places, None)
    with pytest.raises(ServeConfigError):
        Cache.open(tmp_path / "graph" / "cache", apart_from=apart_from)
    Cache.open(tmp_path / "graph-cache", apart_from=apart_from).close()
