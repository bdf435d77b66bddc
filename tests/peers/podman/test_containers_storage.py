"""The store of podman, buildah and skopeo as a place, made by these tools themselves."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import NotFound, SourceUnreadable
from layertee.image.document import DiffID, Digest
from layertee.image.holding import Basis, Place
from layertee.image.media import Compression
from layertee.image.reference_storage import parse_storage
from layertee.places.podman.place import ContainersStoragePlace
from tests.contract.place_suite import STRANGER, PlaceSuite, diff_ids
from tests.support.compress import digest_of
from tests.support.disk import Disk
from tests.support.podman import DRIVERS, NAME, content, place_of
from tests.support.rig.images import BuiltImage
from tests.support.rig.storage import StorageRig, replace, tar_image
from tests.support.users import closed

pytestmark = pytest.mark.needs_root("these tools unpack layers as root")


def fds() -> list[str]:
    return os.listdir("/proc/self/fd")


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = fds()
    yield
    assert fds() == before


class StorageSuite(PlaceSuite):
    """The suite, for a place whose holdings have no path."""

    driver: str

    def make(self, tmp_path: Path, image: BuiltImage) -> Place:
        self.store = StorageRig(tmp_path / "store", self.driver)
        self.store.take(image.skopeo_name, NAME)
        return place_of(self.store)

    def test_what_is_readable_reads_back_as_what_it_is_called(self, place: Place, image: BuiltImage) -> None:
        for holding in place.find(diff_ids(image)).values():
            assert holding.readable
            assert holding.path is None
            assert holding.basis is Basis.ATTESTED
            read = content(holding)
            assert digest_of(read) == holding.digest == str(holding.diff_id)
            assert len(read) == holding.size == holding.uncompressed_size

    def test_presence_is_looked_at_and_not_remembered(self, place: Place, image: BuiltImage) -> None:
        first, second, third = diff_ids(image)
        found = place.find(diff_ids(image))
        assert set(found) == {first, second, third}
        shutil.rmtree(self.store.tree(first))
        found = place.find(diff_ids(image))
        assert set(found) == {second, third}
        assert len(found.warnings) == 1
        self.store.tarsplit(second).unlink()
        found = place.find(diff_ids(image))
        assert set(found) == {third}
        assert len(found.warnings) == 2
        rows = [row for row in self.store.rows() if row["diff-digest"] != third]
        replace(self.store.layers_json, json.dumps(rows).encode())
        found = place.find(diff_ids(image))
        assert found == {}
        assert len(found.warnings) == 2

    def test_a_file_of_another_size_is_not_the_layer(self, place: Place, image: BuiltImage) -> None:
        holding = place.find(diff_ids(image))[diff_ids(image)[1]]
        with (self.store.tree(holding.diff_id) / "noise").open("ab") as file:
            file.write(b"x")
        with pytest.raises(SourceUnreadable, match="noise': has 30001 bytes, the layer 30000"):
            content(holding)

    def test_a_symlink_is_not_the_layer(self, place: Place, image: BuiltImage, tmp_path: Path) -> None:
        for path in (self.store.tarsplit(diff_ids(image)[0]), self.store.tree(diff_ids(image)[1])):
            os.rename(path, tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
        found = place.find(diff_ids(image))
        assert set(found) == {diff_ids(image)[2]}
        assert len(found.warnings) == 2


class TestOverlay(StorageSuite):
    driver = "overlay"


class TestVfs(StorageSuite):
    driver = "vfs"


# --- the exact tar ------------------------------------------------------------------------

Member = tuple[str, bytes, bytes, dict[str, Any]]


def tar(format: int, *members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, errors="surrogateescape") as archive:
        for name, kind, body, fields in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(body), 0o644
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def odd_tars() -> dict[str, bytes]:
    plain, folder, link, char = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
    not_utf8 = os.fsdecode(b"caf\xe9/\xff\xfe.bin")
    long_name = "/".join(["d" * 200, "e" * 95, "f"])
    capability = bytes.fromhex("0100000200040000" + "00" * 12).decode("latin-1")
    xattrs = {"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.security.capability": capability}
    gnu: tuple[Member, ...] = (
        ("a", folder, b"", {"mode": 0o755}),
        ("a/one", plain, b"1" * 1000, {}),
        ("a/link", link, b"", {"linkname": "a/one"}),
        ("a/symlink", tarfile.SYMTYPE, b"", {"linkname": "../../etc/passwd"}),
        ("a/setuid", plain, b"x", {"mode": 0o6755, "uid": 1000, "gid": 99, "mtime": 1}),
        ("a/empty", plain, b"", {}),
        ("dev", folder, b"", {"mode": 0o700}),
        ("dev/null", char, b"", {"devmajor": 1, "devminor": 3}),
        ("dev/sda", tarfile.BLKTYPE, b"", {"devmajor": 8}),
        ("pipe", tarfile.FIFOTYPE, b"", {}),
        (not_utf8, plain, b"not utf-8", {}),
        (long_name, plain, b"long", {}),
        ("./dot/x", plain, b"dot", {}),
        ("/absolute/x", plain, b"absolute", {}),
    )
    pax: tuple[Member, ...] = (
        ("a", folder, b"", {"mode": 0o755, "pax_headers": {"comment": "c" * 5000}}),
        ("a/one", plain, b"2" * 100, {"pax_headers": xattrs}),
        ("a/.wh.gone", plain, b"", {}),
        ("z/.wh..wh..opq", plain, b"", {}),
        (long_name + "2", plain, b"long", {}),
        (not_utf8, plain, b"not utf-8", {}),
        ("zeros", plain, bytes((9 << 20) + 3), {}),
        ("ελληνικά", plain, b"u", {"mtime": 1.5}),
    )
    small = tar(tarfile.GNU_FORMAT, ("s", plain, b"1", {}))
    return {
        "gnu": tar(tarfile.GNU_FORMAT, *gnu),
        "pax": tar(tarfile.PAX_FORMAT, *pax),
        "ustar": tar(tarfile.USTAR_FORMAT, ("n" * 100, plain, b"v", {}), ("p" * 150 + "/x", plain, b"s", {})),
        "no-trailer": small[:1024],
        "short-record": small[:2048],
        "zeros-after": small + bytes(200_000),
        "junk-after": small + b"junk" * 50_000,
        "nothing": b"",
        "empty": bytes(1024),
    }


@pytest.fixture(scope="module", params=DRIVERS)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StorageRig:
    root = tmp_path_factory.mktemp("odd")
    store = StorageRig(root / "store", str(request.param))
    store.take(tar_image(root / "oci", list(odd_tars().values())), NAME)
    return store


@pytest.mark.parametrize("kind", odd_tars())
@pytest.mark.parametrize("at_once", [1 << 20, 777])
def test_whatever_the_tar_was_it_comes_back_to_the_byte(odd: StorageRig, kind: str, at_once: int) -> None:
    want = odd_tars()[kind]
    diff_id = DiffID(digest_of(want))
    place = place_of(odd)
    found = place.find([diff_id])
    assert found.warnings == ()
    assert content(found[diff_id], at_once) == want


def linked_tar(name: str, target: str) -> bytes:
    """A tar with ``lib -> target`` and a file called ``name`` after it, unpacked through the link."""
    members: list[Member] = [
        ("usr/lib", tarfile.DIRTYPE, b"", {"mode": 0o755}),
        ("lib", tarfile.SYMTYPE, b"", {"linkname": target}),
        (name, tarfile.REGTYPE, b"odd", {}),
        ("usr/lib/y", tarfile.REGTYPE, b"plain", {}),
    ]
    return tar(tarfile.GNU_FORMAT, *members)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../../usr/lib"])
def test_a_file_that_was_unpacked_through_a_link_is_read_through_it(
    driver: str, target: str, tmp_path: Path
) -> None:
    raw = linked_tar("lib/x", target)
    store = StorageRig(tmp_path / "store", driver)
    store.take(tar_image(tmp_path / "oci", [raw]), NAME)
    diff_id = DiffID(digest_of(raw))
    assert content(place_of(store).find([diff_id])[diff_id]) == raw
    link = store.tree(diff_id) / "lib"
    link.unlink()
    link.symlink_to(tmp_path / "outside")  # changed since: what is there is not the layer's
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x").write_bytes(b"odd")
    with pytest.raises(SourceUnreadable, match="lib"):
        content(place_of(store).find([diff_id])[diff_id])


def test_a_file_of_another_user_says_how_to_become_who_may_read_it(
    store: StorageRig, image: BuiltImage
) -> None:
    diff_id = diff_ids(image)[2]
    holding = place_of(store).find([diff_id])[diff_id]
    with closed(store.tree(diff_id) / "etc/b/c"), pytest.raises(SourceUnreadable) as failed:
        content(holding)
    assert failed.value.hint == "podman-unshare"


def test_a_driver_may_be_on_another_disk(tmp_path: Path) -> None:
    raw = linked_tar("lib/x", "usr/lib")
    store = StorageRig(tmp_path / "store", "overlay")
    store.take(tar_image(tmp_path / "oci", [raw]), NAME)
    diff_id = DiffID(digest_of(raw))
    place = place_of(store)
    for name in ("overlay", "overlay-layers"):
        (tmp_path / "store" / name).rename(tmp_path / name)
        (tmp_path / "store" / name).symlink_to(tmp_path / name)
    assert content(place.find([diff_id])[diff_id]) == raw


def test_a_name_that_leads_back_up_is_not_followed(tmp_path: Path) -> None:
    raw = linked_tar("a/../b", "usr/lib")
    store = StorageRig(tmp_path / "store", "overlay")
    store.take(tar_image(tmp_path / "oci", [raw]), NAME)
    with pytest.raises(SourceUnreadable):
        content(place_of(store).find([DiffID(digest_of(raw))])[DiffID(digest_of(raw))])


def test_a_sparse_file_that_the_store_itself_cannot_give_back_is_unreadable(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(5 << 20)
        file.seek(1 << 20)
        file.write(b"data" * 1024)
    command = ["tar", "-C", str(tmp_path), "-S", "--format=posix", "-cf", "-", "holes"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    store = StorageRig(tmp_path / "store", "vfs")
    store.take(tar_image(tmp_path / "oci", [raw]), NAME)
    with pytest.raises(SourceUnreadable, match="describes more than"):
        content(place_of(store).find([DiffID(digest_of(raw))])[DiffID(digest_of(raw))])


@pytest.mark.slow
def test_what_buildah_commits_comes_back_to_the_byte(store: StorageRig, tmp_path: Path) -> None:
    """A derived image: files added, changed, removed, linked, over the layers of its base."""
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/setuid").write_bytes(b"#!/bin/true\n")
    (tree / "deep/setuid").chmod(0o4755)
    (tree / "deep/hole").touch()
    os.truncate(tree / "deep/hole", 3 << 20)
    os.link(tree / "deep/setuid", tree / "deep/again")
    (tree / os.fsdecode(b"\xff\xfe")).write_bytes(b"not utf-8")
    (tree / ("n" * 240)).write_bytes(b"long")
    os.setxattr(tree / "deep/setuid", "user.note", b"kept")
    container = store.run("buildah", "from", NAME)
    store.run("buildah", "copy", container, str(tree), "/etc/new")
    mounted = Path(store.run("buildah", "mount", container))
    (mounted / "etc/a").unlink()
    (mounted / "noise").chmod(0o600)
    with (mounted / "etc/b/c").open("a") as file:
        file.write(" and more")
    store.run("buildah", "umount", container)
    store.run("buildah", "commit", "--quiet", container, "localhost/derived:1")
    store.run("buildah", "rm", container)
    store.unmount()

    place = place_of(store)
    derived = place.resolve("localhost/derived:1")
    found = place.find([layer.diff_id for layer in derived.image.layers])
    assert len(found) == 4
    for diff_id, holding in found.items():
        assert digest_of(content(holding)) == diff_id
    top = derived.image.layers[-1].diff_id
    with tarfile.open(fileobj=io.BytesIO(content(found[top]))) as archive:
        names = archive.getnames()
    assert {"etc/.wh.a", "etc/b/c", "noise", "etc/new/deep/setuid"} <= set(names)


# --- what may have happened to it -------------------------------------------------------------


def test_a_change_without_a_trace_is_left_to_the_hash(store: StorageRig, image: BuiltImage) -> None:
    diff_id = diff_ids(image)[1]
    path = store.tree(diff_id) / "noise"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"changed")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    read = content(place_of(store).find([diff_id])[diff_id])
    assert len(read) == image.layers[1].uncompressed_size
    assert digest_of(read) != diff_id


@pytest.mark.parametrize("kind", ["gone", "symlink", "fifo", "directory", "device", "parent", "short"])
def test_what_is_not_the_file_any_more_is_not_read(
    store: StorageRig, image: BuiltImage, kind: str, tmp_path: Path
) -> None:
    diff_id = diff_ids(image)[2]
    holding = place_of(store).find([diff_id])[diff_id]
    path = store.tree(diff_id) / "etc/b/c"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c").write_bytes(path.read_bytes())
    if kind == "short":
        os.truncate(path, 3)
    else:
        path.unlink()
    match kind:
        case "symlink":
            path.symlink_to(outside / "c")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            os.mknod(path, 0o20600, os.makedev(1, 5))
        case "parent":
            path.parent.rmdir()
            path.parent.symlink_to(outside)
    with pytest.raises(SourceUnreadable, match="etc/b"):
        content(holding)


def test_a_file_swapped_between_two_looks_is_not_read(
    store: StorageRig, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    diff_id = diff_ids(image)[1]
    holding = place_of(store).find([diff_id])[diff_id]
    path = store.tree(diff_id) / "noise"
    real = os.open

    def open_late(name: Any, *args: Any, **kwargs: Any) -> int:
        if name == b"noise":
            other = path.with_name("other")
            other.write_bytes(path.read_bytes())
            os.rename(other, path)
        return real(name, *args, **kwargs)

    monkeypatch.setenv("LAYERTEE_CORE", "python")  # between whose looks there is time
    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(SourceUnreadable, match="replaced"):
        content(holding)


def test_a_layer_removed_while_it_is_read_is_unreadable(store: StorageRig, image: BuiltImage) -> None:
    diff_id = diff_ids(image)[2]
    holding = place_of(store).find([diff_id])[diff_id]
    assert holding.readable
    reader = holding.open()
    try:
        room = memoryview(bytearray(100))
        assert reader.readinto(room) == 100  # in the first header
        shutil.rmtree(store.tree(diff_id))
        with pytest.raises(SourceUnreadable, match="No such file"):
            while reader.readinto(room):
                pass
    finally:
        reader.close()
        reader.close()


def test_a_file_cut_short_while_it_is_read_is_unreadable(store: StorageRig, image: BuiltImage) -> None:
    diff_id = diff_ids(image)[1]
    holding = place_of(store).find([diff_id])[diff_id]
    assert holding.readable
    reader = holding.open()
    try:
        room = memoryview(bytearray(1000))
        assert reader.readinto(room) == 1000
        os.truncate(store.tree(diff_id) / "noise", 20_000)
        with pytest.raises(SourceUnreadable, match=r"cut short|has 20000 bytes"):
            while reader.readinto(room):
                pass
    finally:
        reader.close()


@pytest.mark.parametrize("name", ["../../../../secret", "/../secret", "etc/../../secret", "a\0b", "a/" * 200])
def test_no_name_in_the_tarsplit_leads_out(
    store: StorageRig, image: BuiltImage, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"sssss")
    diff_id = diff_ids(image)[0]
    path = store.tarsplit(diff_id)
    text = gzip.decompress(path.read_bytes()).replace(b'"etc/a"', json.dumps(name).encode())
    path.write_bytes(gzip.compress(text))
    with pytest.raises(SourceUnreadable, match="is not a name to look for"):
        content(place_of(store).find([diff_id])[diff_id])


def test_a_truncated_tarsplit_is_unreadable(store: StorageRig, image: BuiltImage) -> None:
    diff_id = diff_ids(image)[0]
    path = store.tarsplit(diff_id)
    os.truncate(path, path.stat().st_size - 20)
    holding = place_of(store).find([diff_id])[diff_id]
    with pytest.raises(SourceUnreadable, match=r"tar-split\.gz"):
        content(holding)


def test_whatever_the_disk_does_the_place_answers(filled: StorageRig, image: BuiltImage) -> None:
    disk = Disk()
    for n in itertools.count(1):
        place = place_of(filled)
        with disk.watched(n):
            found = place.find(diff_ids(image))
        failed = disk.tripped and disk.calls[n - 1][0] != "close"
        assert found.warnings or len(found) == 3 or not failed
        if not disk.tripped:
            break
    assert n > 20


def test_whatever_the_disk_does_while_reading_it_is_typed_and_nothing_stays_open(
    filled: StorageRig, image: BuiltImage
) -> None:
    diff_id = diff_ids(image)[2]
    holding = place_of(filled).find([diff_id])[diff_id]
    disk = Disk()
    for n in itertools.count(1):
        with disk.watched(n):
            try:
                assert digest_of(content(holding)) == diff_id
            except SourceUnreadable:
                assert disk.tripped
        if not disk.tripped:
            break
    assert n > 10


@pytest.mark.parametrize("call", ["preadv", "dup"])
def test_a_failing_call_names_what_it_was_for(
    filled: StorageRig, image: BuiltImage, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    diff_id = diff_ids(image)[1]
    holding = place_of(filled).find([diff_id])[diff_id]

    def broken(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setenv("LAYERTEE_CORE", "python")  # whose calls can be broken
    monkeypatch.setattr(os, call, broken)
    with pytest.raises(SourceUnreadable, match=f"{filled.root}/.*: Input/output error"):
        content(holding)


# --- records ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"flags": {"incomplete": True}}, "it is not complete"),
        ({"toc_digest": str(STRANGER)}, "it was pulled in part"),
        ({"diff_size": -1}, "its size is not recorded"),
        ({"diff_size": None}, "its size is not recorded"),
        ({"diff_size": "12"}, "its size is not recorded"),
    ],
)
def test_a_layer_that_cannot_be_had_is_said_to_be_so(
    store: StorageRig, image: BuiltImage, fields: dict[str, Any], why: str
) -> None:
    store.edit(**fields)
    place = place_of(store)
    found = place.find(diff_ids(image))
    assert found == {}
    assert len(found.warnings) == 3
    assert all(why in warning and store.name in warning for warning in found.warnings)
    found = place.find([STRANGER])
    assert found == {}
    assert found.warnings == (), "of what nobody asked for, nothing is said"


def test_a_layer_pulled_in_part_is_known_by_what_the_image_said(store: StorageRig, image: BuiltImage) -> None:
    wanted = diff_ids(image)[0]
    store.edit(diff_digest=None, flags={"expected-layer-diffid": wanted})
    place = place_of(store)
    found = place.find([wanted])
    assert found == {}
    assert "in part" in found.warnings[0]


def test_another_layer_of_the_same_content_serves_as_well(store: StorageRig, image: BuiltImage) -> None:
    """One content over two parents is two layers; the first of them may be damaged."""
    wanted = diff_ids(image)[0]
    rows = store.rows()
    twin = {**store.row(wanted), "id": "f" * 64}
    broken = {**twin, "id": "e" * 64, "flags": {"incomplete": True}}
    shutil.copytree(
        store.tree(wanted), Path(str(store.tree(wanted)).replace(twin_id(store, wanted), "f" * 64))
    )
    shutil.copy(store.tarsplit(wanted), store.layers_json.parent / f"{'f' * 64}.tar-split.gz")
    shutil.rmtree(store.tree(wanted))
    replace(store.layers_json, json.dumps([broken, *rows, twin]).encode())
    place = place_of(store)
    found = place.find([wanted])
    assert digest_of(content(found[wanted])) == wanted
    assert found.warnings == ()


def twin_id(store: StorageRig, diff_id: DiffID) -> str:
    return str(store.row(diff_id)["id"])


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{}", b'"x"', b"\xff", b"[" * 500_000, b"[" + b"9" * 5000 + b"]"],
    ids=lambda text: text[:8].decode("latin-1"),
)
def test_records_that_make_no_sense_are_a_warning(store: StorageRig, image: BuiltImage, text: bytes) -> None:
    replace(store.layers_json, text)
    place = place_of(store)
    found = place.find(diff_ids(image))
    assert found == {}
    assert "layers.json" in found.warnings[0]


def test_records_without_meaning_are_passed_over(store: StorageRig, image: BuiltImage) -> None:
    good = store.rows()
    wanted = diff_ids(image)
    bad: list[object] = [
        None,
        7,
        [],
        {},
        {**good[0], "id": 7},
        {**good[0], "id": "../../" + "a" * 58},
        {**good[0], "id": "a" * 63},
        {**good[0], "diff-digest": "sha256:zz"},
        {**good[0], "id": "b" * 64, "flags": 5, "compressed-diff-digest": 3, "compression": "x"},
    ]
    replace(store.layers_json, json.dumps([*bad, *good]).encode())
    assert set(place_of(store).find(wanted)) == set(wanted)
    replace(store.layers_json, b"null")
    assert place_of(store).find(wanted) == {}


def test_a_store_that_is_gone_or_half_there_holds_nothing(store: StorageRig, image: BuiltImage) -> None:
    place = place_of(store)
    assert place.exists()
    store.layers_json.unlink()
    found = place.find(diff_ids(image))
    assert found == {}
    assert "layers.json" in found.warnings[0]
    shutil.rmtree(store.root)
    assert not place.exists()
    found = place.find(diff_ids(image))
    assert found == {}
    assert found.warnings == (f"{place.name}: there is no store",)
    with pytest.raises(NotFound):
        place.resolve(NAME)


def test_records_of_any_size_are_read_within_bounds(
    store: StorageRig, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.layers_json.open("r+b") as file:
        file.truncate(200 << 20)
    began = time.process_time()
    place = place_of(store)
    found = place.find(diff_ids(image))
    assert found == {}
    assert "larger than" in found.warnings[0]
    assert time.process_time() - began < 1


@pytest.mark.alone
def test_ten_thousand_layers_are_looked_through_in_no_time(store: StorageRig, image: BuiltImage) -> None:
    rows = store.rows()
    for n in range(10_000):
        other = hashlib.sha256(str(n).encode()).hexdigest()
        rows.insert(0, {**rows[-1], "id": other, "diff-digest": f"sha256:{other}", "uidset": [*range(20)]})
    replace(store.layers_json, json.dumps(rows).encode())
    began = time.process_time()
    assert len(place_of(store).find(diff_ids(image))) == 3
    assert time.process_time() - began < 1


def test_nothing_in_the_store_is_changed_or_locked(store: StorageRig, image: BuiltImage) -> None:
    def look() -> dict[str, tuple[int, int, int]]:
        paths = [store.root, *store.root.rglob("*")]
        return {str(p): (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for p in paths for s in [p.lstat()]}

    before = look()
    place = place_of(store)
    for holding in place.find(diff_ids(image)).values():
        content(holding)
    place.resolve(NAME)
    assert look() == before


def test_without_a_driver_whatever_is_there_is_looked_into(filled: StorageRig, image: BuiltImage) -> None:
    place = ContainersStoragePlace.of(parse_storage(f"containers-storage:[{filled.root}]"))
    found = place.find(diff_ids(image))
    assert len(found) == 3
    assert found.warnings == ()
    other = next(driver for driver in DRIVERS if driver != filled.driver)
    place = ContainersStoragePlace.of(parse_storage(f"containers-storage:[{other}@{filled.root}]"))
    assert not place.exists()


def test_an_additional_store_is_looked_into_after_the_first(
    store: StorageRig, image: BuiltImage, tmp_path: Path
) -> None:
    empty = StorageRig(tmp_path / "empty", store.driver)
    empty.take(tar_image(tmp_path / "oci", [odd_tars()["ustar"]]), "localhost/other:1")
    name = f"containers-storage:[{store.driver}@{empty.root}:{store.driver}.imagestore={store.root}]"
    place = ContainersStoragePlace.of(parse_storage(name))
    found = place.find([*diff_ids(image), DiffID(digest_of(odd_tars()["ustar"]))])
    assert len(found) == 4
    assert place.resolve(NAME).names == (NAME,)
    assert place.resolve("localhost/other:1").names == ("localhost/other:1",)


@pytest.mark.parametrize("state", ["gone", "empty", "closed"])
def test_an_additional_store_that_cannot_be_looked_into_is_named(
    store: StorageRig, image: BuiltImage, tmp_path: Path, state: str
) -> None:
    other = tmp_path / "other"
    if state != "gone":
        other.mkdir()
    name = f"containers-storage:[{store.driver}@{store.root}:{store.driver}.imagestore={other}]"
    place = ContainersStoragePlace.of(parse_storage(name))
    with closed(other) if state == "closed" else nullcontext():
        found = place.find([*diff_ids(image), DiffID(digest_of(b"missing"))])
        assert len(found) == len(set(diff_ids(image)))
        assert any(str(other) in warning for warning in found.warnings)
        with pytest.raises(NotFound, match=str(other)):
            place.resolve("localhost/nothing:1")


def test_a_closed_directory_of_layers_says_how_to_become_who_may_read_it(
    store: StorageRig, image: BuiltImage
) -> None:
    diff_id = diff_ids(image)[0]
    holding = place_of(store).find([diff_id])[diff_id]
    with closed(store.tree(diff_id).parent), pytest.raises(SourceUnreadable) as failed:
        holding.open()
    assert failed.value.hint == "podman-unshare"


@pytest.mark.slow
def test_podman_may_remove_the_image_at_any_time(store: StorageRig, image: BuiltImage) -> None:
    """Found or not, read or unreadable: never anything else, while podman removes and skopeo brings."""
    command = ["podman", "--root", str(store.root), "--runroot", f"{store.root}.run"]
    command += ["--storage-driver", store.driver, "rmi", "--force", NAME]
    n_read = 0
    removing = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while removing.poll() is None:
            for diff_id, holding in place_of(store).find(diff_ids(image)).items():
                try:
                    read = content(holding)
                except SourceUnreadable:
                    continue
                assert digest_of(read) == diff_id
                n_read += 1
    finally:
        _, errors = removing.communicate()
    store.unmount()
    assert removing.returncode == 0, errors
    assert n_read > 0
    assert place_of(store).find(diff_ids(image)) == {}
    store.take(image.skopeo_name, NAME)
    assert len(place_of(store).find(diff_ids(image))) == 3


def test_a_digest_is_what_a_holding_is_called_by(filled: StorageRig, image: BuiltImage) -> None:
    (holding,) = place_of(filled).find(diff_ids(image)[:1]).values()
    assert holding.digest == Digest(image.layers[0].diff_id)
    assert holding.compression is Compression.NONE
