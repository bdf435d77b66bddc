"""A program that reads what strangers have written, with no more to its disposal than that takes.

Rules of this file: the program gets its input when its limits stand, so not a byte of it is read before; it
has one directory, an environment of its own, no terminal and, where the kernel lets this user say so, no
network and no way to more rights; it is bounded in time, memory, files and output, and is gone afterwards
with all that it started, however this ends.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...aio import start_process, unwrapped_group
from ...errors import PolicyRefused
from ...record import dataclass

_TAIL: Final = 8192  # bytes: the end of what it complains about
_DRAIN_S: Final = 1.0
_SYSTEM: Final = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_LIMITS: Final = {
    resource.RLIMIT_AS: 1 << 30,
    resource.RLIMIT_CPU: 5,  # seconds
    resource.RLIMIT_FSIZE: 64 << 20,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NPROC: 0,  # of no effect for root
    resource.RLIMIT_NOFILE: 64,
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended, as ``returncode`` of asyncio has it, its output, and the end of its complaints."""

    status: int
    output: bytes
    said: str


def wrappers() -> list[tuple[str, ...]]:
    """What may stand before a command, the best first: programs of util-linux, as far as they are there.

    ``setpriv`` takes away the way to more rights, ``unshare`` the network. Whether the kernel lets this user
    do that shows when it is tried. Blocks.
    """
    setpriv, unshare = map(_of_system, ("setpriv", "unshare"))
    no_rights = (setpriv, "--no-new-privs", "--") if setpriv else ()
    no_network = (unshare, "--user", "--map-root-user", "--net", "--") if unshare else ()
    return list(dict.fromkeys(((*no_rights, *no_network), no_rights, ())))


async def run_confined(
    *command: str, given: bytes = b"", directory: Path, most: int, limit_s: float
) -> Ended:
    """Run ``command`` in ``directory``, with ``given`` on its standard input.

    Its output may have ``most`` bytes. Raises PolicyRefused if it cannot be started, says more, or takes
    longer than ``limit_s`` seconds; it has then ended.
    """
    name = os.path.basename(command[0])
    try:
        process = await start_process(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=directory,
            env=_environment(directory),
        )
    except OSError as exc:
        raise PolicyRefused(f"{command[0]} cannot be started: {exc.strerror}") from exc
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        _limit(process.pid)
        async with asyncio.timeout(limit_s):
            async with unwrapped_group() as group:
                output = group.create_task(_all(process.stdout, most))
                said = group.create_task(_tail(process.stderr))
                await _feed(process.stdin, given)
            status = await process.wait()
        return Ended(status, output.result(), said.result())
    except TimeoutError as exc:
        raise PolicyRefused(f"{name} did not end within {limit_s:g} s") from exc
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):  # what is left in a pipe keeps its transport open
                async with asyncio.timeout(_DRAIN_S):
                    await _tail(process.stdout)
                    await _tail(process.stderr)
            await process.wait()


def _of_system(name: str) -> str | None:
    return next((path for place in _SYSTEM if os.access(path := f"{place}/{name}", os.X_OK)), None)


def _environment(directory: Path) -> dict[str, str]:
    own = str(directory)
    return {"LC_ALL": "C", "PATH": ":".join(_SYSTEM), "HOME": own, "TMPDIR": own}


def _limit(pid: int) -> None:
    for limit, value in _LIMITS.items():
        with suppress(OSError):  # it has ended, or what this user may have is less already
            resource.prlimit(pid, limit, (value, value))


async def _feed(stdin: asyncio.StreamWriter, given: bytes) -> None:
    # It need not read its input; uvloop says RuntimeError when it has ended already.
    with suppress(ConnectionError, RuntimeError):
        stdin.write(given)
        await stdin.drain()
    stdin.close()


async def _all(stream: asyncio.StreamReader, most: int) -> bytes:
    parts, got = [], 0
    while data := await stream.read(64 << 10):
        parts.append(data)
        got += len(data)
        if got > most:
            raise PolicyRefused(f"it is more than {most} bytes when it is unpacked")
    return b"".join(parts)


async def _tail(stream: asyncio.StreamReader) -> str:
    said = b""
    while data := await stream.read(_TAIL):
        said = (said + data)[-_TAIL:]
    return said.decode(errors="replace")
