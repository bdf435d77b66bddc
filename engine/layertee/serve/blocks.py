"""A blob that is put together as it is read, in blocks that are right before anybody sees them.

The name of a blob is a hash of all of it, and says nothing about a part. So the first pass keeps the hash's
state after each block; once the last one gave the blob's name, all of them are known to be right, and each
block can be checked alone: continued with it, the state before it must give the state after it.

Nothing else is kept, and nothing hashed twice. In the first pass the blocks leave before that is known, all
but the last one: what is wrong is never ended normally.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from ..aio import is_given_up
from ..core.chain import Chain, new_chain
from ..errors import DigestMismatch, SourceUnreadable

if TYPE_CHECKING:
    from ..image.document import Digest
    from ..image.holding import BlobReader
    from .offer import Sendable

BLOCK: Final = 1 << 20


@runtime_checkable
class Skipping(Protocol):
    """A BlobReader that passes over bytes faster than it reads them."""

    def skip(self, nbytes: int) -> None:
        """Go on ``nbytes`` bytes further. Blocks. Raises SourceUnreadable."""


class BlockLists:
    """Those of the blobs that were sent last, in ``limit`` bytes of memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._nbytes = 0
        self._lists: OrderedDict[Digest, Chain] = OrderedDict()

    def get(self, digest: Digest) -> Chain | None:
        """Of the blob ``digest``, which is now the one that was used last."""
        if (found := self._lists.get(digest)) is not None:
            self._lists.move_to_end(digest)
        return found

    def put(self, digest: Digest, blocks: Chain) -> None:
        """Keep ``blocks``, the last of which gave ``digest``."""
        if (old := self._lists.pop(digest, None)) is not None:
            self._nbytes -= old.nbytes
        self._lists[digest] = blocks
        self._nbytes += blocks.nbytes
        while self._nbytes > self._limit and self._lists:
            self._nbytes -= self._lists.popitem(last=False)[1].nbytes


class CheckedBlocks:
    """The blocks of ``blob``. ``close`` it.

    ``known`` is the blob's list. Without one, blocks are read in their order, those that were read may be
    read again, and ``made`` is the list once the last block was right.
    """

    def __init__(self, blob: Sendable, known: Chain | None) -> None:
        self._blob = blob
        self._chain = known or new_chain(blob.digest.algorithm, BLOCK)
        self._n_listed = -(-blob.size // BLOCK) if known is not None else 0
        self._failed: DigestMismatch | None = None
        self._reader: BlobReader | None = None
        self._next = 0  # the block that the reader is at
        self.made: Chain | None = None

    @property
    def nbytes(self) -> int:
        """Of the whole blob."""
        return self._blob.size

    def read(self, number: int, room: memoryview) -> memoryview:
        """Block ``number``, in ``room``, which is large enough; nothing at the end of the blob.

        Blocks; one thread at a time. Raises SourceUnreadable, DigestMismatch.
        """
        if number > self._n_listed:
            raise ValueError("what a blob begins with can only be passed over where its blocks are known")
        if self._failed is not None:
            raise self._failed
        left = self._blob.size - number * BLOCK
        block = room[: max(0, min(BLOCK, left))]
        if not block:
            return block
        try:
            self._read(number, block, is_last=left <= BLOCK)
            self._check(number, block, is_last=left <= BLOCK)
        except BaseException:
            self.pause()
            raise
        return block

    def pause(self) -> None:
        """Keep nothing open until the next block is read."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Harmless when repeated."""
        self.pause()

    def _read(self, number: int, block: memoryview, *, is_last: bool) -> None:
        if self._next > number:
            self.pause()
        if self._reader is None:
            self._reader = self._blob.content.open()
            self._next = 0
        _skip(self._reader, (number - self._next) * BLOCK)
        if self._reader.readinto(block) != len(block):
            raise SourceUnreadable(f"{self._what()}: ended before its {self._blob.size} bytes had come")
        if is_last and self._reader.readinto(memoryview(bytearray(1))):
            raise SourceUnreadable(f"{self._what()}: has more than its {self._blob.size} bytes")
        self._next = number + 1

    def _check(self, number: int, block: memoryview, *, is_last: bool) -> None:
        if number < self._n_listed:
            if not self._chain.is_right(number, block, is_last=is_last):
                raise self._wrong("is not what it was before", "other bytes")
            return
        digest = self._chain.extend(block, is_last=is_last)
        self._n_listed += 1
        if digest is not None:
            got = f"{self._blob.digest.algorithm}:{digest.hex()}"
            if got != self._blob.digest:
                self._failed = self._wrong(f"hashes to {got}", got)
                raise self._failed
            self.made = self._chain

    def _wrong(self, how: str, got: str) -> DigestMismatch:
        blob = self._blob
        return DigestMismatch(f"{self._what()}: {how}", want=str(blob.digest), got=got, nbytes=blob.size)

    def _what(self) -> str:
        return f"{self._blob.place}: {self._blob.digest}"


def read_whole(blob: Sendable) -> Generator[memoryview, None, Chain]:
    """All of ``blob``, whose bytes are right if the last one came; at the end, its list.

    A block is valid until the next one. Blocks. Raises SourceUnreadable, DigestMismatch; also ends for a
    caller of ``in_thread`` who gave up.
    """
    room = memoryview(bytearray(BLOCK))
    blocks = CheckedBlocks(blob, None)
    try:
        for number in count():
            if not (block := blocks.read(number, room)):
                break
            if is_given_up():
                raise SourceUnreadable(f"{blob.place}: {blob.digest} is no longer waited for")
            yield block
        if blocks.made is None:
            raise SourceUnreadable(f"{blob.place}: {blob.digest} has no bytes")
        return blocks.made
    finally:
        blocks.close()


def list_blocks(blob: Sendable) -> Chain:
    """Read all of ``blob`` once. Blocks; raises as ``read_whole``."""
    reading = read_whole(blob)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            made: Chain = end.value
            return made


def _skip(reader: BlobReader, nbytes: int) -> None:
    if isinstance(reader, Skipping):
        reader.skip(nbytes)
        return
    room = memoryview(bytearray(min(nbytes, BLOCK)))
    while nbytes:
        n = reader.readinto(room[:nbytes])
        if n == 0:
            raise SourceUnreadable("a blob ended before the bytes that were asked for")
        nbytes -= n
