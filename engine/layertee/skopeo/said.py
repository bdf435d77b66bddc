"""What skopeo said at its end, fit to be shown."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Final

from ..image.strictjson import printable

_STDERR: Final = 8192  # bytes
_MESSAGE = re.compile(r'\bmsg=("(?:[^"\\]|\\.)*")')


async def tail(stream: asyncio.StreamReader) -> str:
    """The end of what comes, once it has all come."""
    said = b""
    while data := await stream.read(_STDERR):
        said = (said + data)[-_STDERR:]
    return said.decode(errors="replace")


def reason(said: str) -> str:
    """The last line, without what skopeo's logger puts around it."""
    last = said.strip().rpartition("\n")[2]
    message = _MESSAGE.search(last)
    if message:
        with suppress(ValueError):
            last = str(json.loads(message[1]))
    return printable(last, 1000)
