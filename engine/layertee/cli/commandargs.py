"""What each command takes: a function for each, which adds its arguments to its parser.

Arguments that several commands have are in commonargs.py; a command with many has a module of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from . import airgapargs, proxyargs, registryargs, serveargs, values
from .commonargs import (
    add_access,
    add_budget,
    add_json,
    add_keep_partials,
    add_limits,
    add_network,
    add_no_trunc,
    add_reporting,
    add_sandbox,
    add_store,
)

DESCRIPTIONS = {
    "image-proxy": "serve bootc and other clients of 'skopeo experimental-image-proxy', on their socket",
    "install-shim": "write DIR/skopeo: 'experimental-image-proxy' is answered by layertee, all else by the"
    " real skopeo",
    "prepare": "before 'bootc upgrade': name the layers that its repository has already",
}

# Those of topics.py, whose texts are not read to parse a command line.
TOPIC_NAMES = (
    *("images", "places", "transfer", "partials", "signatures", "configuration", "environment"),
    *("scripting", "exit-codes"),
)


class _Images(argparse.Action):
    """``images`` as they are given, and ``image``, of which most of a command's work knows one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, words: object, *_: object
    ) -> None:
        assert isinstance(words, list)
        namespace.images, namespace.image = words, words[0]


def _pull(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--to",
        type=values.words,
        metavar="TARGET",
        help="oci:DIR[:ref]: pull into this OCI layout instead of the store; oci-archive:FILE[:ref], dir:DIR"
        " or containers-storage:NAME: pull into the store, then write the image there, too",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="all_platforms",
        help="take an index whole, with all of its platforms",
    )
    parser.add_argument(
        "--layers",
        choices=("as-is", "uncompressed"),
        default="as-is",
        help="keep layers as transferred, or as plain tars (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        choices=("both", "digest"),
        default="both",
        help="check the blob digest and the DiffID of each layer, or the blob digest alone"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-signatures",
        action="store_true",
        help="keep its signatures and index, for 'layertee serve'",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, change nothing")
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print the manifests' digests alone; - for a failure",
    )
    parser.add_argument(
        "--digestfile",
        type=values.path,
        metavar="FILE",
        help="write that digest into FILE, at the end",
    )
    add_json(parser)
    add_no_trunc(parser)
    add_reporting(parser)
    parser.add_argument(
        "images", nargs="+", action=_Images, metavar="IMAGE", help="see 'layertee help images'"
    )
    add_budget(add_network(parser))
    add_sandbox(parser)


def _inspect(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    add_no_trunc(parser)
    parser.add_argument("image", metavar="IMAGE", help="see 'layertee help images'")
    add_network(parser)
    add_sandbox(parser)


def _map(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    add_no_trunc(parser)
    parser.add_argument(
        "key",
        nargs="?",
        type=values.words,
        metavar="DIGEST|DIFFID",
        help="only the pairs with this digest",
    )


def _ls(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    add_no_trunc(parser)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="list the layers that have begun to arrive instead; the next pull goes on with them",
    )


def _rm(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as 'layertee ls' shows it")


def _gc(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    add_keep_partials(
        parser, "keep beginnings of layers that are not older than this, or so much of them (default: never)"
    )


def _verify(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)
    add_reporting(parser)
    parser.add_argument(
        "--repair", type=values.words, metavar="IMAGE", dest="image", help="then pull IMAGE again"
    )
    add_network(parser)
    add_sandbox(parser)


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
    add_store(parser)
    add_json(parser)
    add_no_trunc(parser)
    add_reporting(parser)
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="what the upgrade will be to")
    add_network(parser)
    add_sandbox(parser)


def _serve(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    serveargs.add_arguments(parser)
    add_sandbox(parser)


def _image_proxy(parser: argparse.ArgumentParser) -> None:
    proxyargs.add_arguments(parser)
    add_limits(parser)
    add_sandbox(parser)


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
    add_store(parser)
    add_json(parser)
    group = parser.add_argument_group("registry")
    add_access(group)
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


def _config(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument(
        "--check", action="store_true", help="show nothing but mistakes; exit code 1 if there are any"
    )
    parser.add_argument(
        "--root",
        type=values.path,
        metavar="DIR",
        help="read the files of the system whose / is DIR, and neither the environment nor a user's file",
    )
    parser.add_argument(
        "about",
        nargs="?",
        choices=[name for name in ARGUMENTS if name not in ("config", "help")],
        metavar="COMMAND",
        help="only what holds for this command",
    )


def _help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "topic",
        nargs="?",
        choices=(*TOPIC_NAMES, *ARGUMENTS),
        metavar="TOPIC",
        help=f"{', '.join(TOPIC_NAMES)}; or a command",
    )


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "pull": _pull,
    "inspect": _inspect,
    "tags": registryargs.add_tags,
    "login": registryargs.add_login,
    "logout": registryargs.add_logout,
    "map": _map,
    "ls": _ls,
    "rm": _rm,
    "gc": _gc,
    "verify": _verify,
    "export": airgapargs.add_export,
    "import": airgapargs.add_import,
    "prepare": _prepare,
    "serve": _serve,
    "image-proxy": _image_proxy,
    "install-shim": _install_shim,
    "doctor": _doctor,
    "config": _config,
    "help": _help,
}
