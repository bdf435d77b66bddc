"""``layertee prepare``: the command. Returns an exit code and prints its result."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

from ..disk.space import human
from ..engine import Engine, Inspection
from ..errors import InvalidReference
from ..image.holding import Basis
from ..image.reference import parse_reference
from ..places.ostree.prepare import LayerStep, Preparation, Prepare, Step, Undone, undo
from ..sync import run
from .exits import EXIT_OK
from .hints import tell_hints
from .output import counted, flush, print_json, print_table, say, warn
from .reporting import Reporting
from .shared import look_into, options_of, root_of
from .shortnames import in_full

if TYPE_CHECKING:
    from ..image.document import DiffID, Digest


def prepare(args: argparse.Namespace) -> int:
    """``args``: those of ``inspect``, and ``ostree_repo``, ``dry_run`` and ``undo``.

    Without ``undo`` there must be an ``image``.
    """
    # On a terminal the table is there at once, or it is said who is waited for.
    with Reporting(args, shows=not sys.stderr.isatty()) as reporting:
        return _undo(args, reporting) if args.undo else _prepare(args, reporting)


def _prepare(args: argparse.Namespace, reporting: Reporting) -> int:
    if not args.image:
        raise InvalidReference("name the image that the upgrade will be to, or give --undo")
    options, name = options_of(args), in_full(args)
    with look_into(root_of(args)) as store:

        async def inspect() -> Inspection:
            async with Engine(store, options=options) as engine, reporting.resolving(name):
                return await engine.inspect(name, enforce=True)

        image = run(inspect())
        work = Prepare(
            args.ostree_repo,
            str(parse_reference(image.plan.reference)),
            image.plan.manifest,
            image.plan.config,
            [step.layer for step in image.plan.layers],
            known=store.catalog.diff_id,
            attested=_attested(image).get,
            trust=options.trust,
        )
        name, n_layers = image.plan.reference, len(image.plan.layers)
        reporting.preparing(name, 0, 0, n_layers)
        found = work.look() if args.dry_run else work.run()
        n_there = sum(step.step is Step.PRESENT for step in found.layers)
        reporting.preparing(name, len(found.refs), n_there, n_layers)
    warn([*store.warnings, *image.plan.warnings, *found.warnings])
    shape = _as_json(args, image, found)
    if args.json:
        print_json(shape)
    else:
        _print(found, dry_run=args.dry_run, whole=args.no_trunc)
        tell_hints(step.hint for step in found.layers)
    flush()  # what reaches nobody is no success
    reporting.done(shape)
    return EXIT_OK


def _attested(image: Inspection) -> dict[Digest, DiffID]:
    """The pairs that other tools of this machine computed, of the image's layers."""
    return {
        blob.digest: diff_id
        for diff_id, blobs in image.names.items()
        for blob in blobs
        if blob.basis is Basis.ATTESTED
    }


def _undo(args: argparse.Namespace, reporting: Reporting) -> int:
    image = str(parse_reference(args.image)) if args.image else None
    undone = undo(args.ostree_repo, image=image, dry_run=args.dry_run)
    shape = {
        "repo": str(args.ostree_repo),
        "dry_run": args.dry_run,
        "image": image,
        "removed": [row.digest for row in undone.removed],
        "in_use": [row.digest for row in undone.in_use],
    }
    if args.json:
        print_json(shape)
    else:
        _print_undone(undone, dry_run=args.dry_run)
    flush()  # what reaches nobody is no success
    reporting.done(shape)
    return EXIT_OK


def _as_json(args: argparse.Namespace, image: Inspection, found: Preparation) -> dict[str, object]:
    return {
        "image": image.plan.reference,
        "manifest_digest": image.plan.manifest.digest,
        "repo": str(args.ostree_repo),
        "trust": args.trust,
        "dry_run": args.dry_run,
        "layers": [
            {
                "index": step.layer.index,
                "digest": step.layer.digest,
                "diff_id": step.layer.diff_id,
                "size": step.layer.size,
                "step": step.step.value,
                "basis": step.held.basis.value if step.held else None,
                "commit": step.held.commit if step.held else None,
                "reason": step.reason,
            }
            for step in found.layers
        ],
        "withdrawn": [row.digest for row in found.stale],
        "bytes_to_download": found.bytes_to_download,
    }


def _print(found: Preparation, *, dry_run: bool, whole: bool) -> None:
    rows = [_row(step) for step in found.layers]
    print_table(("layer", "digest", "size", "step", "to download", "why"), rows, whole=whole)
    say("")
    if found.stale:
        named = ", ".join(sorted({row.image for row in found.stale}))
        withdrew = "would withdraw" if dry_run else "withdrew"
        say(f"{withdrew} {counted(len(found.stale), 'ref')} made for {named}")
    count = Counter(step.step for step in found.layers)
    made = "would make" if dry_run else "made"
    say(f"{made} {counted(len(found.refs), 'ref')}; {counted(count[Step.PRESENT], 'layer')} had theirs")
    say(f"the upgrade will download {human(found.bytes_to_download)}")


def _row(step: LayerStep) -> tuple[str, ...]:
    layer = step.layer
    left = human(layer.size) if step.step is Step.DOWNLOAD else "-"
    return str(layer.index), layer.digest, human(layer.size), step.step.value, left, step.reason


def _print_undone(undone: Undone, *, dry_run: bool) -> None:
    say(f"{'would remove' if dry_run else 'removed'} {len(undone.removed)} refs")
    if undone.in_use:
        say(f"{len(undone.in_use)} stay: an image of the repository uses them")
