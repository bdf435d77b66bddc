"""``dataclass`` for small values: the one of dataclasses, made in a fifth of the time.

A command imports a hundred classes that are ``@dataclass(frozen=True, slots=True)``, and uses ten of them.
The standard library compiles six functions for each, which was a fifth of the CPU of a pull with nothing to
do. Here ``__init__`` alone is compiled; the other methods are the same for every class, and have the names of
its fields. What such a class does is what it would do otherwise: ``fields``, ``replace`` and ``match``
included. Any other dataclass, of which there are few, is the standard library's.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass

__all__ = ["dataclass"]

T = TypeVar("T")
_FACTORY: Any = object()  # in place of an argument, where the field has a function that makes its value


if not TYPE_CHECKING:  # for a type checker it is the standard library's

    def dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False, **more: bool):
        """As dataclasses.dataclass, and quick for classes that are ``frozen`` and have ``slots``."""

        def make(cls):
            if not (frozen and slots) or more or not _is_simple(cls):
                return dataclasses.dataclass(frozen=frozen, slots=slots, kw_only=kw_only, **more)(cls)
            return _made(cls, kw_only)

        return make


def _is_simple(cls: type) -> bool:
    """Whether it has no ``InitVar``, and no base that is frozen as the standard library does it."""
    kinds = cls.__annotations__.values()
    bases = (vars(base).get("__dataclass_params__") for base in cls.__mro__)
    return not any(str(kind).startswith("InitVar") for kind in kinds) and not any(
        base.frozen for base in bases if base is not None
    )


def _made(given: type[T], kw_only: bool) -> type[T]:
    if not given.__doc__:
        given.__doc__ = given.__name__  # the signature, which inspect takes long for, is not worth it
    cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(given)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    methods = {
        "__init__": _init(cls, fields),
        "__repr__": _repr(tuple(field.name for field in fields if field.repr)),
        **_comparisons(fields),
        "__setattr__": _set,
        "__delattr__": _delete,
        "__getstate__": _state,
        "__setstate__": _restore,
    }
    for name, method in methods.items():
        # Who has an __eq__ and no __hash__ gets None for it from the language.
        if vars(cls).get(name) is None:
            setattr(cls, name, method)
    return cls


def _init(cls: type, fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., None]:
    """The only method that is compiled: nothing takes arguments apart faster than the interpreter."""
    names: dict[str, Any] = {"_put": object.__setattr__, "_FACTORY": _FACTORY}
    positional: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    for field in fields:
        name, value = field.name, field.name
        argument = name
        if field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            argument = f"{name}=_default_{name}"
            value = name if field.init else f"_default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = field.default_factory
            argument = f"{name}=_FACTORY"
            value = f"_make_{name}()" + (f" if {name} is _FACTORY else {name}" if field.init else "")
        elif not field.init:
            continue
        if field.init:
            (by_name if field.kw_only else positional).append(argument)
        body.append(f" _put(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    arguments = ["self", *positional, *(["*", *by_name] if by_name else [])]
    exec(f"def __init__({', '.join(arguments)}):\n" + "\n".join(body or [" pass"]), names)
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return init


def _comparisons(fields: tuple[dataclasses.Field[Any], ...]) -> dict[str, Callable[..., Any]]:
    equal = _values([field.name for field in fields if field.compare])
    hashed = _values(
        [field.name for field in fields if (field.compare if field.hash is None else field.hash)]
    )

    def __eq__(self: object, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return equal(self) == equal(other)

    def __hash__(self: object) -> int:
        return hash(hashed(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What has the values of the fields ``names``, in a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _repr(names: tuple[str, ...]) -> Callable[[Any], str]:
    @recursive_repr()
    def __repr__(self: object) -> str:
        return (
            f"{self.__class__.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"
        )

    return __repr__


def _set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    """For copy and pickle, which could not set what is frozen."""
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
