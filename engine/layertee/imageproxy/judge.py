"""The policy, applied to images that are left to the real skopeo.

What it accepts or rejects by name alone is decided so. Where it wants signatures, they are verified here, of
the manifest that is found here; and the image counts only as long as skopeo has that very manifest. Of the
transports that are left to it, ``dir:`` alone keeps signatures where they can be read.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..aio import in_thread
from ..errors import NotFound, PolicyRefused
from ..image.document import (
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Platform,
    choose_platform,
    parse_document,
)
from ..image.reference import parse_reference
from ..pulling.judging import Judge
from ..pulling.ruling import Sources

if TYPE_CHECKING:
    from ..engine import Engine

log = logging.getLogger(__name__)

DIRECTORY: Final = "dir"


async def taken_as(name: str, engine: Engine, *, readable: bool) -> Digest | None:
    """The digest of the manifest as which ``name``, ``transport:details``, is taken; None if any is.

    ``readable``: the engine can resolve it, though its layers are left to skopeo.

    Raises PolicyRefused, TrustFileError; NotFound and DocumentError for a directory that is no image.
    """
    transport, _, details = name.partition(":")
    judge = Judge(engine.options, engine.platform)
    if readable:
        ruling = await judge.by_name(parse_reference(name))
    else:
        ruling = await judge.other(transport, details)
    ruling.consent.check()
    if readable and (ruling.wants_signatures or ruling.trust):
        plan = (await engine.inspect(name, enforce=True)).plan
        for warning in (*plan.warnings, *await engine.remember(plan)):
            log.warning("%s: %s", name, warning)
        return plan.manifest.digest
    if not ruling.wants_signatures:
        return None
    if transport != DIRECTORY:
        raise PolicyRefused(
            f"signatures are wanted for {name}, by {ruling.wanted_by}, and images of {transport}: have none"
            " that could be read here"
        )
    directory = Path(details)
    manifest, index = await in_thread(_documents, directory, engine.platform)
    primary = index.digest if index is not None else manifest.digest

    async def sources() -> Sources:
        from ..signatures.stores import DirectorySignatures

        return Sources(DirectorySignatures(directory, primary))

    consent = await judge.consent(ruling, name, manifest, index, sources)
    consent.check()
    return manifest.digest


def _documents(directory: Path, platform: Platform) -> tuple[Manifest, Index | None]:
    """The manifest that skopeo would use of a ``dir:``, and the index that it is chosen from. Blocks."""
    document = parse_document(_read(directory / "manifest.json"), None)
    if isinstance(document, Manifest):
        return document, None
    entry = choose_platform(document, platform)
    raw = _read(directory / _file_name(entry))
    entry.digest.check(raw, f"{directory / _file_name(entry)}")
    chosen = parse_document(raw, entry.media_type)
    if not isinstance(chosen, Manifest):
        raise PolicyRefused(f"dir:{directory} has an index in its index, which cannot be checked")
    return chosen, document


def _file_name(entry: Descriptor) -> str:
    algorithm = "" if entry.digest.algorithm == "sha256" else f"{entry.digest.algorithm}-"
    return f"{algorithm}{entry.digest.hex}.manifest.json"


def _read(path: Path) -> bytes:
    """A byte more than a document may have, of a regular file. Raises NotFound."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            with open(fd, "rb", closefd=False) as file:
                return file.read(MAX_DOCUMENT + 1)
        finally:
            os.close(fd)
    except OSError as exc:
        raise NotFound(f"{path}: {exc.strerror}") from exc
