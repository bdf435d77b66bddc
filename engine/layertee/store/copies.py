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
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from ..disk.blob_file import FileContent
from ..disk.files import disk_error, make_directory, sync_directory
from ..disk.locks import lock_directory
from ..disk.outputs import OpenOutput, open_output, output_directory_at
from ..disk.part import PART_SUFFIX, PartFile, write_file
from ..disk.space import KeepFree, Space
from ..errors import (
    DigestMismatch,
    LayerteeError,
    LocalError,
    SizeMismatch,
    SourceUnreadable,
    StoreBusy,
)
from ..image.document import Descriptor, Digest, Index, Manifest, parse_document
from ..image.media import OCI_INDEX
from ..image.rewrite import ORIGINAL_MANIFEST
from ..record import dataclass
from .beneath import beneath
from .layout import Layout
from .layout_index import INDEX, Entry, with_entry
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
class CopyProgress:
    """How far writing is: of ``n_total`` blobs, and of their bytes."""

    n_done: int
    n_total: int
    bytes_done: int
    bytes_total: int
    seconds: float


CopyCallback = Callable[[CopyProgress], None]


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image, or an index with all that it names, as a layout has it: the ``document`` that it is named by,
    and ``parts``, all else that belongs to it.
    """

    layout: LayoutReader
    descriptor: Descriptor
    document: Manifest | Index
    parts: tuple[Descriptor, ...]

    @classmethod
    def of(cls, layout: LayoutReader, entry: Descriptor) -> KeptImage:
        """What ``entry`` of the layout names. Raises as ``LayoutReader.document``, and NotFound for an index
        that is not here with all that it names.
        """
        document = layout.document(entry)
        if isinstance(document, Manifest):
            return cls(layout, entry, document, (document.config, *document.layers))
        found = beneath(layout, document)
        found.check(layout)
        return cls(layout, entry, document, found.parts)

    def as_pulled(self) -> KeptImage:
        """The same with its registry's manifest, if everything that this names is here; else as it is."""
        if isinstance(self.document, Index):
            return self
        try:
            digest = Digest.parse(self.document.annotations.get(ORIGINAL_MANIFEST, ""))
            size = self.layout.blob_size(digest) or 0
            raw = self.layout.read_blob(Descriptor("", digest, size))
            document = parse_document(raw, None)
            if isinstance(document, Manifest):
                parts = (document.config, *document.layers)
                for blob in parts:
                    self.layout.check_blob(blob)
                named = Descriptor(document.media_type, digest, size, platform=self.descriptor.platform)
                return KeptImage(self.layout, named, document, parts)
        except LayerteeError:
            pass  # it is not here, or names what is not
        return self

    @property
    def blobs(self) -> list[Descriptor]:
        """The parts, each once, by their digests."""
        found = {blob.digest: blob for blob in self.parts}
        return [found[digest] for digest in sorted(found)]


def see_that_it_can_be_an_archive(path: Path, stores: Iterable[Path]) -> None:
    """Whether ``write_archive`` could write ``path``: nothing is there, an empty file, or an archive of OCI.

    Raises UnsafePath, LocalError: also for a file of anything else, and what is in one of ``stores``. Blocks.
    """
    with _archive_at(path, stores):
        pass


def write_archive(
    images: Sequence[tuple[KeptImage, str | None]],
    path: Path,
    keep_free: KeepFree,
    *,
    without: Collection[Digest] = (),
    progress: CopyCallback | None = None,
) -> int:
    """Write ``images``, each with its name, as an OCI layout in the tar file ``path``, in place of what is
    there; how many bytes of blobs that has. Blobs that ``without`` names are left out. ``progress`` is called
    after every MiB, and after every blob.

    Raises as ``see_that_it_can_be_an_archive``; NoSpace, StoreBusy (another process is writing it),
    LocalError; DigestMismatch, SizeMismatch, NotFound for a layout that is damaged. Blocks.
    """
    manifests = {image.descriptor.digest: image.document.raw for image, _ in images}
    blobs = _blobs_of(images, without)
    need = sum(blob.size + 2 * tarfile.BLOCKSIZE for _, blob in blobs) + sum(map(len, manifests.values()))
    with _archive_at(path, _stores_of(images)) as found:
        target = found.output.target
        Space(target.parent, keep_free).check(need + _HEADERS, f"writing {path.name}")
        with _part(target, mode=found.output.mode, directory=found.directory) as part:
            with _as_tar(part) as tar:
                _add(tar, MARKER, _encoded({"imageLayoutVersion": VERSION}))
                _add(tar, INDEX, _index(images))
                named = {*manifests, *(blob.digest for _, blob in blobs)}
                for name in ("blobs", *sorted({f"blobs/{digest.algorithm}" for digest in named})):
                    info = _info(name, 0, 0o755)
                    info.type = tarfile.DIRTYPE
                    tar.addfile(info)
                for digest in sorted(manifests):
                    _add(tar, blob_name(digest), manifests[digest])
                count = _Count(blobs, progress)
                for layout, blob in blobs:
                    with _Checked(layout, blob, count) as reader:
                        info = _info(blob_name(blob.digest), blob.size, 0o644)
                        tar.addfile(info, cast("BinaryIO", reader))
                        reader.finish()
            found.output.keep_owner(part.fileno())
            part.publish(target.name, os.fstat(part.fileno()).st_size, replace=True)
    return sum(blob.size for _, blob in blobs)


def write_layout(
    images: Sequence[tuple[KeptImage, str | None]],
    path: Path,
    keep_free: KeepFree,
    *,
    without: Collection[Digest] = (),
    progress: CopyCallback | None = None,
) -> int:
    """Add ``images``, each with its name, to the OCI layout in ``path``, which is made if there is none; how
    many bytes of blobs were written. Blobs that are there, or that ``without`` names, are left out.

    The names come last. Raises as ``write_archive``, and StoreCorrupt for a directory of something else;
    LocalError for one that is in the store itself.
    """
    layout = Layout.create(output_directory_at(path, outside=_stores_of(images)), private=False)
    blobs = [each for each in _blobs_of(images, without) if not _is_there(layout.blob_path, each[1])]
    Space(layout.path, keep_free).check(sum(blob.size for _, blob in blobs), f"writing {path.name}")
    count = _Count(blobs, progress)
    for source, blob in blobs:
        target = layout.blob_path(blob.digest)
        make_directory(target.parent, 0o777)
        _copy(source, blob, target, count)
    for image, ref in images:
        target = layout.blob_path(image.descriptor.digest)
        write_file(target.parent, target.name, image.document.raw, mode=None)
        layout.set_entry(ref, image.descriptor)
    return sum(blob.size for _, blob in blobs)


def write_directory(image: KeptImage, path: Path, keep_free: KeepFree) -> None:
    """Write ``image`` as skopeo's ``dir:``, its manifest byte for byte, in place of the image that is there.

    The directory may be missing, empty, or have an image of that kind; what a killed process left of one is
    gone on with. The manifest comes last, so that it never names what is not there. Raises as
    ``write_archive``; LocalError for a directory that holds something else. Blocks.
    """
    target = output_directory_at(path, outside=[image.layout.path])
    make_directory(target, 0o777)
    with lock_directory(target, timeout=_LOCK_S):
        names = _names_in(target)
        missing = [blob for blob in image.blobs if not _is_there(lambda digest: target / digest.hex, blob)]
        Space(target, keep_free).check(sum(blob.size for blob in missing), f"writing {path.name}")
        write_file(target, "version", _DIRECTORY_VERSION, mode=None)
        count = _Count([(image.layout, blob) for blob in missing], None)
        for blob in missing:
            _copy(image.layout, blob, target / blob.digest.hex, count)
        _remove(target, (name for name in names if _SIGNATURE.fullmatch(name)))  # they are another image's
        write_file(target, "manifest.json", image.document.raw, mode=None)
        needed = {blob.digest.hex for blob in image.blobs}
        _remove(target, (name for name in names if _BLOB.fullmatch(name) and name not in needed))
        _remove(target, (name for name in names if name.endswith(PART_SUFFIX)))


# --- inside ---------------------------------------------------------------------------------------


def _stores_of(images: Sequence[tuple[KeptImage, str | None]]) -> set[Path]:
    return {image.layout.path for image, _ in images}


@contextmanager
def _archive_at(path: Path, stores: Iterable[Path]) -> Iterator[OpenOutput]:
    """Raises as ``see_that_it_can_be_an_archive``."""
    with open_output(path, outside=stores) as found:
        old = found.output.old
        if old is not None and old.st_size and not _is_archive(path, found):
            message = f"{path} has something else than an archive of OCI in it, and is not replaced"
            raise LocalError(f"{message}; remove it, or name another file", path=str(path))
        yield found


def _is_archive(path: Path, found: OpenOutput) -> bool:
    """Whether there is a tar with the file that marks a layout. Raises LocalError, UnsafePath."""
    try:
        fd = found.open_file(os.O_RDONLY)
    except OSError as exc:
        raise disk_error(exc, "reading", path) from exc
    with os.fdopen(fd, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                return any(member.isreg() and os.path.normpath(member.name) == MARKER for member in tar)
        except (tarfile.TarError, ValueError, EOFError, OverflowError):
            return False
        except OSError as exc:
            raise disk_error(exc, "reading", path) from exc


class _Count:
    """What has been written of ``blobs``, which ``progress`` is told."""

    def __init__(
        self, blobs: Sequence[tuple[LayoutReader, Descriptor]], progress: CopyCallback | None
    ) -> None:
        self._progress = progress
        self._n_total = len(blobs)
        self._bytes_total = sum(blob.size for _, blob in blobs)
        self._n_done = self._bytes_done = 0
        self._began = time.monotonic()

    def add(self, nbytes: int, n_blobs: int = 0) -> None:
        """So much more has been read."""
        self._bytes_done += nbytes
        self._n_done += n_blobs
        if self._progress is not None:
            seconds = time.monotonic() - self._began
            self._progress(
                CopyProgress(self._n_done, self._n_total, self._bytes_done, self._bytes_total, seconds)
            )


class _Checked:
    """The bytes of a blob, to be read once; ``finish`` says whether they were the right ones."""

    def __init__(self, layout: LayoutReader, blob: Descriptor, count: _Count) -> None:
        layout.check_blob(blob)
        self._count = count
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
        self._count.add(n_read)
        return bytes(data)

    def finish(self) -> None:
        """Raises DigestMismatch, SizeMismatch."""
        if self._nbytes != self._blob.size:
            raise self._wrong_size(self._nbytes)
        got = f"{self._blob.digest.algorithm}:{self._hash.hexdigest()}"
        if got != self._blob.digest:
            message = f"{self._shown} has the bytes of {got}: the disk has changed them"
            raise DigestMismatch(message, want=self._blob.digest, got=got, nbytes=self._nbytes)
        self._count.add(0, n_blobs=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def _wrong_size(self, got: int) -> SizeMismatch:
        message = f"{self._shown} has {got} bytes, the image says {self._blob.size}"
        return SizeMismatch(message, want=self._blob.size, got=got)


def _blobs_of(
    images: Sequence[tuple[KeptImage, str | None]], without: Collection[Digest]
) -> list[tuple[LayoutReader, Descriptor]]:
    """What ``images`` consist of beside their manifests, each once, in the order of the digests."""
    found = {blob.digest: (image.layout, blob) for image, _ in images for blob in image.blobs}
    return [found[digest] for digest in sorted(found) if digest not in without]


def _copy(source: LayoutReader, blob: Descriptor, target: Path, count: _Count) -> None:
    """A blob into the file ``target``, which has it whole or not at all."""
    with _part(target) as part, _Checked(source, blob, count) as reader:
        while data := reader.read(_CHUNK):
            part.write(data)
        reader.finish()
        part.publish(target.name, blob.size, replace=True)


@contextmanager
def _part(target: Path, *, mode: int | None = None, directory: int | None = None) -> Iterator[PartFile]:
    """A new file that may become ``target``; what a killed process left of one gives way.

    ``directory``: a descriptor of the one that it is in, if no name of it is to be looked up again.

    Raises StoreBusy while another process writes it, LocalError, NoSpace.
    """
    name = f".{target.name}.layertee{PART_SUFFIX}"
    try:
        part = PartFile(target.parent, target.parent, name, mode=mode, go_on=True, elsewhere=directory)
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


def _index(images: Sequence[tuple[KeptImage, str | None]]) -> bytes:
    entries: list[Entry] = []
    for image, ref in images:
        named = image.descriptor
        entries = with_entry(entries, ref, Descriptor(named.media_type, named.digest, named.size))
    return _encoded({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


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


def _is_there(path_of: Callable[[Digest], Path], blob: Descriptor) -> bool:
    """Whether the blob is in its file, its bytes hashed now."""
    try:
        reader = FileContent(path_of(blob.digest)).open()
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
