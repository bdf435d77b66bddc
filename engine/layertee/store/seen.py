"""What this machine has seen under the names of images: the newest of each, so that an older one is noticed.

One small file for each name and platform, ``ROOT/layertee/seen/<hex>.json``, replaced as a whole. It is not
in the catalog, which can be made again from the blobs: this cannot, and a store that is lost begins anew,
with "first seen". A file that is damaged counts as none, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from ..disk.files import disk_error
from ..disk.part import PART_SUFFIX, write_file
from ..errors import DocumentError
from ..image.document import Digest
from ..image.strictjson import as_text, load_object, printable
from ..record import dataclass

LIMIT: Final = 64 << 10  # bytes of one file; it has some hundred
_WRITER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An image as it was seen. Times are seconds since the epoch.

    ``digest`` is what the name stood for: of the index, or of the manifest. ``created`` is the time that the
    image's config says, ``version`` the label org.opencontainers.image.version; ``log_time`` and
    ``log_index`` are those of the transparency log that saw its signature. None where nothing says so.
    ``first`` is when any image was first seen under the name, ``last`` when this one was.
    """

    digest: Digest
    created: int | None
    version: str | None
    log_time: int | None
    log_index: int | None
    first: int
    last: int


class SeenImages:
    """The files in ``directory``, which is made by the first ``remember``. Calls block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def newest(self, name: str, platform: str) -> tuple[Seen | None, str | None]:
        """The newest image that was seen under ``name``; and what is wrong with the file, if that is none."""
        path = self._path(name, platform)
        try:
            with path.open("rb") as file:
                raw = file.read(LIMIT + 1)
        except FileNotFoundError:
            return None, None
        except OSError as exc:
            return None, f"{path} cannot be read ({exc.strerror}): {name} counts as never seen"
        try:
            return _parsed(raw, name, platform), None
        except (DocumentError, ValueError) as exc:
            return None, f"{path} makes no sense ({printable(str(exc))}): {name} counts as never seen"

    def remember(self, name: str, platform: str, seen: Seen) -> None:
        """``seen`` is the newest now. Raises LocalError (NoSpace); the old file is then still there."""
        document = {"version": 1, "name": name, "platform": platform, "newest": asdict(seen)}
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise disk_error(exc, "making the directory", self._directory) from exc
        path = self._path(name, platform)
        write_file(self._directory, path.name, json.dumps(document, indent=1).encode(), mode=0o600)

    def remove_leftovers(self) -> int:
        """Remove temporary files of writers that died; return how many. Raises LocalError.

        One that is a minute old is of a writer that died: nothing is locked while a file is replaced.
        """
        count = 0
        try:
            for path in self._directory.glob(f".*{PART_SUFFIX}"):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _WRITER_S:
                        path.unlink()
                        count += 1
        except OSError as exc:
            raise disk_error(exc, "cleaning up in", self._directory) from exc
        return count

    def _path(self, name: str, platform: str) -> Path:
        return self._directory / (hashlib.sha256(f"{name}\n{platform}".encode()).hexdigest() + ".json")


def _parsed(raw: bytes, name: str, platform: str) -> Seen:
    document = load_object(raw, "it", limit=LIMIT)
    if (document.get("version"), document.get("name"), document.get("platform")) != (1, name, platform):
        raise DocumentError("it is about something else")
    found = document.get("newest")
    if not isinstance(found, dict):
        raise DocumentError("newest is missing")
    times = [found.get(key) for key in ("created", "log_time", "log_index", "first", "last")]
    if not all(value is None or type(value) is int for value in times) or None in times[3:]:
        raise DocumentError("a time is no number")
    created, log_time, log_index, first, last = times
    assert isinstance(first, int) and isinstance(last, int)
    version = found.get("version")
    return Seen(
        Digest.parse(found.get("digest")),
        created,
        None if version is None else as_text(version, "version"),
        log_time,
        log_index,
        first,
        last,
    )
