"""Parts of a stream checked alone, with each core: right ones are right, and any other is not."""

from __future__ import annotations

import hashlib
import random

import pytest

from layertee.core.chain import STEP, Chain, new_chain

BLOCK = 2 * STEP
DATA = random.Random(2).randbytes(4 * BLOCK)
pytestmark = pytest.mark.usefixtures("default_core")


def blocks_of(size: int, block: int) -> list[memoryview]:
    whole = memoryview(DATA)[:size]
    return [whole[at : at + block] for at in range(0, size, block)]


def chain_of(size: int, algorithm: str, block: int = BLOCK) -> Chain:
    chain = new_chain(algorithm, block)
    blocks = blocks_of(size, block)
    for one in blocks[:-1]:
        assert chain.extend(one, is_last=False) is None
    assert chain.extend(blocks[-1], is_last=True) == hashlib.new(algorithm, DATA[:size]).digest()
    return chain


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("block", [STEP, BLOCK, 3 * STEP])
@pytest.mark.parametrize(
    "size", [1, 63, 64, STEP - 1, STEP, STEP + 1, BLOCK, BLOCK + 1, 2 * BLOCK + STEP, 3 * BLOCK - 5]
)
def test_each_block_is_right_and_no_other_is(size: int, block: int, algorithm: str) -> None:
    chain = chain_of(size, algorithm, block)
    blocks = blocks_of(size, block)
    for number, one in enumerate(blocks):
        is_last = number == len(blocks) - 1
        assert chain.is_right(number, one, is_last=is_last)
        for at in {0, len(one) // 2, len(one) - 1}:
            wrong = bytearray(one)
            wrong[at] ^= 1
            assert not chain.is_right(number, memoryview(wrong), is_last=is_last)
        for other, elsewhere in enumerate(blocks):
            if other != number and len(elsewhere) == len(one):
                assert not chain.is_right(number, elsewhere, is_last=is_last)


def test_a_last_block_of_another_length_is_wrong() -> None:
    chain = chain_of(BLOCK + 1000, "sha256")
    data = memoryview(DATA)
    assert chain.is_right(1, data[BLOCK : BLOCK + 1000], is_last=True)
    for n in (1, 999, 1001, STEP):
        assert not chain.is_right(1, data[BLOCK : BLOCK + n], is_last=True)


def test_memory_is_counted_and_little() -> None:
    chain = new_chain("sha256", BLOCK)
    before = chain.nbytes
    for _ in range(10):
        chain.extend(memoryview(DATA)[:BLOCK], is_last=False)
    assert before < chain.nbytes < before + 10 * 400


@pytest.mark.parametrize("nbytes", [0, 1000, STEP + 1])
def test_blocks_are_of_whole_steps(nbytes: int) -> None:
    with pytest.raises(ValueError, match="no block"):
        new_chain("sha256", nbytes)
