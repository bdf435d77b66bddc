"""One command, its exit code, and how its end is told. Results on stdout, the rest on stderr.

Nothing is decided here that the library would not decide the same way. A command's module is imported when
the command is run: ``layertee --version`` must not pay for a TLS library.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import LayerteeError
from ..pulling.tracing import span
from ..registry.first_import import imported_for_good, leave_certificates_out
from . import failure, process
from .arguments import Mistake, parse, parser_of
from .exits import EXIT_ERROR
from .hints import tell_hints
from .output import OutputFailed, ReaderLeft, flush, print_json, tell
from .settings import options_in, variable_of


class Command(NamedTuple):
    """Where a command is: ``function`` of ``module``.

    ``loop``: it runs an event loop and threads, and may ask a registry.
    """

    module: str
    function: str
    loop: bool = False

    def load(self) -> Callable[[Namespace], int]:
        """The function: of parsed arguments, to an exit code."""
        function: Callable[[Namespace], int] = getattr(
            import_module(f".{self.module}", __package__), self.function
        )
        return function


COMMANDS = {
    "pull": Command("pulls", "pull", loop=True),
    "inspect": Command("inspect", "inspect", loop=True),
    "tags": Command("tags", "tags", loop=True),
    "login": Command("login", "login", loop=True),
    "logout": Command("login", "logout", loop=True),
    "map": Command("store", "show_map"),
    "ls": Command("store", "ls"),
    "rm": Command("store", "rm"),
    "gc": Command("store", "collect"),
    "verify": Command("verify", "verify", loop=True),
    "export": Command("airgap", "export"),
    "import": Command("airgap", "take_in", loop=True),
    "prepare": Command("prepare", "prepare", loop=True),
    "serve": Command("serve", "serve", loop=True),
    "image-proxy": Command("image_proxy", "serve", loop=True),
    "install-shim": Command("install_shim", "install", loop=True),
    "doctor": Command("doctor", "doctor"),
    "config": Command("config", "config"),
    "help": Command("topics", "show"),
}


def run(argv: Sequence[str]) -> int:
    """``layertee argv…`` as a function: ``main``."""
    return _run(argv, _load, [])


def run_as_process() -> int:
    """The command that this process is."""
    process.open_standard_streams()
    process.show_mistakes_cleanly()
    arrived = process.end_as_by_ctrl_c()
    try:
        return _run(sys.argv[1:], _load_quickly, arrived)
    finally:
        process.end_at_once()
        process.close_standard_streams()


def _run(
    argv: Sequence[str], load: Callable[[Namespace], Callable[[Namespace], int]], arrived: Sequence[int]
) -> int:
    """``arrived``: the signals that asked for an end and were turned into a KeyboardInterrupt.

    A command finds them as ``args.arrived``. What it has to say for programs although it failed, it leaves
    in ``args.so_far``.
    """
    args = Namespace(so_far={}, is_reported=False)
    try:
        args = parse(argv)
        args.arrived, args.so_far, args.is_reported = arrived, {}, False
        process.log_to_standard_error(args.debug, args.verbose)
        with span("command", command=args.command) as traced:
            code = load(args)(args)
            flush()
            traced.set(exit_code=code)
        return code
    except Mistake as exc:
        _say_for_programs(argv, failure.mistake(exc.message), {})
        _put_into_metrics(argv, args, failure.mistake(exc.message))
        raise
    except ReaderLeft:
        return EXIT_ERROR
    except (KeyboardInterrupt, LayerteeError, MemoryError, OSError, RuntimeError) as exc:
        described = failure.describe(exc, arrived)
        if described is None:
            raise
        _tell_of(exc, described)
        if not isinstance(exc, OutputFailed):
            _say_for_programs(argv, described, args.so_far)
        if not args.is_reported:
            _put_into_metrics(argv, args, described)
        return int(described["exit_code"])


def _tell_of(exc: BaseException, described: Mapping[str, Any]) -> None:
    """For a person, on standard error."""
    if isinstance(exc, KeyboardInterrupt):
        tell(f"layertee: {described['message']}")
        return
    tell(f"layertee: {described['message']} [{described['code']}]")
    if isinstance(exc, LayerteeError):
        tell(*(f"  {note}" for note in described["notes"]))
        tell_hints([exc.hint])


def _say_for_programs(argv: Sequence[str], described: Mapping[str, Any], so_far: Mapping[str, Any]) -> None:
    """On standard output, where ``--json`` is among the words: which may be ones that nobody understood."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    if "--json" in words:
        with suppress(OutputFailed, ReaderLeft):
            print_json({"error": described, **so_far})
            flush()


def _put_into_metrics(argv: Sequence[str], args: Namespace, described: Mapping[str, Any]) -> None:
    """Of a command that did not begin, where it is known which it is and which file it writes."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    command = getattr(args, "command", None) or next((word for word in words if word in COMMANDS), None)
    if command is None or "--dry-run" in words:
        return
    named = getattr(args, "metrics_file", None) or _named_for_metrics(words)
    if named is None or "metrics-file" not in options_in(parser_of(command)):
        return
    from .metrics import MetricsFile

    with suppress(LayerteeError):  # that is the smaller trouble, and the other was told
        path, is_known = Path(named), hasattr(args, "command")
        file = MetricsFile(path, args) if is_known else MetricsFile.of_none_begun(path, command)
        file.write(int(described["exit_code"]), None, described)


def _named_for_metrics(words: Sequence[str]) -> str | None:
    """The file, by words which may be ones that nobody understood, or by the environment."""
    option = "--metrics-file"
    for at, word in enumerate(words):
        if word == option:
            return next(iter(words[at + 1 : at + 2]), None)
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return os.environ.get(variable_of("metrics-file")) or None


def _load(args: Namespace) -> Callable[[Namespace], int]:
    if getattr(args, "sandbox", None) == "require":
        from ..sandbox.enter import SandboxError

        raise SandboxError("no sandbox: this process is not the command's own, and goes on after it")
    return COMMANDS[args.command].load()


def _load_quickly(args: Namespace) -> Callable[[Namespace], int]:
    """As ``_load``, for a process that has just begun and is all ours."""
    command = COMMANDS[args.command]
    with imported_for_good():
        if getattr(args, "sandbox", "off") != "off":
            from .confine import confine

            confine(args)
        if command.loop:
            process.see_that_there_is_enough()
            leave_certificates_out()
        return command.load()
