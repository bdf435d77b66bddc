"""The arguments of commands that talk to a registry and to no store."""

from __future__ import annotations

import argparse

from . import proxyargs, values
from .commonargs import add_access, add_creds, add_json, add_sandbox


def add_tags(parser: argparse.ArgumentParser) -> None:
    """Those of ``layertee tags``."""
    add_json(parser)
    parser.add_argument(
        "image", type=values.words, metavar="REPO", help="host/ns/name, or a short name as podman takes it"
    )
    group = parser.add_argument_group("registry")
    add_access(group)
    add_creds(group)
    proxyargs.add_trust_realm(group)
    add_sandbox(parser)


def add_login(parser: argparse.ArgumentParser) -> None:
    """Those of ``layertee login``."""
    parser.add_argument(
        "-u",
        "--username",
        type=values.words,
        metavar="NAME",
        help="asked for at a terminal if it is not given",
    )
    parser.add_argument(
        "--password-stdin", action="store_true", help="read the password, or token, from standard input"
    )
    parser.add_argument(
        "--get-login", action="store_true", help="print the user name that would be used, and change nothing"
    )
    add_json(parser)
    _add_registry(parser)
    group = parser.add_argument_group("registry")
    add_access(group)
    proxyargs.add_trust_realm(group)


def add_logout(parser: argparse.ArgumentParser) -> None:
    """Those of ``layertee logout``."""
    parser.add_argument("-a", "--all", action="store_true", help="forget all logins of the file")
    add_json(parser)
    _add_registry(parser, nargs="?")
    group = parser.add_argument_group("registry")
    group.add_argument(
        "--authfile", type=values.path, metavar="FILE", help="where logins are (default: as podman)"
    )
    proxyargs.add_registries_conf(group)


def _add_registry(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument(
        "registry",
        nargs=nargs,
        type=values.words,
        metavar="REGISTRY",
        help="host[:port], or host[:port]/namespace for what is below that",
    )
