"""The command line's grammar: every command, its arguments, and how a mistake in them is answered.

What the values may be is in values.py; the arguments of ``image-proxy`` are in proxyargs.py.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from ..version import __version__
from . import policyargs, proxyargs, serveargs, values
from .exits import EXIT_ERROR
from .output import flush, say, tell

# What 'layertee --help' lists, as it lists it.
GROUPS: dict[str, dict[str, str]] = {
    "images": {
        "pull": "pull an image into the store, or into an OCI layout",
        "inspect": "show an image's digests, DiffIDs and what is here of it",
    },
    "store commands": {
        "ls": "list the images in the store",
        "map": "show the pairs blob digest <-> DiffID computed on this machine",
        "rm": "forget images; 'layertee gc' then frees their space",
        "gc": "remove blobs that no image needs, and leftovers of killed pulls",
        "verify": "hash everything in the store again; quarantine what is wrong",
    },
    "other machines": {
        "serve": "hand on what this machine has, as a registry that is only read",
    },
    "bootc and other clients of skopeo": {
        "prepare": "before 'bootc upgrade': name the layers that its repository has",
        "image-proxy": "serve them as 'skopeo experimental-image-proxy' would",
        "install-shim": "write DIR/skopeo, by which such clients reach image-proxy",
    },
    "this program": {
        "doctor": "show which core runs and why, the store; what holds for an image",
        "help": "explain a topic (places, exit-codes) or a command",
    },
}
SUMMARIES = {name: text for group in GROUPS.values() for name, text in group.items()}

_IMAGES = """\
IMAGE is docker://host/ns/name[:tag][@digest] (docker:// may be left out),
oci:DIR[:ref], oci-archive:FILE[:ref], docker-archive:FILE[:name|:@index] or
containers-storage:NAME.
Exit codes: 0 done, 1 error, 2 image not found, 3 verification failed,
4 network, 5 no space."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What ``argv`` asks for: ``command`` is its name, ``options`` what follows ``--`` of install-shim.

    Raises SystemExit after ``--help`` and ``--version`` (0) and for a mistake (1), once it was answered;
    OutputFailed.
    """
    words = list(argv)
    name = next((word for word in words if not word.startswith("-")), None)
    root, parser = _parsers(name)
    if any("\0" in word for word in words):
        root.error("an argument has a NUL character in it")
    if name is not None and parser is None:
        there_are = f"; there are: {', '.join(_ARGUMENTS)}"
        root.error(f"there is no command {name!r}{_suggestion(name, _ARGUMENTS) or there_are}")
    if name is not None and "--" in words[: words.index(name)]:
        root.error(f"'--' stands before the command {name}")
    later: list[str] = []
    if name == "install-shim" and "--" in words:
        at = words.index("--")
        words, later = words[:at], words[at + 1 :]
    if name == "image-proxy":
        words = proxyargs.normalized(words)
    args, unknown = root.parse_known_args(words)
    if unknown:
        assert parser is not None  # nothing but a command lets a word pass
        flags = re.findall(r"--[\w.-]+", parser.format_usage())
        found = _suggestion(unknown[0].partition("=")[0], flags)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{found}")
    args.options = later
    return args


def parser_of(command: str | None) -> argparse.ArgumentParser:
    """That of one command, or of the whole."""
    root, parser = _parsers(command)
    return root if parser is None else parser


class _Parser(argparse.ArgumentParser):
    """Prints by way of the gate, and exits with 1 where argparse has 2: an image that was not found."""

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, **given)

    def print_help(self, file: object = None) -> None:
        say(*self.format_help().rstrip("\n").split("\n"))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            tell(message)
        flush()
        raise SystemExit(status)

    def error(self, message: str) -> NoReturn:
        tell(*self.format_usage().rstrip("\n").split("\n"))
        self.exit(EXIT_ERROR, f"{self.prog}: error: {message}")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        say(f"layertee {__version__}")
        parser.exit()


def _suggestion(word: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _parsers(command: str | None) -> tuple[_Parser, _Parser | None]:
    """The parser of the whole, and that of ``command``; None where there is no such command.

    The whole has no other: making one for every command takes longer than reading the arguments of one.
    """
    root = _Parser(
        prog="layertee",
        usage="layertee [-h] [--version] [-v] [--debug] COMMAND ...",
        description="Pull OCI / bootc OS images: only the layers a machine lacks, each verified in one pass.",
        epilog=_listed() + _IMAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action=_Version, nargs=0, help="show the version")
    _add_logging(root, False)
    commands = root.add_subparsers(metavar="COMMAND", required=True, prog="layertee", help=argparse.SUPPRESS)
    if command not in _ARGUMENTS:
        return root, None
    parser = commands.add_parser(command, description=_DESCRIPTIONS.get(command, SUMMARIES[command]))
    parser.set_defaults(command=command)
    _ARGUMENTS[command](parser)
    _add_logging(parser, argparse.SUPPRESS)  # also after the command's name
    return root, parser


def _listed() -> str:
    lines = []
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"    {name:<13} {text}" for name, text in group.items()), ""]
    return "\n".join(lines) + "\n"


# --- the commands -----------------------------------------------------------------------------------


_DESCRIPTIONS = {
    "image-proxy": "serve bootc and other clients of 'skopeo experimental-image-proxy', on their socket",
    "install-shim": "write DIR/skopeo: 'experimental-image-proxy' is answered by layertee, all else by the"
    " real skopeo",
    "prepare": "before 'bootc upgrade': name the layers that its repository has already",
}


def _pull(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--to",
        type=values.words,
        metavar="oci:DIR[:ref]",
        help="pull into this OCI layout instead of the store",
    )
    parser.add_argument(
        "--layers",
        choices=("as-is", "uncompressed"),
        default="as-is",
        help="keep layers as transferred, or as plain tars named by their DiffID (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        choices=("both", "digest"),
        default="both",
        help="check each layer's blob digest and its DiffID, or, of blobs kept as they are, the blob digest "
        "only: quicker, but what is in them stays unknown until something asks (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-signatures",
        action="store_true",
        help="keep beside the image what signs it in its registry, and the index that it is chosen from: for"
        " those who pull it from 'layertee serve' here",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no table")
    _add_json(parser)
    parser.add_argument("image", metavar="IMAGE")
    _add_network(parser)
    _add_budget(parser.add_argument_group("time"))


def _inspect(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_json(parser)
    parser.add_argument("image", metavar="IMAGE")
    _add_network(parser)


def _map(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_json(parser)
    parser.add_argument(
        "key",
        nargs="?",
        type=values.words,
        metavar="DIGEST|DIFFID",
        help="only the pairs with this digest",
    )


def _ls(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_json(parser)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="list the layers that have begun to arrive instead; the next pull goes on with them",
    )


def _rm(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as 'layertee ls' shows it")


def _gc(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_json(parser)
    _add_keep_partials(
        parser, "keep beginnings of layers that are not older than this, or so much of them (default: never)"
    )


def _verify(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_json(parser)
    parser.add_argument(
        "--repair", type=values.words, metavar="IMAGE", dest="image", help="then pull IMAGE again"
    )
    _add_network(parser)


def _prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ostree-repo",
        type=values.path,
        required=True,
        metavar="DIR",
        help="the ostree repository of the system: /sysroot/ostree/repo where it is booted",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
    parser.add_argument(
        "--undo", action="store_true", help="remove the refs that were made (for IMAGE) and not used since"
    )
    _add_store(parser)
    _add_json(parser)
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="what the upgrade will be to")
    _add_network(parser)


def _serve(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    serveargs.add_arguments(parser)


def _image_proxy(parser: argparse.ArgumentParser) -> None:
    proxyargs.add_arguments(parser)
    _add_limits(parser.add_argument_group("transfer"))


def _install_shim(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "layertee install-shim [-h] [--skopeo PATH] [--force] [--remove] DIR [-- OPTIONS of image-proxy]"
    )
    parser.add_argument("dir", type=values.path, metavar="DIR", help="to come first on the PATH of clients")
    parser.add_argument(
        "--skopeo", type=values.path, metavar="PATH", help="the real skopeo (default: as on PATH)"
    )
    parser.add_argument(
        "--force", action="store_true", help="displace a file that is not a shim, and keep it beside"
    )
    parser.add_argument("--remove", action="store_true", help="take it away and put back what it displaced")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE",
        help="say what this machine's configuration means for IMAGE, instead; nothing is fetched",
    )
    _add_store(parser)
    _add_json(parser)
    group = parser.add_argument_group("registry")
    _add_access(group)
    group.add_argument(
        "--policy", type=values.path_or_none, metavar="FILE", help="the signature policy (default: as podman)"
    )
    group.add_argument(
        "--registries.d",
        type=values.path_or_none,
        dest="registries_d",
        metavar="DIR",
        help="where signatures are (default: as podman)",
    )
    group.add_argument(
        "--trust-file", type=values.path, metavar="FILE", help="in place of /etc/layertee/trust.toml"
    )


def _help(parser: argparse.ArgumentParser) -> None:
    topics = ("places", "exit-codes")
    parser.add_argument(
        "topic", nargs="?", choices=(*topics, *_ARGUMENTS), metavar="TOPIC", help="; ".join(topics)
    )


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "pull": _pull,
    "inspect": _inspect,
    "map": _map,
    "ls": _ls,
    "rm": _rm,
    "gc": _gc,
    "verify": _verify,
    "prepare": _prepare,
    "serve": _serve,
    "image-proxy": _image_proxy,
    "install-shim": _install_shim,
    "doctor": _doctor,
    "help": _help,
}


# --- what several have ------------------------------------------------------------------------------


def _add_logging(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default,
        help="log retries and decisions to stderr",
    )
    parser.add_argument("--debug", action="store_true", default=default, help="log every step to stderr")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=values.path,
        metavar="DIR",
        help="the store (default: /var/lib/layertee for root, else ~/.local/share/layertee)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def _add_network(parser: argparse.ArgumentParser) -> None:
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
    _add_access(group)
    proxyargs.add_trust_realm(group)
    _add_limits(group)
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


def _add_access(group: argparse._ArgumentGroup) -> None:
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


def _add_budget(group: argparse._ArgumentGroup) -> None:
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


def _add_keep_partials(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument("--keep-partials", type=values.keep_partials, metavar="AGE|SIZE|never", help=text)


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--keep-free",
        type=values.keep_free,
        metavar="SIZE|N%",
        help="what has to stay free of the disk that the store is on (default: LAYERTEE_KEEP_FREE, else 5%%"
        " of a small disk, 3%% of a large one, at least 1Gi where that is less than 5%%, and at most 10Gi)",
    )
    _add_keep_partials(
        group,
        "how long to keep the beginning of a layer whose rest did not arrive, or how much of such layers in"
        " all: 7d, 12h, 2Gi, never (default: LAYERTEE_KEEP_PARTIALS, else 7d)",
    )
    group.add_argument(
        "--max-output",
        type=values.size_of_some,
        default=64 << 30,
        metavar="SIZE",
        help="what all layers of an image may inflate to (default: 64Gi; less for small images)",
    )
    group.add_argument(
        "--zstd-window",
        type=values.window,
        default=128 << 20,
        metavar="SIZE",
        help="memory that a zstd layer may ask for to be inflated, up to 2Gi (default: 128Mi)",
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
