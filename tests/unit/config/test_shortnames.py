"""What names without a registry stand for, and what is said where that is not clear."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from layertee.config.registries import Registries
from layertee.config.shortnames import candidates, recorded_at
from layertee.errors import RegistriesConfError, UnresolvedName
from layertee.image.reference import ShortName, parse_short_name

SEARCH = 'unqualified-search-registries = ["a.test", "b.test"]\n'
BUSYBOX = parse_short_name("busybox:1")


def read(path: Path, text: str) -> Registries:
    path.write_text(text)
    return Registries.read(path=path, env={}, admin=path.parent / "none", vendor=path.parent / "none")


def found(configured: Registries, recorded: Path | None = None, name: ShortName = BUSYBOX) -> list[str]:
    return [str(reference) for reference in candidates(name, configured, recorded).unasked()]


def test_an_alias_is_all_that_counts_and_keeps_the_tag(tmp_path: Path) -> None:
    configured = read(tmp_path / "r.conf", f'{SEARCH}[aliases]\nbusybox = "c.test/x/busybox"\n')
    assert found(configured) == ["c.test/x/busybox:1"]
    assert not candidates(BUSYBOX, configured, None).is_for_a_person


def test_what_podman_recorded_comes_before_registries_conf(tmp_path: Path) -> None:
    configured = read(tmp_path / "r.conf", f'{SEARCH}[aliases]\nbusybox = "c.test/busybox"\n')
    recorded = tmp_path / "short-name-aliases.conf"
    assert found(configured, recorded) == ["c.test/busybox:1"]
    recorded.write_text('[aliases]\nbusybox = "d.test/busybox"\n')
    assert found(configured, recorded) == ["d.test/busybox:1"]
    recorded.write_text('[aliases]\nbusybox = ""\n')
    assert found(configured, recorded) == ["a.test/busybox:1", "b.test/busybox:1"]
    recorded.write_text("[aliases\n")
    with pytest.raises(RegistriesConfError, match=f"{recorded}:1"):
        found(configured, recorded)


def test_it_is_said_on_which_line_the_answer_stands(tmp_path: Path) -> None:
    path = tmp_path / "r.conf"
    assert candidates(BUSYBOX, read(path, f"\n{SEARCH}"), None).why.endswith(f" in {path}:2")
    configured = read(path, '[aliases]\n\nbusybox = "c.test/busybox"\n')
    assert candidates(BUSYBOX, configured, None).why == f"an alias in {path}:3"
    recorded = tmp_path / "recorded.conf"
    recorded.write_text('[aliases]\n  busybox = "c.test/busybox"\n')
    assert candidates(BUSYBOX, configured, recorded).why == f"an alias in {recorded}:2"


def test_an_alias_file_that_podman_is_writing_is_read_when_it_is_whole(tmp_path: Path) -> None:
    configured = read(tmp_path / "r.conf", SEARCH)
    recorded = tmp_path / "short-name-aliases.conf"
    recorded.write_text("")
    lock = tmp_path / "short-name-aliases.conf.lock"
    answers: list[list[str]] = []
    reader = threading.Thread(target=lambda: answers.append(found(configured, recorded)))
    # Record locks are a process's own; one on an open file description stands for another process.
    with lock.open("w") as held:
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, _whole(fcntl.F_WRLCK))
        reader.start()
        reader.join(0.2)
        assert answers == []
        recorded.write_text('[aliases]\nbusybox = "d.test/busybox"\n')
    reader.join(30)
    assert answers == [["d.test/busybox:1"]]


def _whole(kind: int) -> bytes:
    """``struct flock`` for all of a file."""
    import struct

    return struct.pack("hhqqi4x", kind, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "asks", "tries"),
    [("permissive", True, True), ("enforcing", True, False), ("disabled", False, True)],
)
def test_several_registries_are_for_a_person_to_choose_from(
    tmp_path: Path, mode: str, asks: bool, tries: bool
) -> None:
    configured = read(tmp_path / "r.conf", f'short-name-mode = "{mode}"\n{SEARCH}')
    several = candidates(BUSYBOX, configured, None)
    assert several.is_for_a_person is asks
    if tries:
        assert len(several.unasked()) == 2
        return
    with pytest.raises(UnresolvedName, match=r"a\.test/busybox:1, b\.test/busybox:1") as failed:
        several.unasked()
    assert failed.value.candidates == ("a.test/busybox:1", "b.test/busybox:1")


def test_one_registry_is_no_choice(tmp_path: Path) -> None:
    text = 'short-name-mode = "enforcing"\nunqualified-search-registries = ["docker.io"]\n'
    assert found(read(tmp_path / "r.conf", text)) == ["docker.io/library/busybox:1"]


def test_no_registry_is_an_error_that_says_where_one_was_looked_for(tmp_path: Path) -> None:
    configured = read(tmp_path / "r.conf", "")
    with pytest.raises(UnresolvedName, match=rf"names no registry.*{tmp_path}/r\.conf"):
        found(configured)
    with pytest.raises(UnresolvedName, match=r"any registries\.conf"):
        found(Registries.none())


def test_recorded_aliases_are_kept_where_podman_keeps_them() -> None:
    name = "containers/short-name-aliases.conf"
    assert recorded_at({"_CONTAINERS_ROOTLESS_UID": "0", "HOME": "/h"}) == Path("/var/cache") / name
    assert recorded_at({"_CONTAINERS_ROOTLESS_UID": "7", "HOME": "/h"}) == Path("/h/.cache") / name
    env = {"_CONTAINERS_ROOTLESS_UID": "7", "HOME": "/h", "XDG_CACHE_HOME": "/c"}
    assert recorded_at(env) == Path("/c") / name
