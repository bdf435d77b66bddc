"""Whether an image is older than one that this machine has seen under its name, or too old altogether.

A registry, or somebody between, can serve an old image under a tag for as long as its signature is good; and
can go on serving it when there is a newer one. The first shows by what was seen before (store/seen.py), the
second only by the image's age. Both are warnings unless the options or trust.toml say that they refuse.

Which of two images is newer is a matter of the time at which each was made, as its config says: a signature
covers it. Where a config has no such time (a reproducible build says 1970), the times at which a transparency
log saw their signatures are compared. An image of unknown age counts as older than one of known age.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ..image.strictjson import printable
from ..record import dataclass
from ..store.seen import Seen

if TYPE_CHECKING:
    from ..image.document import Digest
    from ..image.resolved import ResolvedImage
    from ..signatures.signature import Verified

VERSION_LABEL: Final = "org.opencontainers.image.version"
# Reproducible builds say 1970-01-01 or 1980-01-01 for "no time"; and clocks of builders are a little fast.
_NO_TIME_BEFORE: Final = 365 * 24 * 3600 * 11
_FAST_CLOCK_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Freshness:
    """How one image stands to what this machine has seen of its name.

    ``image`` is what would be remembered of it, ``newest`` what is remembered; None for a name that was never
    seen. ``older``: it is older than that one. ``stale``: it is older than the ``max_age_s`` that was asked
    for. ``notes`` say both, in words for people.
    """

    image: Seen
    newest: Seen | None
    older: bool = False
    stale: bool = False
    notes: tuple[str, ...] = ()

    def to_remember(self, *, allow_downgrade: bool) -> Seen | None:
        """What is the newest from now on, once the image was taken; None if nothing changes."""
        newest = self.newest
        if newest is not None and (
            self.image.digest == newest.digest or (self.older and not allow_downgrade)
        ):
            return None
        return self.image

    def to_json(self) -> dict[str, Any]:
        """The object ``seen`` of ``--json``."""
        return {
            "first_seen": self.newest is None,
            "older": self.older,
            "stale": self.stale,
            "image": _described(self.image),
            "newest": _described(self.newest) if self.newest is not None else None,
        }


def compare(
    image: ResolvedImage,
    verified: Sequence[Verified],
    newest: Seen | None,
    *,
    now: int,
    max_age_s: float | None = None,
) -> Freshness:
    """How ``image``, with signatures that were ``verified``, stands to ``newest``. Times as in Seen."""
    notes: list[str] = []
    created = _created(image.config.created)
    if created is not None and created > now + _FAST_CLOCK_S:
        notes.append(f"it says that it was made on {_day(created)}, which is yet to come: not counted")
        created = None
    logged = max(
        (one for one in verified if one.time is not None), key=lambda one: one.time or 0, default=None
    )
    digest: Digest = image.index_digest or image.manifest.digest
    label = image.config.labels.get(VERSION_LABEL)
    found = Seen(
        digest,
        created,
        printable(label, 100) if label is not None else None,
        logged.time if logged is not None else None,
        logged.log_index if logged is not None else None,
        newest.first if newest is not None else now,
        now,
    )
    older = newest is not None and is_older(found, newest)
    if newest is not None and older:
        notes.append(f"it is older than what was seen here before: {_named(found)} after {_named(newest)}")
    # A certificate is valid for minutes. A bare key's old signature can be logged anew, by anybody.
    times = [found.created, *(one.time for one in verified if one.issuer is not None)]
    made = max((time for time in times if time is not None), default=None)
    stale = False
    if max_age_s is not None:
        if made is None:
            stale = True
            notes.append(
                "its age is not known: its config does not say it, nor a log's time of a certificate"
            )
        elif now - made > max_age_s:
            stale = True
            age = timedelta(seconds=now - made).days
            notes.append(
                f"it is {age} days old, made on {_day(made)}: there may be a newer one that is withheld"
            )
    return Freshness(found, newest, older, stale, tuple(notes))


def is_older(image: Seen, newest: Seen) -> bool:
    """Whether ``image`` was made before ``newest``, or may have been."""
    if image.digest == newest.digest:
        return False
    if image.created is not None and newest.created is not None and image.created != newest.created:
        return image.created < newest.created
    if image.log_time is not None and newest.log_time is not None:
        return image.log_time < newest.log_time
    # One that hides its age, after one that did not, may be any.
    if image.created is None and newest.created is not None:
        return True
    known = newest.created if newest.created is not None else newest.log_time
    made = image.created if image.created is not None else image.log_time
    return known is not None and (made is None or made < known)


def _created(text: str | None) -> int | None:
    """RFC 3339, as image-spec has it, in seconds since the epoch; None for what is no time."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        return None
    time = int(found.timestamp())
    return time if time > _NO_TIME_BEFORE else None


def _named(seen: Seen) -> str:
    made = f"made on {_day(seen.created)}" if seen.created is not None else "of unknown age"
    version = f"version {seen.version}, " if seen.version else ""
    return f"{seen.digest[:19]} ({version}{made})"


def _day(time: int) -> str:
    return _iso(time)[:10]


def _iso(time: int) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return str(time)


def _described(seen: Seen) -> dict[str, Any]:
    return {
        "digest": seen.digest,
        "created": _iso(seen.created) if seen.created is not None else None,
        "version": seen.version,
        "log_time": _iso(seen.log_time) if seen.log_time is not None else None,
        "log_index": seen.log_index,
        "first": _iso(seen.first),
        "last": _iso(seen.last),
    }
