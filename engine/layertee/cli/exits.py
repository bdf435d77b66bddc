"""The exit codes, and which error has which: by who must act."""

from __future__ import annotations

from .. import errors

EXIT_OK, EXIT_ERROR, EXIT_NOT_FOUND, EXIT_INTEGRITY, EXIT_NETWORK, EXIT_NO_SPACE = 0, 1, 2, 3, 4, 5
EXIT_SIGNAL = 128  # and the signal's number: 130 for Ctrl-C


def exit_code(exc: Exception) -> int:
    """The exit code of a command that ended in ``exc``."""
    if isinstance(exc, errors.NotFound):
        return EXIT_NOT_FOUND
    if isinstance(exc, errors.IntegrityError):
        return EXIT_INTEGRITY
    if isinstance(exc, errors.TransportError | errors.RateLimited | errors.ServerError):
        return EXIT_NETWORK
    if isinstance(exc, errors.NoSpace):
        return EXIT_NO_SPACE
    return EXIT_ERROR
