"""All that is on offer: the images of several places as one registry, which is only read.

**Which image a name means.** An image is offered with its registry and without (names.py). The name with its
registry means the images of that registry alone. Without, it may mean images of several registries; then

1. the registry that the request names (the ``ns`` of clients that use this one as a mirror) decides: images
   of another one are not handed out in its place, those without any registry are;
2. else, as long as all of them are one image (the same digest at their registries), it is that;
3. else the request is refused, with the names of all of them.

Where several places have images of one name, it is that of the first place which can offer it; places are in
the order in which they were given, the machine's own store first.

**What is where.** Documents and blobs are found by their digests in any place. A blob is looked for in the
machine's own store first, which may vouch for it. Where files of different sizes have one name, the one whose
size was computed, or else is the one that the image says, is it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ..aio import is_given_up
from ..errors import InvalidReference, LayerteeError, NotFound
from ..image.document import DiffID, Digest, Platform
from ..image.holding import Basis
from ..record import dataclass
from .choice import Choice, Here
from .documents import Documents
from .names import OfferedName, registry_name
from .offer import Document, Known, Sendable, Stock
from .ownstore import is_tautology
from .shelf import identity_of

if TYPE_CHECKING:
    from ..store.catalog import Pair
    from .facts import Facts
    from .ownstore import ReadLedger
    from .shelf import Entry, Shelf

log = logging.getLogger(__name__)

_MADE: Final = 1024  # manifests that are remembered, some kilobytes each
_SIZES: Final = 1 << 16
_WRONG: Final = 1000  # copies that are remembered as wrong
_DISTRUST_S: Final = 300.0  # a reason may lie in this machine's memory, or be mended where no stamp shows it

Attesting = Callable[[Digest], DiffID | None]


@dataclass(frozen=True, slots=True)
class _Listed:
    """What places list, by what may be asked for. The number of a place comes before its entry."""

    generation: tuple[Hashable, ...]
    by_repository: Mapping[str, Sequence[tuple[int, Entry]]]
    by_place: Sequence[Sequence[Entry]]


class OpenStock(Stock, Here):
    """What is on ``shelves``; close it.

    ``ledger`` is the catalog of this machine's own store, ``attesting`` are others who saw what blobs inflate
    to. ``platform`` is that of the clients.
    """

    def __init__(
        self,
        shelves: Sequence[Shelf],
        *,
        ledger: ReadLedger | None = None,
        attesting: Sequence[Attesting] = (),
        platform: Platform | None = None,
    ) -> None:
        self._shelves = tuple(shelves)
        self._ledger = ledger
        self._attesting = (*(one.attested for one in self._shelves), *attesting)
        self._documents = Documents(self._shelves)
        self._choice = Choice(self, platform or Platform.host())
        self._mutex = threading.Lock()
        self._listed: _Listed | None = None
        self._by_repository: tuple[Hashable, dict[str, Mapping[Digest, None]]] = (None, {})
        self._subjects: tuple[Hashable, Mapping[Digest, Sequence[Digest]]] = (None, {})
        self._made: OrderedDict[Digest, tuple[Document, Digest]] = OrderedDict()
        self._tried: tuple[Hashable, dict[Digest, Digest | None]] = (None, {})
        self._sizes: OrderedDict[Digest, int] = OrderedDict()
        self._wrong: OrderedDict[tuple[str, Digest], tuple[Hashable, float]] = OrderedDict()

    @property
    def places(self) -> tuple[str, ...]:
        """What to call the places, in their order."""
        return tuple(shelf.name for shelf in self._shelves)

    def close(self) -> None:
        """Give up what is open; harmless when repeated."""
        for shelf in self._shelves:
            shelf.close()
        if self._ledger is not None:
            self._ledger.close()

    # --- Stock: names -----------------------------------------------------------

    def repositories(self) -> Sequence[str]:
        return sorted(self._now().by_repository)

    def tags(self, repository: str) -> Sequence[str] | None:
        entries = self._now().by_repository.get(repository)
        if entries is None:
            return None
        return sorted({name.tag for _, entry in entries if (name := entry.name) is not None and name.tag})

    def named(
        self, repository: str, tag: str, *, registry: str | None = None, original: bool = False
    ) -> Sequence[Document]:
        found = [
            (place, entry, entry.name)
            for place, entry in self._now().by_repository.get(repository, ())
            if entry.name is not None and entry.name.tag == tag
        ]
        groups: dict[tuple[int, OfferedName], list[Entry]] = {}
        for place, entry, name in self._meant(repository, tag, found, registry):
            groups.setdefault((place, name), []).append(entry)
        reasons = []
        for (place, name), entries in groups.items():
            try:
                answers = self._choice.answers(entries, original=original)
            except NotFound as exc:
                log.info("%s: %s is not offered: %s", self._shelves[place].name, name, exc)
                reasons.append(f"{name} is not all here: {exc}")
                continue
            for answer in answers:
                self._remember(answer, entries[0].root.digest)
            return answers
        if reasons:
            raise NotFound("; ".join(reasons))
        return []

    def _meant(
        self, repository: str, tag: str, found: list[tuple[int, Entry, OfferedName]], registry: str | None
    ) -> list[tuple[int, Entry, OfferedName]]:
        """Those of one image, or of one registry. Raises InvalidReference, NotFound."""
        full = [one for one in found if one[2].full == repository]
        found = full or found
        registries = {name.registry for _, _, name in found}
        if registry is not None and not full and found:
            wanted = registry_name(registry)
            of_it = [one for one in found if one[2].registry == (wanted if wanted in registries else "")]
            if not of_it:
                there = ", ".join(sorted({str(name) for _, _, name in found}))
                raise NotFound(f"{repository}:{tag} is here as {there}, and not from {wanted}")
            return of_it
        if len(registries) > 1:
            images = {self._choice.identity(entry) for _, entry, _ in found}
            if len(images) > 1:
                names = ", ".join(sorted({str(name) for _, _, name in found}))
                to_ask = " or ".join(sorted({name.to_ask for _, _, name in found if name.full is not None}))
                raise InvalidReference(
                    f"{repository}:{tag} may be any of these images: {names}; ask for {to_ask}"
                )
        return found

    # --- Stock: documents -------------------------------------------------------

    def document(self, repository: str, digest: Digest) -> Document | None:
        entries = self._now().by_repository.get(repository)
        if entries is None or digest.algorithm != "sha256":
            return None
        roots = _roots(entry for _, entry in entries)
        members = self._members(repository, roots)
        if digest in members and (facts := self.facts(digest)) is not None:
            return _document(facts)
        return self._made_before(digest, members) or self._made_again(digest, members)

    def referrers(self, repository: str, digest: Digest) -> Sequence[Mapping[str, object]]:
        entries = self._now().by_repository.get(repository)
        if entries is None:
            return []
        members = self._members(repository, _roots(entry for _, entry in entries))
        listed = [one for one in self._referrers().get(digest, ()) if one in members]
        found = [facts for one in listed if (facts := self.facts(one)) is not None]
        return [facts.descriptor for facts in sorted(found, key=lambda facts: facts.digest)]

    def _members(self, repository: str, roots: Sequence[Digest]) -> Mapping[Digest, None]:
        """The documents of a repository, in their order, found out once for each state of the places: what an
        unknown digest costs anybody may ask for. Those are among them that are listed and not here yet.
        """
        generation = self._now().generation
        with self._mutex:
            seen, by_repository = self._by_repository
            known = by_repository.get(repository) if seen == generation else None
        if None in generation:  # nobody can tell whether it is still the same
            known = None
        if known is not None:
            return known
        found = self._documents.beneath(roots, self._referrers())
        members = dict.fromkeys(found)
        members |= dict.fromkeys(child.digest for facts in found.values() for child in facts.children)
        members |= dict.fromkeys(roots)
        if is_given_up():  # then this is not all of it
            return members
        with self._mutex:
            if self._by_repository[0] != generation:
                self._by_repository = generation, {}
            self._by_repository[1][repository] = members
        return members

    def _referrers(self) -> Mapping[Digest, Sequence[Digest]]:
        """What has each document as its subject, of all that places list."""
        now = self._now()
        with self._mutex:
            generation, subjects = self._subjects
        if generation == now.generation:
            return subjects
        found: dict[Digest, list[Digest]] = {}
        for facts in self._everything(now).values():
            if facts.subject is not None:
                found.setdefault(facts.subject, []).append(facts.digest)
        if is_given_up():  # then this is not all of it
            return found
        with self._mutex:
            self._subjects = now.generation, found
        return found

    def _everything(self, now: _Listed) -> Mapping[Digest, Facts]:
        """All that places list; what one of them has too much of is no loss to the others."""
        found: dict[Digest, Facts] = {}
        for entries in now.by_place:
            found |= self._documents.beneath(_roots(entries), {})
        return found

    def _remember(self, answer: Document, root: Digest) -> None:
        if answer.original is not None:
            with self._mutex:
                self._made[answer.digest] = answer, root
                self._made.move_to_end(answer.digest)
                while len(self._made) > _MADE:
                    self._made.popitem(last=False)

    def _made_before(self, digest: Digest, members: Collection[Digest]) -> Document | None:
        with self._mutex:
            made, root = self._made.get(digest, (None, None))
        return made if root in members else None

    def _made_again(self, digest: Digest, members: Collection[Digest]) -> Document | None:
        """What was handed out before this program was started again, or so long ago that it is forgotten.

        Each manifest is made once, as long as the places hold the same things: anybody may ask for what never
        was.
        """
        holdings = tuple(shelf.holdings() for shelf in self._shelves)
        with self._mutex:
            if self._tried[0] != holdings:
                self._tried = holdings, {}
            tried = self._tried[1]
        for member in members:
            if member in tried and tried[member] != digest:
                continue
            if is_given_up():
                return None
            facts = self.facts(member)
            if facts is None or facts.is_index:
                tried[member] = None
                continue
            try:
                made = self._choice.made(facts)
            except LayerteeError:
                tried[facts.digest] = None
                continue
            tried[facts.digest] = made.digest
            if made.digest == digest:
                self._remember(made, facts.digest)
                return made
        return None

    # --- Stock: blobs -----------------------------------------------------------

    def blob(self, digest: Digest) -> Sendable | None:
        if digest.algorithm != "sha256":
            return None
        found = []
        for blob in self._copies(digest):
            if blob.is_checked:
                return blob
            if self._may_be(digest, blob.size):
                found.append(blob)
        if len({blob.size for blob in found}) > 1:
            sizes = self._sizes_of(digest)
            found = [blob for blob in found if blob.size in sizes] or found
        return found[0] if found else None

    def distrust(self, blob: Sendable) -> None:
        for shelf in self._shelves:
            if shelf.name == blob.place:
                log.error("%s: %s is not what it should be, and not offered", blob.place, blob.digest)
                wrong = self._state_of(shelf, blob), time.monotonic() + _DISTRUST_S
                with self._mutex:
                    self._wrong[blob.place, blob.digest] = wrong
                    while len(self._wrong) > _WRONG:
                        self._wrong.popitem(last=False)

    def _copies(self, digest: Digest) -> Iterator[Sendable]:
        """Where that blob is, in the order of places, as far as nothing is known to be wrong with it."""
        for shelf in self._shelves:
            blob = shelf.blob(digest)
            if blob is not None and not self._is_wrong(shelf, blob):
                yield blob

    def _is_wrong(self, shelf: Shelf, blob: Sendable) -> bool:
        key = shelf.name, blob.digest
        with self._mutex:
            state, until = self._wrong.get(key, (None, 0.0))
        if state is None:
            return False
        if time.monotonic() < until and state == self._state_of(shelf, blob):
            return True
        with self._mutex:
            self._wrong.pop(key, None)
        return False

    def _state_of(self, shelf: Shelf, blob: Sendable) -> Hashable:
        path = blob.content.path
        return shelf.holdings(), blob.content, None if path is None else identity_of(path)

    def content_of(self, digest: Digest) -> Known | None:
        computed = self.computed(digest)
        if computed is not None:
            return None if str(computed) == digest else Known(computed, Basis.COMPUTED)
        said = {diff_id for attest in self._attesting if (diff_id := attest(digest)) is not None}
        said |= {pair.diff_id for pair in self._pairs(digest) if pair.digest == digest}
        said.discard(DiffID(digest))
        if len(said) > 1:
            log.warning("%s is said to inflate to %s; not used", digest, " and ".join(sorted(said)))
        return Known(said.pop(), Basis.ATTESTED) if len(said) == 1 else None

    def _may_be(self, digest: Digest, size: int) -> bool:
        """Whether nothing that was computed on this machine says that it has another size."""
        if self._ledger is None or not self._ledger.vouches():
            return True
        known = {
            pair.size if pair.digest == digest else pair.uncompressed_size for pair in self._pairs(digest)
        }
        return not known or size in known

    def _sizes_of(self, digest: Digest) -> set[int]:
        """What images say."""
        with self._mutex:
            known = self._sizes.get(digest)
        if known is not None:
            return {known}
        everything = self._everything(self._now()).values()
        return {one.size for facts in everything for one in facts.named if one.digest == digest}

    # --- Here -------------------------------------------------------------------

    def facts(self, digest: Digest) -> Facts | None:
        return self._documents.facts(digest)

    def bytes_of(self, digest: Digest) -> bytes | None:
        return self._documents.raw(digest)

    def has(self, digest: Digest, size: int) -> bool:
        if digest.algorithm != "sha256" or not self._may_be(digest, size):
            return False
        with self._mutex:
            is_suspect = any(wrong == digest for _, wrong in self._wrong)
        if is_suspect:
            if all(blob.size != size for blob in self._copies(digest)):
                return False
        elif not any(shelf.size(digest) == size for shelf in self._shelves):
            return False
        with self._mutex:
            self._sizes[digest] = size
            self._sizes.move_to_end(digest)
            if len(self._sizes) > _SIZES:
                self._sizes.popitem(last=False)
        return True

    def tar_size(self, diff_id: DiffID) -> int | None:
        found = self.blob(Digest(diff_id))
        return None if found is None else found.size

    def computed(self, digest: Digest) -> DiffID | None:
        if self._ledger is None or not self._ledger.vouches():
            return None
        return next((pair.diff_id for pair in self._pairs(digest) if pair.digest == digest), None)

    def blobs_with(self, diff_id: DiffID) -> Sequence[Pair]:
        if self._ledger is None or not self._ledger.vouches():
            return []
        return [pair for pair in self._pairs(diff_id) if pair.diff_id == diff_id and not is_tautology(pair)]

    def _pairs(self, either: Digest | DiffID) -> Sequence[Pair]:
        return self._ledger.lookup(either) if self._ledger is not None else []

    # --- what places list -------------------------------------------------------

    def _now(self) -> _Listed:
        generation = tuple(shelf.generation() for shelf in self._shelves)
        with self._mutex:
            listed = self._listed
        if listed is not None and listed.generation == generation and None not in generation:
            return listed
        by_repository: dict[str, list[tuple[int, Entry]]] = {}
        by_place = [shelf.entries() for shelf in self._shelves]
        for place, entries in enumerate(by_place):
            for entry in entries:
                for repository in entry.name.repositories if entry.name is not None else ():
                    by_repository.setdefault(repository, []).append((place, entry))
        listed = _Listed(generation, by_repository, by_place)
        with self._mutex:
            self._listed = listed
        return listed


def _roots(entries: Iterable[Entry]) -> list[Digest]:
    return list(dict.fromkeys(digest for one in entries for digest in (one.root.digest, *one.beside)))


def _document(facts: Facts) -> Document:
    return Document(facts.raw, facts.digest, facts.media_type, facts.original)
