"""Names in a tree of somebody else: symlinks are followed as if the tree were all there is, and never out of
it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertee.disk.tree import Tree
from layertee.errors import SourceUnreadable


@pytest.fixture
def top(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr/lib/deep").mkdir(parents=True)
    (root / "usr/lib/foo").write_bytes(b"inside")
    (root / "usr/lib/deep/bar").write_bytes(b"deep")
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/foo").write_bytes(b"OUTSIDE")
    (tmp_path / "secret").write_bytes(b"OUTSIDE")
    return root


@pytest.fixture
def tree(top: Path) -> Iterator[Tree]:
    before = len(os.listdir("/proc/self/fd"))
    with Tree.open(top) as tree:
        yield tree
    assert len(os.listdir("/proc/self/fd")) == before


def read(tree: Tree, name: bytes) -> bytes:
    return tree.read(name, 100)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("lib", "usr/lib"),
        ("lib", "./usr//lib/"),
        ("lib", "/usr/lib"),
        ("lib", "usr/../usr/lib"),
        ("lib", "../usr/lib"),  # above the top is the top
        ("lib", "../../../../usr/lib"),
        ("lib", "usr/lib/deep/.."),
    ],
)
def test_a_directory_that_is_a_link_is_found_within_the_tree(
    tree: Tree, top: Path, link: str, target: str
) -> None:
    (top / link).symlink_to(target)
    assert read(tree, b"lib/foo") == b"inside"
    assert read(tree, b"usr/lib/foo") == b"inside"
    assert read(tree, b"lib/deep/bar") == b"deep"
    assert tree.size(b"lib/foo") == 6
    with tree.sub("lib/deep") as deep:
        assert read(deep, b"bar") == b"deep"


def test_links_lead_to_links(tree: Tree, top: Path) -> None:
    (top / "a").symlink_to("b/deep")
    (top / "b").symlink_to("/c")
    (top / "c").symlink_to("usr/lib")
    assert read(tree, b"a/bar") == b"deep"
    assert read(tree, b"b/foo") == b"inside"


@pytest.mark.parametrize(
    "target", ["../secret", "/etc", "/proc/self/root", "../usr", "x", "x/../..", "usr/lib/foo"]
)
def test_no_link_leads_out_of_the_tree(tree: Tree, top: Path, target: str) -> None:
    (top / "x").symlink_to(target)
    for name in (b"x/foo", b"x/passwd", b"x/lib/foo", b"x"):
        try:
            found = read(tree, name)
        except SourceUnreadable:
            continue
        assert found == b"inside"


def test_circles_end(tree: Tree, top: Path) -> None:
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    (top / "c").symlink_to("c/c")
    for name in (b"a/x", b"c/x"):
        with pytest.raises(SourceUnreadable, match="Too many levels of symbolic links"):
            read(tree, name)


def test_a_file_that_is_a_link_is_no_file(tree: Tree, top: Path) -> None:
    (top / "x").symlink_to("usr/lib/foo")
    with pytest.raises(SourceUnreadable, match="not a regular file"):
        read(tree, b"x")


TARGETS = st.lists(
    st.sampled_from(["..", ".", "a", "b", "c", "usr", "lib", "", "/"]), min_size=1, max_size=6
).map("/".join)


@settings(max_examples=150, deadline=None)
@given(
    links=st.dictionaries(st.sampled_from("abc"), TARGETS.filter(bool), max_size=3),
    first=st.sampled_from("abc"),
    rest=TARGETS,
)
def test_whatever_links_there_are_what_is_read_is_in_the_tree(
    links: dict[str, str], first: str, rest: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("tree")
    root = base / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/f").write_bytes(b"inside")
    (base / "f").write_bytes(b"OUTSIDE")
    (base / "usr/lib").mkdir(parents=True)
    (base / "usr/lib/f").write_bytes(b"OUTSIDE")
    for name, target in links.items():
        (root / name).symlink_to(target)
    with Tree.open(root) as tree, contextlib.suppress(SourceUnreadable):
        assert tree.read(f"{first}/{rest}/f".encode(), 100) == b"inside"
