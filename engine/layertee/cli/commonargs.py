"""Arguments that several commands have, in the groups in which their help shows them."""

from __future__ import annotations

import argparse

from . import policyargs, proxyargs, values


def add_logging(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default,
        help="log retries and decisions to stderr",
    )
    parser.add_argument("--debug", action="store_true", default=default, help="log every step to stderr")


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=values.path,
        metavar="DIR",
        help="the store (default: /var/lib/layertee for root, else ~/.local/share/layertee)",
    )


def add_no_trunc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-trunc", action="store_true", help="print digests in full, and rows wider than the terminal"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def add_reporting(parser: argparse.ArgumentParser) -> None:
    """What :class:`reporting.Reporting` reads."""
    parser.add_argument(
        "--progress-fd",
        type=values.count(3, 1 << 20),
        metavar="N",
        help="write progress to the open descriptor N, as JSON lines in the shape of 'bootc --progress-fd'",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """What :func:`shared.options_of` reads. What image-proxy has besides gets its default."""
    parser.set_defaults(no_creds=False, user_agent_prefix="", deadline=None, min_rate=None)
    parser.set_defaults(override_os=None, override_arch=None, override_variant=None)
    group = parser.add_argument_group("registry and transfer")
    group.add_argument(
        "--platform",
        type=values.words,
        metavar="OS/ARCH[/V]",
        help="take the image for this one, and no other (default: this host; an image that is only for"
        " another one is then taken with a warning)",
    )
    add_access(group)
    add_creds(group)
    proxyargs.add_trust_realm(group)
    add_limits(group)
    policyargs.add_policy(parser)
    group.add_argument(
        "--from",
        action="append",
        default=[],
        dest="places",
        metavar="PLACE",
        help="look for layers in PLACE before downloading them (repeatable; see 'layertee help places')",
    )
    group.add_argument(
        "--trust",
        choices=("computed", "attested", "claimed"),
        default="attested",
        help="how well a place must know what a layer contains for its download to be skipped"
        " (see 'layertee help places'; default: %(default)s)",
    )


def add_access(group: argparse._ArgumentGroup) -> None:
    """How registries are reached."""
    group.add_argument(
        "--authfile",
        type=values.path,
        metavar="FILE",
        help="credentials (default: as podman and skopeo)",
    )
    group.add_argument(
        "--tls-verify",
        type=values.boolean,
        metavar="true|false",
        help="false: accept any certificate and plain HTTP from this registry (default: as registries.conf"
        " has it, else true)",
    )
    group.add_argument(
        "--cert-dir", type=values.path, metavar="DIR", help="*.crt, *.cert and *.key for this registry"
    )
    proxyargs.add_registries_conf(group)


def add_creds(group: argparse._ArgumentGroup) -> None:
    """A login for one call."""
    group.add_argument(
        "--creds",
        type=values.words,
        metavar="USER[:PASSWORD]",
        help="the login for the registry of IMAGE, in place of those in files; a password that is not"
        " given is asked for. All users of the machine can see it while the command runs; not so with"
        " 'layertee login'",
    )


def add_budget(group: argparse._ArgumentGroup) -> None:
    """What only a command that brings one image to its end can promise."""
    group.add_argument(
        "--deadline",
        type=values.duration,
        metavar="DURATION",
        help="give the pull up after so long, like 90s, 10m or 1h30m; what has arrived is kept",
    )
    group.add_argument(
        "--min-rate",
        type=values.rate,
        metavar="RATE",
        help="give the pull up when less than that comes over the network for a minute, like 50k",
    )


def add_keep_partials(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument("--keep-partials", type=values.keep_partials, metavar="AGE|SIZE|never", help=text)


def add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--keep-free",
        type=values.keep_free,
        metavar="SIZE|N%",
        help="what has to stay free of the disk that the store is on (default: LAYERTEE_KEEP_FREE, else 5%%"
        " of a small disk, 3%% of a large one, at least 1Gi where that is less than 5%%, and at most 10Gi)",
    )
    add_keep_partials(
        group,
        "how long to keep the beginning of a layer whose rest did not arrive, or how much of such layers in"
        " all: 7d, 12h, 2Gi, never (default: LAYERTEE_KEEP_PARTIALS, else 7d)",
    )
    group.add_argument(
        "--max-output",
        type=values.size_of_some,
        default="64Gi",
        metavar="SIZE",
        help="what all layers of an image may inflate to (default: %(default)s; less for small images)",
    )
    group.add_argument(
        "--zstd-window",
        type=values.window,
        default="128Mi",
        metavar="SIZE",
        help="memory that a zstd layer may ask for to be inflated, up to 2Gi (default: %(default)s)",
    )
    group.add_argument(
        "--max-connections",
        type=values.count(1, 64),
        default=8,
        metavar="N",
        help="default: %(default)s",
    )
    group.add_argument(
        "--max-rate", type=values.rate, metavar="RATE", help="bytes per second: 500k, 20M, 1.5Gi"
    )
    group.add_argument(
        "--ranges",
        choices=("auto", "always", "never"),
        default="auto",
        help="fetch a layer in ranges over several connections: when it helps, always or never",
    )
    group.add_argument(
        "--stall-timeout",
        type=values.seconds,
        default=60.0,
        metavar="SECONDS",
        help="give a connection up that brings less than 10 KiB/s, or no answer, for so long"
        " (default: %(default)g)",
    )
