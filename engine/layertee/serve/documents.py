"""Documents by their digests, whichever place they are in, as long as one of them has them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ..aio import is_given_up
from ..errors import LayerteeError
from ..image.document import Digest
from ..store.layout_reader import INDEX_DEPTH
from .facts import Facts, facts_of, is_same_image

if TYPE_CHECKING:
    from .shelf import Shelf

log = logging.getLogger(__name__)

MAX_MISSING: Final = 50_000  # of an index of many platforms, most are not here
MAX_DOCUMENTS: Final = 10_000  # that are looked at for one question
MAX_NBYTES: Final = 64 << 20  # that these have together
_REMEMBERED: Final = 16 << 20  # bytes of documents; parsed, they take some times as much


class Documents:
    """The documents on ``shelves``. What was read is kept, within bounds, and given out while it is there.

    Any thread may call; every method blocks.
    """

    def __init__(self, shelves: Sequence[Shelf]) -> None:
        self._shelves = shelves
        self._mutex = threading.Lock()
        self._known: OrderedDict[Digest, Facts] = OrderedDict()
        self._nbytes = 0

    def raw(self, digest: Digest) -> bytes | None:
        """What hashes to ``digest``, at most 4 MiB, read now."""
        if digest.algorithm != "sha256":
            return None
        return next((raw for one in self._shelves if (raw := one.document(digest)) is not None), None)

    def facts(self, digest: Digest) -> Facts | None:
        """The manifest or index under that digest; None for what is none, and what is gone."""
        with self._mutex:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
        if known is not None:
            size = len(known.raw)
            if any(one.size(digest) == size for one in self._shelves):
                return known
        raw = self.raw(digest)
        if raw is None:
            return None
        if known is not None:
            return known
        try:
            found = facts_of(raw, digest)
        except LayerteeError as exc:
            log.debug("%s is no document that can be handed on: %s", digest, exc)
            return None
        self._keep(found)
        return found

    def beneath(
        self, roots: Iterable[Digest], subjects: Mapping[Digest, Sequence[Digest]]
    ) -> dict[Digest, Facts]:
        """``roots`` and all that belongs to them: what indexes list, what manifests were made from, and what
        has one of these as its subject, in the end. At most ``MAX_DOCUMENTS``, of ``MAX_NBYTES``.
        """
        found: dict[Digest, Facts] = {}
        missing: set[Digest] = set()  # each is looked for once, and not without end
        left = MAX_NBYTES
        todo = [(digest, 0) for digest in roots]
        todo.reverse()
        while todo and len(found) < MAX_DOCUMENTS and left > 0 and not is_given_up():
            digest, depth = todo.pop()
            if digest in found or digest in missing:
                continue
            facts = self.facts(digest)
            if facts is None:
                missing.add(digest)
                if len(missing) >= MAX_MISSING:
                    break
                continue
            found[digest] = facts
            left -= len(facts.raw)
            if depth <= INDEX_DEPTH:
                children = dict.fromkeys(child.digest for child in facts.children)
                todo += [(child, depth + 1) for child in reversed(children)]
            if facts.original is not None:
                original = self.facts(facts.original)
                if original is not None and is_same_image(facts, original):
                    todo.append((facts.original, depth))
            todo += [(referrer, 0) for referrer in subjects.get(digest, ())]
        return found

    def _keep(self, facts: Facts) -> None:
        with self._mutex:
            if facts.digest in self._known or len(facts.raw) > _REMEMBERED:
                return
            self._known[facts.digest] = facts
            self._nbytes += len(facts.raw)
            while self._nbytes > _REMEMBERED:
                _, old = self._known.popitem(last=False)
                self._nbytes -= len(old.raw)
