"""What one image may cost: bounds over all of its layers, however many there are and however small.

A layer's own bounds (its size, its window) say nothing about a thousand layers. So the image has a budget:

- *output*: bytes that its layers inflate to. An absolute bound, and one that grows with the size of its
  blobs, so that a few megabytes cannot keep a machine busy for hours;
- *work*: time that workers spend, against the bytes that they hash. It catches streams that cost much and
  give nothing: a gzip stream of empty blocks takes some 90 ns per byte (450 by libisal), an OS layer 3;
- *time* and *rate*, if they are asked for: how long a pull may take, and how slow it may be over a minute.

The budget is looked at ten times a second, beside each layer that is being brought. The layer that finds it
used up fails, and so does every other after it.

What is read on this machine of a layer that the registry has as well comes out of another, smaller budget:
a place that holds something else than it says must not use up what the image itself may cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..core.pool import PoolLayer, Spent
from ..errors import OutputBudgetExceeded, Timeout, WorkBudgetExceeded
from ..record import dataclass

if TYPE_CHECKING:
    from ..image.document import Layer
    from ..options import Budget

CHECK_S: Final = 0.1
RATE_WINDOW_S: Final = 60.0
# Of what the registry has as well, so much is read in vain at most.
_SPARE_OUTPUT: Final = 256 << 20
_SPARE_GROWTH: Final = 32
_SPARE_WORK_S: Final = 5.0


def spare(budget: Budget) -> Budget:
    """What readings may cost that an image can do without, since its registry has the layers as well."""
    return replace(
        budget,
        free_output=min(budget.free_output, _SPARE_OUTPUT),
        max_growth=min(budget.max_growth, _SPARE_GROWTH),
        work_s=min(budget.work_s, _SPARE_WORK_S),
    )


class Spending:
    """What the layers of one image have cost so far, held against ``budget``. ``of`` is for messages."""

    def __init__(
        self, budget: Budget, layers: Iterable[Layer], *, of: str = "the layers of this image"
    ) -> None:
        self._budget = budget
        self._of = of
        size = sum(layer.size for layer in layers)
        self._allowed = min(budget.max_output, budget.free_output + budget.max_growth * size)
        self._ended = Spent()
        self._running: set[PoolLayer] = set()

    @property
    def output_left(self) -> int:
        """Bytes that may still come out of layers; at least 1, so that a bound can be made of it."""
        return max(1, self._allowed - _output(self._total()))

    async def watch(self, layer: PoolLayer) -> None:
        """Runs beside ``layer`` until cancelled. Raises OutputBudgetExceeded, WorkBudgetExceeded."""
        self._running.add(layer)
        try:
            while True:
                self.check()
                await asyncio.sleep(CHECK_S)
        finally:
            self._running.discard(layer)
            self._ended = _sum(self._ended, layer.spent())

    def take_back(self, spent: Spent) -> None:
        """What a layer has cost that is brought once more, for a reason of this machine, does not count."""
        self._ended = Spent(
            max(0, self._ended.in_nbytes - spent.in_nbytes),
            max(0, self._ended.out_nbytes - spent.out_nbytes),
            max(0, self._ended.work_ns - spent.work_ns),
        )

    def check(self) -> None:
        """Raise OutputBudgetExceeded or WorkBudgetExceeded if too much was spent."""
        total, budget = self._total(), self._budget
        if _output(total) > self._allowed:
            raise OutputBudgetExceeded(
                f"{self._of} inflate to more than {self._allowed} bytes, which is all that an image of its"
                " size may",
                reason="out_budget",
            )
        allowed_ns = budget.work_s * 1e9 + budget.work_ns_per_byte * (total.in_nbytes + total.out_nbytes)
        if total.work_ns > allowed_ns:
            raise WorkBudgetExceeded(
                f"{self._of} took {total.work_ns / 1e9:.0f} s of work for"
                f" {total.in_nbytes + total.out_nbytes} bytes, far more than layers do; they are made to",
                reason="work_budget",
            )

    def _total(self) -> Spent:
        total = self._ended
        for layer in self._running:
            total = _sum(total, layer.spent())
        return total


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one source may cost: ``spending`` is charged for it, ``out_nbytes`` may come out of it, and
    ``disk_nbytes`` may be written, None for all that may be filled.
    """

    spending: Spending
    out_nbytes: int
    disk_nbytes: int | None = None


class Pace:
    """Whether a pull is fast enough. Its caller says at each ``check`` how many bytes have come so far."""

    def __init__(self, min_rate: int | None) -> None:
        self._min_rate = min_rate
        self._since: tuple[float, int] | None = None

    def check(self, now: float, nbytes: int, *, is_fetching: bool) -> None:
        """``nbytes`` came over the network so far; none count unless ``is_fetching``. Raises Timeout."""
        if not self._min_rate or not is_fetching:
            self._since = None
            return
        if self._since is None:
            self._since = (now, nbytes)
            return
        began, before = self._since
        if now - began < RATE_WINDOW_S:
            return
        rate = (nbytes - before) / (now - began)
        self._since = (now, nbytes)
        if rate < self._min_rate:
            raise Timeout(
                f"{rate:.0f} bytes a second came over the last {now - began:.0f} s; at least {self._min_rate}"
                " are asked for"
            )


def _output(spent: Spent) -> int:
    """What came out of layers, where those that are not compressed count as well."""
    return max(spent.in_nbytes, spent.out_nbytes)


def _sum(one: Spent, other: Spent) -> Spent:
    return Spent(
        one.in_nbytes + other.in_nbytes, one.out_nbytes + other.out_nbytes, one.work_ns + other.work_ns
    )
