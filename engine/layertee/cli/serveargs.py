"""The arguments of ``layertee serve``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import values

if TYPE_CHECKING:
    from ..serve.listen import Address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All but ``--store``."""
    parser.add_argument(
        "--place",
        action="append",
        default=[],
        dest="places",
        type=values.words,
        metavar="PLACE",
        help="offer the images in PLACE: store, oci:DIR, oci-archive:FILE, containers-storage: (repeatable;"
        " default: store). Every client that can reach the server can have them",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print what to type elsewhere")
    _add_listening(parser.add_argument_group("who is served"))
    _add_limits(parser.add_argument_group("limits"))


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--listen",
        action="append",
        default=[],
        type=_address,
        metavar="HOST:PORT",
        help="where to listen (repeatable; port 0: any; default: 127.0.0.1:8000, or the sockets of systemd)",
    )
    group.add_argument(
        "--tls-cert", type=values.path, metavar="FILE", help="speak TLS with this certificate (PEM)"
    )
    group.add_argument("--tls-key", type=values.path, metavar="FILE", help="the key of the certificate")
    group.add_argument(
        "--client-ca",
        type=values.path,
        metavar="FILE",
        help="serve only clients that have a certificate of these authorities",
    )
    group.add_argument(
        "--htpasswd",
        type=values.path,
        metavar="FILE",
        help="serve only those who log in as this file has it ('htpasswd -B' writes it)",
    )
    group.add_argument(
        "--insecure-listen",
        action="store_true",
        help="listen to other machines without TLS: all can be read on the way, logins too",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-rate",
        type=values.rate,
        metavar="RATE",
        help="bytes per second for all clients together, shared equally: 500k, 20M, 1.5Gi",
    )
    group.add_argument(
        "--max-connections",
        type=values.count(1, 100_000),
        default=1000,
        metavar="N",
        help="connections at once; the idlest makes room for a new one, or else that waits"
        " (default: %(default)s)",
    )
    group.add_argument(
        "--stall-timeout",
        type=values.seconds,
        default=30.0,
        metavar="SECONDS",
        help="cut off a client that takes nothing of its answer for so long, or later on less than 1000"
        " bytes/s (default: %(default)g)",
    )
    group.add_argument(
        "--grace",
        type=values.seconds,
        default=10.0,
        metavar="SECONDS",
        help="after SIGTERM or Ctrl-C, how long answers may take to come to their end (default: %(default)g)",
    )
    group.add_argument(
        "--cache",
        type=values.path,
        metavar="DIR",
        help="keep layers in DIR that have to be put together and are asked for again",
    )
    group.add_argument(
        "--cache-max",
        type=values.size_or_share,
        default="10%",
        metavar="SIZE|N%",
        help="what they may take of the disk (default: %(default)s of what is free)",
    )


def _address(text: str) -> Address:
    from ..serve.listen import parse_address

    try:
        return parse_address(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
