"""The store, hashed again from end to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from ..aio import in_thread, unwrapped_group
from ..core.pool import LayerJob, Pool, PoolLayer
from ..core.result import BlobResult, TeeResult
from ..core.tee import OUT_BUDGET
from ..disk.blob_file import FileContent
from ..errors import DecodeError, IntegrityError, LayerteeError, SourceUnreadable
from ..image.media import Compression
from ..options import ZSTD_WINDOW_MOST, Options
from ..record import dataclass
from ..store.store import EXCLUSIVE_WAIT_S, Store
from .measure import measure_layer
from .report import VerifyCallback, VerifyProgress
from .source import read_blob

if TYPE_CHECKING:
    from ..image.document import DiffID, Digest, Layer
    from ..store.catalog import HeldBlob

# Two blobs at once keep both hashing lanes busy.
AT_ONCE = 3
TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class BadBlob:
    """A blob whose bytes are wrong, and where it was put."""

    digest: Digest
    reason: str
    quarantined: Path | None


@dataclass(frozen=True, slots=True)
class FalseClaim:
    """What ``image`` says of a blob and is not so, though the blob is what its name says."""

    image: str
    digest: Digest
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """What a verification found. ``missing`` names what an image needs and that is not here."""

    n_blobs: int = 0
    nbytes: int = 0
    bad: list[BadBlob] = field(default_factory=list)
    false: list[FalseClaim] = field(default_factory=list)
    missing: list[Digest] = field(default_factory=list)
    adopted: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.bad and not self.false and not self.missing


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a blob should be, by the catalog's row and by images of these names. Documents have neither."""

    digest: Digest
    path: Path
    row: HeldBlob | None
    claims: tuple[tuple[str, Layer], ...]

    @property
    def size(self) -> int:
        """Bytes of the file; 0 for one that is gone."""
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0


class _Telling:
    """Tells ``callback`` how far a verification is: ten times a second, and at its end."""

    def __init__(self, callback: VerifyCallback | None, todo: Sequence[_Expected]) -> None:
        self._callback = callback
        self._n_total = len(todo)
        self._bytes_total = sum(one.size for one in todo) if callback is not None else 0
        self._began = time.monotonic()
        self.n_done = 0
        self.bytes_done = 0

    def add(self, nbytes: int) -> None:
        """Bytes that were read."""
        self.bytes_done += nbytes

    async def tick(self) -> None:
        """Until cancelled."""
        while self._callback is not None:
            self.tell()
            await asyncio.sleep(TICK_S)

    def tell(self) -> None:
        if self._callback is not None:
            seconds = time.monotonic() - self._began
            done = min(self.bytes_done, self._bytes_total)  # what images disagree on is read twice
            self._callback(VerifyProgress(self.n_done, self._n_total, done, self._bytes_total, seconds))


async def verify_store(
    store: Store, pool: Pool, options: Options, progress: VerifyCallback | None = None
) -> VerifyReport:
    """Hash every blob, inflate every layer, compare; take what is wrong out of the layout.

    A blob is judged by its own name and by what was computed of it before, not by what images say of it:
    one image cannot have another one's blob thrown away. What was never inflated may inflate as far as
    ``options.budget`` lets an image of its size. Holds the store exclusively. Files that no row
    vouches for and that turn out right are adopted, so this also rebuilds a lost catalog. Raises StoreBusy,
    LocalError.
    """
    report = VerifyReport()
    lock = await store.when_exclusive(EXCLUSIVE_WAIT_S)
    try:
        todo = await in_thread(_expectations, store, report)
        queue = iter(todo)
        telling = _Telling(progress, todo)

        async def work() -> None:
            for expected in queue:
                await _check(store, pool, options, expected, report, telling)
                telling.n_done += 1

        async with unwrapped_group() as beside:
            ticking = beside.create_task(telling.tick())
            async with unwrapped_group() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work())
            ticking.cancel()
        telling.tell()
    finally:
        lock.release()
    report.warnings.extend(store.warnings)
    return report


def _expectations(store: Store, report: VerifyReport) -> list[_Expected]:
    rows = {row.digest: row for row in store.catalog.holdings()}
    named = store.images.layers()
    report.warnings.extend(named.warnings)
    claims: dict[Digest, list[tuple[str, Layer]]] = {}
    for name, layer in named.layers:
        claims.setdefault(layer.digest, []).append((name, layer))
    needed = set(claims) | store.images.needs()
    found: list[_Expected] = []
    for digest in store.layout.blobs():
        needed.discard(digest)
        said = tuple(claims.get(digest, ()))
        found.append(_Expected(digest, store.layout.blob_path(digest), rows.pop(digest, None), said))
    report.missing.extend(sorted(needed))
    store.catalog.forget(*rows)  # the file is gone: the row must not promise it
    return found


async def _check(
    store: Store, pool: Pool, options: Options, expected: _Expected, report: VerifyReport, telling: _Telling
) -> None:
    report.n_blobs += 1
    try:
        result, undecoded = await _measure(pool, options, expected, telling)
        report.nbytes += result.size
        reason = _wrong(expected, result)
    except (IntegrityError, SourceUnreadable) as exc:
        reason = str(exc)
    except OSError as exc:
        reason = exc.strerror or str(exc)
    else:
        if reason is None:
            report.false += _false(expected, result, undecoded)
            await _adopt(store, expected, result, report)
    if reason is not None:
        aside = await in_thread(store.blobs.quarantine, expected.digest)
        report.bad.append(BadBlob(expected.digest, reason, aside))


async def _measure(
    pool: Pool, options: Options, expected: _Expected, telling: _Telling
) -> tuple[BlobResult, str]:
    """What the blob is, inflated as the row or one of the images has it, or why it cannot be that.

    Raises IntegrityError, SourceUnreadable, OSError.
    """

    async def feed(layer: PoolLayer) -> None:
        await read_blob(FileContent(expected.path), pool, layer, progress=telling.add)

    async def run(job: LayerJob) -> BlobResult:
        return await measure_layer(pool.open_layer(job), feed)

    size = expected.path.lstat().st_size
    if expected.row is not None:
        # It was inflated before, with whatever window it was allowed then.
        return await run(LayerJob(expected.row.compression, size, window_max=ZSTD_WINDOW_MOST)), ""
    budget, window_max = options.budget, options.zstd_window
    allowed = min(OUT_BUDGET, budget.max_output, budget.free_output + budget.max_growth * size)
    undecoded = ""
    # Of what is compressed, the first byte says how.
    for compressed in dict.fromkeys(
        layer.compression is not Compression.NONE for _, layer in expected.claims
    ):
        compression = Compression.GZIP if compressed else Compression.NONE
        try:
            return await run(LayerJob(compression, size, out_budget=allowed, window_max=window_max)), ""
        except DecodeError as exc:  # the bytes are wrong, or what an image says of them
            undecoded = str(exc)
    return await run(LayerJob(Compression.NONE, size, digest_only=True)), undecoded


async def _adopt(store: Store, expected: _Expected, result: BlobResult, report: VerifyReport) -> None:
    """Record what was computed of a layer that no row vouches for."""
    if expected.row is not None or not expected.claims or not isinstance(result, TeeResult):
        return
    try:
        await in_thread(store.blobs.adopt, result)
        report.adopted += 1
    except LayerteeError as exc:
        report.warnings.append(str(exc))


def _false(expected: _Expected, result: BlobResult, undecoded: str) -> list[FalseClaim]:
    """What images say of a blob that is what its name says."""
    found = []
    for image, layer in expected.claims:
        reason = undecoded or _other_content(result, layer.diff_id)
        if reason:
            found.append(FalseClaim(image, expected.digest, reason))
    return list(dict.fromkeys(found))


def _wrong(expected: _Expected, result: BlobResult) -> str | None:
    """Why the blob is not what its name says, or not what was computed of it before."""
    if result.digest != expected.digest:
        return f"its {result.size} bytes hash to {result.digest}"
    return _other_content(result, expected.row.diff_id) if expected.row is not None else None


def _other_content(result: BlobResult, diff_id: DiffID) -> str | None:
    content = str(result.diff_id) if isinstance(result, TeeResult) else str(result.digest)
    return f"it inflates to {content}, not to {diff_id}" if content != diff_id else None
