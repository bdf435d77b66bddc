"""The fake stock and its sender keep to what they promise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from layertee.errors import InvalidReference, SourceUnreadable
from layertee.image.document import Digest
from layertee.serve.offer import Stock
from tests.support.fakes.stock import FakeSender, FakeStock, document


def test_it_is_a_stock() -> None:
    one, other = document({"a": 1}), document({"a": 2})
    fake = FakeStock(images={("os", "1"): [one]}, originals={("os", "1"): [other]})
    stock: Stock = fake
    assert stock.repositories() == ["os"]
    assert (stock.tags("os"), stock.tags("other")) == (["1"], None)
    assert stock.named("os", "1") == [one]
    assert stock.named("os", "1", original=True) == [other]
    assert stock.document("os", other.digest) == other
    assert stock.document("other", one.digest) is None
    fake.ambiguous.add("os")
    with pytest.raises(InvalidReference):
        stock.named("os", "1")


def test_what_is_distrusted_is_gone() -> None:
    fake = FakeStock()
    blob = fake.blob(fake.add_blob(b"abc"))
    assert blob is not None
    fake.distrust(blob)
    fake.distrust(blob)
    assert fake.blob(blob.digest) is None


async def _read(sender: FakeSender, stock: FakeStock, digest: Digest, start: int, stop: int) -> bytes:
    blob = stock.blob(digest)
    assert blob is not None
    outgoing = await sender.open(blob, start, stop)
    try:
        return b"".join([bytes(chunk) async for chunk in outgoing])
    finally:
        await outgoing.close()


def test_a_sender_gives_the_part_or_fails_where_it_is_told_to(tmp_path: Path) -> None:
    stock, sender = FakeStock(), FakeSender()
    raw = bytes(range(200)) * 1000
    (tmp_path / "blob").write_bytes(raw)
    digest = stock.add_blob(raw, tmp_path / "blob")
    assert asyncio.run(_read(sender, stock, digest, 5, 150_000)) == raw[5:150_000]
    (opened,) = sender.opened
    assert opened.file is not None
    assert opened.file.offset == 5
    assert opened.is_closed
    sender.wrong[digest] = 60_000
    with pytest.raises(SourceUnreadable):
        asyncio.run(_read(sender, stock, digest, 0, len(raw)))
    sender.refused[digest] = SourceUnreadable("gone")
    with pytest.raises(SourceUnreadable):
        asyncio.run(_read(sender, stock, digest, 0, len(raw)))
