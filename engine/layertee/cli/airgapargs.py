"""The arguments of ``export`` and ``import``."""

from __future__ import annotations

import argparse

from . import values
from .commonargs import (
    add_budget,
    add_json,
    add_network,
    add_no_trunc,
    add_progress,
    add_reporting,
    add_sandbox,
    add_store,
)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Those of ``layertee export``."""
    add_store(parser)
    parser.add_argument(
        "--have",
        action="store_true",
        help="print the layers that this store has, as a list for --lacking on another machine",
    )
    parser.add_argument(
        "--to",
        type=values.words,
        metavar="oci-archive:FILE|oci:DIR",
        help="write this file, or add to this layout",
    )
    parser.add_argument(
        "--lacking",
        type=values.path,
        metavar="LIST",
        help="leave out the layers that are in this list of --have ('-': on standard input)",
    )
    parser.add_argument(
        "--keep-free",
        type=values.keep_free,
        metavar="SIZE|N%",
        help="what has to stay free of the disk that is written to (default: as pull)",
    )
    add_json(parser)
    add_no_trunc(parser)
    add_progress(parser)
    parser.set_defaults(metrics_file=None)
    parser.add_argument("images", nargs="*", default=[], metavar="IMAGE", help="as 'layertee ls' shows it")


def add_import(parser: argparse.ArgumentParser) -> None:
    """Those of ``layertee import``."""
    add_store(parser)
    parser.add_argument(
        "--layers",
        choices=("as-is", "uncompressed"),
        default="as-is",
        help="keep layers as they come, or as plain tars named by their DiffID (default: %(default)s)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="all_platforms",
        help="take indexes whole, with all of their platforms",
    )
    parser.set_defaults(verify="both")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="no progress; print the digests alone, - for an image that failed",
    )
    add_json(parser)
    add_no_trunc(parser)
    add_reporting(parser)
    add_sandbox(parser)
    parser.add_argument(
        "source",
        type=values.words,
        metavar="SOURCE",
        help="oci-archive:FILE or oci:DIR, of 'layertee export'",
    )
    parser.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="only these images (default: all)"
    )
    add_budget(add_network(parser))
