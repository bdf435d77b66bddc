"""``layertee inspect``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..disk.space import human
from ..engine import Engine, Inspection
from ..sync import run
from .exits import EXIT_OK
from .output import print_json, print_table, say, warn
from .policytext import verdict
from .shared import look_into, options_of, root_of
from .shortnames import in_full

if TYPE_CHECKING:
    from ..image.blobname import BlobName
    from ..pulling.plan import LayerPlan


def inspect(args: argparse.Namespace) -> int:
    """Raises what Engine.inspect raises."""
    name = in_full(args)
    with look_into(root_of(args)) as store:

        async def main() -> Inspection:
            async with Engine(store, options=options_of(args)) as engine:
                return await engine.inspect(name)

        found = run(main())
    warn([*store.warnings, *found.plan.warnings])
    if args.json:
        print_json(_json(found))
    else:
        _print(found, whole=args.no_trunc)
    return EXIT_OK


def _json(found: Inspection) -> dict[str, object]:
    """A plan's object, the image's own facts, and each layer's names."""
    plan, config = found.plan, found.plan.config
    shape = plan.to_json()
    del shape["seconds"], shape["dry_run"], shape["manifests"]
    index = plan.index_digest
    shape.update(index_digest=index, platform=str(config.platform), created=config.created)
    shape.update(labels=dict(config.labels), registry_manifest_digest=found.registry_manifest)
    shape["layers"] = [
        {
            **layer,
            "blobs": [
                {
                    "digest": blob.digest,
                    "size": blob.size,
                    "compression": blob.compression.value if blob.compression else None,
                    "basis": blob.basis.value,
                    "source": blob.source,
                }
                for blob in found.names[step.layer.diff_id]
            ],
        }
        for layer, step in zip(shape["layers"], plan.layers, strict=True)
    ]
    return shape


def _print(found: Inspection, *, whole: bool) -> None:
    for key, value in _facts(found):
        say(f"{key + ':':<12} {value}")
    say("")
    rows = [_layer_row(step) for step in found.plan.layers]
    print_table(("layer", "digest", "diff id", "form", "size", "on this machine"), rows, whole=whole)
    names = [
        _blob_row(step.layer.index, blob)
        for step in found.plan.layers
        for blob in found.names[step.layer.diff_id]
    ]
    if names:
        say("", "compressed blobs with the same content:")
        print_table(("layer", "digest", "form", "size", "basis", "known from"), names, whole=whole)


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    plan, config, registry = found.plan, found.plan.config, found.registry_manifest
    yield "image", plan.reference
    if plan.index_digest:
        yield "index", plan.index_digest
    yield "manifest", f"{plan.manifest.digest} ({plan.manifest.media_type})"
    if registry is not None and registry != plan.manifest.digest:
        yield "at registry", registry
    yield "config", config.digest
    yield "platform", str(config.platform)
    yield "created", config.created or "unknown"
    yield from verdict(plan)
    for key, value in sorted(config.labels.items()):
        yield f"label {key}", value


def _layer_row(step: LayerPlan) -> tuple[str, ...]:
    layer = step.layer
    return (
        str(layer.index),
        layer.digest,
        layer.diff_id,
        layer.compression.value,
        human(layer.size),
        step.reason,
    )


def _blob_row(index: int, blob: BlobName) -> tuple[str, ...]:
    return (
        str(index),
        blob.digest,
        blob.compression.value if blob.compression else "?",
        human(blob.size) if blob.size is not None else "?",
        blob.basis.value,
        blob.source,
    )
