"""Credential helpers: other programs that keep logins, asked by the protocol of docker-credential-helpers.

``docker-credential-NAME get``: the registry on standard input, a JSON object or a message on standard output.
Rules of this file: a helper is a program of the user's, found on an absolute part of PATH, and gets the
user's whole environment, since where it keeps things and how it reaches them is described there (AWS_PROFILE,
HTTPS_PROXY, …); what it is told is one host name; it may neither hang nor flood; what it says of a failure is
shown, cleaned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from typing import Final

from ..aio import start_process
from ..errors import AuthConfigError, DocumentError
from ..image.strictjson import as_text, load_object, printable

HELPER_S: Final = 30.0
HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")  # a newline here fooled git's helpers (CVE-2020-5260)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_OUTPUT = 64 << 10
_DRAIN_S = 1.0
# docker-credential-helpers, credentials/error.go; what follows it varies.
_NOT_FOUND = b"credentials not found"


class HelperFailed(AuthConfigError):
    """A helper could not say whether it has a login."""


async def ask(
    name: str, server: str, env: Mapping[str, str], whence: str, limit_s: float = HELPER_S
) -> tuple[str, str] | None:
    """User name and secret that the helper ``name`` has for ``server``; None when it has nothing.

    ``whence`` says who named the helper, for messages. Raises HelperFailed.
    """
    program = _program(name, env, whence)
    status, output, said = await _converse(program, "get", f"{server}\n", env, limit_s)
    if status != 0:
        if output.lstrip().lower().startswith(_NOT_FOUND):
            return None
        raise _failed(program, server, status, output, said)
    try:
        answer = load_object(output, f"answer of docker-credential-{name}", limit=_MAX_OUTPUT)
        username = as_text(answer.get("Username"), f"Username from docker-credential-{name}")
        secret = as_text(answer.get("Secret"), f"Secret from docker-credential-{name}")
    except DocumentError as exc:
        raise HelperFailed(f"credential helper for {server}: {exc}") from exc
    return (username, secret) if username or secret else None


async def store(name: str, server: str, login: tuple[str, str], env: Mapping[str, str], whence: str) -> None:
    """Have the helper keep ``login``, a user name and a secret, for ``server``. Raises HelperFailed."""
    program = _program(name, env, whence)
    order = json.dumps({"ServerURL": server, "Username": login[0], "Secret": login[1]})
    status, _, _ = await _converse(program, "store", order, env, HELPER_S)
    if status != 0:  # what it says of that may be what it was told
        raise _failed(program, server, status, b"", b"")


async def erase(name: str, server: str, env: Mapping[str, str], whence: str) -> bool:
    """Have the helper forget its login for ``server``; False if it says that it has none.

    Raises HelperFailed.
    """
    program = _program(name, env, whence)
    status, output, said = await _converse(program, "erase", f"{server}\n", env, HELPER_S)
    if status != 0 and output.lstrip().lower().startswith(_NOT_FOUND):
        return False
    if status != 0:
        raise _failed(program, server, status, output, said)
    return True


def _program(name: str, env: Mapping[str, str], whence: str) -> str:
    """The path of the helper ``name``. Raises HelperFailed."""
    if not _NAME.fullmatch(name):
        raise HelperFailed(f"{whence}: {name!r:.100} is not the name of a credential helper")
    program = f"docker-credential-{name}"
    directories = [d for d in env.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(d)]
    found = shutil.which(program, path=os.pathsep.join(directories)) if directories else None
    if found is None:
        raise HelperFailed(f"{whence} names the credential helper {program}, which is not installed")
    return found


def _failed(program: str, server: str, status: int, output: bytes, said: bytes) -> HelperFailed:
    words = _first_line(output) or _first_line(said)
    return HelperFailed(
        f"credential helper {os.path.basename(program)} failed for {server} (exit status {status})"
        + (f": {words}" if words else "")
    )


def _first_line(said: bytes) -> str:
    """What a helper said of its failure, fit to be shown; nothing that might be its answer."""
    lines = (line.strip() for line in said.decode("utf-8", "replace").splitlines())
    first = next((line for line in lines if line), "")
    return "" if first.startswith("{") else printable(first, 300)


async def _converse(
    path: str, verb: str, order: str, env: Mapping[str, str], limit_s: float
) -> tuple[int, bytes, bytes]:
    """Run the program ``path`` with ``order`` on its input; its exit status, output and complaints.

    Its group dies with it when it takes more than ``limit_s`` seconds or says more than 64 KiB.
    """
    pipe = asyncio.subprocess.PIPE
    program = os.path.basename(path)
    try:
        process = await start_process(
            path, verb, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(env), cwd="/"
        )
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the environment
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise HelperFailed(f"credential helper {program} cannot be run: {why}") from exc
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    streams = process.stdout, process.stderr
    try:
        async with asyncio.timeout(limit_s):
            reading = [asyncio.ensure_future(_read(stream, program)) for stream in streams]
            try:
                # It need not read its input; uvloop says RuntimeError when it has ended already.
                with contextlib.suppress(ConnectionError, RuntimeError):
                    process.stdin.write(order.encode())
                    await process.stdin.drain()
                process.stdin.close()
                output, said = await asyncio.gather(*reading)
            finally:
                for task in reading:
                    task.cancel()
            return await process.wait(), output, said
    except TimeoutError as exc:
        raise HelperFailed(f"credential helper {program} did not answer in {limit_s:.0f} s") from exc
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            with contextlib.suppress(TimeoutError):  # what is left in a pipe keeps its transport open
                async with asyncio.timeout(_DRAIN_S):
                    for stream in streams:
                        while await stream.read(_MAX_OUTPUT):
                            pass
            await process.wait()


async def _read(stream: asyncio.StreamReader, program: str) -> bytes:
    output = b""
    while chunk := await stream.read(4096):
        output += chunk
        if len(output) > _MAX_OUTPUT:
            raise HelperFailed(f"credential helper {program} answered more than 64 KiB")
    return output
