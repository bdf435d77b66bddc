"""A blob that is put together as it is read, in blocks that are right before anybody sees them.

The name of a blob is a hash of all of it, and says nothing about a part. So the first pass keeps the hash's
state after each block; once the last one gave the blob's name, all of them are known to be right, and each
block can be checked alone: continued with it, the state before it must give the state after it.

Nothing else is kept, and nothing hashed twice. In the first pass the blocks leave before that is known, all
but the last one: what is wrong is never ended normally.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from ..aio import is_given_up
from ..errors import DigestMismatch, SourceUnreadable

if TYPE_CHECKING:
    from hashlib import _Hash

    from ..image.document import Digest
    from ..image.holding import BlobReader
    from .offer import Sendable

BLOCK: Final = 1 << 20
STATE_NBYTES: Final = 320  # of memory, for a state of SHA-256


@runtime_checkable
class Skipping(Protocol):
    """A BlobReader that passes over bytes faster than it reads them."""

    def skip(self, nbytes: int) -> None:
        """Go on ``nbytes`` bytes further. Blocks. Raises SourceUnreadable."""


class BlockList:
    """What a blob hashes to after each of its blocks."""

    def __init__(self, algorithm: str) -> None:
        self._states: list[_Hash] = [hashlib.new(algorithm)]

    @property
    def nbytes(self) -> int:
        """Of memory, about."""
        return STATE_NBYTES * len(self._states)

    def extend(self, block: memoryview) -> str:
        """One more block; what the blob hashes to so far, in hexadecimal digits."""
        state = self._states[-1].copy()
        state.update(block)
        self._states.append(state)
        return state.hexdigest()

    def is_right(self, number: int, block: memoryview) -> bool:
        """Whether ``block`` is the blob's block ``number``, counted from 0."""
        state = self._states[number].copy()
        state.update(block)
        return state.digest() == self._states[number + 1].digest()


class BlockLists:
    """Those of the blobs that were sent last, in ``limit`` bytes of memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._nbytes = 0
        self._lists: OrderedDict[Digest, BlockList] = OrderedDict()

    def get(self, digest: Digest) -> BlockList | None:
        """Of the blob ``digest``, which is now the one that was used last."""
        if (found := self._lists.get(digest)) is not None:
            self._lists.move_to_end(digest)
        return found

    def put(self, digest: Digest, blocks: BlockList) -> None:
        """Keep ``blocks``, the last of which gave ``digest``."""
        if (old := self._lists.pop(digest, None)) is not None:
            self._nbytes -= old.nbytes
        self._lists[digest] = blocks
        self._nbytes += blocks.nbytes
        while self._nbytes > self._limit and self._lists:
            self._nbytes -= self._lists.popitem(last=False)[1].nbytes


class CheckedBlocks:
    """The blocks of ``blob`` from block ``first`` on. Blocks; one thread at a time; ``close`` it.

    ``known`` is the blob's list. Without one, ``first`` is 0, and ``made`` is the list once the last block
    was right. Every method raises SourceUnreadable, DigestMismatch.
    """

    def __init__(self, blob: Sendable, first: int, known: BlockList | None) -> None:
        if first and known is None:
            raise ValueError("what a blob begins with can only be passed over where its blocks are known")
        self._blob = blob
        self._known = known
        self._new = BlockList(blob.digest.algorithm)
        self._number = first
        self.made: BlockList | None = None
        self._reader: BlobReader = blob.content.open()
        try:
            _skip(self._reader, first * BLOCK)
        except BaseException:
            self._reader.close()
            raise

    def read(self, room: memoryview) -> memoryview:
        """The next block, in ``room``, which is BLOCK bytes long; nothing at the end of the blob."""
        left = self._blob.size - self._number * BLOCK
        block = room[: max(0, min(BLOCK, left))]
        if not block:
            return block
        if self._reader.readinto(block) != len(block):
            raise SourceUnreadable(f"{self._what()}: ended before its {self._blob.size} bytes had come")
        is_last = left <= BLOCK
        if is_last and self._reader.readinto(memoryview(bytearray(1))):
            raise SourceUnreadable(f"{self._what()}: has more than its {self._blob.size} bytes")
        if self._known is not None:
            if not self._known.is_right(self._number, block):
                raise self._wrong("is not what was there before", "other bytes")
        else:
            got = self._new.extend(block)
            if is_last:
                if got != self._blob.digest.hex:
                    got = f"{self._blob.digest.algorithm}:{got}"
                    raise self._wrong(f"hashes to {got}", got)
                self.made = self._new
        self._number += 1
        return block

    def close(self) -> None:
        """Harmless when repeated."""
        self._reader.close()

    def _wrong(self, how: str, got: str) -> DigestMismatch:
        blob = self._blob
        return DigestMismatch(f"{self._what()}: {how}", want=str(blob.digest), got=got, nbytes=blob.size)

    def _what(self) -> str:
        return f"{self._blob.place}: {self._blob.digest}"


def read_whole(blob: Sendable) -> Generator[memoryview, None, BlockList]:
    """All of ``blob``, whose bytes are right if the last one came; at the end, its list.

    A block is valid until the next one. Blocks. Raises SourceUnreadable, DigestMismatch; also ends for a
    caller of ``in_thread`` who gave up.
    """
    room = memoryview(bytearray(BLOCK))
    blocks = CheckedBlocks(blob, 0, None)
    try:
        while block := blocks.read(room):
            if is_given_up():
                raise SourceUnreadable(f"{blob.place}: {blob.digest} is no longer waited for")
            yield block
        if blocks.made is None:
            raise SourceUnreadable(f"{blob.place}: {blob.digest} has no bytes")
        return blocks.made
    finally:
        blocks.close()


def list_blocks(blob: Sendable) -> BlockList:
    """Read all of ``blob`` once. Blocks; raises as ``read_whole``."""
    reading = read_whole(blob)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            made: BlockList = end.value
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
