"""``record.dataclass`` beside the standard library's: of the same source, two classes that behave alike."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from layertee import record

HEAD = """\
from __future__ import annotations
import dataclasses
from dataclasses import InitVar, field
from typing import Any, ClassVar

@dataclass(frozen=True, slots=True)
class Base:
    a: int
    z: str = "z"

"""
SOURCES = {
    "plain": "class Value:\n    a: int\n    b: str",
    "one": "class Value:\n    a: int",
    "empty": "class Value:\n    pass",
    "defaults": 'class Value:\n    "What it is."\n    a: int\n    b: str = "b"\n    c: tuple[int, ...] = ()',
    "made": "class Value:\n    a: int\n    b: list[int] = field(default_factory=list)",
    "hidden": "class Value:\n    a: int\n    b: str = field(default='', repr=False, compare=False)",
    "unhashed": "class Value:\n    a: int\n    b: Any = field(default='', hash=False)",
    "not given": "class Value:\n    a: int\n    b: int = field(default=7, init=False)",
    "not given, made": "class Value:\n    a: int\n    b: list[int] = field(default_factory=list, init=False)",
    "by name": "class Value:\n    b: str = 'b'\n    a: int = field(kw_only=True)",
    "checked": "class Value:\n    a: int\n    def __post_init__(self):\n        if self.a == 13:\n"
    "            raise ValueError(self.a)",
    "methods of its own": "class Value:\n    a: int\n    b: str = 'b'\n"
    "    def __repr__(self):\n        return 'v'\n"
    "    def __eq__(self, other):\n        return True\n    def __hash__(self):\n        return 3",
    "equal of its own": "class Value:\n    a: int\n    b: str = 'b'\n    def __eq__(self, other):\n"
    "        return isinstance(other, Value) and self.a == other.a",
    "class variable": "class Value:\n    a: int\n    N: ClassVar[int] = 3",
    "names that are used inside": "class Value:\n    name: int\n    put: str = 'p'\n    object: str = 'o'",
    "derived": "class Value(Base):\n    b: str = 'b'",
}
CALLS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((), {}),
    ((1,), {}),
    ((1, "x"), {}),
    ((), {"a": 1}),
    ((), {"a": 13, "b": "x"}),
    (("x",), {"a": 2}),
    ((1, "x", "y", "z"), {}),
    ((1,), {"unknown": 1}),
)


def made_by(decorator: Callable[..., Any], source: str) -> Any:
    """The class ``Value`` of ``source``, in a module of its own, where pickle finds it."""
    module = types.ModuleType(f"values_of_{decorator.__module__.rpartition('.')[2]}")
    sys.modules[module.__name__] = module
    vars(module)["dataclass"] = decorator
    exec(
        HEAD + (source if source.startswith("@") else "@dataclass(frozen=True, slots=True)\n" + source),
        vars(module),
    )
    return vars(module)["Value"]


def outcome(call: Callable[..., Any], *args: Any, **words: Any) -> Any:
    """What ``call`` returns, or the class of what it raises."""
    try:
        return call(*args, **words)
    except (TypeError, ValueError) as exc:
        return type(exc)


@pytest.fixture(params=list(SOURCES.values()), ids=list(SOURCES))
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The same class, by this decorator and by the standard library's."""
    return made_by(record.dataclass, request.param), made_by(dataclasses.dataclass, request.param)


@pytest.fixture
def pairs(both: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """Values of both, made by the same arguments; what one of them refuses, the other does."""
    made = [[outcome(cls, *args, **words) for args, words in CALLS] for cls in both]
    refused = [[one if isinstance(one, type) else None for one in each] for each in made]
    assert refused[0] == refused[1]
    return [pair for pair in zip(*made, strict=True) if not isinstance(pair[0], type)]


def test_the_classes_look_alike(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    for name in ("__slots__", "__match_args__", "__qualname__"):
        assert getattr(ours, name) == getattr(theirs, name)
    signatures = [
        [(one.name, one.kind, one.annotation) for one in inspect.signature(cls).parameters.values()]
        for cls in both
    ]
    assert signatures[0] == signatures[1]
    assert ("__dict__" in dir(ours)) == ("__dict__" in dir(theirs))


def test_values_look_alike_and_are_frozen(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        assert repr(ours) == repr(theirs)
        assert outcome(hash, ours) == outcome(hash, theirs)
        for field in dataclasses.fields(theirs):
            assert getattr(ours, field.name) == getattr(theirs, field.name)
            with pytest.raises(
                dataclasses.FrozenInstanceError, match=f"cannot assign to field '{field.name}'"
            ):
                setattr(ours, field.name, 2)
            with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot delete field '{field.name}'"):
                delattr(ours, field.name)
        with pytest.raises(AttributeError):
            ours.unknown = 1


def test_values_can_be_copied_pickled_and_replaced(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        for copied in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert copied == ours and copied is not ours
        assert outcome(dataclasses.asdict, ours) == outcome(dataclasses.asdict, theirs)
        for changes in ({}, {"a": 5}, {"b": "new"}, {"a": 5, "b": "new"}, {"unknown": 1}):
            changed = [repr(outcome(dataclasses.replace, value, **changes)) for value in (ours, theirs)]
            assert changed[0] == changed[1]


def test_values_are_equal_where_those_of_the_standard_library_are(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        assert [ours == other for other, _ in pairs] == [theirs == other for _, other in pairs]
        assert (ours == (1,)) == (theirs == (1,))
    assert any(one == other for one, _ in pairs for other, _ in pairs)


def test_a_default_that_is_made_is_made_for_each_value() -> None:
    value = made_by(record.dataclass, SOURCES["made"])
    one, other = value(1), value(1)
    one.b.append(1)
    assert (one.b, other.b) == ([1], [])


def test_a_value_that_holds_itself_can_be_shown() -> None:
    value = made_by(record.dataclass, SOURCES["made"])(1)
    value.b.append(value)
    assert repr(value) == "Value(a=1, b=[...])"


def test_methods_and_properties_stay() -> None:
    value = made_by(
        record.dataclass,
        "class Value:\n    a: int\n    def twice(self):\n        return 2 * self.a\n"
        "    @property\n    def half(self):\n        return self.a // 2\n",
    )(4)
    assert (value.twice(), value.half) == (8, 2)


@pytest.mark.parametrize(
    "source",
    [
        "@dataclass()\nclass Value:\n    a: int",
        "@dataclass(slots=True)\nclass Value:\n    a: int",
        "@dataclass(frozen=True)\nclass Value:\n    a: int",
        "@dataclass(frozen=True, slots=True, order=True)\nclass Value:\n    a: int",
        "@dataclass(frozen=True, slots=True)\nclass Value:\n    a: int\n    b: InitVar[int] = 3",
    ],
)
def test_any_other_dataclass_is_the_standard_library_s(source: str) -> None:
    ours, theirs = made_by(record.dataclass, source), made_by(dataclasses.dataclass, source)
    assert vars(ours).keys() == vars(theirs).keys()
    assert repr(ours.__dataclass_params__) == repr(theirs.__dataclass_params__)
    assert outcome(inspect.signature, ours) == outcome(inspect.signature, theirs)


def test_a_class_may_come_from_a_frozen_one_of_the_standard_library() -> None:
    value = made_by(
        record.dataclass,
        "@dataclasses.dataclass(frozen=True, slots=True)\nclass Other:\n    a: int\n"
        "@dataclass(frozen=True, slots=True)\nclass Value(Other):\n    b: int\n",
    )
    assert repr(value(1, 2)) == "Value(a=1, b=2)"
