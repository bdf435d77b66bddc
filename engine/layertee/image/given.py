"""What callers give, as the values that are meant: a text for a member of an enum, for a path, for several.

A value that there is not is refused where it is given, with those that there are, and not where it is used.
"""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["of_declared_types", "one_of", "parsed", "path_of", "several"]

E = TypeVar("E", bound=enum.Enum)
T = TypeVar("T")

# By the words of an annotation: what is taken for it, and what that is called.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a text"),
    "None": ((type(None),), "None"),
}


def of_declared_types(value: Any, *kinds: type) -> None:
    """Refuse a dataclass, a field of which is declared as a bool, int, float, str or one of ``kinds``, or as
    None besides, and holds something else; True and False are no numbers. Other fields are not looked at.

    Raises TypeError, and ValueError for what is not a number by its own account.
    """
    known = _TYPES | {kind.__name__: ((kind,), kind.__name__) for kind in kinds}
    for field in fields(value):
        words = str(field.type).split(" | ")
        if not known.keys() >= set(words):
            continue
        given = getattr(value, field.name)
        is_taken = any(
            isinstance(given, known[word][0]) and (word == "bool" or not isinstance(given, bool))
            for word in words
        )
        if not is_taken:
            taken = " or ".join(known[word][1] for word in words)
            raise TypeError(f"{field.name} is {taken}, not {type(given).__name__}")
        if isinstance(given, float) and math.isnan(given):
            raise ValueError(f"{field.name} is a number, not {given}")


def one_of(kind: type[E], given: object, what: str) -> E:
    """The member of ``kind`` that ``given`` is, or is the value of. Raises ValueError, which names all."""
    if isinstance(given, kind):
        return given
    for member in kind:
        if member.value == given:
            return member
    there_are = ", ".join(repr(member.value) for member in kind)
    raise ValueError(f"{what} is one of {there_are}, not {given!r:.100}")


def path_of(given: object, what: str) -> Path | None:
    """A path, of its text as well; None stays None. Raises ValueError for an empty one, TypeError."""
    if given is None or isinstance(given, Path):
        return given
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{what} is a path, not {type(given).__name__}")
    text = os.fspath(given)
    if not isinstance(text, str):
        raise TypeError(f"{what} is a path that is a text, not {type(text).__name__}")
    if not text or "\0" in text:
        raise ValueError(f"{what} is no path: {text!r:.100}")
    return Path(text)


def parsed(kind: type[T], given: object, what: str, parse: Callable[[str], T]) -> T:
    """A value of ``kind``, or what ``parse`` makes of a text. Raises what it raises, TypeError."""
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return parse(given)
    raise TypeError(f"{what} is {kind.__name__} or a text, not {type(given).__name__}")


def several(given: object, what: str) -> tuple[object, ...]:
    """What is iterable, in a tuple; a text or a path is one thing. Raises TypeError."""
    if isinstance(given, str | os.PathLike):
        return (given,)
    if isinstance(given, Iterable):
        return tuple(given)
    raise TypeError(f"{what} are several, not {type(given).__name__}")
