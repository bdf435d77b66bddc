"""The promise of the store, whatever call fails and whoever is killed: nothing false is ever visible."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layertee.errors import (
    LayerteeError,
)
from layertee.image.holding import Form
from layertee.store.catalog import Catalog
from layertee.store.gc import gc
from layertee.store.store import Store
from tests.support.disk import Disk
from tests.support.process import in_child, start_child
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import text_layer
from tests.support.store import assert_store_is_sound, fill, gzip_layer, pull, visible_blobs

pytestmark = pytest.mark.spread
TAR, BLOB, RESULT = gzip_layer("one layer")


# --- whatever fails, whoever dies ---------------------------------------------------------


def small_image(tmp_path: Path) -> BuiltImage:
    return build_image(tmp_path / "small", [text_layer({"a": "1"}), text_layer({"b": "2"})])


@pytest.mark.slow
@pytest.mark.parametrize(("form", "for_good"), [(Form.AS_IS, False), (Form.UNCOMPRESSED, True)])
def test_whichever_call_of_a_pull_fails_the_store_is_sound_and_the_next_run_finishes(
    tmp_path: Path, form: Form, for_good: bool
) -> None:
    image = small_image(tmp_path)
    disk = Disk()
    n = 0
    while True:
        n += 1
        root = tmp_path / f"store-{n}"
        Store.open(root).close()
        fds = len(os.listdir("/proc/self/fd"))
        outcome: LayerteeError | None = None
        with disk.watched(n, errno.ENOSPC, for_good=for_good):
            try:
                with Store.open(root) as store:
                    pull(store, image.root, "latest", "x:1", form)
            except LayerteeError as exc:
                outcome = exc
        assert len(os.listdir("/proc/self/fd")) == fds, disk.calls[n - 1]
        assert_store_is_sound(root)
        with Store.open(root) as store:
            pull(store, image.root, "latest", "x:1", form)
            assert [found.problem for found in store.images.all()] == [None]
            gc(store)
        assert_store_is_sound(root)
        shutil.rmtree(root)
        if not disk.tripped:
            assert outcome is None
            break
    assert n > 100


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["pull", "gc", "remove", "open"])
def test_killed_at_any_call_the_store_is_sound_and_the_next_run_finishes(
    tmp_path: Path, scenario: str
) -> None:
    image = small_image(tmp_path)
    other = build_image(tmp_path / "other", [text_layer({"z": "z"})])
    prepared = tmp_path / "prepared"
    if scenario != "open":
        with Store.open(prepared) as store:
            pull(store, other.root, "latest", "other:1", Form.UNCOMPRESSED)
            if scenario == "gc":
                store.images.remove("other:1")
    disk = Disk()
    n = 0
    while True:
        n += 1
        root = tmp_path / f"store-{n}"
        if prepared.exists():
            shutil.copytree(prepared, root)

        def work(root: Path = root, n: int = n) -> None:
            with disk.watched(n, kill=True), Store.open(root) as store:
                if scenario == "pull":
                    pull(store, image.root, "latest", "x:1")
                elif scenario == "gc":
                    gc(store)
                elif scenario == "remove":
                    store.images.remove("other:1")

        status = in_child(work)
        if prepared.exists():
            assert_store_is_sound(root)
        with Store.open(root) as store:
            pull(store, image.root, "latest", "x:1")
            gc(store)
            assert "x:1" in [found.name for found in store.images.all()]
        assert_store_is_sound(root)
        shutil.rmtree(root)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert n > 20


ENDLESS = """
import os, sys
from pathlib import Path
from tests.support.store import bring, pack
from layertee.store.gc import gc
from layertee.image.document import Compression
from layertee.store.store import Store
root, seed = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for n in range(1_000_000):
    with Store.open(root) as store:
        for k in range(5):
            with store.shared():
                bring(store, pack(f"{seed}-{n}-{k}".encode() * 500, Compression.GZIP), Compression.GZIP)
            print(n, k, flush=True)
        if n % 3 == 2:
            gc(store)
"""


@pytest.mark.slow
def test_killed_at_random_moments_the_store_stays_sound(root: Path) -> None:
    Store.open(root).close()
    dice = random.Random(20)
    for round_ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(root), str(round_)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert child.stdout is not None
        for _ in range(dice.randrange(2, 40)):
            assert child.stdout.readline()
        child.kill()
        child.stdout.close()
        child.wait(60)
        assert_store_is_sound(root)
    with Store.open(root) as store:
        gc(store)
        assert list(store.room.ingest.iterdir()) == []
    assert visible_blobs(root) == {}


def test_many_processes_bring_one_layer_once_each_or_not_at_all(root: Path) -> None:
    Store.open(root).close()

    def work() -> None:
        with Store.open(root) as store, store.shared():
            held = store.blobs.lock(RESULT.digest)
            if held is not None:
                with held, store.blobs.writer(RESULT.digest) as writer:
                    store.blobs.commit(fill(writer, BLOB), RESULT, Form.AS_IS)

    pids = [start_child(work) for _ in range(8)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    assert_store_is_sound(root)
    with Store.open(root) as store:
        assert len(store.blobs.held(RESULT.diff_id)) == 1


def test_a_row_is_written_only_after_the_name_is_durable(store: Store, monkeypatch: Any) -> None:
    disk = Disk()
    seen: list[list[str]] = []
    real = Catalog.record

    def record(self: Catalog, *args: Any, **kwargs: Any) -> None:
        seen.append(disk.names())
        real(self, *args, **kwargs)

    monkeypatch.setattr(Catalog, "record", record)
    writer = fill(store.blobs.writer(RESULT.digest), BLOB)
    with disk.watched():
        store.blobs.commit(writer, RESULT, Form.AS_IS)
    (before,) = seen
    order = [name for name in before if name in ("fdatasync", "link", "rename", "fsync")]
    assert order == ["fdatasync", "rename", "fsync"]
