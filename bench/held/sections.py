"""The sections by name: how long each takes, how it is measured, how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.content import Images
from bench.held import copies, kernels, lone, model, pulls, starts
from bench.held.document import Body, Document

__all__ = ["SECTIONS", "Section", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure: ``seconds`` for the rounds of this section. ``documents``: of the sections before."""

    images: Images
    seconds: float
    small: bool = False
    rounds: int | None = None
    peers: Sequence[str] = ()
    documents: Mapping[str, Document] | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """``share`` of the time of a whole refresh that its rounds may take; ``what`` is its heading."""

    name: str
    what: str
    share: float
    measure: Callable[[Body, Settings], None]
    table: Callable[[Sequence[dict[str, Any]]], list[str]]


def _kernels(body: Body, it: Settings) -> None:
    kernels.measure(body, it.images, seconds=it.seconds, small=it.small, rounds=it.rounds)


def _starts(body: Body, it: Settings) -> None:
    starts.measure_starts(body, seconds=it.seconds, peers=it.peers, rounds=it.rounds)


def _lone(body: Body, it: Settings) -> None:
    lone.measure(body, it.images, seconds=it.seconds, rounds=it.rounds)


def _pulls(body: Body, it: Settings) -> None:
    pulls.measure(body, it.images, seconds=it.seconds, peers=it.peers, rounds=it.rounds)


def _copies(body: Body, it: Settings) -> None:
    copies.measure(body, it.images, seconds=it.seconds, small=it.small, rounds=it.rounds)


def _model(body: Body, it: Settings) -> None:
    model.measure(body, it.images, it.documents or {}, seconds=it.seconds, rounds=it.rounds)


# In this order: the model takes costs from those before it. What is left of 1 is for servers that start,
# images that are uploaded, and rounds that do not count.
SECTIONS = {
    section.name: section
    for section in (
        Section("kernels", "Inflaters, from memory", 0.12, _kernels, kernels.table),
        Section("starts", "Commands with nothing to do", 0.06, _starts, starts.table),
        Section("lone", "One large layer, another core idle", 0.12, _lone, lone.table),
        Section("pulls", "Whole pulls, layers as podman's writer makes them", 0.38, _pulls, pulls.table),
        Section("copies", "From socket to file", 0.06, _copies, copies.table),
        Section("model", "More cores, by computation", 0.07, _model, model.table),
    )
}
