"""``python -m bench refresh``: all figures that this project is held to, in twelve minutes; or one section.

    python -m bench refresh [SECTION …]   measure what is not measured of these sources, compare, write tables
    python -m bench SECTION               measure and print one section, and store nothing
    python -m bench page                  write the tables again

A section that is done for these sources is not measured again (but with --again), so that a refresh that was
interrupted goes on. Its ratios are compared with the stored ones of the same machine, images and versions:
one that is 3 % worse is a regression, and then the stored figures stay, unless --accept is given. Figures of
a machine on which other programs were at work are never stored; those, and all others that are not stored,
are below build/bench/results.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import WrongResult
from bench.content import CONTENTS, TOTAL, Images
from bench.floor import FloorError
from bench.held import page
from bench.held.document import (
    Document,
    identity,
    incomparable,
    load,
    require_built,
    shifts,
    store,
    stored_at,
    writing,
)
from bench.held.model import NoCosts
from bench.held.sections import SECTIONS, Section, Settings
from bench.measure import CommandFailed
from bench.results import machine
from bench.where import BUILT, cache
from tests.support import ccore
from tests.support.rig.registry import RigError

MINUTES = 12.0
FAILURES = (
    *(CommandFailed, WrongResult, RigError, FloorError, NoCosts),
    *(OSError, ValueError, subprocess.SubprocessError),
)
README = Path("bench/README.md")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parsed; ``what`` is ``refresh``, ``page`` or a section."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("refresh", "page", *SECTIONS))
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="of a refresh (default: all)")
    parser.add_argument("--small", action="store_true", help="a tenth of the content, to try this out")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of a whole refresh (default: 12)")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many instead of as many as fit")
    parser.add_argument("--again", action="store_true", help="measure what was measured already, too")
    parser.add_argument("--accept", action="store_true", help="store figures although some are worse")
    parser.add_argument("--content", choices=CONTENTS, default="usr", help="of the images (default: usr)")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="of pulls and starts: one of the other tools, or layertee=PATH for another checkout, virtual"
        " environment or program of this project (repeatable; not in a refresh)",
    )
    args = parser.parse_args(words)
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if args.sections and args.what != "refresh":
        parser.error("one section at a time, or refresh")
    if args.peer and args.what == "refresh":
        parser.error("--peer would measure something else than what is stored")
    return args


def main(words: Sequence[str]) -> int:
    """1 with a message if something can't be measured; 2 if a ratio became worse and was not accepted."""
    args = arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what servers wrote would stay behind
    try:
        if args.what == "page":
            write_page()
            return 0
        return run(args, f"python -m bench {' '.join(words)}")
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
    return 1


def run(args: argparse.Namespace, command: str) -> int:
    """Measure, compare, store; the exit status."""
    require_built(ccore.ROOT)
    refresh = args.what == "refresh"
    names = (args.sections or list(SECTIONS)) if refresh else [args.what]
    images = Images(cache(), TOTAL // 10 if args.small else TOTAL, args.content)
    status = 0
    for section in (it for name, it in SECTIONS.items() if name in names):
        if refresh and not args.again and is_done(section.name, small=args.small, stored=args.accept):
            print(f"{section.name}: measured already of these sources", flush=True)
            continue
        try:
            document = measured(section, args, images, command)
        except FAILURES as error:  # the other sections can be measured all the same
            print(f"bench: {section.name}: {error}", file=sys.stderr, flush=True)
            status = 1
            continue
        print("\n".join(page.shown(document)), flush=True)
        if not keep(document, accept=args.accept, wanted=refresh):
            status = status or 2
    if refresh:
        write_page()
    return status


def is_done(name: str, *, small: bool, stored: bool = False) -> bool:
    """Whether there is a document of the section, of a quiet machine: of these sources, made on this machine.

    ``stored``: among the results.
    """
    now = machine()
    for kept in (True,) if stored else (True, False):
        if (path := stored_at(name, now["slug"], kept=kept)).exists():
            it = load(path)
            if (it.product, it.small) == (identity(), small) and it.quiet and it.machine["cpu"] == now["cpu"]:
                return True
    return False


def measured(section: Section, args: argparse.Namespace, images: Images, command: str) -> Document:
    """A document of one section."""
    began = time.monotonic()
    print(f"\n{section.name}: measuring", flush=True)
    warm(section.name, images)
    settings = Settings(
        images=images,
        seconds=args.minutes * 60 * section.share * (0.1 if args.small else 1),
        small=args.small,
        rounds=args.rounds,
        peers=args.peer,
        documents=latest(small=args.small),
    )
    with writing(section.name, command, small=args.small) as (body, made):
        section.measure(body, settings)
    print(f"{section.name}: took {time.monotonic() - began:.0f} s\n", flush=True)
    return made[0]


def warm(name: str, images: Images) -> None:
    """Build the images that a section takes, before its load is watched."""
    shapes = {"kernels": ("chunked",), "starts": (), "lone": ("big",), "copies": ("big",)}
    for shape in shapes.get(name, ("chunked", "big")):
        for form in ("gzip:podman", "zstd:podman"):
            images.get(shape, form)
    if name == "kernels":
        images.get("chunked", "gzip")


def latest(*, small: bool) -> dict[str, Document]:
    """The newest document of each section of this machine, that is of the same content."""
    found = {}
    slug = machine()["slug"]
    for name in SECTIONS:
        paths = [stored_at(name, slug), stored_at(name, slug, kept=False)]
        there = sorted((path for path in paths if path.exists()), key=lambda path: path.stat().st_mtime)
        of_it = [it for it in map(load, there) if it.small == small]
        if of_it:
            found[name] = next((it for it in reversed(of_it) if it.counts), of_it[-1])
    return found


def keep(document: Document, *, accept: bool, wanted: bool) -> bool:
    """Compare with what is stored, say what became of it, and store; False where it is worse.

    Only what counts and is ``wanted`` is stored among the results.
    """
    path = stored_at(document.section, document.machine["slug"])
    worse = False
    if path.exists():
        before = load(path)
        reason = incomparable(before, document)
        if reason is None:
            found = shifts(before, document)
            print(f"\n{document.section}: beside what is stored of {before.date}")
            print("\n".join(page.changes(found)), flush=True)
            worse = any(shift.is_regression for shift in found)
        else:
            print(f"\n{document.section}: not comparable with what is stored of {before.date}: {reason}")
    stored = wanted and document.counts and (accept or not worse)
    if not stored:
        path = stored_at(document.section, document.machine["slug"], kept=False)
        if not document.counts:
            print(f"{document.section}: no measurement to keep: {page.why_not(document)}")
        elif worse and wanted:
            print(f"{document.section}: the stored figures stay; --accept replaces them")
    store(document, path)
    print(f"{document.section}: written to {path}", flush=True)
    return accept or not worse


def write_page() -> None:
    """Put the stored documents of this machine between the marks of bench/README.md."""
    slug = machine()["slug"]
    paths = {name: stored_at(name, slug) for name in SECTIONS}
    documents = {name: load(path) for name, path in paths.items() if path.exists()}
    text = README.read_text(encoding="utf-8")
    README.write_text(page.replaced(text, page.block(documents)), encoding="utf-8")
    print(f"\nwritten: {README}, below {BUILT / 'results'} what does not count")
