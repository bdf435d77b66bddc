"""What is public is written down, and nothing less than all of it.

That docs/reference/api.md is what the code says is tested with the other parts of pages (test_pages.py).
"""

from __future__ import annotations

import importlib
import inspect
import pickle
from pathlib import Path

import pytest

import layertee
from layertee import errors
from tests.support.api import INNER, members, public_names, reached, surface
from tests.support.pages import DOCS, every_error


def test_every_public_name_is_there_and_at_home_once() -> None:
    assert len(set(layertee.__all__)) == len(layertee.__all__) > 60
    for name in public_names():
        value = getattr(layertee, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            home = importlib.import_module(value.__module__)
            assert getattr(home, name) is value
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        layertee.Nothing  # noqa: B018


def test_what_a_public_name_hands_out_is_public() -> None:
    """Whoever has a value can write its type down."""
    assert set(reached()) == INNER, {
        name: reached()[name] for name in set(reached()) ^ INNER if name in reached()
    }


def test_every_public_name_is_described() -> None:
    """Classes, functions and methods; a property may say all by its name."""
    silent = [
        f"{name}.{member}"
        for name in public_names()
        if inspect.isclass(kind := getattr(layertee, name))
        for member, value in {"": kind, **members(kind)}.items()
        if not isinstance(value, property) and not value.__doc__
    ]
    assert silent == []
    assert layertee.pull.__doc__


def test_every_error_that_a_caller_meets_is_named_by_its_module() -> None:
    assert {one.__name__ for one in every_error() if one.__module__ == "layertee.errors"} <= set(
        errors.__all__
    )
    assert sorted(errors.__all__[:-1]) == errors.__all__[:-1]
    for name in errors.__all__:
        assert hasattr(errors, name)


def test_a_change_of_a_signature_is_seen() -> None:
    text = surface()
    for line in (
        "class Engine(store: Store | Path | str | None = None, *, options: Options | None = None)",
        "    async pull(plan: ImagePlan, progress: ProgressCallback | None = None) -> PullResult",
        "    pull(plan: ImagePlan, progress: ProgressCallback | None = None) -> PullResult",
        "    open_layer(step: LayerPlan) -> AbstractContextManager[LayerStream]",
        "    platform: Platform | str | None = None,",
        "    platform: Platform | None",
        "    UNCOMPRESSED = 'uncompressed'",
        "ProgressCallback = Callable[[Progress], None]",
        "    keep_free: KeepFree | str = KeepFree.usual(),",
    ):
        assert line in text.splitlines(), line
    assert str(Path.home()) not in text


def test_public_values_pickle_by_their_names() -> None:
    for name in public_names():
        value = getattr(layertee, name)
        if inspect.isclass(value):
            assert pickle.loads(pickle.dumps(value)) is value


def test_the_rule_for_what_stays_is_written_down() -> None:
    page = (DOCS / "reference/library.md").read_text(encoding="utf-8")
    assert "DeprecationWarning" in page.partition("## What stays as it is")[2].partition("\n## ")[0]
