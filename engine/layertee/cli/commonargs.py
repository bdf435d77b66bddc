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


def add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress-fd",
        type=values.count(3, 1 << 20),
        metavar="N",
        help="write progress to the open descriptor N, as JSON lines in the shape of 'bootc --progress-fd'",
    )


def add_reporting(parser: argparse.ArgumentParser) -> None:
    """What :class:`reporting.Reporting` reads."""
    add_progress(parser)
    parser.add_argument(
        "--metrics-file",
        type=values.path,
        metavar="FILE.prom",
        help="write how it went, at the end: for node_exporter's textfile collector",
    )


def add_network(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What :func:`shared.options_of` reads; the group of what is about transfers.

    What image-proxy has besides gets its default.
    """
    parser.set_defaults(no_creds=False, user_agent_prefix="", deadline=None, min_rate=None)
    parser.set_defaults(override_os=None, override_arch=None, override_variant=None)
    group = parser.add_argument_group("layers that are here ('layertee help places')")
    group.add_argument(
        "--from",
        action="append",
        default=[],
        dest="places",
        metavar="PLACE",
        help="look for layers in PLACE before downloading them (repeatable)",
    )
    group.add_argument(
        "--trust",
        choices=("computed", "attested", "claimed"),
        default="attested",
        help="how well a place must know what it has (default: %(default)s)",
    )
    group = parser.add_argument_group("registry")
    group.add_argument(
        "--platform",
        type=values.words,
        metavar="OS/ARCH[/V]",
        help="take the image for this one, and no other (default: this host)",
    )
    add_access(group)
    add_creds(group)
    proxyargs.add_trust_realm(group)
    transfer = add_limits(parser)
    policyargs.add_policy(parser)
    return transfer


def add_access(group: argparse._ArgumentGroup) -> None:
    """How registries are reached."""
    group.add_argument(
        "--authfile",
        type=values.path,
        metavar="FILE",
        help="logins (default: as podman and skopeo)",
    )
    group.add_argument(
        "--tls-verify",
        type=values.boolean,
        metavar="true|false",
        help="false: any certificate, and plain HTTP, will do (default: true, unless registries.conf has it"
        " otherwise)",
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


def add_sandbox(parser: argparse.ArgumentParser) -> None:
    """What :func:`confine.confine` reads."""
    parser.add_argument(
        "--sandbox",
        choices=("auto", "off", "require"),
        default="off",
        metavar="MODE",
        help="auto, require or off (the default): give rights away that are not needed, first of all",
    )


def add_budget(group: argparse._ArgumentGroup) -> None:
    """What only a command that brings one image to its end can promise."""
    group.add_argument(
        "--deadline",
        type=values.duration,
        metavar="DURATION",
        help="give the pull up after so long: 90s, 10m, 1h30m",
    )
    group.add_argument(
        "--min-rate",
        type=values.rate,
        metavar="RATE",
        help="give the pull up below that for a minute: 50k",
    )


def add_keep_partials(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument("--keep-partials", type=values.keep_partials, metavar="AGE|SIZE|never", help=text)


def add_limits(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Bounds of transfers, whose group is returned, and of what they take of this machine."""
    transfer = parser.add_argument_group("transfer ('layertee help transfer')")
    transfer.add_argument(
        "--max-connections",
        type=values.count(1, 64),
        default=8,
        metavar="N",
        help="at once (default: %(default)s)",
    )
    transfer.add_argument(
        "--max-rate", type=values.rate, metavar="RATE", help="bytes per second: 500k, 20M, 1.5Gi"
    )
    transfer.add_argument(
        "--ranges",
        choices=("auto", "always", "never"),
        default="auto",
        help="several connections for one layer: when they help, always or never",
    )
    transfer.add_argument(
        "--stall-timeout",
        type=values.seconds,
        default=60.0,
        metavar="SECONDS",
        help="give a connection up that brings nothing, or less than 10 KiB/s, for so long"
        " (default: %(default)g)",
    )
    transfer.add_argument(
        "--patience",
        type=values.duration,
        default="5m",
        metavar="DURATION",
        help="the longest wait that a registry may ask for (default: %(default)s)",
    )
    group = parser.add_argument_group("disk and memory ('layertee help transfer')")
    group.add_argument(
        "--keep-free",
        type=values.keep_free,
        metavar="SIZE|N%",
        help="what has to stay free of the store's disk (default: 3%% to 5%% of it, at most 10Gi)",
    )
    add_keep_partials(
        group,
        "how long to keep beginnings of layers, or how much of them (default: 7d; see 'layertee help"
        " partials')",
    )
    group.add_argument(
        "--max-output",
        type=values.size_of_some,
        default="64Gi",
        metavar="SIZE",
        help="what all layers may inflate to (default: %(default)s)",
    )
    group.add_argument(
        "--zstd-window",
        type=values.window,
        default="128Mi",
        metavar="SIZE",
        help="memory for a zstd layer, up to 2Gi (default: %(default)s)",
    )
    return transfer
