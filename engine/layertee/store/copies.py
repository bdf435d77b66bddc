"""An image of a layout, written in another form: one tar file (oci-archive), or skopeo's directory (dir).

Rules of this file: every byte that is written was hashed on its way; the same image gives the same bytes,
whoever writes it and when; what has the final name is whole, also after the process was killed in between.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from ..disk.blob_file import FileContent
from ..disk.files import disk_error, make_directory, real_path, sync_directory
from ..disk.locks import lock_directory
from ..disk.part import PART_SUFFIX, PartFile, write_file
from ..disk.space import KeepFree, Space
from ..errors import (
    DigestMismatch,
    DocumentError,
    LayerteeError,
    LocalError,
    SizeMismatch,
    SourceUnreadable,
    StoreBusy,
)
from ..image.document import Descriptor, Digest, Manifest, parse_document
from ..image.media import OCI_INDEX
from ..image.rewrite import ORIGINAL_MANIFEST
from ..record import dataclass
from .layout_index import INDEX, REF_NAME
from .layout_reader import MARKER, VERSION, LayoutReader, blob_name, listed

_CHUNK: Final = 1 << 20
_LOCK_S: Final = 10.0
_HEADERS: Final = 64 << 10  # of a tar, beside a block or two for each blob
_DIRECTORY_VERSION: Final = (
    b"Directory Transport Version: 1.1\n"  # containers/image, directory/directory_dest.go
)
_BLOB: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")
_SIGNATURE: Final = re.compile(r"signature-[0-9]+")


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image as a layout has it: the bytes of its manifest, and every other blob of it once."""

    layout: LayoutReader
    descriptor: Descriptor
    manifest: Manifest

    @classmethod
    def of(cls, layout: LayoutReader, entry: Descriptor) -> KeptImage:
        """What ``entry`` of the layout names. Raises as ``LayoutReader.document``, DocumentError."""
        document = layout.document(entry)
        if not isinstance(document, Manifest):
            raise DocumentError(f"{entry.digest} in {layout.path} is no manifest of one image")
        return cls(layout, entry, document)

    def as_pulled(self) -> KeptImage:
        """The same with its registry's manifest, if everything that this names is here; else as it is."""
        try:
            digest = Digest.parse(self.manifest.annotations.get(ORIGINAL_MANIFEST, ""))
            size = self.layout.blob_size(digest) or 0
            raw = self.layout.read_blob(Descriptor("", digest, size))
            document = parse_document(raw, None)
            if isinstance(document, Manifest):
                for blob in (document.config, *document.layers):
                    self.layout.check_blob(blob)
                named = Descriptor(document.media_type, digest, size, platform=self.descriptor.platform)
                return KeptImage(self.layout, named, document)
        except LayerteeError:
            pass  # it is not here, or names what is not
        return self

    @property
    def blobs(self) -> list[Descriptor]:
        """The config and the layers, by their digests."""
        found = {blob.digest: blob for blob in (self.manifest.config, *self.manifest.layers)}
        return [found[digest] for digest in sorted(found)]


def write_archive(image: KeptImage, path: Path, ref: str | None, keep_free: KeepFree) -> None:
    """Write ``image`` as an OCI layout in the tar file ``path``, in place of what is there.

    Raises NoSpace, StoreBusy (another process is writing it), LocalError; DigestMismatch, SizeMismatch,
    NotFound for a layout that is damaged. Blocks.
    """
    target = real_path(path)
    need = sum(blob.size + 2 * tarfile.BLOCKSIZE for blob in image.blobs)
    Space(target.parent, keep_free).check(need + len(image.manifest.raw) + _HEADERS, f"writing {path.name}")
    with _part(target) as part:
        with _as_tar(part) as tar:
            _add(tar, MARKER, _encoded({"imageLayoutVersion": VERSION}))
            _add(tar, INDEX, _index(image, ref))
            algorithms = {image.descriptor.digest.algorithm, *(blob.digest.algorithm for blob in image.blobs)}
            for name in ("blobs", *(f"blobs/{algorithm}" for algorithm in sorted(algorithms))):
                info = _info(name, 0, 0o755)
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            _add(tar, blob_name(image.descriptor.digest), image.manifest.raw)
            for blob in image.blobs:
                with _Checked(image.layout, blob) as reader:
                    info = _info(blob_name(blob.digest), blob.size, 0o644)
                    tar.addfile(info, cast("BinaryIO", reader))
                    reader.finish()
        part.publish(target.name, os.fstat(part.fileno()).st_size, replace=True)


def write_directory(image: KeptImage, path: Path, keep_free: KeepFree) -> None:
    """Write ``image`` as skopeo's ``dir:``, its manifest byte for byte, in place of the image that is there.

    The directory may be missing, empty, or have an image of that kind; what a killed process left of one is
    gone on with. The manifest comes last, so that it never names what is not there. Raises as
    ``write_archive``; LocalError for a directory that holds something else. Blocks.
    """
    target = real_path(path)
    make_directory(target, 0o777)
    with lock_directory(target, timeout=_LOCK_S):
        names = _names_in(target)
        missing = [blob for blob in image.blobs if not _is_there(target, blob)]
        Space(target, keep_free).check(sum(blob.size for blob in missing), f"writing {path.name}")
        write_file(target, "version", _DIRECTORY_VERSION, mode=None)
        for blob in missing:
            with _part(target / blob.digest.hex) as part, _Checked(image.layout, blob) as reader:
                while data := reader.read(_CHUNK):
                    part.write(data)
                reader.finish()
                part.publish(blob.digest.hex, blob.size, replace=True)
        _remove(target, (name for name in names if _SIGNATURE.fullmatch(name)))  # they are another image's
        write_file(target, "manifest.json", image.manifest.raw, mode=None)
        needed = {blob.digest.hex for blob in image.blobs}
        _remove(target, (name for name in names if _BLOB.fullmatch(name) and name not in needed))
        _remove(target, (name for name in names if name.endswith(PART_SUFFIX)))


# --- inside ---------------------------------------------------------------------------------------


class _Checked:
    """The bytes of a blob, to be read once; ``finish`` says whether they were the right ones."""

    def __init__(self, layout: LayoutReader, blob: Descriptor) -> None:
        layout.check_blob(blob)
        self._blob = blob
        self._shown = layout.shown(blob_name(blob.digest))
        self._reader = layout.content(blob.digest).open()
        self._hash = hashlib.new(blob.digest.algorithm)
        self._nbytes = 0

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes. Raises SourceUnreadable, SizeMismatch for a blob that ends too early."""
        wanted = min(size if size >= 0 else _CHUNK, self._blob.size - self._nbytes)
        if wanted == 0:
            return b""
        data = bytearray(wanted)
        n_read = self._reader.readinto(memoryview(data))
        if n_read < wanted:
            raise self._wrong_size(self._nbytes + n_read)
        self._hash.update(data)
        self._nbytes += n_read
        return bytes(data)

    def finish(self) -> None:
        """Raises DigestMismatch, SizeMismatch."""
        if self._nbytes != self._blob.size:
            raise self._wrong_size(self._nbytes)
        got = f"{self._blob.digest.algorithm}:{self._hash.hexdigest()}"
        if got != self._blob.digest:
            message = f"{self._shown} has the bytes of {got}: the disk has changed them"
            raise DigestMismatch(message, want=self._blob.digest, got=got, nbytes=self._nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def _wrong_size(self, got: int) -> SizeMismatch:
        message = f"{self._shown} has {got} bytes, the image says {self._blob.size}"
        return SizeMismatch(message, want=self._blob.size, got=got)


@contextmanager
def _part(target: Path) -> Iterator[PartFile]:
    """A new file that may become ``target``; what a killed process left of one gives way.

    Raises StoreBusy while another process writes it, LocalError, NoSpace.
    """
    name = f".{target.name}.layertee{PART_SUFFIX}"
    try:
        part = PartFile(target.parent, target.parent, name, mode=None, go_on=True)
    except BlockingIOError:
        raise StoreBusy(f"{target} is being written by another process", path=str(target)) from None
    with part:
        try:
            os.ftruncate(part.fileno(), 0)
        except OSError as exc:
            raise disk_error(exc, "writing", target) from exc
        yield part


@contextmanager
def _as_tar(part: PartFile) -> Iterator[tarfile.TarFile]:
    """The file as a tar that is written from its beginning to its end."""
    sink = cast("BinaryIO", part)  # it is only asked to write
    tar = tarfile.open(mode="w|", fileobj=sink, format=tarfile.PAX_FORMAT, bufsize=_CHUNK)  # noqa: SIM115
    tar.copybufsize = _CHUNK  # type: ignore[attr-defined]
    try:
        yield tar
    except BaseException:
        tar.fileobj.closed = True  # type: ignore[attr-defined]  # or its end were written to what is gone
        raise
    tar.close()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_info(name, len(data), 0o644), io.BytesIO(data))


def _info(name: str, size: int, mode: int) -> tarfile.TarInfo:
    """Of nobody, and of no time: the same image gives the same archive."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


def _index(image: KeptImage, ref: str | None) -> bytes:
    named = image.descriptor
    entry: dict[str, Any] = {"mediaType": named.media_type, "digest": named.digest, "size": named.size}
    if ref is not None:
        entry["annotations"] = {REF_NAME: ref}
    return _encoded({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})


def _encoded(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _names_in(directory: Path) -> list[str]:
    """What is in a directory that is empty, or has an image in skopeo's form. Raises LocalError."""
    try:
        names = sorted(os.listdir(directory))
        version = (directory / "version").read_bytes() if "version" in names else b""
    except OSError as exc:
        raise disk_error(exc, "looking into", directory) from exc
    strange = [name for name in names if not _is_of_an_image(name)]
    if strange or (names and version != _DIRECTORY_VERSION and not _is_unfinished(names)):
        message = f"{directory} is neither empty nor has it an image as 'dir:' (it holds {listed(names)})"
        raise LocalError(f"{message}; name another directory", path=str(directory))
    return names


def _is_of_an_image(name: str) -> bool:
    usual = name in ("version", "manifest.json") or _BLOB.fullmatch(name) or _SIGNATURE.fullmatch(name)
    return bool(usual) or _is_leftover(name)


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(PART_SUFFIX)


def _is_unfinished(names: list[str]) -> bool:
    return all(map(_is_leftover, names))


def _is_there(directory: Path, blob: Descriptor) -> bool:
    """Whether the directory has the blob, its bytes hashed now."""
    try:
        reader = FileContent(directory / blob.digest.hex).open()
    except SourceUnreadable:
        return False
    found, data, size = hashlib.new(blob.digest.algorithm), bytearray(_CHUNK), 0
    try:
        while n_read := reader.readinto(memoryview(data)):
            found.update(memoryview(data)[:n_read])
            size += n_read
            if size > blob.size:
                return False
    except SourceUnreadable:
        return False
    finally:
        reader.close()
    return f"{blob.digest.algorithm}:{found.hexdigest()}" == blob.digest


def _remove(directory: Path, names: Iterable[str]) -> None:
    """Raises LocalError."""
    for name in names:
        try:
            with suppress(FileNotFoundError):
                os.unlink(directory / name)
        except OSError as exc:
            raise disk_error(exc, "removing", directory / name) from exc
    sync_directory(directory)
