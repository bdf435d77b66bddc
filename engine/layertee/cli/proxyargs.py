"""The arguments of ``layertee image-proxy``: those of ``skopeo experimental-image-proxy``, and ours.

Clients build the command line (the Rust client in imageproxy.rs, build_cmd), so names and forms are theirs.
Skopeo takes some of them before the subcommand's name; a shim hands all on, that name included.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import policyargs, values

SUBCOMMAND = "experimental-image-proxy"
_SWITCHES = frozenset(
    {"--debug", "--insecure-policy", "--no-creds", "--annotate-layers", "--allow-downgrade"}
)


def normalized(words: Sequence[str]) -> list[str]:
    """Arguments that were written for skopeo's parser, whose switches may have ``=true`` or ``=false``."""
    found = []
    for word in words:
        name, _, value = word.partition("=")
        if name == "--tls-verify" and not value:
            found.append("--tls-verify=true")
        elif name in _SWITCHES and value in ("true", "false"):
            found += [name] if value == "true" else []
        else:
            found.append(word)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All but the limits of transfers. What ``pull`` has and this command has not gets its default."""
    parser.set_defaults(platform=None, trust="attested", deadline=None, min_rate=None)
    parser.set_defaults(policy_required=True)  # as skopeo, which opens nothing without a policy
    parser.add_argument("subcommand", nargs="*", metavar=SUBCOMMAND, help=argparse.SUPPRESS)
    _add_client(parser)
    policyargs.add_policy(parser)
    ours = parser.add_argument_group("layers and where they are")
    ours.add_argument(
        "--store",
        type=values.path,
        metavar="DIR",
        help="where layers are kept (default: /var/lib/layertee for root, else ~/.local/share/layertee)",
    )
    ours.add_argument(
        "--cache-max",
        type=values.size_or_share,
        default="10%",
        metavar="SIZE|N%",
        help="what layers may keep of the disk once their image is closed (default: %(default)s of the free)",
    )
    ours.add_argument(
        "--ahead",
        type=values.size,
        default="32Mi",
        metavar="SIZE",
        help="fetch layers of at most this size together before they are asked for; 0: none"
        " (default: %(default)s)",
    )
    ours.add_argument(
        "--client-repo",
        type=values.words,
        default="auto",
        metavar="PLACE",
        help="where the client keeps its layers, which are then not fetched before they are asked for: the"
        " directory of an ostree repository, composefs:REPO, auto or none (default: %(default)s)",
    )
    ours.add_argument(
        "--layer-identity",
        choices=("as-is", "diffid"),
        default="as-is",
        help="name layers by their blobs, or by their DiffIDs, as uncompressed tars: then a layer is the same"
        " wherever an image comes from, and a manifest has another digest than at the registry"
        " (default: %(default)s)",
    )
    ours.add_argument(
        "--annotate-layers",
        action="store_true",
        help="name the registry's blobs in the manifests of images whose layers are tars here",
    )
    ours.add_argument(
        "--from",
        action="append",
        default=[],
        dest="places",
        metavar="PLACE",
        help="look for layers in PLACE before downloading them (repeatable; see 'layertee help places';"
        " default: auto with --layer-identity diffid)",
    )
    add_registries_conf(ours)
    add_trust_realm(ours)
    ours.add_argument(
        "--skopeo",
        type=values.path,
        metavar="PATH",
        help="the real skopeo, which serves other transports (default: as on PATH)",
    )
    ours.add_argument(
        "--metrics-file",
        type=values.path,
        metavar="FILE.prom",
        help="write what came of the images, at the end: for node_exporter's textfile collector",
    )


def add_registries_conf(group: argparse._ArgumentGroup) -> None:
    """An option of every command that asks registries."""
    group.add_argument(
        "--registries-conf",
        type=values.path_or_none,
        metavar="FILE",
        help="mirrors, insecure and blocked registries (default: as podman and skopeo)",
    )


def add_trust_realm(group: argparse._ArgumentGroup) -> None:
    """An option of every command that may log in."""
    group.add_argument(
        "--trust-realm",
        type=values.host,
        action="append",
        default=[],
        dest="trusted_realms",
        metavar="HOST",
        help="send logins to this token service, too, where a registry names it (repeatable)",
    )


def _add_client(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("as skopeo has them")
    group.add_argument(
        "--sockfd",
        type=values.count(0, 1 << 20),
        default=0,
        metavar="N",
        help="the client's socket (default: 0)",
    )
    logins = group.add_mutually_exclusive_group()
    logins.add_argument("--authfile", type=values.path_or_none, metavar="FILE", help="credentials")
    logins.add_argument(
        "--no-creds", action="store_true", help="use no credentials, whatever files there are"
    )
    group.add_argument(
        "--cert-dir",
        type=values.path_or_none,
        metavar="DIR",
        help="*.crt, *.cert and *.key for the registry",
    )
    group.add_argument(
        "--tls-verify",
        type=values.boolean,
        metavar="true|false",
        help="false: accept any certificate and plain HTTP (default: as registries.conf has it, else true)",
    )
    group.add_argument(
        "--decryption-key",
        action="append",
        default=[],
        metavar="KEY",
        help="leave all images to the real skopeo, which can decrypt them (repeatable)",
    )
    group.add_argument(
        "--user-agent-prefix",
        type=values.visible,
        default="",
        metavar="TEXT",
        help="who asks, for the registry's log",
    )
    group.add_argument("--override-os", metavar="OS", help="of an index, take the image for this system")
    group.add_argument("--override-arch", metavar="ARCH", help="… for this architecture")
    group.add_argument("--override-variant", metavar="VARIANT", help="… for this variant of it")
