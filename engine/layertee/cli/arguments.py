"""The command line's grammar: every command, its arguments, and what their values may be."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from ..version import __version__
from .proxyargs import add_arguments as add_proxy_arguments

Command = Callable[[argparse.Namespace], int]

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)(i?)[bB]?(?:/s)?")


class _Parser(argparse.ArgumentParser):
    """Exits with 1 where argparse has 2, which here means that an image was not found."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def parser_of(commands_of: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of all commands; its result has ``run``, the command's function."""
    parser = _Parser(
        prog="layertee",
        description="Pull OCI / bootc OS images: only the layers a machine lacks, each verified in one pass.",
        epilog="IMAGE is docker://host/ns/name[:tag][@digest] (docker:// may be left out), oci:DIR[:ref], "
        "oci-archive:FILE[:ref] or containers-storage:NAME. "
        "Exit codes: 0 done, 1 error, 2 image not found, 3 verification failed, 4 network, 5 no space.",
    )
    parser.add_argument("--version", action="version", version=f"layertee {__version__}")
    parser.add_argument("--debug", action="store_true", help="log every step to stderr")
    parser.add_argument("-v", "--verbose", action="store_true", help="log retries and decisions to stderr")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=commands_of[name])
        return sub

    pull = command("pull", "pull an image into the store, or into an OCI layout")
    _add_store(pull)
    pull.add_argument("--to", metavar="oci:DIR[:ref]", help="pull into this OCI layout instead of the store")
    pull.add_argument(
        "--layers",
        choices=("as-is", "uncompressed"),
        default="as-is",
        help="keep layers as transferred, or as plain tars named by their DiffID (default: %(default)s)",
    )
    pull.add_argument(
        "--verify",
        choices=("both", "digest"),
        default="both",
        help="check each layer's blob digest and its DiffID, or, of blobs kept as they are, the blob digest "
        "only: quicker, but what is in them stays unknown until something asks (default: %(default)s)",
    )
    pull.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
    pull.add_argument("-q", "--quiet", action="store_true", help="no progress, no table")
    _add_json(pull)
    _add_image(pull)
    _add_network(pull)

    inspect = command("inspect", "show an image's digests, DiffIDs and what is here of it")
    _add_store(inspect)
    _add_json(inspect)
    _add_image(inspect)
    _add_network(inspect)

    show = command("map", "show the pairs blob digest <-> DiffID computed on this machine")
    _add_store(show)
    _add_json(show)
    show.add_argument("key", nargs="?", metavar="DIGEST|DIFFID", help="only the pairs with this digest")

    ls = command("ls", "list the images in the store")
    _add_store(ls)
    _add_json(ls)

    rm = command("rm", "forget an image; 'layertee gc' then frees its space")
    _add_store(rm)
    rm.add_argument("names", nargs="+", metavar="NAME", help="as 'layertee ls' shows it")

    gc = command("gc", "remove blobs that no image needs, and leftovers of killed pulls")
    _add_store(gc)
    _add_json(gc)

    verify = command("verify", "hash everything in the store again; quarantine what is wrong")
    _add_store(verify)
    _add_json(verify)
    verify.add_argument("--repair", metavar="IMAGE", dest="image", help="then pull IMAGE again")
    _add_network(verify)

    prepare = command("prepare", "before 'bootc upgrade': name the layers that its repository has already")
    prepare.add_argument(
        "--ostree-repo",
        type=Path,
        required=True,
        metavar="DIR",
        help="the ostree repository of the system: /sysroot/ostree/repo where it is booted",
    )
    prepare.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
    prepare.add_argument(
        "--undo", action="store_true", help="remove the refs that were made (for IMAGE) and not used since"
    )
    _add_store(prepare)
    _add_json(prepare)
    prepare.add_argument("image", nargs="?", metavar="IMAGE", help="what the upgrade will be to")
    _add_network(prepare)

    proxy = command(
        "image-proxy",
        "serve bootc and other clients of 'skopeo experimental-image-proxy', on their socket",
    )
    add_proxy_arguments(proxy, _boolean)
    _add_limits(proxy.add_argument_group("transfer"))

    shim = command(
        "install-shim",
        "write DIR/skopeo: 'experimental-image-proxy' is answered by layertee, all else by the real skopeo",
    )
    shim.usage = (
        "layertee install-shim [-h] [--skopeo PATH] [--force] [--remove] DIR [-- OPTIONS of image-proxy]"
    )
    shim.add_argument("dir", type=Path, metavar="DIR", help="to come first on the PATH of clients")
    shim.add_argument("--skopeo", type=Path, metavar="PATH", help="the real skopeo (default: as on PATH)")
    shim.add_argument(
        "--force", action="store_true", help="displace a file that is not a shim, and keep it beside"
    )
    shim.add_argument("--remove", action="store_true", help="take it away and put back what it displaced")

    doctor = command("doctor", "show which core runs and why, and the state of the store")
    _add_store(doctor)
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="the store (default: /var/lib/layertee for root, else ~/.local/share/layertee)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE")


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("registry and transfer")
    group.add_argument(
        "--platform", metavar="OS/ARCH[/V]", help="of an index, take this one (default: this host)"
    )
    group.add_argument(
        "--authfile", type=Path, metavar="FILE", help="credentials (default: as podman and skopeo)"
    )
    group.add_argument(
        "--tls-verify",
        type=_boolean,
        default=True,
        metavar="true|false",
        help="false: accept any certificate and plain HTTP from this registry",
    )
    group.add_argument(
        "--cert-dir", type=Path, metavar="DIR", help="*.crt, *.cert and *.key for this registry"
    )
    _add_limits(group)
    group.add_argument(
        "--from",
        action="append",
        default=[],
        dest="places",
        metavar="PLACE",
        help="take layers from oci:DIR, an OCI layout, oci-archive:FILE, one in a tar, or"
        " containers-storage:, podman's store; leave those that ostree:REPO or composefs:REPO keeps where"
        " they are; believe blob-info-cache:[FILE], podman's record of which blobs are the same; or auto,"
        " whatever of these this machine has (repeatable)",
    )
    group.add_argument(
        "--trust",
        choices=("computed", "attested", "claimed"),
        default="attested",
        help="skip a download where this program computed what a place holds, or another tool of this machine"
        " did too, or some image says so. What can be read from a place is read and checked in any case, but"
        " with 'computed' only where that was computed (default: %(default)s)",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-connections", type=_count, default=8, metavar="N", help="default: %(default)s")
    group.add_argument("--max-rate", type=_rate, metavar="RATE", help="bytes per second: 500k, 20M, 1.5Gi")
    group.add_argument(
        "--ranges",
        choices=("auto", "always", "never"),
        default="auto",
        help="fetch a layer in ranges over several connections: when it helps, always or never",
    )
    group.add_argument(
        "--stall-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="give a connection up that brings less than 10 KiB/s for so long (default: %(default)g)",
    )


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not true or false")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", text) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def _rate(text: str) -> int:
    """``20M`` is 20,000,000 bytes per second, ``20Mi`` 1024-based."""
    match = _RATE.fullmatch(text.strip())
    base = 1024 if match and match[3] else 1000
    rate = float(match[1]) * base ** " kmg".index(match[2].lower() or " ") if match else 0
    if not 1000 <= rate < 1e15:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a rate of at least 1000 bytes per second, like 20M"
        )
    return int(rate)
