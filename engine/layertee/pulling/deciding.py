"""The plan of an image, with what only its registry can tell; and what the plan shows about the image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..image.holding import Basis
from ..store.blobs import PLACE
from .plan import Action, may_come_as_tar, plan

if TYPE_CHECKING:
    from .network import Network
    from .plan import Plan, Survey, Want
    from .resolve import Resolved


async def decide(found: Resolved, survey: Survey, want: Want, network: Network) -> Plan:
    """What is to be done for ``found``; a registry that knows DiffIDs is asked in which form it has what is
    to be fetched. Raises as ``plan``.
    """
    layers = found.image.layers
    made = plan(layers, survey, want)
    if found.registry is None:
        return made
    asked = [step.layer for step in made.layers_to(Action.FETCH) if may_come_as_tar(step.layer, want)]
    site = await network.site(found.registry)
    tars = await site.tars(asked)
    return plan(layers, replace(survey, tars=tars), want) if tars else made


def mislabelled(made: Plan) -> list[str]:
    """What the plan shows of media types that are wrong: by the DiffID, or by what was computed here."""
    found = []
    for step in made.layers:
        held = step.holding
        is_blob = held is not None and held.place == PLACE and held.digest == step.layer.digest
        seen = held is not None and is_blob and held.basis is Basis.COMPUTED
        found.append(step.layer.mislabelled(held.compression if held is not None and seen else None))
    return [text for text in dict.fromkeys(found) if text is not None]
