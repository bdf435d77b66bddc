"""Callbacks of a caller, called from within many tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class _Stopped(Exception):
    def __init__(self, why: BaseException) -> None:
        super().__init__(why)
        self.why = why


@contextmanager
def called(callback: Callable[[T], None] | None) -> Iterator[Callable[[T], None] | None]:
    """``callback``, for use inside the block. KeyboardInterrupt and SystemExit of it are raised at its end.

    An event loop stops at once when a task of it raises one of these two, with every other task half done.
    Until the block is left they are an error like others, by which the tasks of a group are ended in order.
    """
    if callback is None:
        yield None
        return
    given = callback

    def call(news: T) -> None:
        try:
            given(news)
        except (KeyboardInterrupt, SystemExit) as exc:
            raise _Stopped(exc) from None

    try:
        yield call
    except _Stopped as stopped:
        why = stopped.why
    else:
        return
    raise why
