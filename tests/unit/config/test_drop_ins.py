"""Which names count in a directory of drop-ins: containers-common's as podman counts them, and our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from layertee.config.home import User
from layertee.config.registries import Registries
from layertee.config.registries_d import SignatureConfig
from layertee.config.settings import SettingsFiles, read_settings
from layertee.config.storage import find_roots
from layertee.config.trustfile import read_trust
from layertee.errors import LayerteeError
from layertee.image.reference_storage import parse_storage
from layertee.registry.tls import tls_context

ANYBODY = User(1000, None, None, None, None, None)
NOT_UNDERSTOOD = "= nothing: [that any reader takes"


def nothing_is_wrong(_: Path) -> None:
    """A check that lets every file pass."""


def read_layertee_toml(etc: Path) -> None:
    for file in SettingsFiles(vendor=etc / "none", admin=etc).found():
        read_settings(file, nothing_is_wrong, frozenset({"pull"}))


# What reads each directory, and how its files' names end. A name counts if what is in the file is an error.
OURS: dict[str, tuple[Callable[[Path], object], str]] = {
    "layertee.toml.d": (read_layertee_toml, ".toml"),
    "trust.d": (lambda etc: read_trust(check=nothing_is_wrong, directory=etc), ".toml"),
}
OF_CONTAINERS_COMMON: dict[str, tuple[Callable[[Path], object], str]] = {
    "registries.conf.d": (
        lambda etc: Registries.read(env={}, user=ANYBODY, admin=etc, vendor=etc / "none"),
        ".conf",
    ),
    "registries.d": (
        lambda etc: SignatureConfig.read(env={}, user=ANYBODY, admin=etc, vendor=etc / "none"),
        ".yaml",
    ),
    "storage.conf.d": (
        lambda etc: find_roots(
            parse_storage("containers-storage:"), environ={"HOME": str(etc)}, admin=etc, vendor=etc / "none"
        ),
        ".conf",
    ),
    "certs.d": (lambda etc: tls_context(verify=False, cert_dir=etc / "certs.d"), ".cert"),
}
ALL = {**OURS, **OF_CONTAINERS_COMMON}
COUNTS = ("a{}", "~a{}", "#a{}")
COUNTS_FOR_NOBODY = ("a{}~", "a{}.rpmnew", "a{}.dpkg-old", ".a{}.swp", "#a{}#", "a", "a.txt")
DOTTED = (".a{}", ".#a{}", "..{}", "{}")


def counts(etc: Path, directory: str, name: str) -> bool:
    """Whether the file called so, the only one there, is read."""
    read, suffix = ALL[directory]
    file = etc / directory / name.format(suffix)
    file.write_text(NOT_UNDERSTOOD)
    try:
        read(etc)
    except LayerteeError as exc:
        assert str(file.parent) in str(exc), "it is that file which is wrong"
        return True
    finally:
        file.unlink()
    return False


@pytest.mark.parametrize("directory", ALL)
def test_a_name_counts_by_its_end_and_in_our_own_directories_by_its_beginning(
    tmp_path: Path, directory: str
) -> None:
    (tmp_path / directory).mkdir()
    ALL[directory][0](tmp_path)  # of an empty one, nothing is an error
    found = {name: counts(tmp_path, directory, name) for name in (*COUNTS, *COUNTS_FOR_NOBODY, *DOTTED)}
    assert found == {
        **dict.fromkeys(COUNTS, True),
        **dict.fromkeys(COUNTS_FOR_NOBODY, False),
        **dict.fromkeys(DOTTED, directory in OF_CONTAINERS_COMMON),
    }


@pytest.mark.parametrize("directory", sorted(set(ALL) - {"certs.d"}))
def test_the_lock_of_an_editor_stops_nobody(tmp_path: Path, directory: str) -> None:
    read, suffix = ALL[directory]
    (tmp_path / directory).mkdir()
    (tmp_path / directory / f".#a{suffix}").symlink_to("user@machine.1234:1700000000")
    read(tmp_path)
