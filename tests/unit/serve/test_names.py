"""Which names of the distribution API an image has, and what is such a name at all."""

from __future__ import annotations

import pytest

from layertee.errors import InvalidReference
from layertee.serve.names import (
    OfferedName,
    is_repository,
    is_tag,
    offered_name,
    offered_ref,
    registry_name,
)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "os/image",
        "registry.example.com/os/image",
        "a/b/c/d",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a---b",
        "0/1",
        "a" * 255,
        "docker.io/library/x",
    ],
)
def test_a_repository_of_the_distribution_api(name: str) -> None:
    assert is_repository(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "os/Image",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        "a/./b",
        ".a",
        "a.",
        "a..b",
        "a___b",
        "_a",
        "-a",
        "a:5000/b",
        "[::1]/a",
        "a b",
        "a\n",
        "a/b\n",
        "a%2fb",
        "ä",
        "a\x00",
        "a" * 256,
    ],
)
def test_what_is_no_repository(name: str) -> None:
    assert not is_repository(name)


@pytest.mark.parametrize(
    "tag", ["latest", "1.0", "_x", "V1", "a-b_c.d", "sha256-" + "0" * 64 + ".sig", "a" * 128]
)
def test_a_tag(tag: str) -> None:
    assert is_tag(tag)


@pytest.mark.parametrize("tag", ["", ".", "-a", ".a", "a/b", "a:b", "a+b", "a\n", "a@b", "ä", "a" * 129])
def test_what_is_no_tag(tag: str) -> None:
    assert not is_tag(tag)


@pytest.mark.parametrize(
    ("name", "repositories", "tag"),
    [
        ("registry.example.com/os/image:stable", ("registry.example.com/os/image", "os/image"), "stable"),
        ("Registry.Example.com/os/image:V1", ("registry.example.com/os/image", "os/image"), "V1"),
        ("localhost/os:1", ("localhost/os", "os"), "1"),
        ("localhost:5000/os:1", ("localhost_5000/os", "os"), "1"),
        ("[::1]:5000/a/os:1", ("a/os",), "1"),
        ("docker.io/library/x:2", ("docker.io/library/x", "library/x"), "2"),
        ("docker.io/x", ("docker.io/library/x", "library/x"), "latest"),
        ("index.docker.io/a/x", ("docker.io/a/x", "a/x"), "latest"),
        ("os/image:1", ("os/image",), "1"),
        ("os:1", ("os",), "1"),
        ("os", ("os",), "latest"),
        ("a.io/b@sha256:" + "1" * 64, ("a.io/b", "b"), None),
        ("a.io/b:1@sha256:" + "1" * 64, ("a.io/b", "b"), "1"),
        ("a.io/" + "b" * 250, ("a.io/" + "b" * 250, "b" * 250), "latest"),
        ("a.io/" + "b" * 251, ("b" * 251,), "latest"),
    ],
)
def test_an_image_is_offered_with_its_registry_and_without(
    name: str, repositories: tuple[str, ...], tag: str | None
) -> None:
    found = offered_name(name)
    assert found.repositories == repositories
    assert found.tag == tag
    assert all(is_repository(one) for one in found.repositories)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "Image:1",
        "a.io/Image",
        "a:b:c",
        "a:-",
        "../x",
        "a/../b",
        "a.io/",
        "a b",
        "x\n",
        "a\x00b",
        "user:secret@a.io/b",
        "a@sha256:1",
        "a" * 256,
        "0" * 64,
    ],
)
def test_what_is_no_name_of_an_image(name: str) -> None:
    with pytest.raises(InvalidReference):
        offered_name(name)


def test_a_name_in_a_layout_may_be_a_tag_only() -> None:
    assert offered_ref("v1", "stick") == OfferedName("", "stick", "v1")
    assert offered_ref(None, "stick") == OfferedName("", "stick", "latest")
    assert offered_ref("os:1", "stick") == OfferedName("", "os", "1")
    assert offered_ref("a.io/os", "stick") == OfferedName("a.io", "os", "latest")
    with pytest.raises(InvalidReference):
        offered_ref("a+b", "stick")


def test_a_name_is_shown_as_people_write_it() -> None:
    for name in ("a.io/os:1", "os:1", "localhost:5000/x/y:z"):
        assert str(offered_name(name)) == name
    assert str(offered_name("a.io/b@sha256:" + "1" * 64)) == "a.io/b"


def test_docker_hub_has_one_name() -> None:
    assert {registry_name(one) for one in ("docker.io", "index.docker.io", "registry-1.docker.io")} == {
        "docker.io"
    }
    assert registry_name("Localhost:5000") == "localhost:5000"
