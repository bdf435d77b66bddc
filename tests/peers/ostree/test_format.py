"""Names of refs and metadata of commits: as ostree and its importer of images write them."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layertee.errors import DocumentError, NotFound, StoreCorrupt
from layertee.image.document import Digest
from layertee.places.ostree.gvariant import commit_strings
from layertee.places.ostree.names import IMAGES, escape, layer_digest, layer_ref, unescape
from layertee.places.ostree.repo import OSTreeRepo
from tests.support.rig.ostree import OSTreeRig

A = "a" * 64
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60) | st.text("a/_-:.é ", min_size=1)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> OSTreeRig:
    root = tmp_path_factory.mktemp("ostree")
    (root / "tree").mkdir()
    (root / "tree" / "a").write_text("a")
    return OSTreeRig.create(root / "repo")


def commit(rig: OSTreeRig, branch: str, *options: str) -> str:
    rig.run("commit", f"--branch={branch}", f"--tree=dir={rig.root.parent / 'tree'}", *options)
    return rig.commit_of(branch)


# --- names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("sha256:abc", "sha256_3A_abc"),
        ("docker://quay.io/os/image:latest", "docker_3A__2F__2F_quay_2E_io/os/image_3A_latest"),
        ("containers-storage:localhost/x:latest", "containers-storage_3A_localhost/x_3A_latest"),
        ("a_b", "a__b"),
        ("a/", "a_2F_"),
        ("/a", "_2F_a"),
        ("a//b", "a/_2F_b"),
        ("a-/b", "a-_2F_b"),
        ("é", "_E9_"),
        ("a\t\N{GRINNING FACE}", "a_09__1F600_"),
    ],
)
def test_a_name_is_escaped_as_the_importer_does(name: str, ref: str) -> None:
    assert escape(name) == ref
    assert unescape(ref) == name


@settings(max_examples=500)
@given(NAMES)
@example("_")
@example("__3A_")
@example("_3A_")
def test_what_was_escaped_comes_back_and_makes_a_ref(name: str) -> None:
    ref = escape(name)
    assert unescape(ref) == name
    assert ref.isascii()
    assert all(part and set(part) != {"."} for part in ref.split("/"))


@given(NAMES, NAMES)
def test_two_names_have_two_refs(one: str, other: str) -> None:
    assert (one == other) == (escape(one) == escape(other))


@pytest.mark.parametrize(
    "ref", ["", "a:b", "_", "a_", "_3a_", "_41_", "_5F_", "a/", "/a", "_110000_", "_FFFFFF_"]
)
def test_what_no_name_gives_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="not an escaped name"):
        unescape(ref)


def test_the_refs_of_layers_and_images() -> None:
    digest = Digest(f"sha256:{A}")
    assert layer_ref(digest) == f"ostree/container/blob/sha256_3A_{A}"
    assert layer_digest(layer_ref(digest)) == digest
    assert escape("docker://h/x:1") == "docker_3A__2F__2F_h/x_3A_1"
    for stranger in ("ostree/container/blob/x", f"ostree/container/image/sha256_3A_{A}"):
        with pytest.raises(ValueError, match="not"):
            layer_digest(stranger)
    with pytest.raises(ValueError, match="empty"):
        escape("")


def test_ostree_takes_these_names(rig: OSTreeRig) -> None:
    for name in (
        "docker://quay.io/os_2/image:latest",
        "oci:/srv/a b//c:é",
        "containers-storage:[overlay@/x]y",
    ):
        ref = f"{IMAGES}/{escape(name)}"
        one = commit(rig, ref)
        assert OSTreeRepo.open(rig.root).refs(IMAGES)[ref] == one


# --- commits --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 200, 255, 256, 300, 40_000, 65_500, 65_536, 120_000])
def test_strings_of_any_size_come_out_as_ostree_put_them_in(rig: OSTreeRig, size: int) -> None:
    first = "x" * size
    one = commit(
        rig,
        "sizes",
        f"--add-metadata-string=ostree.manifest={first}",
        "--add-metadata=number=uint32 7",
        "--add-metadata=list=['a', 'b']",
        '--add-metadata-string=ostree.container.image-config={"a": "é\'"}',
    )
    assert OSTreeRepo.open(rig.root).metadata(one) == {
        "ostree.manifest": first,
        "ostree.container.image-config": '{"a": "é\'"}',
    }


def test_a_commit_without_metadata_has_none(rig: OSTreeRig) -> None:
    assert OSTreeRepo.open(rig.root).metadata(commit(rig, "bare", "--no-bindings")) == {}


def test_damage_to_any_byte_of_a_commit_raises_nothing_but_a_typed_error(rig: OSTreeRig) -> None:
    one = commit(rig, "cut", "--add-metadata-string=ostree.manifest=text", "--add-metadata-string=b=c")
    raw = rig.commit_path(one).read_bytes()
    for end in range(len(raw)):
        try:
            commit_strings(raw[:end])
        except DocumentError:
            continue
    for at in range(len(raw)):
        for value in (0, raw[at] ^ 1, 255):
            try:
                commit_strings(raw[:at] + bytes([value]) + raw[at + 1 :])
            except DocumentError:
                continue


@given(st.binary(max_size=400))
def test_nothing_but_a_typed_error_comes_of_noise(raw: bytes) -> None:
    with suppress(DocumentError):
        commit_strings(raw)


def test_a_commit_is_what_hashes_to_its_name(rig: OSTreeRig) -> None:
    one = commit(rig, "damaged", "--add-metadata-string=a=b")
    path = rig.commit_path(one)
    whole = path.read_bytes()
    assert hashlib.sha256(whole).hexdigest() == one
    repo = OSTreeRepo.open(rig.root)
    path.unlink()
    with pytest.raises(DocumentError, match="No such file"):
        repo.metadata(one)
    path.write_bytes(whole.replace(b"b", b"c", 1))
    with pytest.raises(DocumentError, match="is damaged") as caught:
        repo.metadata(one)
    assert caught.value.hint == "ostree-fsck"
    path.write_bytes(whole)
    partial = rig.root / "state" / f"{one}.commitpartial"
    partial.write_bytes(b"f")
    with pytest.raises(DocumentError, match="partly"):
        repo.metadata(one)
    partial.unlink()
    assert repo.metadata(one)["a"] == "b"


# --- repositories ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bare", "bare-user", "bare-user-only", "archive"])
def test_a_repository_of_any_mode_is_read(tmp_path: Path, mode: str) -> None:
    (tmp_path / "tree").mkdir()
    rig = OSTreeRig.create(tmp_path / "repo", mode)
    one = commit(rig, "x/y", "--add-metadata-string=a=b")
    repo = OSTreeRepo.open(rig.root)
    assert repo.refs("x") == {"x/y": one}
    assert repo.metadata(one)["a"] == "b"


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="/sysroot/ostree/repo"):
        OSTreeRepo.open(tmp_path / "absent")
    with pytest.raises(StoreCorrupt, match="not an ostree repository"):
        OSTreeRepo.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreCorrupt, match="not an ostree repository"):
        OSTreeRepo.open(tmp_path / "file")


def test_refs_that_name_no_commit_are_left_out(rig: OSTreeRig) -> None:
    one = commit(rig, "odd/good")
    odd = rig.root / "refs" / "heads" / "odd"
    (odd / "empty").touch()
    (odd / "short").write_text(one[:-1])
    (odd / "loop").symlink_to("loop")
    subprocess.run(["mkfifo", odd / "pipe"], check=True)
    (odd / "alias").symlink_to("good")
    repo = OSTreeRepo.open(rig.root)
    try:
        assert repo.refs("odd", "not/there") == {"odd/good": one, "odd/alias": one}
        assert ["4 refs name no commit" in warning for warning in repo.warnings] == [True]
    finally:
        for name in ("empty", "short", "loop", "pipe", "alias"):
            (odd / name).unlink()
