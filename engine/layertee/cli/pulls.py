"""``layertee pull IMAGE...``: one image is a matter of pull.py, several are pulled one after the other.

All are resolved and judged before the first layer is asked for. What several have in common comes once: a
layer that an earlier one brought is found in the store. One that fails stops no other, and undoes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..aio import unwrapped_group
from ..disk.outputs import output_directory_at
from ..disk.space import human
from ..engine import Engine, ImageName
from ..errors import DeadlineExceeded, InvalidReference, LayerteeError, NotFound
from ..image.reference import LayoutReference
from ..pulling.plan import Action, Keep, Want
from ..record import dataclass
from ..store.store import Store
from ..sync import run
from . import pull as one
from .exits import EXIT_OK, exit_code
from .failure import describe
from .hints import tell_hints
from .output import counted, flush, print_json, say, tell, warn
from .progress import display
from .reporting import Reporting
from .shared import look_into, options_of, root_of
from .shortnames import in_full
from .targets import refuse_one_file_for_two, refuse_with_all, target_of

if TYPE_CHECKING:
    from ..image.document import Digest
    from ..pulling.imageplan import ImagePlan
    from ..pulling.report import PullResult

_RESOLVED_AT_ONCE = 4
_NO_DIGEST = "-"  # the line of an image that failed


def pull(args: argparse.Namespace) -> int:
    """Raises InvalidReference, StoreCorrupt, LocalError; for one image what ``pull.pull`` raises."""
    refuse_one_file_for_two(args)
    return one.pull(args) if len(args.images) == 1 else pull_several(args)


def pull_several(
    args: argparse.Namespace,
    keep: Keep = Keep.ANYWHERE,
    find: Callable[[], list[str]] | None = None,
    where_not_found: str = "",
) -> int:
    """As ``pull`` of several images, also where it is one. ``keep``: where their layers are to be.

    ``find`` says which images, where the arguments do not: what it fails with is reported as all else.
    ``where_not_found`` is the hint against images of which something is nowhere.
    """
    with Reporting(args, quiet=args.quiet, shows=not args.dry_run) as reporting:
        if find is not None:
            args.images = find()
        several = _Several(args, keep, where_not_found)
        code, told = several.pull(reporting)
        several.tell(told)
        flush()  # what reaches nobody is no success
        reporting.done({"images": told}, code)
    return code


@dataclass(slots=True)
class _Image:
    """One of the images, ``asked`` for: what became of it."""

    asked: str
    plan: ImagePlan | None = None
    result: PullResult | None = None
    error: LayerteeError | None = None
    kept: one.Kept | None = None

    def to_json(self) -> dict[str, Any]:
        """Its element of ``images``: a pull's object, or that of one that failed."""
        if self.result is not None:
            return self.result.to_json()
        shape: dict[str, Any] = {"image": self.plan.reference if self.plan else self.asked}
        if self.plan is not None and self.kept is not None:
            shape.update(manifest_digest=self.plan.digest, kept=self.kept.to_json())
        return {"error": describe(self.error), **shape} if self.error is not None else shape


class _Several:
    """The images of one command."""

    def __init__(self, args: argparse.Namespace, keep: Keep, where_not_found: str) -> None:
        found = target_of(args)
        refuse_with_all(args, found)
        if args.digestfile is not None:
            raise InvalidReference("--digestfile is for one IMAGE; -q prints the digests of several")
        if found is not None and (not isinstance(found, LayoutReference) or found.ref is not None):
            raise InvalidReference(
                f"--to {args.to}: with several IMAGEs write oci:DIR, they keep their names"
            )
        self._args = args
        self._where_not_found = where_not_found
        self._want = Want(args.layers, args.verify, keep, args.trust)
        self._root = output_directory_at(found.path) if found else root_of(args)
        self._is_private = found is None
        self._named = self._names(args)
        self._images = [_Image(name) for name in dict.fromkeys(self._named)]

    @staticmethod
    def _names(args: argparse.Namespace) -> list[str]:
        names = []
        for image in args.images:
            args.image = image
            names.append(in_full(args))
        return names

    def pull(self, reporting: Reporting) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """The exit code, which is that of the first image that failed, and what ``tell`` is to say."""
        self._pull_all(reporting)
        code = next((exit_code(image.error) for image in self._images if image.error), EXIT_OK)
        return code, [image.to_json() for image in self._images]

    def _pull_all(self, reporting: Reporting) -> None:
        args, root = self._args, self._root
        options = options_of(args)

        async def main() -> None:
            async with Engine(store, options=options) as engine:
                try:
                    async with engine.in_time():
                        async with reporting.resolving(self._what):
                            await self._plan(engine)
                        if not args.dry_run:
                            await self._pull(engine, store, reporting)
                except DeadlineExceeded as exc:
                    for image in self._left():
                        self._failed(image, exc, store)

        opened = (
            look_into(root, self._is_private) if args.dry_run else Store.open(root, private=self._is_private)
        )
        with opened as store:
            try:
                run(main())
            except KeyboardInterrupt:
                args.so_far = {"images": [image.to_json() for image in self._images]}
                raise
        if args.dry_run:
            self._planned()

    @property
    def _what(self) -> str:
        return self._images[0].asked if len(self._images) == 1 else f"{len(self._images)} images"

    async def _plan(self, engine: Engine) -> None:
        """Every image, as far as it can be had."""
        turn = asyncio.Semaphore(_RESOLVED_AT_ONCE)

        async def plan(image: _Image) -> None:
            async with turn:
                try:
                    image.plan = await self._planned_by(engine, image)
                except LayerteeError as exc:
                    image.error = exc

        async with unwrapped_group() as group:
            for image in self._images:
                group.create_task(plan(image))

    async def _planned_by(self, engine: Engine, image: _Image) -> ImagePlan:
        named, whole = ImageName.AS_REFERENCE, self._args.all_platforms
        return await engine.plan(image.asked, self._want, name=named, all_platforms=whole)

    async def _pull(self, engine: Engine, store: Store, reporting: Reporting) -> None:
        args = self._args
        brought: set[Digest] = set()
        for number, image in enumerate(self._images, 1):
            if image.plan is None:
                continue
            reporting.shown = display(quiet=args.quiet)
            if not args.quiet and len(self._images) > 1:
                tell(f"layertee: {image.plan.reference} ({number} of {len(self._images)})")
            try:
                fetched = _fetched(image.plan)
                if not brought.isdisjoint(fetched):  # it needs less room and time than it did
                    image.plan = await self._planned_by(engine, image)
                reporting.planned(image.plan)
                with reporting.shown:
                    image.result = await engine.pull(image.plan, reporting)
                brought |= fetched
            except LayerteeError as exc:
                self._failed(image, exc, store)

    def _failed(self, image: _Image, exc: LayerteeError, store: Store) -> None:
        image.error = exc
        if image.plan is not None:
            image.kept = one.Kept.look(store, [step.layer for step in image.plan.layers])

    def _left(self) -> Sequence[_Image]:
        return [image for image in self._images if image.result is None and image.error is None]

    def _planned(self) -> None:
        """What pulling them would come to, where each layer comes once."""
        owner: dict[Digest, str] = {}
        for image in self._images:
            if image.plan is None:
                continue
            layers = []
            for layer, step in zip(image.plan.planned().layers, image.plan.layers, strict=True):
                name = image.plan.name_of(step.layer)
                first = owner.setdefault(name, image.asked) if step.action is Action.FETCH else image.asked
                if first != image.asked:
                    layer = replace(layer, action=Action.HAVE, reason=f"comes with {first}", bytes_fetched=0)
                layers.append(layer)
            image.result = replace(image.plan.planned(), layers=tuple(layers))

    def tell(self, told: Sequence[Mapping[str, Any]]) -> None:
        """How it ended, each image."""
        args = self._args
        results = [image.result for image in self._images if image.result is not None]
        warn(warning for result in results for warning in result.warnings)
        if any(result.consent.unasked for result in results) and not args.quiet:
            tell("layertee: this machine has no policy.json: signatures are not required here")
        if args.json:
            print_json({"images": told})
        elif args.quiet:
            digests = {
                image.asked: image.result.manifest_digest if image.result is not None else _NO_DIGEST
                for image in self._images
            }
            say(*(digests[name] for name in self._named))  # line n is the nth name
        else:
            self._print(results)
        failed = [image for image in self._images if image.error is not None]
        for image in failed:
            assert image.error is not None
            tell(f"layertee: {image.asked}: {image.error} [{image.error.code}]")
            tell(*(f"  {note}" for note in getattr(image.error, "__notes__", ())))
            tell(*([f"  {image.kept}"] if image.kept is not None else []))
        tell_hints(self._hint(image.error) for image in failed if image.error is not None)
        if failed and len(self._images) > 1:
            tell(f"layertee: {len(failed)} of {len(self._images)} images failed; the others are complete")

    def _hint(self, error: LayerteeError) -> str:
        return error.hint or (self._where_not_found if isinstance(error, NotFound) else "")

    def _print(self, results: Sequence[PullResult]) -> None:
        for result in results:
            say(f"{result.image}:")
            one.print_result(result, dry_run=self._args.dry_run, whole=self._args.no_trunc)
            say("")
        if len(self._images) == 1:
            return
        fetched = human(sum(result.bytes_fetched for result in results))
        reused = human(sum(result.bytes_reused for result in results))
        if self._args.dry_run:
            say(f"{counted(len(results), 'image')}: would fetch {fetched}; {reused} need not be fetched")
        else:
            say(f"{counted(len(results), 'image')}: fetched {fetched}, reused {reused}")


def _fetched(plan: ImagePlan) -> set[Digest]:
    """What the layers of ``plan`` that come over the network will be called in the store."""
    return {plan.name_of(step.layer) for step in plan.layers_to(Action.FETCH)}
