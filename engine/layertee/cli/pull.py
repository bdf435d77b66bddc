"""``layertee pull IMAGE``, of one image."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk.outputs import output_directory_at
from ..disk.space import human
from ..engine import Engine, ImageName
from ..errors import LayerteeError
from ..image.reference import LayoutReference
from ..image.strictjson import printable
from ..pulling.plan import Action
from ..record import dataclass
from ..store.store import Store
from ..sync import run
from .exits import EXIT_OK
from .output import counted, flush, print_json, print_table, say, tell, warn
from .policytext import verdict
from .reporting import Reporting
from .shared import look_into, options_of, root_of
from .shortnames import in_full
from .targets import (
    Target,
    hand_out,
    refuse_with_all,
    see_that_it_can_be_reached,
    stores_of,
    target_of,
    want_of,
)
from .textfile import see_that_it_can_be_written, write_whole

if TYPE_CHECKING:
    from ..image.document import Layer
    from ..image.resolved import Member
    from ..pulling.imageplan import ImagePlan
    from ..pulling.report import LayerResult, PullResult


def pull(args: argparse.Namespace) -> int:
    """Raises InvalidReference and what Engine.plan and Engine.pull raise."""
    with Reporting(args, quiet=args.quiet, shows=not args.dry_run) as reporting:
        target = target_of(args)
        refuse_with_all(args, target)
        if args.digestfile is not None:
            see_that_it_can_be_written(args.digestfile, stores_of(args))
        result = _pulled(args, reporting, target)
        if args.digestfile is not None and not args.dry_run:
            write_whole(args.digestfile, result.manifest_digest.encode(), stores_of(args))
        _tell(args, result, target)
        flush()  # what reaches nobody is no success
        reporting.done(result.to_json())
    return EXIT_OK


def _tell(args: argparse.Namespace, result: PullResult, target: Target | None) -> None:
    warn(result.warnings)
    if result.consent.unasked and not args.quiet:
        tell("layertee: this machine has no policy.json: signatures are not required here")
    if args.json:
        print_json(result.to_json())
    elif args.quiet:
        say(result.manifest_digest)
    else:
        print_result(result, dry_run=args.dry_run, whole=args.no_trunc)
        if target is not None and not isinstance(target, LayoutReference) and not args.dry_run:
            say(f"{result.image} is in {target}")


def _pulled(args: argparse.Namespace, reporting: Reporting, target: Target | None) -> PullResult:
    found = target if isinstance(target, LayoutReference) else None
    beyond = target if not isinstance(target, LayoutReference) else None
    root = output_directory_at(found.path) if found else root_of(args)
    name = found.ref if found else ImageName.AS_REFERENCE
    image = in_full(args)
    begun: list[ImagePlan] = []

    async def main() -> PullResult:
        async with Engine(store, options=options_of(args)) as engine, engine.in_time():
            if beyond is not None:
                await see_that_it_can_be_reached(beyond, store)
            async with reporting.resolving(image):
                want, whole = want_of(args, beyond), args.all_platforms
                plan = await engine.plan(image, want, name=name, all_platforms=whole)
            reporting.planned(plan)
            if args.dry_run:
                return plan.planned()
            begun.append(plan)
            with reporting.shown:
                result = await engine.pull(plan, reporting)
            if beyond is not None:
                reporting.shown.begin(f"writing {beyond}")
                await hand_out(store, result, beyond, engine.options.keep_free)
            return result

    private = found is None
    with look_into(root, private) if args.dry_run else Store.open(root, private=private) as store:
        try:
            return run(main())
        except (LayerteeError, KeyboardInterrupt) as exc:
            for plan in begun:
                kept = Kept.look(store, [step.layer for step in plan.layers])
                args.so_far = {
                    "image": plan.reference,
                    "manifest_digest": plan.digest,
                    "kept": kept.to_json(),
                }
                exc.add_note(str(kept))
            raise


@dataclass(frozen=True, slots=True)
class Kept:
    """What the next run need not fetch: so many layers of the image, and bytes of the others."""

    root: Path
    n_layers: int
    n_all: int
    nbytes_begun: int

    @classmethod
    def look(cls, store: Store, layers: Sequence[Layer]) -> Kept:
        """Raises LocalError."""
        n_kept = sum(bool(store.blobs.forms(layer)) for layer in layers)
        return cls(store.root, n_kept, len(layers), sum(store.parts.arrived(layers).values()))

    def __str__(self) -> str:
        others = f", nor {human(self.nbytes_begun)} of the others" if self.nbytes_begun else ""
        which = f"{self.n_layers} of {counted(self.n_all, 'layer')}"
        return f"{which} are in {self.root} and will not be fetched again{others}"

    def to_json(self) -> dict[str, object]:
        """Its part of the object that ``--json`` prints."""
        return {
            "store": str(self.root),
            "layers": self.n_layers,
            "layers_total": self.n_all,
            "bytes_begun": self.nbytes_begun,
        }


def print_result(result: PullResult, *, dry_run: bool, whole: bool) -> None:
    """For a person, on standard output."""
    rows = [_row(index, layer) for index, layer in enumerate(result.layers)]
    print_table(("layer", "digest", "size", "action", "fetched", "why"), rows, whole=whole)
    say("")
    fetched, reused = human(result.bytes_fetched), human(result.bytes_reused)
    has_mirrors = any(endpoint.is_mirror for endpoint in result.asked)
    say(*(f"{key}: {text}" for key, text in verdict(result)))
    if dry_run:
        if result.members:
            say(_platforms(result.members))
        say(f"would fetch {fetched}; {reused} need not be fetched")
        if has_mirrors:
            say(f"would ask {', then '.join(endpoint.name for endpoint in result.asked)}")
        return
    if result.local_manifest_digest is None:
        places = " and ".join(result.kept_by)
        say(f"{result.image}: kept by {places}; the store has the rest, and no image of that name")
    else:
        say(f"{result.image} -> {result.local_manifest_digest}")
        if result.local_manifest_digest != result.manifest_digest:
            say(f"  the registry's manifest is {result.manifest_digest}")
    if result.members:
        say(f"  {_platforms(result.members)}")
    say(f"fetched {fetched}, reused {reused}, in {result.seconds:.2f} s")
    if has_mirrors:
        sent = (f"{human(nbytes)} from {name}" for name, nbytes in result.by_endpoint.items() if nbytes)
        say(f"  {', '.join(sent) or 'nothing from any endpoint'}")


def _platforms(members: Sequence[Member]) -> str:
    """What an index has, in words."""
    platforms = printable(", ".join(str(one.platform) for one in members if not one.is_artifact), 400)
    n_others = sum(one.is_artifact for one in members)
    others = f", and {n_others} that {'is' if n_others == 1 else 'are'} no image" if n_others else ""
    return f"all of its platforms: {platforms}{others}"


def _row(index: int, layer: LayerResult) -> tuple[str, ...]:
    fetched = human(layer.bytes_fetched) if layer.action is Action.FETCH else "-"
    return str(index), layer.digest, human(layer.size), layer.action.value, fetched, layer.reason
