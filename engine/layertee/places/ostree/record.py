"""Which refs of an ostree repository this program made: the record that ``--undo`` goes by.

It is kept in the repository itself, as ``extensions/layertee/prepared.json``: it is about that repository
and nothing else, so it must be found by whoever looks after it, with whatever store, and be gone when the
repository is. libostree leaves ``extensions/`` to other programs.

A row is written before its ref is. It names the file as well, by inode and time, which are known before the
file has a name. So whatever a crash leaves behind, a ref is ours only if it is the very file we made: one
that somebody else wrote meanwhile under the same name, even for the same commit, is not.

A row also keeps what was known of the commit when the ref was made. Of the blob that the ref is named
after nothing was: that it holds the same content is what an image said. So a pair that is computed for that
blob later must say nothing about the commit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...disk.files import disk_error, open_regular, sync_directory
from ...disk.part import write_file
from ...errors import DocumentError, SourceUnreadable, StoreCorrupt
from ...image.document import DiffID, Digest
from ...image.holding import Basis
from ...image.strictjson import as_list, as_object, as_text, check_fields, load_object
from .names import layer_ref

PLACE: Final = "extensions/layertee"
_NAME = "prepared.json"
_LIMIT = 64 << 20
_FIELDS = ("digest", "commit", "inode", "mtime_ns", "diff_id", "basis", "image", "manifest")


@dataclass(frozen=True, slots=True)
class PreparedRef:
    """The ref of the blob ``digest``, made for the image ``image`` with that manifest.

    Its commit was known to have the DiffID ``diff_id`` on that ``basis``.
    """

    digest: Digest
    commit: str
    inode: int
    mtime_ns: int
    diff_id: DiffID
    basis: Basis
    image: str
    manifest: Digest

    @property
    def ref(self) -> str:
        """Its name in the repository."""
        return layer_ref(self.digest)


def read_record(repo: Path) -> tuple[PreparedRef, ...]:
    """Nothing where nothing was prepared. Raises StoreCorrupt, LocalError."""
    path = repo / PLACE / _NAME
    if not os.path.lexists(path):
        return ()
    try:
        with open(open_regular(path), "rb") as file:
            raw = file.read(_LIMIT + 1)
    except SourceUnreadable as exc:
        raise StoreCorrupt(str(exc), path=str(path)) from exc
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    try:
        document = load_object(raw, "the record", limit=_LIMIT)
        return tuple(_row(item) for item in as_list(document.get("refs"), "refs"))
    except DocumentError as exc:
        raise StoreCorrupt(
            f"{path}: {exc}; remove the file to go on: the refs it named then stay until bootc collects them",
            path=str(path),
        ) from exc


def write_record(repo: Path, rows: Sequence[PreparedRef]) -> None:
    """Replace the record, durably; one without rows is removed. Raises LocalError, NoSpace."""
    directory = repo / PLACE
    if rows:
        text = json.dumps({"refs": [_as_json(row) for row in rows]}, indent=1)
        write_file(directory, _NAME, text.encode(), mode=0o644)
        return
    try:
        with suppress(FileNotFoundError):
            os.unlink(directory / _NAME)
    except OSError as exc:
        raise disk_error(exc, "removing", directory / _NAME) from exc
    sync_directory(directory)


def _as_json(row: PreparedRef) -> dict[str, object]:
    return {name: getattr(row, name) for name in _FIELDS} | {"basis": row.basis.value}


def _row(item: object) -> PreparedRef:
    found = as_object(item, "refs")
    check_fields(found, _FIELDS, "refs")
    inode, mtime_ns = found.get("inode"), found.get("mtime_ns")
    if type(inode) is not int or type(mtime_ns) is not int:
        raise DocumentError("refs inode or mtime_ns is not a number")
    try:
        basis = Basis(found.get("basis"))
    except ValueError:
        raise DocumentError("refs basis is none that is known") from None
    return PreparedRef(
        Digest.parse(found.get("digest"), "refs digest"),
        as_text(found.get("commit"), "refs commit"),
        inode,
        mtime_ns,
        DiffID.parse(found.get("diff_id"), "refs diff_id"),
        basis,
        as_text(found.get("image"), "refs image"),
        Digest.parse(found.get("manifest"), "refs manifest"),
    )
