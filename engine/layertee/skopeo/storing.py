"""An image of an OCI layout put into podman's store, by skopeo: the store's format is its own matter.

The policy was asked before, by the image's name; skopeo, which sees a layout, is not to ask again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from ..aio import in_thread, start_process
from ..disk.trusted import refuse_reachable
from ..errors import LocalError
from ..image.reference_storage import StorageReference
from .command import Access, Invocation
from .find import find_skopeo
from .said import reason, tail


async def the_program(given: Path | None = None) -> Path:
    """The real skopeo, safe to run. Raises LocalError where there is none, UnsafePath."""
    found = await in_thread(find_skopeo, given)
    if found is None:
        raise LocalError("only skopeo writes into podman's store, and it is not installed").with_hint(
            "install-skopeo"
        )
    await in_thread(refuse_reachable, found, absent=True)
    return found


async def put_into_storage(program: Path, layout: Path, ref: str, storage: StorageReference) -> None:
    """Have ``program`` copy what ``layout`` calls ``ref`` into ``storage``, its manifest byte for byte.

    Raises LocalError with what it said. It is ended, and reaped, when this is cancelled.
    """
    if ":" in str(layout):
        raise LocalError(f"{layout}: skopeo cannot be told of a layout with a colon in its path")
    command = Invocation(program, Access(), accept_all=True).command(
        "copy", "--quiet", "--preserve-digests", f"oci:{layout}:{ref}", str(storage)
    )
    try:
        process = await start_process(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as exc:
        raise LocalError(f"{program} cannot be started: {exc.strerror}") from exc
    ended = False
    try:
        assert process.stderr is not None
        said = await tail(process.stderr)
        status = await process.wait()
        ended = True
    finally:
        if not ended:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # it unmounts what it has mounted
            await process.wait()
    if status != 0:
        why = reason(said) or f"it ended with status {status}"
        raise LocalError(f"skopeo could not put the image into {storage}: {why}")
