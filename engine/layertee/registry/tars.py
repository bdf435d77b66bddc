"""What one endpoint has of layers whose blobs it lacks: their tars, each named by its DiffID.

A machine that keeps layers uncompressed, and hands on what it has (``layertee serve``, or any server that
answers so), cannot give the compressed blobs that an image names. It says in a header that it knows DiffIDs,
and, where it lacks a blob, in another what it has seen in it. Nothing of that is believed: the DiffID that is
asked for is the one of the image's config, and what comes is hashed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from ..errors import LayerteeError
from ..image.document import DiffID, Digest
from ..image.strictjson import printable
from ..record import dataclass
from .retry import retrying

if TYPE_CHECKING:
    from .http import Response

log = logging.getLogger(__name__)

KNOWS: Final = "Layertee-Diff-IDs"  # of requests for manifests, and of the answers of who knows DiffIDs
HOLDS: Final = "Layertee-Diff-ID"  # of a 404 for a blob: what is in it
_FAILURES: Final = 3  # of one endpoint, for reasons that may pass: then it is asked no more
_ANSWER_S: Final = 10.0  # a place that has no answer by then is no place to save time at
_SIZE: Final = re.compile(r"[0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Lacks:
    """A blob is not there. ``said`` is what the endpoint says is in it, if it says anything."""

    said: str | None


class Tars:
    """The tars of one repository at one endpoint. Each is asked for once, with a HEAD, and remembered.

    ``head`` asks for a blob: the answer's status is 200 or 404. Of an endpoint that has not said that it
    knows DiffIDs, and does not have the first tar that it is asked for, no other is asked for. What failed
    for a reason that may pass is asked for again, as long as there are few such failures.

    Belongs to one event loop.
    """

    def __init__(
        self,
        name: str,
        head: Callable[[Digest], Awaitable[Response]],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        answer_s: float = _ANSWER_S,
    ) -> None:
        self._name = name
        self._answer_s = answer_s
        self._head = head
        self._sleep = sleep
        self._is_known = False
        self._has_none = False
        self._n_failed = 0
        self._sizes: dict[DiffID, int | None] = {}
        self._asking: dict[DiffID | None, asyncio.Lock] = {}

    @property
    def is_known(self) -> bool:
        """Whether the endpoint has said that it knows DiffIDs."""
        return self._is_known

    def listen(self, answer: Response) -> None:
        """Take note of what the head of ``answer`` says."""
        if answer.field(KNOWS) is not None or answer.field(HOLDS) is not None:
            self._is_known = True

    def give_up(self) -> None:
        """It does not answer in time: ask it for no tar any more."""
        self._n_failed = _FAILURES

    async def lacks(self, blob: Digest) -> Lacks | None:
        """None where the endpoint has ``blob``. Raises RegistryError, TransportError and their subclasses."""
        answer = await self._head(blob)
        self.listen(answer)
        return Lacks(answer.field(HOLDS)) if answer.status != 200 else None

    async def size(
        self, diff_id: DiffID, limit: int, said: str | None = None, *, tries: int = 1
    ) -> int | None:
        """The bytes of the tar, which are at most ``limit``; None where there is none, or nobody can tell.

        Between two ``tries`` it is waited for as long as the endpoint has asked for, if that is not longer
        than it may take to answer.

        ``said`` is what the endpoint has said is in the blob that it lacks. If that is something else, it is
        not asked: one of the two is wrong, and an image is not asked about the content of another.
        """
        if said is not None:
            self._is_known = True
            if said.strip() != diff_id:
                shown = printable(said, 80)
                log.info("%s says that a blob has %s in it, the image says %s", self._name, shown, diff_id)
                return None
        # Of an endpoint that may never have heard of DiffIDs, the first answer is waited for.
        lock = self._asking.setdefault(diff_id if self._is_known else None, asyncio.Lock())
        async with lock:
            if diff_id not in self._sizes:
                if (self._has_none and not self._is_known) or self._n_failed >= _FAILURES:
                    return None
                try:
                    async with asyncio.timeout(self._answer_s):
                        self._sizes[diff_id] = await self._ask(diff_id, tries)
                except TimeoutError:
                    log.info("%s does not answer whether it has the tar %s", self._name, diff_id)
                    self.give_up()
                    return None
                except LayerteeError as exc:
                    log.info("%s could not be asked for the tar %s: %s", self._name, diff_id, exc)
                    self._n_failed += exc.retryable
                    if exc.retryable:
                        return None
                    self._sizes[diff_id] = None
                self._has_none = self._sizes[diff_id] is None
            size = self._sizes[diff_id]
        if size is not None and not 0 < size <= limit:
            log.info("%s: the tar %s is of %d bytes, which is not to be believed", self._name, diff_id, size)
            return None
        return size

    async def _ask(self, diff_id: DiffID, tries: int) -> int | None:
        tar = Digest(str(diff_id))
        answer = await retrying(
            lambda: self._head(tar), sleep=self._sleep, tries=tries, patience_s=self._answer_s
        )
        self.listen(answer)
        length = answer.field("Content-Length") or ""
        return int(length) if answer.status == 200 and _SIZE.fullmatch(length) else None
