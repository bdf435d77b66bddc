"""What the tests of a store share: measured results, a pull without a network, when a store is sound."""

from __future__ import annotations

import hashlib
from pathlib import Path

from layertee.core.result import BlobResult, TeeResult, make_blob_result
from layertee.core.tee import Tee
from layertee.disk.part import BlobWriter
from layertee.disk.space import KeepFree, Space
from layertee.image.document import Descriptor, DiffID, Digest, Layer, Platform
from layertee.image.holding import Form, Holding
from layertee.image.media import Compression, media_type_of
from layertee.image.reference import Reference, parse_reference
from layertee.image.resolved import ResolvedImage
from layertee.image.rewrite import local_manifest
from layertee.places.oci_layout import OCILayoutPlace
from layertee.places.own import OwnStore
from layertee.pulling.plan import Action, Plan, Survey, Want, plan
from layertee.store.layout import Layout
from layertee.store.store import Store
from tests.support.compress import digest_number, digest_of, pack, unpack

AMD64 = Platform("linux", "amd64")
_FOUND = parse_reference("registry.example.com/os/image:1")
assert isinstance(_FOUND, Reference)
REGISTRY = _FOUND


def layer_of(n: int, size: int = 100) -> Layer:
    """The layer number ``n`` of no image in particular: gzip, of ``size`` bytes that nobody has seen."""
    descriptor = Descriptor(media_type_of(Compression.GZIP), digest_number(n), size)
    return Layer(n, descriptor, DiffID(digest_number(n + 100)), Compression.GZIP)


def measure(blob: bytes, compression: Compression = Compression.NONE) -> TeeResult:
    """What the tee measures on ``blob``: the only way to a TeeResult."""
    tee = Tee(compression)
    for start in range(0, len(blob), 1 << 20):
        tee.feed(blob[start : start + (1 << 20)])
        while tee.pending:
            tee.feed(b"")
    return tee.finish()


def only_hashed(blob: bytes, compression: Compression = Compression.GZIP) -> BlobResult:
    """What a pool makes of ``blob`` that is to inflate nothing."""
    return make_blob_result(digest=hashlib.sha256(blob).digest(), size=len(blob), compression=compression)


def gzip_layer(text: str) -> tuple[bytes, bytes, TeeResult]:
    """A tar (by name only), its gzip form, and what is measured on that."""
    tar = text.encode() * 50
    blob = pack(tar, Compression.GZIP)
    return tar, blob, measure(blob, Compression.GZIP)


def contradicting(result: TeeResult) -> TeeResult:
    """The same blob with another content, which no honest pass can measure."""
    other = measure(pack(b"something else", Compression.GZIP), Compression.GZIP)
    forged = object.__new__(TeeResult)
    for name in ("digest", "size", "compression", "decoder"):
        object.__setattr__(forged, name, getattr(result, name))
    for name in ("diff_id", "uncompressed_size"):
        object.__setattr__(forged, name, getattr(other, name))
    return forged


def fill(writer: BlobWriter, data: bytes) -> BlobWriter:
    """``writer`` with ``data`` written to it."""
    writer.write(data)
    return writer


def visible_blobs(root: Path) -> dict[str, Path]:
    """Every file under a blob's name, by that name."""
    return {f"{path.parent.name}:{path.name}": path for path in sorted(root.glob("blobs/*/*"))}


def assert_store_is_sound(root: Path) -> None:
    """What must hold at every moment: names are true, rows have files, images are complete."""
    for digest, path in visible_blobs(root).items():
        assert digest_of(path.read_bytes()) == digest, f"{path} is not what its name says"
    with Store.open(root) as store:
        assert store.warnings == ()
        for row in store.catalog.holdings():
            path = store.layout.blob_path(row.digest)
            assert path.stat().st_size == row.size, f"a row without its file: {row}"
        for image in store.images.all():
            assert image.problem is None
            kept = store.layout.resolve(image.name or None, AMD64)
            for layer in kept.layers:
                assert store.layout.blob_size(layer.digest) == layer.size


def bring(store: Store, blob: bytes, compression: Compression, form: Form = Form.AS_IS) -> Holding:
    """One layer, from bytes to a holding: lock, writer, tee, commit."""
    result = measure(blob, compression)
    name = Digest(str(result.diff_id)) if form is Form.UNCOMPRESSED else result.digest
    held = store.blobs.lock(name)
    assert held is not None
    with held, store.blobs.writer(name) as writer:
        content = unpack(blob, compression) if form is Form.UNCOMPRESSED else blob
        return store.blobs.commit(fill(writer, content), result, form)


def planned(store: Store, image: ResolvedImage, source: Path | None, form: Form) -> Plan:
    """The plan for ``image``, with ``source`` as another place and a registry that has the rest."""
    wanted = {layer.diff_id: layer.digest for layer in image.layers}
    elsewhere: dict[DiffID, list[Holding]] = {}
    if source is not None:
        place = OCILayoutPlace(source, known=store.catalog.diff_id, prefer=wanted)
        elsewhere = {diff_id: [held] for diff_id, held in place.find(wanted).items()}
    known = {
        layer.digest: found
        for layer in image.layers
        if (found := store.catalog.diff_id(layer.digest)) is not None
    }
    survey = Survey(
        own=OwnStore(store, layers=image.layers).forms().holdings,
        elsewhere=elsewhere,
        known=known,
        sizes=store.catalog.uncompressed_sizes(wanted),
        registry=REGISTRY,
    )
    return plan(image.layers, survey, Want(form=form))


def pull(store: Store, source: Path, ref: str, name: str, form: Form = Form.AS_IS) -> Plan:
    """The whole storage half: what a pull does once it has documents and bytes."""
    origin = Layout.open(source)
    image = origin.resolve(ref, AMD64)
    with store.shared():
        todo = planned(store, image, None, form)
        Space(store.root, KeepFree()).check(todo.disk_bytes)
        held: list[Holding] = []
        for step in todo.layers:
            if step.same_as is not None:
                held.append(held[step.same_as])
            elif step.action is Action.FETCH:
                blob = origin.blob_path(step.layer.digest).read_bytes()
                held.append(bring(store, blob, step.layer.compression, form))
            else:
                assert step.holding is not None
                held.append(step.holding)
        local = local_manifest(image.manifest, image.layers, held)
        store.images.put(name, image.manifest, image.config, local)
    return todo
