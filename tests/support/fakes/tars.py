"""A registry that lost blobs and has what is in them as tars, as ``layertee serve`` has what it unpacked.

    with FaultServer(image) as server:
        server.script(has_tars(server, image))

The layers are gone under their own digests, and there under their DiffIDs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from layertee.image.media import Compression
from tests.support.compress import unpack
from tests.support.fakes.exchange import Exchange
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.faults import Header
from tests.support.rig.blobs import BuiltLayer
from tests.support.rig.images import BuiltImage

KNOWS, HOLDS = "Layertee-Diff-IDs", "Layertee-Diff-ID"
REPOSITORY = "rig/image"


@dataclass(frozen=True, slots=True)
class Lacks:
    """404 for a blob; ``diff_id`` is what the server says is in it, None for one that says nothing."""

    diff_id: str | None

    async def respond(self, exchange: Exchange) -> None:
        """Say so in the head and in the body, as the API has it."""
        detail = {"digest": exchange.request.reference, "diffID": self.diff_id}
        error = {"code": "BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": detail}
        plan = exchange.plain(404, json.dumps({"errors": [error]}).encode(), "application/json")
        if self.diff_id is not None:
            plan.set(HOLDS, self.diff_id)
        await exchange.send(plan)


MARKED = on("manifest", Header(KNOWS, "1"))


def has_tars(
    server: FaultServer,
    image: BuiltImage,
    layers: Sequence[BuiltLayer] | None = None,
    *,
    repository: str = REPOSITORY,
    marked: bool = True,
    tells: bool = True,
) -> list[Rule]:
    """Have the tars of ``layers`` (of all) at ``server``, and the rules by which it lacks their blobs.

    ``marked``: answers for manifests say that DiffIDs are known there; ``tells``: that a blob is missing is
    said with its DiffID.
    """
    rules = [MARKED] if marked else []
    for layer in image.layers if layers is None else layers:
        how = Compression(layer.compression.partition("-")[0])
        tar = unpack(image.blob_path(layer.digest).read_bytes(), how)
        server.put_blob(repository, layer.diff_id, tar)
        rules.append(on("blob", Lacks(layer.diff_id if tells else None), reference=layer.digest))
    return rules
