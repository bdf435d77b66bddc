"""Beginnings of blobs: one writer at a time, taken for ours only if they can be, kept as asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layertee.disk.keeping import DAY_S, ENVIRONMENT, KeepPartials
from layertee.disk.part import BlobWriter
from layertee.errors import InvalidReference, LocalError
from layertee.image.document import Digest
from layertee.store.gc import gc
from layertee.store.store import Store
from tests.support.store import layer_of

SIZE = 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as store:
        yield store


def leave(store: Store, n: int, data: bytes = b"begun", age_s: float = 0.0) -> Path:
    """A part that a process left ``age_s`` seconds ago."""
    part = store.parts.writer(layer_of(n))
    assert part is not None
    part.write(data)
    part.retain()
    found = os.stat(part.path)
    os.utime(part.path, (found.st_atime, found.st_mtime - age_s))
    return part.path


def names(store: Store) -> list[Digest]:
    return [part.digest for part in store.parts.all()]


def test_a_part_begins_with_what_was_left_of_it(store: Store) -> None:
    leave(store, 1, b"one")
    part = store.parts.writer(layer_of(1))
    assert part is not None and part.n_kept == 3
    view = memoryview(bytearray(10))
    assert (part.read_kept(view, 1), bytes(view[:2])) == (2, b"ne")
    part.retain()
    assert store.parts.arrived([layer_of(1), layer_of(2)]) == {layer_of(1).digest: 3}


def test_what_has_begun_of_a_tar_is_told_beside_its_blob(store: Store) -> None:
    layer = layer_of(1)
    leave(store, 1, b"one")
    part = store.parts.writer(layer.as_tar(50))
    assert part is not None
    part.write(b"four")
    part.retain()
    assert store.parts.arrived([layer]) == {layer.digest: 3, layer.tar_digest: 4}
    store.parts.drop([layer.digest, layer_of(2).digest])
    assert store.parts.arrived([layer]) == {layer.tar_digest: 4}


def test_what_is_being_written_is_not_dropped(store: Store) -> None:
    part = store.parts.writer(layer_of(1))
    assert part is not None
    store.parts.drop([layer_of(1).digest])
    part.write(b"more")
    part.retain()
    assert store.parts.arrived([layer_of(1)]) == {layer_of(1).digest: 4}


def test_a_part_has_one_writer(store: Store) -> None:
    part = store.parts.writer(layer_of(1))
    assert part is not None
    assert store.parts.writer(layer_of(1)) is None
    part.write(b"x")
    assert store.parts.trim(KeepPartials(0.0)) == (0, 0)
    part.retain()
    again = store.parts.writer(layer_of(1))
    assert again is not None
    again.abort()
    assert names(store) == []


def test_one_that_takes_the_name_of_a_removed_one_stays(store: Store) -> None:
    """Between the opening and the locking of a part, its process drops it, and begins anew."""
    old = store.parts.writer(layer_of(1))
    assert old is not None
    old.write(b"old")
    new: list[BlobWriter] = []

    def begin_anew(event: str, _: object) -> None:  # an audit hook stays for good, and acts once
        if event == "fcntl.flock" and waiting:
            waiting.clear()
            old.abort()
            part = store.parts.writer(layer_of(1))
            assert part is not None
            part.write(b"new")
            new.append(part)

    waiting = [True]
    sys.addaudithook(begin_anew)
    assert store.parts.trim(KeepPartials(0.0)) == (0, 0)
    assert new[0].path.read_bytes() == b"new"
    new[0].abort()


def test_one_that_is_empty_is_not_left(store: Store) -> None:
    part = store.parts.writer(layer_of(1))
    assert part is not None
    part.retain()
    part.retain()
    assert list(store.room.parts.iterdir()) == []


def test_none_is_made_that_is_not_wanted(store: Store) -> None:
    assert store.parts.writer(layer_of(1), make=False) is None
    leave(store, 1)
    part = store.parts.writer(layer_of(1), make=False)
    assert part is not None
    part.abort()


def test_one_that_has_more_than_its_blob_is_dropped(store: Store) -> None:
    leave(store, 1, bytes(SIZE + 1))
    part = store.parts.writer(layer_of(1))
    assert part is not None and part.n_kept == 0
    part.abort()


def test_one_that_was_committed_is_not_written_to(store: Store) -> None:
    """A crash between the two steps of a commit leaves one file under two names."""
    path = leave(store, 1)
    blob = store.layout.blob_path(layer_of(1).digest)
    os.link(path, blob)
    part = store.parts.writer(layer_of(1))
    assert part is not None and part.n_kept == 0
    part.write(b"other")
    part.abort()
    assert blob.read_bytes() == b"begun"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_gives_way(store: Store, make: Callable[[Path], None]) -> None:
    path = leave(store, 1)
    path.unlink()
    make(path)
    part = store.parts.writer(layer_of(1))
    assert part is not None and part.n_kept == 0 and path.is_file() and not path.is_symlink()
    part.abort()
    assert not path.exists()


def test_a_directory_in_its_place_is_an_error_that_names_it(store: Store) -> None:
    path = leave(store, 1)
    path.unlink()
    path.mkdir()
    with pytest.raises(LocalError, match=path.name):
        store.parts.writer(layer_of(1))


def test_the_oldest_go_first(store: Store) -> None:
    for n, age in ((1, 3 * DAY_S), (2, 0.0), (3, 9 * DAY_S)):
        leave(store, n, bytes(10), age)
    assert names(store) == [layer_of(n).digest for n in (3, 1, 2)]
    assert store.parts.trim(KeepPartials()) == (1, 10)
    assert store.parts.trim(KeepPartials(None, 20)) == (0, 0)
    assert store.parts.trim(KeepPartials(None, 15)) == (1, 10)
    assert names(store) == [layer_of(2).digest]
    assert store.parts.trim(KeepPartials(0.0), spare=[layer_of(2).digest]) == (0, 0)
    assert store.parts.trim(KeepPartials(None, 0)) == (1, 10)


def test_a_clock_that_was_put_back_keeps_none_for_ever(store: Store) -> None:
    leave(store, 1, age_s=-DAY_S)
    leave(store, 2, age_s=-8 * DAY_S)
    store.parts.trim(KeepPartials())
    assert names(store) == [layer_of(1).digest]


def test_gc_removes_parts_and_what_is_among_them(store: Store) -> None:
    leave(store, 1, bytes(7))
    (store.room.parts / "strange").write_bytes(b"")
    report = gc(store, keep_parts=KeepPartials(DAY_S))
    assert (names(store), report.parts_removed) == ([layer_of(1).digest], 1)
    report = gc(store)
    assert (names(store), report.parts_removed, report.bytes_freed) == ([], 1, 7)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("7d", KeepPartials(7 * DAY_S)),
        ("90s", KeepPartials(90.0)),
        (" 2w ", KeepPartials(14 * DAY_S)),
        ("2Gi", KeepPartials(None, 2 << 30)),
        ("100M", KeepPartials(None, 100_000_000)),
        ("never", KeepPartials(0.0)),
        ("0", KeepPartials(None, 0)),
    ],
)
def test_how_long_is_written_as_an_age_or_a_size(text: str, keep: KeepPartials) -> None:
    assert KeepPartials.parse(text) == keep == KeepPartials.usual({ENVIRONMENT: text})
    assert keep.never is (text in ("never", "0"))


@pytest.mark.parametrize("text", ["", "week", "-1d", "1.5d", "7 days", "5X", "9999999d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an age like 7d"):
        KeepPartials.parse(text)
    if text:
        with pytest.raises(InvalidReference, match=ENVIRONMENT):
            KeepPartials.usual({ENVIRONMENT: text})


def test_seven_days_is_usual() -> None:
    assert KeepPartials.usual({}) == KeepPartials(7 * DAY_S, None)
    with pytest.raises(ValueError, match="not how long"):
        KeepPartials(-1.0)
