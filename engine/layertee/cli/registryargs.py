"""The arguments of commands that talk to a registry and to no store: ``tags``."""

from __future__ import annotations

import argparse

from . import proxyargs, values
from .commonargs import add_access, add_json


def add_tags(parser: argparse.ArgumentParser) -> None:
    """Those of ``layertee tags``."""
    add_json(parser)
    parser.add_argument(
        "image", type=values.words, metavar="REPO", help="host/ns/name, or a short name as podman takes it"
    )
    group = parser.add_argument_group("registry")
    add_access(group)
    proxyargs.add_trust_realm(group)
