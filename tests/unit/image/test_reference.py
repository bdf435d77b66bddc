"""The grammar of image references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import InvalidReference
from layertee.image.document import Digest
from layertee.image.reference import (
    ArchiveReference,
    LayoutReference,
    Reference,
    ShortName,
    parse_alias,
    parse_name,
    parse_reference,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("docker://quay.io/fedora/fedora-bootc:42", "quay.io/fedora/fedora-bootc:42"),
        ("quay.io/fedora/fedora-bootc", "quay.io/fedora/fedora-bootc:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("registry:5000/a/b:c", "registry:5000/a/b:c"),
        ("127.0.0.1:5000/a/b__c/d-e--f.g", "127.0.0.1:5000/a/b__c/d-e--f.g:latest"),
        ("[::1]:5000/x:y", "[::1]:5000/x:y"),
        ("docker://[2001:DB8::1]/x", "[2001:db8::1]/x:latest"),
        ("Registry.Example.COM/x", "registry.example.com/x:latest"),
        ("HOST/x", "HOST/x:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("docker://docker.io/bitnami/redis", "docker.io/bitnami/redis:latest"),
        (f"quay.io/a/b@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        (f"quay.io/a/b:t@{DIGEST}", f"quay.io/a/b:t@{DIGEST}"),
        (f"quay.io/a/b:{'t' * 128}", f"quay.io/a/b:{'t' * 128}"),
    ],
)
def test_a_reference_has_one_canonical_form(text: str, canonical: str) -> None:
    parsed = parse_reference(text)
    assert str(parsed) == canonical
    assert parse_reference(canonical) == parsed
    assert parse_reference(f"docker://{canonical}") == parsed


def test_the_parts_of_a_reference() -> None:
    parsed = parse_reference(f"docker://Quay.io:443/a/b/c:tag@{DIGEST}")
    assert parsed == Reference("quay.io:443", "a/b/c", "tag", Digest(DIGEST))
    assert isinstance(parsed, Reference)
    assert parsed.name == "quay.io:443/a/b/c"
    assert parsed.api_host == "quay.io:443"


def test_docker_hub_is_served_by_another_host() -> None:
    parsed = parse_reference("docker.io/ubuntu")
    assert isinstance(parsed, Reference)
    assert parsed.registry == "docker.io"
    assert parsed.api_host == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ubuntu", "docker.io/library/ubuntu"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("docker://", "registry"),
        ("docker://" + "ab" * 32, "an image's ID"),
        ("docker:///", "registry"),
        ("quay.io", "names no registry"),
        ("", "empty"),
        (" quay.io/x", "stray"),
        ("quay.io/x\n", "stray"),
        ("quay.io/X", "did you mean 'x'"),
        ("quay.io/a//b", "repository"),
        ("quay.io/a/", "repository"),
        ("quay.io/-a", "repository"),
        ("quay.io/a...b", "repository"),
        ("quay.io/a___b", "repository"),
        ("quay.io/../b", "repository"),
        ("quay.io/" + "a" * 256, "255"),
        ("quay.io/a:", "tag"),
        ("quay.io/a:-x", "tag"),
        ("quay.io/a:" + "t" * 129, "tag"),
        ("quay.io/a@", "digest"),
        ("quay.io/a@sha256:abc", "digest"),
        (f"quay.io/a@{DIGEST.upper()}", "digest"),
        (f"quay.io/a@{DIGEST}@{DIGEST}", "digest"),
        ("quay.io:port/a", "host"),
        ("quay.io:0/a", "port"),
        ("quay.io:65536/a", "port"),
        ("quay.io:99999999999999999999999/a", "port"),
        ("-quay.io/a", "host"),
        ("qu%61y.io/a", "host"),
        ("user:pass@quay.io/a", "user name"),
        ("docker://user@quay.io/a", "user name"),
        ("[::1/a", "host"),
        ("[::g]/a", "host"),
        ("[1::2::3]/a", "IPv6"),
        ("[fe80::1%eth0]/a", "host"),
        ("docker:quay.io/a", "docker://quay.io/a"),
        ("dir:/tmp/x", "oci:path"),
        ("https://quay.io/a", "docker://"),
        ("ostree-unverified-registry://quay.io/a", "docker://"),
        ("oci:", "no path"),
        ("oci::x", "no path"),
        ("oci:/x:", "reference name"),
        ("oci:/x:a b", "reference name"),
        ("oci-archive:", "write oci-archive:path[:ref]"),
        ("oci-archive:/x.tar:", "oci-archive:/x.tar: '' is not a reference name"),
        ("docker-daemon:x:1", "docker-archive:path"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_hint(text: str, says: str) -> None:
    with pytest.raises(InvalidReference, match=says.replace("[", r"\[").replace(".", r"\.")):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("docker://busybox", "docker.io/library/busybox:latest"),
        ("docker://bitnami/redis:7", "docker.io/bitnami/redis:7"),
        (f"docker://busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
    ],
)
def test_a_name_without_host_after_docker_is_docker_hubs(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


@pytest.mark.parametrize(
    ("text", "repository", "suffix"),
    [
        ("busybox", "busybox", ""),
        ("busybox:1.36", "busybox", ":1.36"),
        ("org/tool", "org/tool", ""),
        (f"org/tool:1@{DIGEST}", "org/tool", f":1@{DIGEST}"),
    ],
)
def test_a_short_name_is_left_as_one(text: str, repository: str, suffix: str) -> None:
    name = parse_name(text)
    assert isinstance(name, ShortName)
    assert (name.repository, name.suffix, str(name)) == (repository, suffix, text)
    with pytest.raises(InvalidReference, match="names no registry"):
        parse_reference(text)
    assert str(name.at("quay.io/x/y")).startswith(f"quay.io/x/y{suffix}")


@pytest.mark.parametrize("text", ["Busybox", "a//b", "busybox:", "busybox@sha256:12", "-x", "a/b/"])
def test_what_is_no_name_at_all_is_no_short_name(text: str) -> None:
    with pytest.raises(InvalidReference) as failed:
        parse_name(text)
    assert "localhost" not in str(failed.value)


@pytest.mark.parametrize(
    ("text", "full"), [("docker.io/alpine", "docker.io/library/alpine"), ("localhost/a", "localhost/a")]
)
def test_an_alias_stands_for_a_repository_in_full(text: str, full: str) -> None:
    assert parse_alias(text) == full
    for wrong in (f"{text}:1", f"{text}@{DIGEST}", "alpine", "org/alpine", "docker.io", ""):
        with pytest.raises(InvalidReference, match="alias"):
            parse_alias(wrong)


def test_a_password_in_a_reference_is_not_repeated() -> None:
    for text in ("docker://me:hunter2@quay.io/a", "me:hunter2@quay.io/a"):
        with pytest.raises(InvalidReference) as caught:
            parse_reference(text)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path", "ref"),
    [
        ("oci:/var/lib/x", "/var/lib/x", None),
        ("oci:dir:v1.2", "dir", "v1.2"),
        ("oci:/x:quay.io/a/b:latest", "/x", "quay.io/a/b:latest"),
    ],
)
def test_a_layout_is_a_path_and_a_name(text: str, path: str, ref: str | None) -> None:
    parsed = parse_reference(text)
    assert parsed == LayoutReference(Path(path), ref)
    assert str(parsed) == text
    archive = f"oci-archive:{text.removeprefix('oci:')}"
    assert parse_reference(archive) == ArchiveReference(Path(path), ref)
    assert str(parse_reference(archive)) == archive


@given(st.text(alphabet="aA0.:/@[]-_%\\ é\n", max_size=30) | st.text(max_size=40))
def test_any_text_is_a_reference_or_a_typed_error(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except InvalidReference:
        return
    if isinstance(parsed, Reference):
        assert parse_reference(str(parsed)) == parsed
        assert ".." not in parsed.repository.split("/")
        assert all(c.isascii() and (c.isalnum() or c in ".:[]-") for c in parsed.registry)


@pytest.mark.parametrize("given", [None, 5, b"host.example/os:1", Path("/x")])
def test_what_is_no_text_is_a_mistake_of_the_program(given: Any) -> None:
    with pytest.raises(TypeError, match=f"a str, not {type(given).__name__}"):
        parse_reference(given)
