"""Platforms: their names, and which entry of an index serves one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def elf(machine: int, width: int = 64, order: str = "little") -> bytes:
    """The head of a program."""
    ident = b"\x7fELF" + bytes([width // 32, 1 if order == "little" else 2, 1]) + bytes(9)
    kind = (3).to_bytes(2, "big" if order == "big" else "little")
    return ident + kind + machine.to_bytes(2, "big" if order == "big" else "little")


@pytest.mark.parametrize(
    ("kernel", "program", "platform"),
    [
        ("x86_64", elf(62), "linux/amd64"),
        ("x86_64", elf(3, 32), "linux/386"),
        ("x86_64", elf(62, 32), "linux/amd64"),  # x32
        ("i686", elf(62), "linux/amd64"),  # setarch linux32
        ("i686", elf(3, 32), "linux/386"),
        ("aarch64", elf(183), "linux/arm64/v8"),
        ("aarch64", elf(40, 32), "linux/arm/v8"),
        ("armv8l", elf(40, 32), "linux/arm/v8"),
        ("armv8l", elf(183), "linux/arm64/v8"),
        ("armv7l", elf(40, 32), "linux/arm/v7"),
        ("armv6l", elf(40, 32), "linux/arm/v6"),
        ("armv5tel", elf(40, 32), "linux/arm/v5"),
        ("ppc64le", elf(21), "linux/ppc64le"),
        ("ppc64", elf(21, 64, "big"), "linux/ppc64"),
        ("s390x", elf(22, 64, "big"), "linux/s390x"),
        ("riscv64", elf(243), "linux/riscv64"),
        ("loongarch64", elf(258), "linux/loong64"),
        ("mips64", elf(8), "linux/mips64le"),
        ("mips64", elf(8, 64, "big"), "linux/mips64"),
        ("mips64", elf(8, 32), "linux/mipsle"),
        ("sparc", elf(2, 32, "big"), "linux/sparc"),
        ("x86_64", b"#!/bin/sh", "linux/amd64"),
        ("aarch64", None, "linux/arm64/v8"),
    ],
)
def test_the_host_is_the_userland_that_runs_in_go_names(
    kernel: str, program: bytes | None, platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Uname:
        machine = kernel

    itself = tmp_path / "exe"
    if program is not None:
        itself.write_bytes(program)
    monkeypatch.setattr("layertee.image.platform.os.uname", Uname)
    monkeypatch.setattr("layertee.image.platform.PROGRAM", str(itself))
    assert str(Platform.host()) == platform


@pytest.mark.parametrize(("kernel", "platform"), [("x86_64", "linux/386"), ("aarch64", "linux/arm/v8")])
def test_where_the_program_cannot_be_read_its_width_tells(
    kernel: str, platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Uname:
        machine = kernel

    monkeypatch.setattr("layertee.image.platform.os.uname", Uname)
    monkeypatch.setattr("layertee.image.platform.PROGRAM", str(tmp_path / "nothing"))
    monkeypatch.setattr("layertee.image.platform.sys.maxsize", (1 << 31) - 1)
    assert str(Platform.host()) == platform


LINUX32 = """
import ctypes, os
from layertee.image.platform import Platform
ctypes.CDLL(None).personality(8)
print(os.uname().machine, Platform.host())
"""


def test_under_another_personality_the_host_is_the_same() -> None:
    """As under ``setarch linux32``: the kernel says i686 to a program that is none."""
    if os.uname().machine != "x86_64":
        pytest.skip("needs a kernel that calls itself x86_64")
    done = subprocess.run([sys.executable, "-c", LINUX32], capture_output=True, text=True, check=True)
    machine, platform = done.stdout.split()
    if machine == "x86_64":
        pytest.skip("this kernel has no 32-bit personality")
    assert (machine, platform) == ("i686", str(Platform.host()))


@pytest.mark.parametrize(
    ("asked", "config", "other"),
    [
        ("linux/amd64", "linux/amd64", False),
        ("linux/amd64", "linux/arm64", True),
        ("linux/amd64", "windows/amd64", True),
        ("linux/amd64", "unknown/unknown", False),
        ("linux/amd64", "unknown/arm64", True),
        ("linux/amd64", "linux/amd64/v2", True),
        ("linux/amd64/v2", "linux/amd64", False),
        ("linux/arm64", "linux/arm64/v8", False),
        ("linux/arm64/v8", "linux/arm64", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm", "linux/arm/v7", False),
    ],
)
def test_a_config_is_for_another_platform_or_not(asked: str, config: str, other: bool) -> None:
    assert Platform.parse(asked).contradicts(Platform(*config.split("/"))) is other


ZSTD = {"io.github.containers.compression.zstd": "true"}


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64", "linux/amd64"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm", "linux/arm/v6"], 2),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm"], 1),
        ("linux/arm/v8", ["linux/arm/v7", "linux/arm/v6"], 0),
        ("linux/arm/v8", ["linux/arm/v7", "linux/arm"], 0),
        ("linux/arm/v8", ["linux/arm", "linux/arm/v5", "linux/arm/v8"], 2),
        ("linux/arm", ["linux/arm/v7", "linux/arm"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
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
