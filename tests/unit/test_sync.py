"""The engine for threads has what the engine has, and refuses to wait for itself."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from layertee import Engine, Options, SyncEngine
from layertee.errors import DeadlineExceeded, LayerteeError
from layertee.options import Budget
from layertee.pulling.deadline import in_time

# What hands out objects whose methods are awaited: for programs with an event loop.
ONLY_ON_A_LOOP = {"ingest"}


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def said(function: Any) -> str:
    """A signature, where a block is a block, whether it is entered on a loop or not."""
    return re.sub("AbstractAsyncContextManager", "AbstractContextManager", str(inspect.signature(function)))


def test_both_engines_have_the_same_methods() -> None:
    assert set(public(SyncEngine)) == set(public(Engine)) - ONLY_ON_A_LOOP
    assert said(SyncEngine) == said(Engine)


@pytest.mark.parametrize("name", public(SyncEngine))
def test_both_engines_are_called_in_the_same_way(name: str) -> None:
    here, there = public(SyncEngine)[name], public(Engine)[name]
    assert isinstance(here, property) == isinstance(there, property)
    if isinstance(here, property):
        here, there = here.fget, there.fget
    assert said(here) == said(there)
    assert not inspect.iscoroutinefunction(here)
    assert "As " in (here.__doc__ or "")


def test_it_is_used_inside_a_block(tmp_path: Path) -> None:
    engine = SyncEngine(tmp_path)
    for use in (lambda: engine.store, engine.verify):
        with pytest.raises(RuntimeError, match="inside"):
            use()
    with engine:
        assert engine.verify().ok
        assert engine.store.root == tmp_path
        with pytest.raises(RuntimeError, match="make another one"), engine:
            pass
    with pytest.raises(RuntimeError, match="inside 'with'"):
        engine.verify()
    with pytest.raises(RuntimeError, match="make another one"), engine:
        pass


def test_no_event_loop_waits_for_itself(tmp_path: Path) -> None:
    with SyncEngine(tmp_path) as engine:

        async def main() -> None:
            with pytest.raises(RuntimeError, match=r"use layertee\.Engine"):
                engine.verify()
            with pytest.raises(RuntimeError, match=r"use layertee\.Engine"), SyncEngine(tmp_path):
                pass
            assert (await asyncio.to_thread(engine.verify)).ok

        asyncio.run(main())


def test_an_engine_that_is_forgotten_is_warned_of_and_ends(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    engine = SyncEngine(tmp_path)
    engine.__enter__()
    (thread,) = (one for one in set(threading.enumerate()) - before if one.name == "layertee")
    with pytest.warns(ResourceWarning, match="an engine was not closed"):
        del engine
        gc.collect()
    thread.join(60)
    assert not thread.is_alive()


FORKED = """
import os, sys
from layertee import SyncEngine

with SyncEngine(sys.argv[1]) as engine:
    assert engine.verify().ok
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert engine.verify().ok
    else:
        try:
            engine.verify()
        except RuntimeError as exc:
            print(exc, flush=True)
"""


def test_a_process_that_was_forked_is_refused_its_parents_engine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    refused, status = done.stdout.splitlines()
    assert "a process that was forked has none of its threads" in refused
    assert (status, done.stderr, done.returncode) == ("0", "", 0)


def test_what_opening_the_store_raises_is_raised_by_the_block(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no store")
    before = threading.active_count()
    with pytest.raises(LayerteeError, match="file"), SyncEngine(file):
        pass
    assert threading.active_count() == before


def test_a_name_that_is_none_is_an_error_of_the_thread_that_asked(tmp_path: Path) -> None:
    with SyncEngine(tmp_path, options=Options(anonymous=True)) as engine:
        with pytest.raises(ValueError, match="form is one of") as caught:
            engine.plan("oci:/nowhere", form="tar")
        names = [entry.name for entry in caught.traceback]
        assert names[0] == "test_a_name_that_is_none_is_an_error_of_the_thread_that_asked"
        assert "plan" in names


def test_calls_of_one_thread_share_the_time_of_a_block(tmp_path: Path) -> None:
    options = Options(budget=Budget(deadline_s=1e-6))
    with SyncEngine(tmp_path, options=options) as engine, ThreadPoolExecutor(1) as other:
        with engine.in_time():
            with pytest.raises(DeadlineExceeded):
                engine.verify()
            assert other.submit(engine.verify).result().ok
        assert engine.verify().ok


def test_time_that_was_spent_before_counts() -> None:
    async def main(spent_s: float) -> None:
        async with in_time(60.0, spent_s=spent_s):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main(0.0))
    for spent_s in (60.0, 61.0):
        with pytest.raises(DeadlineExceeded, match="after 60 s"):
            asyncio.run(main(spent_s))
