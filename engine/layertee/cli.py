"""The command line: arguments in, exit codes and text out. Results on stdout, the rest on stderr.

Nothing is decided here that the library would not decide the same way. Modules are imported by the
command that needs them: ``layertee --version`` must not pay for a TLS library.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .proxyargs import add_arguments as add_proxy_arguments
from .proxyargs import normalized

if TYPE_CHECKING:
    from .fetch import FetchLimits
    from .options import Options

EXIT_OK, EXIT_ERROR, EXIT_NOT_FOUND, EXIT_INTEGRITY, EXIT_NETWORK, EXIT_NO_SPACE = 0, 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)(i?)[bB]?(?:/s)?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words, baked = _cut(sys.argv[1:] if argv is None else argv)
    if "image-proxy" in words:
        words = normalized(words)
    args = _parser().parse_args(words)
    args.options = baked
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if args.debug else logging.INFO if args.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("layertee: interrupted; what was finished is kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader left. What is still buffered must not fail again when the interpreter flushes it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
        return EXIT_ERROR
    except Exception as exc:
        from .errors import LayerteeError

        if not isinstance(exc, LayerteeError):
            raise
        notes = "".join(f"\n  {note}" for note in getattr(exc, "__notes__", ()))
        print(f"layertee: {exc} [{exc.code}]{notes}", file=sys.stderr)
        return exit_code(exc)


def exit_code(exc: Exception) -> int:
    """The exit code for an error: by who must act."""
    from . import errors

    if isinstance(exc, errors.NotFound):
        return EXIT_NOT_FOUND
    if isinstance(exc, errors.IntegrityError):
        return EXIT_INTEGRITY
    if isinstance(exc, errors.TransportError | errors.RateLimited | errors.ServerError):
        return EXIT_NETWORK
    if isinstance(exc, errors.NoSpace):
        return EXIT_NO_SPACE
    return EXIT_ERROR


# --- arguments --------------------------------------------------------------------------------


def _cut(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """``argv``, and what follows ``--`` of install-shim: arguments of another command, for a later time."""
    words = list(argv)
    if "install-shim" not in words or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


class _Parser(argparse.ArgumentParser):
    """Exits with 1 where argparse has 2, which here means that an image was not found."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_ERROR, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
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

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    pull = command("pull", _commands("pull"), "pull an image into the store, or into an OCI layout")
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

    inspect = command(
        "inspect", _commands("inspect"), "show an image's digests, DiffIDs and what is here of it"
    )
    _add_store(inspect)
    _add_json(inspect)
    _add_image(inspect)
    _add_network(inspect)

    show = command(
        "map", _commands("show_map"), "show the pairs blob digest <-> DiffID computed on this machine"
    )
    _add_store(show)
    _add_json(show)
    show.add_argument("key", nargs="?", metavar="DIGEST|DIFFID", help="only the pairs with this digest")

    ls = command("ls", _commands("ls"), "list the images in the store")
    _add_store(ls)
    _add_json(ls)

    rm = command("rm", _commands("rm"), "forget an image; 'layertee gc' then frees its space")
    _add_store(rm)
    rm.add_argument("names", nargs="+", metavar="NAME", help="as 'layertee ls' shows it")

    gc = command(
        "gc", _commands("collect"), "remove blobs that no image needs, and leftovers of killed pulls"
    )
    _add_store(gc)
    _add_json(gc)

    verify = command(
        "verify", _commands("verify"), "hash everything in the store again; quarantine what is wrong"
    )
    _add_store(verify)
    _add_json(verify)
    verify.add_argument("--repair", metavar="IMAGE", dest="image", help="then pull IMAGE again")
    _add_network(verify)

    prepare = command(
        "prepare", _prepare, "before 'bootc upgrade': name the layers that its repository has already"
    )
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
        _image_proxy,
        "serve bootc and other clients of 'skopeo experimental-image-proxy', on their socket",
    )
    add_proxy_arguments(proxy, _boolean)
    _add_limits(proxy.add_argument_group("transfer"))

    shim = command(
        "install-shim",
        _install_shim,
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

    doctor = command(
        "doctor", _commands("doctor"), "show which core runs and why, and the state of the store"
    )
    _add_store(doctor)
    return parser


def _commands(name: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        with _quick_imports():
            from . import commands

        function: Callable[[argparse.Namespace], int] = getattr(commands, name)
        return function(args)

    return run


def _prepare(args: argparse.Namespace) -> int:
    with _quick_imports():
        from . import preparecmd

    return preparecmd.prepare(args)


def _image_proxy(args: argparse.Namespace) -> int:
    with _quick_imports():
        from . import proxycmd

    return proxycmd.serve(args)


def _install_shim(args: argparse.Namespace) -> int:
    _parser().parse_args(["image-proxy", *normalized(args.options)])  # what it would refuse is refused now
    from . import shimcmd

    return shimcmd.install(args)


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Spare a process that has just begun what importing costs, and that nothing here needs.

    When aiohttp is imported it makes a TLS context that reads all CA certificates of the system, for
    40 of 240 ms. transport.py makes its own when it meets https, so that one may find none. And the
    collector need not look for garbage among what is being imported, nor ever again: 10 ms.
    """
    before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    gc.disable()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        gc.freeze()
        gc.enable()


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


def options_of(args: argparse.Namespace) -> Options:
    """The engine's options as the command line gave them. Raises InvalidReference."""
    from .inventory import Basis
    from .options import Options
    from .placename import parse_place
    from .platforms import Platform

    return Options(
        platform=Platform.parse(args.platform) if args.platform else Platform.host(),
        authfile=args.authfile,
        tls_verify=args.tls_verify,
        cert_dir=args.cert_dir,
        limits=limits_of(args),
        places=tuple(parse_place(text) for text in args.places),
        trust=Basis(args.trust),
    )


def limits_of(args: argparse.Namespace) -> FetchLimits:
    """How fast and over how many connections, as the command line gave it."""
    from .fetch import FetchLimits, RangeMode

    return FetchLimits(
        max_connections=args.max_connections,
        ranges=RangeMode(args.ranges),
        max_rate=args.max_rate,
        stall_s=args.stall_timeout,
    )
