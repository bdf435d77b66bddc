"""Programs that tests compile, kept outside of the checkout, in one place for all checkouts of a user.

A program's file is named by a hash of what it is made of, so one that is there is the right one, and is found
without a compiler. Safe for several processes: one builds, and others that want the same wait for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_UNUSED_S = 30 * 24 * 3600.0


def root() -> Path:
    """``LAYERTEE_TEST_CACHE``, else a directory of the user's cache."""
    if given := os.environ.get("LAYERTEE_TEST_CACHE"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layertee-tests"


def kept(name: str, made_of: Iterable[bytes], build: Callable[[], Path]) -> Path:
    """The program ``name``, made of these; ``build`` makes it where there is none, and may raise.

    What ``build`` returns is copied. Other versions that nothing has asked for within a month are removed.
    """
    program = root() / "bin" / f"{name}-{_key(made_of)}"
    program.parent.mkdir(parents=True, exist_ok=True)
    locks = root() / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / program.name).open("wb") as lock:
        if not program.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            part = program.with_name(f".{program.name}.{secrets.token_hex(4)}")
            shutil.copy(build(), part)
            part.rename(program)
    os.utime(program)
    for other in program.parent.glob(f"{name}-*"):
        if other.stat().st_mtime < time.time() - _UNUSED_S:
            other.unlink(missing_ok=True)
            (locks / other.name).unlink(missing_ok=True)
    return program


def files_below(directory: Path) -> Iterable[bytes]:
    """What ``kept`` takes: the names and contents of all files, but for what cargo leaves there."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "target" not in path.relative_to(directory).parts:
            yield os.fsencode(path.relative_to(directory))
            yield path.read_bytes()


def _key(made_of: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for piece in made_of:
        whole.update(hashlib.sha256(piece).digest())
    return whole.hexdigest()[:16]
