"""The first import of aiohttp, which is when a registry is asked for something, and not before.

When aiohttp is imported it makes two TLS contexts that read all CA certificates of the system, for 40 of
100 ms. http.py makes contexts of its own, and only when it meets https, so those two may find none. A
program that uses aiohttp for itself needs them, so nothing but the command line leaves them out.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_without_certificates = False


def leave_certificates_out() -> None:
    """From now on: this process is this program from its beginning to its end."""
    global _without_certificates
    _without_certificates = True


def import_aiohttp() -> None:
    """Import it; without its CA certificates, if they were left out and it is not imported already."""
    if _without_certificates and "aiohttp" not in sys.modules:
        with _no_certificates(), imported_for_good():
            import aiohttp  # noqa: F401


@contextmanager
def imported_for_good() -> Iterator[None]:
    """No search for garbage among what is being imported, nor ever again: a tenth of the time it takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _no_certificates() -> Iterator[None]:
    """This thread's new contexts have none. The environment, children and other threads see no difference."""
    import ssl

    name, thread = "set_default_verify_paths", threading.get_ident()
    original = getattr(ssl.SSLContext, name)

    def nothing(context: ssl.SSLContext) -> None:
        if threading.get_ident() != thread:
            original(context)

    setattr(ssl.SSLContext, name, nothing)
    try:
        yield
    finally:
        delattr(ssl.SSLContext, name)  # the method is inherited from the class in C
