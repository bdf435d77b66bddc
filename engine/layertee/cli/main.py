"""The command line: arguments in, exit codes and text out. Results on stdout, the rest on stderr.

Nothing is decided here that the library would not decide the same way. Modules are imported by the
command that needs them: ``layertee --version`` must not pay for a TLS library.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .arguments import Command, parser_of
from .proxyargs import normalized

if TYPE_CHECKING:
    from ..options import Options
    from ..transfer.fetcher import FetchLimits

EXIT_OK, EXIT_ERROR, EXIT_NOT_FOUND, EXIT_INTEGRITY, EXIT_NETWORK, EXIT_NO_SPACE = 0, 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words, baked = _cut(sys.argv[1:] if argv is None else argv)
    if "image-proxy" in words:
        words = normalized(words)
    args = parser_of(COMMANDS).parse_args(words)
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
        from ..errors import LayerteeError

        if not isinstance(exc, LayerteeError):
            raise
        notes = "".join(f"\n  {note}" for note in getattr(exc, "__notes__", ()))
        print(f"layertee: {exc} [{exc.code}]{notes}", file=sys.stderr)
        return exit_code(exc)


def exit_code(exc: Exception) -> int:
    """The exit code for an error: by who must act."""
    from .. import errors

    if isinstance(exc, errors.NotFound):
        return EXIT_NOT_FOUND
    if isinstance(exc, errors.IntegrityError):
        return EXIT_INTEGRITY
    if isinstance(exc, errors.TransportError | errors.RateLimited | errors.ServerError):
        return EXIT_NETWORK
    if isinstance(exc, errors.NoSpace):
        return EXIT_NO_SPACE
    return EXIT_ERROR


def _cut(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """``argv``, and what follows ``--`` of install-shim: arguments of another command, for a later time."""
    words = list(argv)
    if "install-shim" not in words or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _commands(name: str) -> Command:
    def run(args: argparse.Namespace) -> int:
        with _quick_imports():
            from . import commands

        function: Command = getattr(commands, name)
        return function(args)

    return run


def _prepare(args: argparse.Namespace) -> int:
    with _quick_imports():
        from . import prepare as preparecmd

    return preparecmd.prepare(args)


def _image_proxy(args: argparse.Namespace) -> int:
    with _quick_imports():
        from . import image_proxy as proxycmd

    return proxycmd.serve(args)


def _install_shim(args: argparse.Namespace) -> int:
    from . import image_proxy as proxycmd
    from . import install_shim as shimcmd

    # What it would refuse is refused now.
    proxycmd.check(parser_of(COMMANDS).parse_args(["image-proxy", *normalized(args.options)]))
    return shimcmd.install(args)


COMMANDS: dict[str, Command] = {
    "pull": _commands("pull"),
    "inspect": _commands("inspect"),
    "map": _commands("show_map"),
    "ls": _commands("ls"),
    "rm": _commands("rm"),
    "gc": _commands("collect"),
    "verify": _commands("verify"),
    "prepare": _prepare,
    "image-proxy": _image_proxy,
    "install-shim": _install_shim,
    "doctor": _commands("doctor"),
}


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


def options_of(args: argparse.Namespace) -> Options:
    """The engine's options as the command line gave them. Raises InvalidReference."""
    from ..image.holding import Basis
    from ..image.placename import parse_place
    from ..image.platform import Platform
    from ..options import Options

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
    from ..transfer.fetcher import FetchLimits, RangeMode

    return FetchLimits(
        max_connections=args.max_connections,
        ranges=RangeMode(args.ranges),
        max_rate=args.max_rate,
        stall_s=args.stall_timeout,
    )
