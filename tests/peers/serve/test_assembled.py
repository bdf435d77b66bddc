"""Layers of a real store of podman's as a client gets them: the very tar, or no end of it."""

from __future__ import annotations

import asyncio
import random
import tarfile
import tempfile
from collections.abc import Coroutine, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import LayerteeError
from layertee.image.document import DiffID, Digest
from layertee.serve.blocks import BLOCK
from layertee.serve.offer import Sendable
from layertee.serve.outgoing import Outgoing
from layertee.serve.sending import Sending
from tests.support.compress import digest_of
from tests.support.podman import DRIVERS, NAME, place_of
from tests.support.rig.storage import StorageRig, tar_image
from tests.support.sending import open_files, sent

pytestmark = pytest.mark.needs_root("these tools unpack layers as root")


def layer() -> bytes:
    """Directories, links of both kinds, long names, empty files, many small ones and one of 4 MiB."""
    noise = random.Random(3)
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def put(name: str, kind: bytes, content: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), link
            tar.addfile(member, BytesIO(content))

        for n in range(40):
            put(f"d{n}", tarfile.DIRTYPE)
            put(f"d{n}/empty", tarfile.REGTYPE)
            put(f"d{n}/x{'é' * (n * 3)}", tarfile.REGTYPE, noise.randbytes(noise.randrange(1, 60_000)))
            put(f"d{n}/soft", tarfile.SYMTYPE, link="../d0/empty")
            put(f"d{n}/hard", tarfile.LNKTYPE, link=f"d{n}/empty")
        put("big", tarfile.REGTYPE, noise.randbytes(4 * BLOCK + 99))
        put("last", tarfile.REGTYPE, b"the last file")
    return made.getvalue()


TAR = layer()
SIZE = len(TAR)
DIFF_ID = DiffID(digest_of(TAR))
PARTS = [
    *((0, 1), (0, 512), (511, 513), (0, BLOCK), (BLOCK - 1, BLOCK + 1), (BLOCK, 3 * BLOCK + 5)),
    *((SIZE // 2, SIZE), (SIZE - 1, SIZE), (1, SIZE), (7, 7), (0, SIZE)),
]


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest) -> Iterator[StorageRig]:
    with tempfile.TemporaryDirectory(prefix="store-", dir="/tmp") as top:
        (Path(top) / "oci").mkdir()
        rig = StorageRig(Path(top) / "s", request.param)
        rig.take(tar_image(Path(top) / "oci", [TAR]), NAME)
        yield rig
        rig.unmount()


def offered(store: StorageRig) -> Sendable | None:
    held = place_of(store).find([DIFF_ID]).get(DIFF_ID)
    if held is None or held.content is None:
        return None
    return Sendable(held.digest, held.size, held.content, held.place)


def run(main: Coroutine[Any, Any, None]) -> None:
    before = open_files()
    asyncio.run(main)
    assert open_files() == before


async def rest(outgoing: Outgoing) -> tuple[int, LayerteeError | None]:
    """How many bytes come, and what ends them if they do not end normally."""
    n = 0
    try:
        async for chunk in outgoing:
            n += len(chunk)
    except LayerteeError as exc:
        return n, exc
    finally:
        await outgoing.close()
    return n, None


def test_any_part_is_that_of_the_tar_that_was_pushed(store: StorageRig) -> None:
    async def main() -> None:
        blob = offered(store)
        assert blob is not None and blob.size == SIZE and blob.digest == Digest(DIFF_ID)
        sending = Sending()
        for start, stop in (*PARTS, *reversed(PARTS)):
            outgoing = await sending.open(blob, start, stop)
            assert await sent(outgoing, stop - start) == TAR[start:stop]
        await sending.close()

    run(main())


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("name", ["big", "last"])
def test_a_file_that_is_changed_behind_podmans_back_is_never_sent_as_a_whole(
    store: StorageRig, name: str, is_known: bool
) -> None:
    async def main() -> None:
        blob = offered(store)
        assert blob is not None
        sending = Sending()
        if is_known:
            assert await sent(await sending.open(blob, 0, SIZE), SIZE) == TAR
        spoil(store.tree(DIFF_ID) / name)
        n, why = await rest(await sending.open(blob, 0, SIZE))
        assert n < SIZE and why is not None and why.code == "DIGEST_MISMATCH"
        if is_known:  # what is not of that file is sent, as it is right
            assert await sent(await sending.open(blob, 0, 10), 10) == TAR[:10]
        else:
            with pytest.raises(LayerteeError):
                await sending.open(blob, 0, 10)
        await sending.close()

    run(main())


def test_an_image_that_podman_removes_meanwhile_ends_well_or_is_cut_and_is_then_gone(
    store: StorageRig,
) -> None:
    async def main() -> None:
        blob = offered(store)
        assert blob is not None
        sending = Sending()
        outgoing = await sending.open(blob, 0, SIZE)
        await asyncio.to_thread(store.run, "podman", "rmi", NAME)
        n, why = await rest(outgoing)
        assert n == SIZE if why is None else n < SIZE
        assert offered(store) is None
        with pytest.raises(LayerteeError):
            await sending.open(blob, 0, SIZE)
        await sending.close()

    run(main())


def spoil(path: Path) -> None:
    """Another byte at the end, and all else as it was."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
