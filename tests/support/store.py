"""What the tests of the storage half share: measured results, failing disks, a pull without a network."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from layertee.core.result import TeeResult
from layertee.core.tee import Tee
from layertee.disk.part import BlobWriter
from layertee.image.document import Compression, DiffID, Digest, Platform
from layertee.image.holding import Form, Holding
from layertee.places.oci_layout import OCILayoutPlace
from layertee.places.own import OwnStore
from layertee.pulling.plan import Action, Plan, plan
from layertee.store.layout import Layout, LayoutImage
from layertee.store.localimage import local_manifest
from layertee.store.store import Store

AMD64 = Platform("linux", "amd64")
DISK_CALLS = (
    "close",
    "fchmod",
    "fdatasync",
    "fstat",
    "fsync",
    "ftruncate",
    "link",
    "listdir",
    "mkdir",
    "open",
    "pread",
    "rename",
    "rmdir",
    "stat",
    "statvfs",
    "unlink",
    "write",
)


def sha256(data: bytes) -> str:
    """The text of a digest, by hashlib."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def pack(data: bytes, compression: Compression) -> bytes:
    """``data`` compressed by code not ours."""
    if compression is Compression.GZIP:
        return gzip.compress(data, mtime=0)
    if compression is Compression.ZSTD:
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


def unpack(blob: bytes, compression: Compression) -> bytes:
    """The reverse of ``pack``, also by code not ours."""
    if compression is Compression.GZIP:
        return gzip.decompress(blob)
    if compression is Compression.ZSTD:
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(blob)
    return blob


def measure(blob: bytes, compression: Compression = Compression.NONE) -> TeeResult:
    """What the tee measures on ``blob``: the only way to a TeeResult."""
    tee = Tee(compression)
    for start in range(0, len(blob), 1 << 20):
        tee.feed(blob[start : start + (1 << 20)])
        while tee.pending:
            tee.feed(b"")
    return tee.finish()


def gzip_layer(text: str) -> tuple[bytes, bytes, TeeResult]:
    """A tar (by name only), its gzip form, and what is measured on that."""
    tar = text.encode() * 50
    blob = pack(tar, Compression.GZIP)
    return tar, blob, measure(blob, Compression.GZIP)


def fill(writer: BlobWriter, data: bytes) -> BlobWriter:
    """``writer`` with ``data`` written to it."""
    writer.write(data)
    return writer


# --- the disk ---------------------------------------------------------------------


class Disk:
    """Every call of ``os`` that touches a disk, counted; the n-th may fail, or kill the process."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.tripped = False

    @contextmanager
    def watched(
        self, fail_at: int = 0, code: int = errno.EIO, *, for_good: bool = False, kill: bool = False
    ) -> Iterator[None]:
        """Fail the ``fail_at``-th call with ``code``, and with ``for_good`` all later ones too."""
        real = {name: getattr(os, name) for name in DISK_CALLS}
        self.calls.clear()
        self.tripped = False

        def wrap(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.calls.append((name, args))
                n = len(self.calls)
                if n == fail_at or (for_good and self.tripped):
                    self.tripped = True
                    if kill:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if name == "close":
                        real[name](*args)  # Linux releases the number whatever close returns
                    raise OSError(code, os.strerror(code))
                return real[name](*args, **kwargs)

            return call

        for name in DISK_CALLS:
            setattr(os, name, wrap(name))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def names(self) -> list[str]:
        """The calls made, in order."""
        return [name for name, _ in self.calls]


def start_child(work: Callable[[], None]) -> int:
    """Begin ``work`` in a forked child, which exits with 0 if that returns; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; none of ours lives on
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child; return its wait status."""
    return os.waitpid(start_child(work), 0)[1]


def visible_blobs(root: Path) -> dict[str, Path]:
    """Every file under a blob's name, by that name."""
    return {f"{path.parent.name}:{path.name}": path for path in sorted(root.glob("blobs/*/*"))}


def assert_store_is_sound(root: Path) -> None:
    """What must hold at every moment: names are true, rows have files, images are complete."""
    for digest, path in visible_blobs(root).items():
        assert sha256(path.read_bytes()) == digest, f"{path} is not what its name says"
    with Store.open(root) as store:
        assert store.warnings == []
        for row in store.catalog.holdings():
            path = store.layout.blob_path(row.digest)
            assert path.stat().st_size == row.size, f"a row without its file: {row}"
        for image in store.images():
            assert image.problem is None
            kept = store.layout.resolve(image.name or None, AMD64)
            for layer in kept.layers:
                assert store.layout.blob_size(layer.digest) == layer.size


# --- a pull from another layout -----------------------------------------------------


def bring(store: Store, blob: bytes, compression: Compression, form: Form = Form.AS_IS) -> Holding:
    """One layer, from bytes to a holding: lock, writer, tee, commit."""
    result = measure(blob, compression)
    held = store.layer_lock(result.diff_id)
    assert held is not None
    with held, store.writer(result.diff_id) as writer:
        content = unpack(blob, compression) if form is Form.UNCOMPRESSED else blob
        return store.commit_layer(fill(writer, content), result, form)


def planned(store: Store, image: LayoutImage, source: Path | None, form: Form) -> Plan:
    """The plan for ``image``, with ``source`` as another place."""
    wanted = {layer.diff_id: layer.digest for layer in image.layers}
    own = OwnStore(store).find(wanted)
    elsewhere: list[Mapping[DiffID, Holding]] = []
    if source is not None:
        elsewhere.append(OCILayoutPlace(source, known=store.catalog.diff_id, prefer=wanted).find(wanted))
    known = {
        layer.digest: found
        for layer in image.layers
        if (found := store.catalog.diff_id(layer.digest)) is not None
    }
    sizes = store.catalog.uncompressed_sizes(wanted)
    return plan(image.layers, own, elsewhere, form=form, known=known, sizes=sizes)


def pull(store: Store, source: Path, ref: str, name: str, form: Form = Form.AS_IS) -> Plan:
    """The whole storage half: what a pull does once it has documents and bytes."""
    origin = Layout.open(source)
    image = origin.resolve(ref, AMD64)
    with store.shared():
        todo = planned(store, image, None, form)
        store.check_space(todo.disk_bytes)
        held = {step.layer.diff_id: step.holding for step in todo.layers_to(Action.HAVE) if step.holding}
        for step in todo.layers_to(Action.FETCH):
            blob = origin.blob_path(step.layer.digest).read_bytes()
            held[step.layer.diff_id] = bring(store, blob, step.layer.compression, form)
        local = local_manifest(image.manifest, image.layers, held)
        store.put_image(name, image.manifest, image.config, local)
    return todo


def digest_number(n: int) -> Digest:
    """Some digest, the ``n``-th."""
    return Digest(sha256(str(n).encode()))
