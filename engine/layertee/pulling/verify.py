"""The store, hashed again from end to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..aio import in_thread, unwrapped_group
from ..core.pool import LayerJob, Pool, PoolLayer
from ..core.result import TeeResult
from ..disk.blob_file import FileContent
from ..errors import IntegrityError, LayerteeError, SourceUnreadable
from ..image.document import DiffID, Digest
from ..image.media import Compression
from ..store.store import EXCLUSIVE_WAIT_S, Store
from .measure import run_layer
from .source import read_blob

# Two blobs at once keep both hashing lanes busy.
AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class BadBlob:
    """A blob whose bytes are wrong, and where it was put."""

    digest: Digest
    reason: str
    quarantined: Path | None


@dataclass(slots=True)
class VerifyReport:
    """What a verification found. ``missing`` names what an image needs and that is not here."""

    n_blobs: int = 0
    nbytes: int = 0
    bad: list[BadBlob] = field(default_factory=list)
    missing: list[Digest] = field(default_factory=list)
    adopted: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.bad and not self.missing


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a blob should be; no DiffID for documents and for blobs that nothing here names."""

    digest: Digest
    path: Path
    compression: Compression
    diff_id: DiffID | None
    held: bool


async def verify_store(store: Store, pool: Pool) -> VerifyReport:
    """Hash every blob, inflate every layer, compare; take what is wrong out of the layout.

    Holds the store exclusively. Files that no row vouches for and that turn out right are adopted,
    so this also rebuilds a lost catalog. Raises StoreBusy, LocalError.
    """
    report = VerifyReport()
    lock = await store.when_exclusive(EXCLUSIVE_WAIT_S)
    try:
        todo = await in_thread(_expectations, store, report)
        queue = iter(todo)

        async def work() -> None:
            for expected in queue:
                await _check(store, pool, expected, report)

        async with unwrapped_group() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    finally:
        lock.release()
    report.warnings.extend(store.warnings)
    return report


def _expectations(store: Store, report: VerifyReport) -> list[_Expected]:
    rows = {row.digest: row for row in store.catalog.holdings()}
    named_layers = store.images.layers()
    report.warnings.extend(named_layers.warnings)
    layers = {layer.digest: layer for layer in named_layers.layers}
    needed = set(layers)
    for image in store.images.all():
        needed |= {image.digest, image.original} | ({image.config} if image.config else set())
    found: list[_Expected] = []
    for digest in store.layout.blobs():
        path = store.layout.blob_path(digest)
        needed.discard(digest)
        row = rows.pop(digest, None)
        named = row or layers.get(digest)
        if named is None:
            found.append(_Expected(digest, path, Compression.NONE, None, False))
        else:
            found.append(_Expected(digest, path, named.compression, named.diff_id, row is not None))
    report.missing.extend(sorted(needed))
    store.catalog.forget(*rows)  # the file is gone: the row must not promise it
    return found


async def _check(store: Store, pool: Pool, expected: _Expected, report: VerifyReport) -> None:
    async def feed(layer: PoolLayer) -> None:
        await read_blob(FileContent(expected.path), pool, layer)

    report.n_blobs += 1
    try:
        size = expected.path.lstat().st_size
        result = await run_layer(pool.open_layer(LayerJob(expected.compression, size)), feed)
        report.nbytes += result.size
        reason = _difference(expected, result)
    except (IntegrityError, SourceUnreadable) as exc:
        reason = str(exc)
    except OSError as exc:
        reason = exc.strerror or str(exc)
    else:
        if reason is None and expected.diff_id is not None and not expected.held:
            try:
                await in_thread(store.blobs.adopt, result)
                report.adopted += 1
            except LayerteeError as exc:
                report.warnings.append(str(exc))
    if reason is not None:
        aside = await in_thread(store.blobs.quarantine, expected.digest)
        report.bad.append(BadBlob(expected.digest, reason, aside))


def _difference(expected: _Expected, result: TeeResult) -> str | None:
    if result.digest != expected.digest:
        return f"its {result.size} bytes hash to {result.digest}"
    if expected.diff_id is not None and result.diff_id != expected.diff_id:
        return f"it inflates to {result.diff_id}, not to {expected.diff_id}"
    return None
