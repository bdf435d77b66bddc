"""What may be brought for a client before it asks: the decision alone, without I/O, clock or tasks.

The model. A client asks for one blob, works through what it gets, then asks for the next. What it gets is a
file, and a descriptor that is passed over a socket keeps sharing its offset with the one that was passed. So
how far a client has come is seen by looking, without a word of protocol, and that is the back-pressure of the
whole server::

    allowed = ahead + what the client has read of the blob that it got last
    taken   = all of each blob that was begun and is still expected to be asked for
    room    = allowed - taken

A blob is begun unasked while it fits into the room, two of them at a time; one that never fits may begin
alone and is held back where the room ends. A client that stops reading stops the network, and one that reads
on makes room at the speed at which it reads. What was asked for is never held back and takes no room.

The life of a blob::

    (not begun) ── next ──► COMING ── arrived ──► HERE
         ▲  └─────── ask ─────▲ │ │
         │                    │ │ └── failed, for good ──► WRONG
         └──── given up ──────┼─┘
                              └── ask ── FAILED ◄── failed

A blob that is HERE and was asked for may be forgotten: it is begun anew if it is asked for again.

Bytes are those that come over the network. Whoever uses an Appetite carries out what it says, and tells it
what became of that.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..image.document import Digest

__all__ = [
    *("AHEAD", "IN_KERNELS", "LEAST", "N_AHEAD", "N_WAITING", "PATIENCE_S", "POLL_S", "YIELD_S"),
    "Appetite",
]

AHEAD: Final = 32 << 20
# Beside the blob that the client waits for. More at once gained nothing (pulling.pull).
N_AHEAD: Final = 2
# So many small ones may be here before they are asked for: each keeps a file open.
N_WAITING: Final = 32
# What the kernels at both ends may hold of a connection that is not read any more: their buffers grow with
# the speed, to several MiB on a fast network.
IN_KERNELS: Final = 20 << 20
LEAST: Final = 4 << 20  # with less room than this beside it, a blob that does not fit is not begun
POLL_S: Final = 0.05  # between two looks at how far the client has read
YIELD_S: Final = 0.01  # to the blob that the client waits for, while it is the processor that is short
# A blob that waits for its client keeps other processes from bringing it. It is given up after this.
PATIENCE_S: Final = 30.0


class _State(enum.Enum):
    COMING = "coming"
    HERE = "here"
    FAILED = "failed"  # and may go better: begun anew when it is asked for
    WRONG = "wrong"  # what there is was looked at, and is not what it should be


@dataclass(slots=True)
class _Blob:
    """One that was begun."""

    asked: bool
    state: _State = _State.COMING
    held_since: float | None = None


class Appetite:
    """What one client may be expected to want of one image.

    ``sizes``: its blobs, in the order in which clients ask for them. ``client_has``: those of them that are
    not brought before they are asked for. ``ahead`` in bytes, 0 for nothing unasked.
    """

    def __init__(
        self,
        sizes: Mapping[Digest, int],
        *,
        client_has: Collection[Digest] = (),
        ahead: int = AHEAD,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._sizes = dict(sizes)
        self._client_has = set(client_has)
        self._ahead = ahead
        self._patience_s = patience_s
        self._blobs: dict[Digest, _Blob] = {}
        self._expected, self._otherwise = self._orders(list(self._sizes))
        self._read = 0
        self._stopped = False

    # --- what the caller does next ---

    def ask(self, name: Digest) -> bool:
        """The client asks for ``name``. Whether it has to be begun now, and counts as begun from here on.

        Raises KeyError for a blob that is not of the image.
        """
        if name not in self._sizes:
            raise KeyError(name)
        self._stopped = False
        self._follow(name)
        blob = self._blobs.get(name)
        if blob is None or blob.state is _State.FAILED:
            self._blobs[name] = _Blob(asked=True)
            return True
        blob.asked = True
        return False

    def next(self) -> Digest | None:
        """A blob to begin now although nobody has asked for it, which counts as begun from here on."""
        running = sum(not blob.asked and blob.state is _State.COMING for blob in self._blobs.values())
        if self._stopped or running >= N_AHEAD or self._n_waiting() + running >= N_WAITING:
            return None
        name = next((name for name in self._expected if name not in self._blobs), None)
        if name is None:
            return None
        room = self._room()
        if self._sizes[name] > room and (running or room < IN_KERNELS + LEAST):
            return None
        self._blobs[name] = _Blob(asked=False)
        return name

    def wait_s(self, name: Digest, done: int, now: float, *, busy: bool) -> float | None:
        """How long a blob that is coming, ``done`` bytes of which are here, waits before it goes on.

        0 to go on at once; None when it has waited too long for its client and is given up. ``now`` in
        seconds; ``busy``: bytes that are here wait for a processor.
        """
        blob = self._blobs[name]
        if blob.asked:
            return 0.0
        room = self._room(but=name)
        if self._sizes[name] > room:
            room -= IN_KERNELS
        if done < room:
            blob.held_since = None
            return YIELD_S if busy and self.is_awaited else 0.0
        if blob.held_since is None:
            blob.held_since = now
        elif now - blob.held_since >= self._patience_s:
            del self._blobs[name]
            self._stopped = True
            return None
        return POLL_S

    @property
    def is_awaited(self) -> bool:
        """Whether the client waits for a blob that is still coming."""
        return any(blob.asked and blob.state is _State.COMING for blob in self._blobs.values())

    @property
    def is_hungry(self) -> bool:
        """Whether there is a blob that would be begun if there were room for it."""
        is_full = self._n_waiting() >= N_WAITING
        return not (self._stopped or is_full) and any(name not in self._blobs for name in self._expected)

    # --- what became of it ---

    def read(self, nbytes: int) -> None:
        """The client has read so much of what it got last."""
        self._read = nbytes

    def arrived(self, name: Digest) -> None:
        """``name`` is here, and is what it should be."""
        self._blobs[name].state = _State.HERE

    def failed(self, name: Digest, *, for_good: bool) -> None:
        """``name`` could not be brought. Nothing more is begun unasked until the client asks for something,
        and hears of it if it asks for this one. ``for_good``: asking again would not change it.
        """
        self._blobs[name].state = _State.WRONG if for_good else _State.FAILED
        self._stopped = True

    def forget(self, name: Digest) -> bool:
        """Let ``name`` be as if it had not been begun, if it is here and was asked for; whether it was."""
        blob = self._blobs.get(name)
        if blob is None or blob.state is not _State.HERE or not blob.asked:
            return False
        del self._blobs[name]
        return True

    def stop(self) -> None:
        """Nothing more is begun unasked, until the client asks for something."""
        self._stopped = True

    # --- inside ---

    def _room(self, *, but: Digest | None = None) -> int:
        begun = (name for name in self._expected if name in self._blobs and name != but)
        allowed = self._ahead + self._read if self._ahead else 0
        return allowed - sum(self._sizes[name] for name in begun)

    def _n_waiting(self) -> int:
        return sum(not blob.asked and blob.state is _State.HERE for blob in self._blobs.values())

    def _orders(self, names: list[Digest]) -> tuple[list[Digest], list[Digest]]:
        """The orders in which those of ``names`` may be asked for that the client does not have.

        The one of the image, or the largest first, as other clients do. Which kind this one is shows with
        its first requests.
        """
        wanted = [name for name in names if name not in self._client_has]
        return wanted, sorted(wanted, key=self._sizes.__getitem__, reverse=True)

    def _follow(self, name: Digest) -> None:
        """Guess from what is asked for which order the client has, and where in it the client is."""
        if name in self._client_has:
            # It has the content, but does not know it by this name: so it will ask for the others as well.
            self._client_has.clear()
            order = list(self._sizes)
            self._expected, self._otherwise = self._orders(order[order.index(name) :])
        if self._expected[:1] != [name] and self._otherwise[:1] == [name]:
            self._expected, self._otherwise = self._otherwise, self._expected
        if name in self._expected:
            # What comes before was not asked for, so the client has it. If not, it will ask.
            del self._expected[: self._expected.index(name) + 1]
        if name in self._otherwise:
            self._otherwise.remove(name)
