"""Images in one tar file: those that real tools write, those that nobody should, and what is made of them."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, sync
from layertee.errors import (
    DigestMismatch,
    DocumentError,
    NotFound,
    SizeMismatch,
    SourceUnreadable,
    StoreCorrupt,
)
from layertee.image.document import Compression, Descriptor, DiffID, Digest
from layertee.image.holding import Basis, Place
from layertee.places.oci_archive import Archive, OCIArchivePlace
from tests.contract.place_suite import PlaceSuite, diff_ids
from tests.support.compress import digest_of
from tests.support.podman import content, spoilable
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, push, recompress, run_tool
from tests.support.rig.layers import Entry, LayerSpec, incompressible_layer, text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.rig.storage import StorageRig
from tests.support.store import AMD64, measure
from tests.support.trees import skopeo_reads

Members = dict[str, bytes]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "blobs/sha256/" + "ab" * 32


def nothing_known(digest: Digest) -> DiffID | None:
    return None


def place_of(path: Path, **options: Any) -> OCIArchivePlace:
    return OCIArchivePlace(path, **{"known": nothing_known, **options})


def by_skopeo(image: BuiltImage, path: Path) -> Path:
    """The image as skopeo puts it into an archive."""
    run_tool("skopeo", "copy", "-q", "--preserve-digests", image.skopeo_name, f"oci-archive:{path}:v1")
    return path


def members(image: BuiltImage) -> Members:
    """The files of the image's layout."""
    files = [path for path in sorted(image.root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(image.root)): path.read_bytes() for path in files}


def write(path: Path, found: Members, *more: tarfile.TarInfo, prefix: str = "", form: int = 1) -> Path:
    """A tar of ``found`` and, at its end, of headers without content."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in found.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return path


def header(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    layers = [text_layer({"etc/a": "first"}), incompressible_layer(30_000), text_layer({"etc/b": "third"})]
    return build_image(tmp_path / "built", layers, compression=["gzip", "zstd", "none"])


class TestOCIArchive(PlaceSuite):
    """Nothing in an archive has a path: what the suite does to files is done to members here."""

    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        self.path = by_skopeo(image, tmp_path / "image.tar")
        return place_of(self.path)

    def test_what_is_readable_reads_back_as_what_it_is_called(self, place: Place, image: BuiltImage) -> None:
        found = place.find(diff_ids(image))
        assert {held.compression for held in found.values()} == set(Compression)
        for holding in found.values():
            for at_once in (1 << 20, 1000):
                read = content(holding, at_once)
                assert len(read) == holding.size
                assert digest_of(read) == holding.digest
            measured = measure(read, holding.compression)
            assert measured.diff_id == holding.diff_id
            assert holding.uncompressed_size in (None, measured.uncompressed_size)

    def test_presence_is_looked_at_and_not_remembered(self, place: Place, image: BuiltImage) -> None:
        assert len(place.find(diff_ids(image))) == 3
        found = members(image)
        del found[blob_name(image, 1)]
        write(self.path, found)
        assert set(place.find(diff_ids(image))) == {diff_ids(image)[0], diff_ids(image)[2]}
        self.path.unlink()
        assert place.find(diff_ids(image)) == {}
        assert "is not there" in place.warnings[0]

    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        found = members(image)
        found[blob_name(image, 0)] += b"\0"
        write(self.path, found)
        assert set(place.find(diff_ids(image))) == set(diff_ids(image)[1:])

    def test_a_symlink_is_not_the_layer(self, place: Place, image: BuiltImage, tmp_path: Path) -> None:
        found = members(image)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(found.pop(blob_name(image, 0)))
        write(self.path, found, header(blob_name(image, 0), tarfile.SYMTYPE, str(elsewhere)))
        assert place.find(diff_ids(image)) == {}
        assert "not a plain file" in place.warnings[0]


def blob_name(image: BuiltImage, index: int) -> str:
    return "blobs/" + image.layers[index].digest.replace(":", "/")


# --- what is in it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "././"])
def test_an_image_is_found_however_its_files_are_written(
    image: BuiltImage, tmp_path: Path, prefix: str, form: int
) -> None:
    archive = Archive.open(write(tmp_path / "a.tar", members(image), prefix=prefix, form=form))
    for name in (None, "latest"):
        found = archive.resolve(name, AMD64)
        assert (found.manifest.digest, found.config.digest) == (image.digest, image.config_digest)
    assert archive.refs() == ["latest"]
    assert set(archive.blobs()) == {image.digest, image.config_digest, *image.layer_digests}
    with pytest.raises(NotFound, match="it has: latest"):
        archive.resolve("other", AMD64)


def test_how_a_content_is_known_is_as_with_a_layout(image: BuiltImage, tmp_path: Path) -> None:
    path = by_skopeo(image, tmp_path / "a.tar")
    packed, other, plain = diff_ids(image)
    pair = {Digest(image.layers[0].digest): packed}.get
    claimed, computed, attested = Basis.CLAIMED, Basis.COMPUTED, Basis.ATTESTED
    for options, basis in (({}, claimed), ({"known": pair}, computed), ({"attested": pair}, attested)):
        found = place_of(path, **options).find(diff_ids(image))
        assert [found[d].basis for d in (packed, other, plain)] == [basis, claimed, computed]
    lie = {Digest(image.layers[0].digest): plain}.get
    place = place_of(path, known=lie)
    assert set(place.find(diff_ids(image))) == {other, plain}
    assert image.layers[0].digest in place.warnings[0]


def test_what_else_is_in_the_tar_is_nobodys_business(image: BuiltImage, tmp_path: Path) -> None:
    """docker save writes a layout, its own manifest.json and old names as links, all in one archive."""
    path = write(
        tmp_path / "a.tar",
        {"manifest.json": b"[]", "repositories": b"{", "blobs/sha256/README": b"?", **members(image)},
        header("blobs", tarfile.DIRTYPE),
        header("0123/layer.tar", tarfile.SYMTYPE, "../blobs/sha256/0123"),
        header("../../etc/passwd", tarfile.REGTYPE),
        header("/index.json", tarfile.REGTYPE),
        header("blobs/../index.json", tarfile.LNKTYPE, "/etc/passwd"),
        header("node", tarfile.CHRTYPE),
    )
    place = place_of(path)
    assert set(place.find(diff_ids(image))) == set(diff_ids(image))
    assert place.warnings == []


def test_an_archive_is_found_through_a_symlink(image: BuiltImage, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(by_skopeo(image, tmp_path / "a.tar"))
    assert set(place_of(tmp_path / "link").find(diff_ids(image))) == set(diff_ids(image))


# --- what must not be in it -----------------------------------------------------------------------------


def sparse(image: BuiltImage, path: Path) -> Path:
    """GNU tar makes a hole of the zeros in a layer."""
    root = path.with_name("layout")
    run_tool("cp", "-r", str(image.root), str(root))
    blob = root / LAYER
    with blob.open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")
    run_tool("tar", "-C", str(root), "-c", "--sparse", "-f", str(path), *members(image), LAYER)
    return path


def edited(edit: Callable[[Members], object]) -> Callable[[BuiltImage, Path], Path]:
    def make(image: BuiltImage, path: Path) -> Path:
        found = members(image)
        edit(found)
        return write(path, found)

    return make


def added(*more: tarfile.TarInfo) -> Callable[[BuiltImage, Path], Path]:
    return lambda image, path: write(path, members(image), *more)


def spoiled(spoil: Callable[[bytes], bytes]) -> Callable[[BuiltImage, Path], Path]:
    def make(image: BuiltImage, path: Path) -> Path:
        path.write_bytes(spoil(write(path, members(image)).read_bytes()))
        return path

    return make


def doubled(image: BuiltImage, path: Path) -> Path:
    """As ``tar --append`` leaves a file that was there."""
    write(path, members(image))
    run_tool("tar", "-C", str(image.root), "-rf", str(path), "./index.json")
    return path


HOSTILE: dict[str, tuple[Callable[[BuiltImage, Path], Path], str]] = {
    "index is a link": (
        lambda image, path: write(
            path,
            {name: data for name, data in members(image).items() if name != "index.json"},
            header("index.json", tarfile.LNKTYPE, "oci-layout"),
        ),
        "index.json in it is not a plain file",
    ),
    "blob is a hard link": (added(header(LAYER, tarfile.LNKTYPE, "index.json")), "not a plain file"),
    "blob is a symlink": (added(header(LAYER, tarfile.SYMTYPE, "/etc/shadow")), "not a plain file"),
    "blob is a directory": (added(header(LAYER, tarfile.DIRTYPE)), "not a plain file"),
    "blob is a device": (added(header(LAYER, tarfile.BLKTYPE)), "not a plain file"),
    "blob is of no known kind": (added(header(LAYER, b"Z")), "not a plain file"),
    "blob is contiguous": (added(header(LAYER, tarfile.CONTTYPE)), "not a plain file"),
    "blob is sparse": (sparse, "is sparse; write the archive without"),
    "index twice": (doubled, "index.json is in it twice"),
    "no index": (edited(lambda found: found.pop("index.json")), "no index.json"),
    "no marker": (edited(lambda found: found.pop("oci-layout")), "no oci-layout"),
    "other version": (
        edited(lambda found: found.update({"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'})),
        "2.0.0",
    ),
    "marker is no JSON": (edited(lambda found: found.update({"oci-layout": b"{"})), "oci-layout"),
    "index is no JSON": (edited(lambda found: found.update({"index.json": b"{"})), "index.json"),
    "index is no index": (edited(lambda found: found.update({"index.json": b"{}"})), "index.json"),
    "index is huge": (
        edited(lambda found: found.update({"index.json": b" " * (5 << 20)})),
        "index.json of 5242880 bytes is too large",
    ),
    "compressed": (spoiled(lambda raw: gzip.compress(raw, 1)), "only plain tar files"),
    "empty": (spoiled(lambda raw: b""), "no oci-layout"),
    "zeros": (spoiled(lambda raw: bytes(10240)), "no oci-layout"),
    "text": (spoiled(lambda raw: b"an archive\n" * 100), "only plain tar files"),
    "cut": (spoiled(lambda raw: raw[:5000]), "it ends before"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_can_be_read_in_two_ways_or_in_none_is_refused(
    image: BuiltImage, tmp_path: Path, kind: str
) -> None:
    make, says = HOSTILE[kind]
    path = make(image, tmp_path / "a.tar")
    with pytest.raises(StoreCorrupt, match=says) as caught:
        Archive.open(path)
    assert str(path) in str(caught.value)
    place = place_of(path)
    assert place.find(diff_ids(image)) == {}
    assert place.warnings == [str(caught.value)]


@pytest.mark.parametrize("what", ["nothing", "beneath a file", "a directory", "a fifo", "a device"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tar"
    if what == "beneath a file":
        path.write_bytes(b"")
        path = path / "b.tar"
    elif what == "a directory":
        path.mkdir()
    elif what == "a fifo":
        os.mkfifo(path)
    elif what == "a device":
        path = Path("/dev/null")
    with pytest.raises(NotFound if what in ("nothing", "beneath a file") else StoreCorrupt, match=str(path)):
        Archive.open(path)


def test_documents_are_hashed_when_they_are_read(image: BuiltImage, tmp_path: Path) -> None:
    found = members(image)
    name = "blobs/" + image.digest.replace(":", "/")
    for change, error in (
        (found[name].replace(b"gzip", b"zstd"), DigestMismatch),
        (found[name] + b" ", SizeMismatch),
        (None, NotFound),
    ):
        changed = {**found, name: change or b""}
        if change is None:
            del changed[name]
        archive = Archive.open(write(tmp_path / "a.tar", changed))
        with pytest.raises(error, match=image.digest.partition(":")[2]):
            archive.resolve(None, AMD64)
    with pytest.raises(DocumentError, match="too large"):
        archive.read_blob(Descriptor(MANIFEST, Digest(image.digest), 5 << 20))


# --- an archive that changes ----------------------------------------------------------------------------


def test_an_archive_that_was_replaced_is_not_read(image: BuiltImage, tmp_path: Path) -> None:
    path = by_skopeo(image, tmp_path / "a.tar")
    archive = Archive.open(path)
    holding = place_of(path).find(diff_ids(image))[diff_ids(image)[0]]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 1)
        file.write(b"\0")
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceUnreadable, match="replaced"):
        archive.resolve(None, AMD64)
    with pytest.raises(SourceUnreadable, match="replaced"):
        content(holding)
    path.unlink()
    with pytest.raises(SourceUnreadable, match="No such file"):
        content(holding)


def test_an_archive_that_is_cut_while_it_is_read_ends_with_an_error(
    image: BuiltImage, tmp_path: Path
) -> None:
    path = by_skopeo(image, tmp_path / "a.tar")
    reader = Archive.open(path).content(Digest(image.layers[1].digest)).open()
    room = memoryview(bytearray(1000))
    assert reader.readinto(room) == 1000
    os.truncate(path, 0)
    with pytest.raises(SourceUnreadable, match="shorter"):
        reader.readinto(room)
    reader.close()
    reader.close()


def test_a_blob_that_is_not_in_it_cannot_be_opened(image: BuiltImage, tmp_path: Path) -> None:
    archive = Archive.open(by_skopeo(image, tmp_path / "a.tar"))
    with pytest.raises(SourceUnreadable, match="missing"):
        archive.content(Digest.of(b"x"))


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image with layers of more than one buffer."""
    entries = LayerSpec(tuple(Entry(f"usr/f{n}", seed=n % 2, size=70_000) for n in range(60)))
    layers = [
        text_layer({"etc/os-release": "NAME=os\n" * 4000}),
        entries,
        text_layer({"etc/motd": "hello\n"}),
    ]
    return build_image(tmp_path_factory.mktemp("large"), layers, compression=["gzip", "zstd", "none"])


@pytest.fixture(scope="module")
def saved(large: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``podman save`` makes of the image in its store."""
    if os.geteuid() != 0:
        pytest.skip("podman unpacks layers as root")
    root = tmp_path_factory.mktemp("saved")
    store = StorageRig(root / "store", "vfs")
    store.take(large.skopeo_name, "localhost/os:1")
    with spoilable(store) as at_a_short_path:
        save = ("save", "--quiet", "--format", "oci-archive", "-o", str(root / "os.tar"))
        at_a_short_path.run("podman", *save, "localhost/os:1")
    return root / "os.tar"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_an_image_goes_from_an_archive_into_a_layout(
    large: BuiltImage, cli: Cli, tmp_path: Path, form: str
) -> None:
    path = by_skopeo(large, tmp_path / "os.tar")
    ran = cli.run(
        "pull", "--json", "--layers", form, "--to", f"oci:{tmp_path}/out:one", f"oci-archive:{path}:v1"
    )
    assert ran.actions == ["reuse"] * 3
    assert {layer["place"] for layer in ran.layers} == {f"oci-archive:{path}"}
    assert (ran.json["manifest_digest"], ran.json["config_digest"]) == (large.digest, large.config_digest)
    assert (ran.json["local_manifest_digest"] == large.digest) == (form == "as-is")
    digests = [layer.digest if form == "as-is" else layer.diff_id for layer in large.layers]
    assert skopeo_reads(f"oci:{tmp_path}/out:one", tmp_path / "read") == digests


def test_a_layer_of_an_archive_is_a_stream_like_any_other(image: BuiltImage, tmp_path: Path) -> None:
    path = by_skopeo(image, tmp_path / "os.tar")

    async def main() -> list[DiffID]:
        async with Engine(tmp_path / "store") as engine:
            plan = await engine.plan(f"oci-archive:{path}")
            measured = []
            for step in plan.layers:
                async with engine.open_layer(step) as tar:
                    nbytes = sum([len(piece) async for piece in tar])
                assert tar.result is not None
                assert nbytes == tar.result.uncompressed_size
                measured.append(tar.result.diff_id)
            return measured

    assert sync.run(main()) == diff_ids(image)


@pytest.mark.slow
def test_what_podman_saved_is_an_image_and_a_place(
    saved: Path, large: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    name = f"oci-archive:{saved}"
    told = cli.run("inspect", "--json", f"{name}:localhost/os:1")
    assert [layer["diff_id"] for layer in told.layers] == diff_ids(large)
    assert told.json["config_digest"] == large.config_digest
    assert told.json["registry_manifest_digest"] is None
    ran = cli.run("pull", "--json", "--to", f"oci:{tmp_path}/out:one", name)
    assert ran.json["config_digest"] == large.config_digest
    assert len(skopeo_reads(f"oci:{tmp_path}/out:one", tmp_path / "read")) == 3
    pushed = push(recompress(large, "zstd", tmp_path / "twin"), "archives/saved:1", registry)
    registry.reset()
    ran = cli.pull("--from", name, pushed)
    assert ran.actions == ["reuse"] * 3
    assert registry.blob_bytes(digests=[layer["digest"] for layer in ran.layers]) == 0
    cli.verified()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["as-is", "uncompressed"])
def test_layers_that_an_archive_has_are_not_fetched(
    large: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path, form: str
) -> None:
    name = push(large, f"archives/same:{form}", registry)
    where = f"oci-archive:{by_skopeo(large, tmp_path / 'os.tar')}"
    planned = cli.pull("--dry-run", "--from", where, "--trust", "computed", name)
    assert planned.actions == ["fetch", "fetch", "reuse"], "claims, and a tar under its own name"
    registry.reset()
    ran = cli.pull("--from", where, "--layers", form, name)
    assert ran.actions == ["reuse"] * 3
    assert [layer["basis"] for layer in ran.layers] == ["claimed", "claimed", "computed"]
    assert registry.blob_bytes(digests=large.layer_digests) == 0
    assert (ran.json["local_manifest_digest"] == large.digest) == (form == "as-is")
    cli.verified()


@pytest.mark.slow
def test_a_layer_that_is_wrong_in_the_archive_is_fetched(
    large: BuiltImage, registry: RegistryServer, cli: Cli, tmp_path: Path
) -> None:
    found = members(large)
    spoilt = bytearray(found[blob_name(large, 1)])
    spoilt[len(spoilt) // 2] ^= 0x55
    path = write(tmp_path / "os.tar", found | {blob_name(large, 1): bytes(spoilt)})
    name = push(large, "archives/wrong:1", registry)
    registry.reset()
    ran = cli.pull("--from", f"oci-archive:{path}", name)
    assert ran.actions == ["reuse", "fetch", "reuse"]
    assert registry.blob_bytes(digests=large.layer_digests) == large.layers[1].size
    cli.verified()
    alone = cli.run("pull", "--to", f"oci:{tmp_path}/out:one", f"oci-archive:{path}", code=3)
    assert large.layers[1].digest in alone.err


@pytest.mark.slow
def test_what_is_wrong_with_an_archive_is_said_in_one_line(
    large: BuiltImage, cli: Cli, tmp_path: Path
) -> None:
    path = by_skopeo(large, tmp_path / "os.tar")
    into = ("pull", "--to", f"oci:{tmp_path}/out")
    assert "it has: v1" in cli.run(*into, f"oci-archive:{path}:v2", code=2).err
    assert "is not there" in cli.run(*into, f"oci-archive:{path}.gz", code=2).err
    found = members(large)
    del found[blob_name(large, 0)]
    write(path, found)
    assert "is not there" in cli.run(*into, f"oci-archive:{path}", code=2).err
    run_tool("gzip", str(path))
    assert "only plain tar files are" in cli.run(*into, f"oci-archive:{path}.gz", code=1).err
    assert "write oci:DIR" in cli.run("pull", "--to", f"oci-archive:{path}", "host.example/os:1", code=1).err


def test_holdings_are_equal_by_what_they_say(image: BuiltImage, tmp_path: Path) -> None:
    path = by_skopeo(image, tmp_path / "a.tar")
    one, two = (place_of(path).find(diff_ids(image)) for _ in range(2))
    assert one == two
    first = diff_ids(image)[0]
    assert one[first] != replaced(two[first], size=1)
