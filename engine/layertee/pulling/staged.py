"""A layer that has arrived and was checked, before it is one of the store's."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..errors import LocalError

if TYPE_CHECKING:
    from ..core.result import BlobResult
    from ..disk.blob_file import OpenFile
    from ..disk.locks import HeldLock
    from ..image.holding import Form
    from ..store.store import Store
    from .arrival import Arrival
    from .plan import LayerPlan
    from .report import Ingested


class Staged:
    """A layer in a part file, checked, with its lock. Its owner commits it, or aborts it."""

    def __init__(
        self,
        store: Store,
        step: LayerPlan,
        form: Form,
        lock: HeldLock,
        arrival: Arrival,
        result: BlobResult,
        outcome: Ingested,
    ) -> None:
        self._store = store
        self._step = step
        self._form = form
        self._lock = lock
        self._arrival = arrival
        self.outcome = outcome
        """As it will be once it is committed."""
        self.result = result
        """What was measured of the blob that was read."""

    def reopen(self) -> OpenFile:
        """What was written, for reading: the file itself, whatever name it is given. The caller closes it.

        Raises LocalError.
        """
        return self._arrival.writer.reopen()

    async def commit(self) -> Ingested:
        """Flush, rename, record; on a thread. Whatever is raised, the file is gone and the lock released."""
        writer = self._arrival.writer
        try:
            held = await in_thread(
                self._store.blobs.commit, writer, self.result, self._form, claim=self._step.layer
            )
            self._arrival.drop()
            # What is here of the layer in the other form is of no use any more.
            layer = self._step.layer
            with suppress(LocalError):
                await in_thread(self._store.parts.drop, {layer.digest, layer.tar_digest})
            return replace(self.outcome, held=held)
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave what was fetched for another run; harmless after ``commit``."""
        self._arrival.retain()
        self._lock.release()
