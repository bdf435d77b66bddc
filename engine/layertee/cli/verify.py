"""``layertee verify``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..disk.space import human
from ..engine import Engine
from ..errors import LayerteeError
from ..pulling.plan import Keep, Want
from ..sync import run
from .exits import EXIT_INTEGRITY, EXIT_OK
from .output import counted, flush, print_json, say, warn
from .reporting import Reporting
from .shared import open_store, options_of

if TYPE_CHECKING:
    from ..pulling.report import PullResult
    from ..pulling.verify import VerifyReport


def verify(args: argparse.Namespace) -> int:
    """Raises NotFound, StoreBusy, StoreCorrupt, LocalError; with an image, what a pull of it raises."""
    with Reporting(args) as reporting, open_store(args) as store:

        async def main() -> tuple[VerifyReport, PullResult | LayerteeError | None]:
            async with Engine(store, options=options_of(args)) as engine:
                with reporting.shown:
                    report = await engine.verify(reporting.verifying)
                if not args.image:
                    return report, None
                want = Want(keep=Keep.STORE, trust=engine.options.trust)
                try:
                    async with reporting.resolving(args.image):
                        plan = await engine.plan(args.image, want)
                        if plan.name is not None and store.images.is_whole(plan.name):
                            plan = await engine.plan(args.image, want, all_platforms=True)
                    reporting.planned(plan)
                    return report, await engine.pull(plan, reporting)
                except LayerteeError as exc:
                    return report, exc

        report, repaired = run(main())
        warn(report.warnings)
        if isinstance(repaired, LayerteeError):
            if not args.json:
                _print(report, None)  # what is wrong was put aside, and is not found again
            args.so_far = _json(report, None)
            raise repaired
        is_well = report.ok or (repaired is not None and not report.false)
        code = EXIT_OK if is_well else EXIT_INTEGRITY
        if args.json:
            print_json(_json(report, repaired))
        else:
            _print(report, repaired)
        flush()  # what reaches nobody is no success
        reporting.done(_json(report, repaired), code)
    return code


def _json(report: VerifyReport, repaired: PullResult | None) -> dict[str, object]:
    return {
        "ok": report.ok,
        "blobs": report.n_blobs,
        "bytes": report.nbytes,
        "bad": [{"digest": bad.digest, "reason": bad.reason} for bad in report.bad],
        "false_claims": [
            {"image": false.image, "digest": false.digest, "reason": false.reason} for false in report.false
        ],
        "missing": report.missing,
        "adopted": report.adopted,
        "repaired": repaired.to_json() if repaired else None,
    }


def _print(report: VerifyReport, repaired: PullResult | None) -> None:
    say(*(f"bad: {bad.digest}: {bad.reason}; quarantined" for bad in report.bad))
    say(
        *(
            f"false: image {one.image} says of {one.digest} what is not so: {one.reason}"
            for one in report.false
        )
    )
    say(*(f"missing: {digest}" for digest in report.missing))
    amiss = f"{len(report.bad)} bad, {len(report.missing)} missing"
    if report.false:
        amiss += f", {len(report.false)} false"
    found = "all as they should be" if report.ok else amiss
    say(f"checked {counted(report.n_blobs, 'blob')}, {human(report.nbytes)}: {found}")
    if repaired is not None:
        say(f"repaired: fetched {human(repaired.bytes_fetched)}")
    elif report.bad or report.missing:
        say("pull the images again, or run: layertee verify --repair IMAGE")
    if report.false:
        say("an image that says what is not so is forgotten with: layertee rm NAME")
