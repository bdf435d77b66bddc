"""The commands behind the command line. Each returns an exit code and prints its result."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..core.loading import core_report
from ..disk.space import free_space, human
from ..engine import Engine, Inspection
from ..errors import InvalidReference, LayerteeError
from ..image.document import DiffID, Digest
from ..image.reference import LayoutReference, parse_reference
from ..pulling.imageplan import ImagePlan
from ..pulling.plan import Action, Form, Verify
from ..pulling.report import LayerResult, PullResult
from ..store.gc import gc
from ..store.store import Store, default_root
from ..sync import run
from .main import EXIT_ERROR, EXIT_INTEGRITY, EXIT_OK, options_of
from .output import print_json, print_table, warn
from .progress import display


def pull(args: argparse.Namespace) -> int:
    if args.to and args.store:
        raise InvalidReference("--store and --to both say where to; give one")
    found = _destination(args.to) if args.to else None
    root = found.path if found else args.store or default_root()
    name = found.ref if found else ""
    shown = display(quiet=args.quiet or args.dry_run)

    begun: list[ImagePlan] = []

    async def main() -> PullResult:
        async with Engine(store, options=options_of(args)) as engine:
            plan = await engine.plan(
                args.image, form=Form(args.layers), verify=Verify(args.verify), name=name
            )
            if args.dry_run:
                return PullResult.planned(args.image, plan.manifest, plan.plan)
            begun.append(plan)
            with shown:
                return await engine.pull(plan, shown)

    private = found is None
    with look_into(root, private) if args.dry_run else Store.open(root, private=private) as store:
        try:
            result = run(main())
        except LayerteeError as exc:
            for plan in begun:
                layers = [step.layer for step in plan.layers]
                n_kept = sum(
                    (store.holding(layer.diff_id) or store.unverified(layer)) is not None for layer in layers
                )
                exc.add_note(
                    f"{n_kept} of {len(layers)} layers are in {store.root} and will not be fetched again"
                )
            raise
    warn(store.warnings)
    if args.json:
        print_json(result.to_json())
    elif not args.quiet:
        _print_result(result, dry_run=args.dry_run)
    return EXIT_OK


def inspect(args: argparse.Namespace) -> int:
    with look_into(args.store or default_root()) as store:

        async def main() -> Inspection:
            async with Engine(store, options=options_of(args)) as engine:
                return await engine.inspect(args.image)

        found = run(main())
    warn(store.warnings)
    if args.json:
        print_json(_inspection(found))
        return EXIT_OK
    plan, config, registry = found.plan, found.plan.config, found.registry_manifest
    facts = [
        ("image", args.image),
        *([("index", plan.index_digest)] if plan.index_digest else []),
        ("manifest", f"{plan.manifest.digest} ({plan.manifest.media_type})"),
        *([("at registry", registry)] if registry not in (None, plan.manifest.digest) else []),
        ("config", config.digest),
        ("platform", str(config.platform)),
        ("created", config.created or "unknown"),
        *((f"label {key}", value) for key, value in sorted(config.labels.items())),
    ]
    for key, value in facts:
        print(f"{key + ':':<12} {value}")
    print()
    rows = [
        (
            str(step.layer.index),
            step.layer.digest,
            step.layer.diff_id,
            step.layer.compression.value,
            human(step.layer.size),
            step.reason,
        )
        for step in plan.layers
    ]
    print_table(("layer", "digest", "diff id", "form", "size", "on this machine"), rows)
    names = [
        (
            str(step.layer.index),
            blob.digest,
            blob.compression.value if blob.compression else "?",
            human(blob.size) if blob.size is not None else "?",
            blob.basis.value,
            blob.source,
        )
        for step in plan.layers
        for blob in found.names[step.layer.diff_id]
    ]
    if names:
        print("\ncompressed blobs with the same content:")
        print_table(("layer", "digest", "form", "size", "basis", "known from"), names)
    return EXIT_OK


def _inspection(found: Inspection) -> dict[str, object]:
    """The object that ``inspect --json`` prints: a plan's, the image's own facts, and each layer's names."""
    plan, config = found.plan, found.plan.config
    shape = plan.to_json()
    del shape["seconds"]
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


def show_map(args: argparse.Namespace) -> int:
    with _open(args, create=False) as store:
        pairs = store.catalog.lookup(_digest(args.key)) if args.key else store.catalog.pairs()
    if args.json:
        print_json(
            {
                "pairs": [
                    {
                        "digest": pair.digest,
                        "diff_id": pair.diff_id,
                        "size": pair.size,
                        "uncompressed_size": pair.uncompressed_size,
                        "compression": pair.compression.value,
                    }
                    for pair in pairs
                ]
            }
        )
        return EXIT_OK
    rows = [
        (
            pair.digest,
            pair.diff_id,
            pair.compression.value,
            human(pair.size),
            human(pair.uncompressed_size),
        )
        for pair in pairs
    ]
    print_table(("blob digest", "diff id", "form", "size", "uncompressed"), rows)
    return EXIT_OK


def ls(args: argparse.Namespace) -> int:
    with _open(args, create=False) as store:
        images = store.images()
    if args.json:
        print_json(
            {
                "images": [
                    {
                        "name": image.name,
                        "manifest_digest": image.original,
                        "local_manifest_digest": image.digest,
                        "config_digest": image.config,
                        "platform": image.platform,
                        "bytes": image.nbytes,
                        "pulled_at": image.pulled_at,
                        "problem": image.problem,
                    }
                    for image in images
                ]
            }
        )
        return EXIT_OK
    rows = [
        (
            image.name,
            image.original[:19],
            image.platform,
            human(image.nbytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(image.pulled_at)) if image.pulled_at else "-",
            image.problem or "",
        )
        for image in images
    ]
    print_table(("image", "manifest", "platform", "size", "pulled", ""), rows)
    return EXIT_OK


def rm(args: argparse.Namespace) -> int:
    with _open(args, create=False) as store:
        for name in args.names:
            store.remove_image(name)
    return EXIT_OK


def collect(args: argparse.Namespace) -> int:
    with _open(args, create=False) as store:
        report = gc(store)
    warn(report.warnings)
    if args.json:
        print_json(
            {
                "blobs_removed": report.blobs_removed,
                "bytes_freed": report.bytes_freed,
                "blobs_kept": report.blobs_kept,
            }
        )
    else:
        print(
            f"removed {report.blobs_removed} blobs and {report.parts_removed} leftovers,"
            f" freed {human(report.bytes_freed)}, kept {report.blobs_kept} blobs"
        )
    return EXIT_OK


def verify(args: argparse.Namespace) -> int:
    from ..pulling.verify import VerifyReport

    with _open(args, create=False) as store:

        async def main() -> tuple[VerifyReport, PullResult | None]:
            async with Engine(store, options=options_of(args)) as engine:
                report = await engine.verify()
                if not args.image:
                    return report, None
                form = Form.AS_IS
                return report, await engine.pull(await engine.plan(args.image, form=form, complete=True))

        report, repaired = run(main())
    warn(report.warnings)
    if args.json:
        print_json(
            {
                "ok": report.ok,
                "blobs": report.n_blobs,
                "bytes": report.nbytes,
                "bad": [{"digest": bad.digest, "reason": bad.reason} for bad in report.bad],
                "missing": report.missing,
                "adopted": report.adopted,
                "repaired": repaired.to_json() if repaired else None,
            }
        )
    else:
        for bad in report.bad:
            print(f"bad: {bad.digest}: {bad.reason}; quarantined")
        for digest in report.missing:
            print(f"missing: {digest}")
        print(
            f"checked {report.n_blobs} blobs, {human(report.nbytes)}: "
            + (
                "all as they should be"
                if report.ok
                else f"{len(report.bad)} bad, {len(report.missing)} missing"
            )
        )
        if repaired is not None:
            print(f"repaired: fetched {human(repaired.bytes_fetched)}")
        elif not report.ok:
            print("pull the images again, or run: layertee verify --repair IMAGE")
    return EXIT_OK if report.ok or repaired is not None else EXIT_INTEGRITY


def doctor(args: argparse.Namespace) -> int:
    from . import install_shim as shimcmd

    print(core_report())
    print("\n".join(shimcmd.report()))
    root = args.store or default_root()
    print(f"store: {root}")
    if not root.exists():
        print("  not there yet; the first pull makes it")
        return EXIT_OK
    with Store.open(root, create=False) as store:
        free, floor = free_space(root)
        print(f"  {human(free)} free, {human(floor)} of it stay free for the system")
        print(f"  {len(store.images())} images, {len(store.catalog.pairs())} pairs in the map")
        if store.rebuild_reason:
            print(f"  the map is incomplete: {store.rebuild_reason}; run: layertee verify")
        warn(store.warnings)
        return EXIT_ERROR if store.rebuild_reason else EXIT_OK


# --- inside ---------------------------------------------------------------------------------------


def _open(args: argparse.Namespace, *, create: bool) -> Store:
    return Store.open(args.store or default_root(), create=create)


@contextmanager
def look_into(root: Path, private: bool = True) -> Iterator[Store]:
    """The store in ``root`` for a command that changes nothing: where none is, an empty one elsewhere."""
    if (root / "layertee").is_dir():
        with Store.open(root, create=False, private=private) as store:
            yield store
        return
    with TemporaryDirectory(prefix="layertee-") as scratch, Store.open(Path(scratch) / "store") as store:
        yield store


def _destination(text: str) -> LayoutReference:
    found = parse_reference(text)
    if not isinstance(found, LayoutReference):
        raise InvalidReference(f"--to {text}: write oci:DIR or oci:DIR:ref")
    return found


def _digest(text: str) -> Digest | DiffID:
    try:
        return Digest(text if ":" in text else f"sha256:{text}")
    except ValueError:
        raise InvalidReference(f"{text!r:.100} is not sha256:<64 hex digits>") from None


def _print_result(result: PullResult, *, dry_run: bool) -> None:
    rows = [_row(index, layer) for index, layer in enumerate(result.layers)]
    print_table(("layer", "digest", "size", "action", "fetched", "why"), rows)
    print()
    fetched, reused = human(result.bytes_fetched), human(result.bytes_reused)
    if dry_run:
        print(f"would fetch {fetched}; {reused} need not be fetched")
        return
    if result.local_manifest_digest is None:
        places = " and ".join(result.kept_by)
        print(f"{result.image}: kept by {places}; the store has the rest, and no image of that name")
    else:
        print(f"{result.image} -> {result.local_manifest_digest}")
        if result.local_manifest_digest != result.manifest_digest:
            print(f"  the registry's manifest is {result.manifest_digest}")
    print(f"fetched {fetched}, reused {reused}, in {result.seconds:.2f} s")


def _row(index: int, layer: LayerResult) -> tuple[str, ...]:
    fetched = human(layer.bytes_fetched) if layer.action is Action.FETCH else "-"
    return str(index), layer.digest[:19], human(layer.size), layer.action.value, fetched, layer.reason
