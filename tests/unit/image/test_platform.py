"""Platforms: their names, and which entry of an index serves one."""

from __future__ import annotations

import pytest

from layertee.errors import InvalidReference, NotFound
from layertee.image.document import Descriptor, Digest, Index, Platform, choose_platform
from layertee.image.media import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST


def entry(platform: str | None, tag: str = "", annotations: dict[str, str] | None = None) -> Descriptor:
    parsed = None if platform is None else Platform(*platform.split("/"))
    return Descriptor(
        OCI_MANIFEST, Digest.of(f"{platform}{tag}".encode()), 1, annotations or {}, platform=parsed
    )


def index_of(*entries: Descriptor, media_type: str = OCI_INDEX) -> Index:
    return Index(b"", Digest.of(b""), media_type, entries)


def test_platforms_parse_and_print() -> None:
    assert Platform.parse("linux/arm64/v8") == Platform("linux", "arm64", "v8")
    assert Platform.parse("Linux/x86_64") == Platform("linux", "amd64", None)
    assert str(Platform("linux", "arm", "v7")) == "linux/arm/v7"


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/am d64", "a/b\n"]
)
def test_malformed_platforms_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="os/architecture"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64/v8"),
        ("armv7l", "linux/arm/v7"),
        ("s390x", "linux/s390x"),
        ("ppc64le", "linux/ppc64le"),
        ("riscv64", "linux/riscv64"),
        ("sparc", "linux/sparc"),
    ],
)
def test_the_host_platform_is_in_go_names(
    machine: str, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uname:
        def __init__(self) -> None:
            self.machine = machine

    monkeypatch.setattr("layertee.image.platform.os.uname", Uname)
    assert str(Platform.host()) == platform


ZSTD = {"io.github.containers.compression.zstd": "true"}


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64", "linux/amd64"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm", "linux/arm/v6"], 2),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm"], 1),
        ("linux/arm/v8", ["linux/arm/v7", "linux/arm/v6"], 0),
        ("linux/arm/v8", ["linux/arm/v7", "linux/arm"], 1),
        ("linux/arm", ["linux/arm/v7", "linux/arm"], 1),
        ("linux/arm64", ["linux/arm64/v8", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm64/v8", ["linux/arm64", "linux/arm64/v8"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 0),
        ("linux/amd64", [None, "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", None], 1),
    ],
)
def test_the_chosen_entry_is_the_one_skopeo_takes(
    wanted: str, offered: list[str | None], chosen: int
) -> None:
    index = index_of(*(entry(platform, str(n)) for n, platform in enumerate(offered)))
    assert choose_platform(index, Platform.parse(wanted)) is index.manifests[chosen]


def test_among_equal_entries_zstd_is_preferred() -> None:
    index = index_of(
        entry("linux/arm64/v8", "0"),
        entry("linux/amd64", "1"),
        entry("linux/amd64", "2", annotations=ZSTD),
        entry("linux/amd64", "3", annotations=ZSTD),
        entry("linux/arm64", "4", annotations=ZSTD),
    )
    assert choose_platform(index, Platform("linux", "amd64")) is index.manifests[2]
    assert choose_platform(index, Platform("linux", "arm64", "v8")) is index.manifests[0]


def test_a_missing_platform_names_those_there_are() -> None:
    index = index_of(
        entry("linux/amd64"), entry("linux/arm/v7"), entry("unknown/unknown"), entry("windows/a\nb")
    )
    with pytest.raises(NotFound, match=r"linux/s390x.*linux/amd64, linux/arm/v7, windows/a.b$") as caught:
        choose_platform(index, Platform.parse("linux/s390x"))
    assert "unknown" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_docker_list_entry_without_a_platform_serves_nobody() -> None:
    index = index_of(entry(None), media_type=DOCKER_LIST)
    with pytest.raises(NotFound, match="there is: none"):
        choose_platform(index, Platform.parse("linux/amd64"))
