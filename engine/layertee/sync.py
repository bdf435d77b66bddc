"""The same for callers without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .engine import Engine, Options
from .pulling.plan import Form, Verify

if TYPE_CHECKING:
    from .pulling.report import ProgressCallback, PullResult
    from .store.store import Store

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on an event loop of its own, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def pull(
    reference: str,
    *,
    store: Store | Path | str | None = None,
    form: Form | str = Form.AS_IS,
    verify: Verify | str = Verify.BOTH,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
) -> PullResult:
    """Pull ``reference`` into ``store`` and return what happened.

    As :meth:`Engine.plan` and :meth:`Engine.pull`, whose errors it raises. Not to be called from a
    coroutine (RuntimeError).
    """

    async def main() -> PullResult:
        async with Engine(store, options=options) as engine, engine.in_time():
            plan = await engine.plan(reference, form=Form(form), verify=Verify(verify))
            return await engine.pull(plan, progress)

    return run(main())
