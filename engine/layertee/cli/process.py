"""What is set up once for a process that is this program, and is no matter of a library's caller.

Its three standard descriptors, the signals that end it, and what becomes of a mistake in the program.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ..errors import LocalError
from .output import tell

_FILES = 1024  # what most systems allow
_LEAST_FILES = 64
_LEAST_MEMORY = 192 << 20
_MOMENT_S = 0.02
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def open_standard_streams() -> None:
    """Let descriptors 0 to 2 be open, on /dev/null where they were closed, before another file gets one.

    A database that is opened as descriptor 1 would be written to by the next ``print``.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(opened, True)
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # for a locale that lacks the character


def close_standard_streams() -> None:
    """Write what is buffered, or drop it: the interpreter would fail at it again, and say so at length."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def end_as_by_ctrl_c() -> list[int]:
    """From now on SIGTERM and SIGHUP do what SIGINT does; the list gets the number of what arrived.

    What was ignored when the process began, as by nohup, stays ignored. SIGINT is then blocked, in this
    process and its children, which comes to the same; but its handler is there for the others to call.
    Without one, KeyboardInterrupt would be raised wherever the event loop happens to be, and could be lost.
    """
    arrived: list[int] = []
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def end(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):  # asyncio's own, while a loop runs: it cancels the task
            interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    return arrived


def _interrupt_again() -> None:
    """Interrupt once more in a moment: the first time was where the interpreter drops what is raised.

    Such places are the end of an object's life, and the callbacks of weak references that imports use.
    """

    def interrupt_now(_: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)

    signal.signal(signal.SIGALRM, interrupt_now)
    signal.setitimer(signal.ITIMER_REAL, _MOMENT_S)


def end_at_once() -> None:
    """From now on the same signals end the process where it stands: its work is done or given up."""
    for number in (signal.SIGINT, *_ENDING):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def see_that_there_is_enough() -> None:
    """Take what files this process may open, up to a usual number. Raises LocalError for too little.

    With less, the libraries below do not fail, they abort: neither a loop nor its threads get started.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        raise LocalError(
            f"this process may open {soft} files, and needs up to {_LEAST_FILES}: raise the limit (ulimit -n)"
        )
    for what, option in ((resource.RLIMIT_AS, "v"), (resource.RLIMIT_DATA, "d")):
        soft, _ = resource.getrlimit(what)
        if soft != resource.RLIM_INFINITY and soft < _LEAST_MEMORY:
            raise LocalError(
                f"this process may use {soft >> 20} MiB of memory, which cannot be enough: raise the limit"
                f" (ulimit -{option})"
            )


def what_ran_out(exc: BaseException) -> str | None:
    """What this process could not get from the system, if that is what ``exc`` is about.

    Anything may fail for the lack of it, so it is told in one place: where the command ends.
    """
    if isinstance(exc, MemoryError):
        return f"memory ran out: {exc}" if str(exc) else "memory ran out"
    if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
        return f"no more files can be opened: {exc.strerror} (ulimit -n)"
    if isinstance(exc, OSError) and exc.errno in (errno.ENOMEM, errno.EAGAIN):
        return f"the system gave no more memory or processes: {exc.strerror}"
    if isinstance(exc, RuntimeError) and "start new thread" in str(exc):  # threading says no more than that
        return "no more threads could be started: memory, or the number of processes, is limited"
    return None


def show_mistakes_cleanly() -> None:
    """Tracebacks and Python's own warnings may quote what registries sent: they pass the gate as well."""

    def tell_of(
        kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        tell("layertee: a mistake in this program:", *_traceback(kind, exc, at))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            tell_of(args.exc_type, args.exc_value, args.exc_traceback)

    def unraisable(args: Any) -> None:
        if isinstance(args.exc_value, KeyboardInterrupt):
            _interrupt_again()
            return
        tell(f"layertee: {args.err_msg or 'an exception was ignored in'}: {args.object!r}")
        tell_of(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = tell_of
    threading.excepthook = of_thread
    sys.unraisablehook = unraisable
    logging.captureWarnings(True)


def _traceback(
    kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
) -> list[str]:
    """Its lines, set in: a message in it may have several, and none is to look like one of this program's."""
    text = "".join(traceback.format_exception(kind, exc, at))
    return [f"  {line}" for line in text.rstrip("\n").split("\n")]


class _ToStandardError(logging.Handler):
    """One line for each record, and the lines of its traceback, if it has one.

    It begins with the time, to the millisecond and with its zone, unless the journal of systemd has that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_times = _is_journal(2)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError) as exc:  # the format does not fit its arguments
            message = f"{record.msg!r}: {exc}"
        when = "" if self._has_times else _time(record.created) + " "
        tell(f"{when}{record.levelname} {record.name}: {message}")
        if record.exc_info:
            tell(*_traceback(*record.exc_info))


def _time(seconds: float) -> str:
    from datetime import datetime  # most commands log nothing

    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


def _is_journal(fd: int) -> bool:
    """Whether the journal reads what is written to ``fd``: systemd says what its stream is."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def log_to_standard_error(debug: bool, verbose: bool) -> None:
    """Show what is logged: every step, or retries and decisions, or warnings. Set up once."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(handlers=[_ToStandardError()], level=level)
