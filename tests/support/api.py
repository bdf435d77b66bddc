"""The public surface of the library, written down: every public name with its full signature.

Public is what ``layertee`` and ``layertee.errors`` list in ``__all__``, and of their classes what has no
leading underscore. ``make docs`` writes it into docs/reference/api.md, where a change can be read in a diff.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import layertee
from layertee import errors

WIDTH = 96
HANDED_OUT = {"LayerStream", "Store"}  # by open_layer, and Store.open
# What can be reached from public names, and may change with any version: inner objects.
INNER = {"Catalog", "Extent", "FileReader", "HeldLock", "Ingest", "Layout", "Space"}
# Words of annotations that are Python's own, or typing's.
_MODULE = re.compile(r"\b(?:collections\.abc|layertee(?:\.\w+)*)\.(?=[A-Z])")
_WORD = re.compile(r"(?<![\w.'\"])[A-Z]\w+")


class Argument(NamedTuple):
    """As it is written in a signature. ``mark`` is ``*`` or ``**`` or empty."""

    name: str
    kind: str = ""
    default: str = ""
    mark: str = ""

    def __str__(self) -> str:
        text = f"{self.mark}{self.name}" + (f": {self.kind}" if self.kind else "")
        return f"{text} = {self.default}" if self.default else text


def public_names() -> list[str]:
    """Those of the package, without dunder names."""
    return [name for name in layertee.__all__ if not name.startswith("_")]


def surface() -> str:
    """All of it, as Markdown."""
    return "\n\n".join(_entry(name, getattr(layertee, name)) for name in public_names())


def _entry(name: str, value: Any) -> str:
    code = "\n".join(_lines_of(name, value))
    said = inspect.cleandoc((value.__doc__ or "") if callable(value) and not _is_alias(value) else "")
    said = re.sub(r":\w+:`~?\.?([\w.]+)`", r"`\1`", said.replace("``", "`")).split("\n\n")[0]
    return "\n\n".join(part for part in (f"### {name}", said, f"```text\n{code}\n```") if part)


def _is_alias(value: Any) -> bool:
    return not inspect.isclass(value) and not inspect.isroutine(value)


def _lines_of(name: str, value: Any) -> Iterator[str]:
    if inspect.ismodule(value):
        yield f"module {value.__name__}"
    elif inspect.isclass(value):
        yield from _class(value)
    elif inspect.isroutine(value):
        yield from _call(f"def {name}", _arguments(value), _returned(value))
    else:
        yield f"{name} = {_MODULE.sub('', str(value))}"


def _class(kind: type) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__bases__ if base.__module__.startswith("layertee.")]
    if issubclass(kind, enum.Enum):
        bases = ["Enum"]
    elif getattr(kind, "_is_protocol", False):
        bases = ["Protocol"]
    made_with = _made_with(kind)
    yield from _call(f"class {kind.__name__}" + (f" [{', '.join(bases)}]" if bases else ""), made_with)
    if issubclass(kind, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in kind)
    if dataclasses.is_dataclass(kind):
        given = {one.name: one.kind for one in made_with or ()}
        kept = {field.name: str(field.type) for field in dataclasses.fields(kind)}
        yield from (f"    {name}: {type_}" for name, type_ in kept.items() if type_ != given.get(name))
    yield from (
        f"    {name}: {type_}" if type_ else f"    {name}" for name, type_ in _attributes(kind).items()
    )
    for name, member in members(kind).items():
        yield from (f"    {line}" for line in _member(name, member))


def members(kind: type) -> dict[str, Any]:
    """The public members of a class and of those of ours that it is made of; no fields, nor an enum's."""
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        if one.__module__.startswith("layertee."):
            for name, member in vars(one).items():
                known = isinstance(member, property | FunctionType | classmethod | staticmethod)
                if known and not name.startswith("_") and name not in fields:
                    found[name] = member
    return found


def _member(name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property):
        assert member.fget is not None
        yield f"property {name}: {_returned(member.fget)}"
        return
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    kind = "classmethod " if isinstance(member, classmethod) else ""
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        kind = "async "
    arguments = _arguments(function)
    yield from _call(
        f"{kind}{name}", arguments if isinstance(member, staticmethod) else arguments[1:], _returned(function)
    )


def _returned(function: Callable[..., Any]) -> str:
    said = inspect.signature(function).return_annotation
    text = "" if said is inspect.Signature.empty else str(said)
    if hasattr(function, "__wrapped__") and text.startswith(("AsyncIterator[", "Iterator[")):
        kind = "AbstractAsyncContextManager" if text.startswith("Async") else "AbstractContextManager"
        return f"{kind}[{text.partition('[')[2]}"
    return text


def _arguments(function: Callable[..., Any]) -> list[Argument]:
    found: list[Argument] = []
    by_name = False
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not by_name:
            found.append(Argument("*"))
        by_name = by_name or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        kind = "" if each.annotation is each.empty else str(each.annotation)
        mark = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        found.append(
            Argument(each.name, kind, "" if each.default is each.empty else _shown(each.default), mark)
        )
    return found


def _made_with(kind: type) -> list[Argument] | None:
    """What a class is called with; None for one that callers do not make."""
    if issubclass(kind, enum.Enum) or getattr(kind, "_is_protocol", False) or kind.__name__ in HANDED_OUT:
        return None
    if not dataclasses.is_dataclass(kind):
        own = vars(kind).get("__init__")
        return _arguments(own)[1:] if own is not None else None
    taken = _given_types(kind)
    found: list[Argument] = []
    for field in dataclasses.fields(kind):
        if field.kw_only and Argument("*") not in found:
            found.append(Argument("*"))
        default = ""
        if field.default_factory is not dataclasses.MISSING:
            default = f"{getattr(field.default_factory, '__qualname__', '')}()"
        elif field.default is not dataclasses.MISSING:
            default = _shown(field.default)
        found.append(Argument(field.name, taken.get(field.name, str(field.type)), default))
    return found


def _attributes(kind: type) -> dict[str, str]:
    """What ``__init__`` of a class that is no value sets, with types where it says them."""
    if dataclasses.is_dataclass(kind) or (init := _init_of(kind)) is None:
        return {}
    given = {one.arg: ast.unparse(one.annotation) for one in init.args.args if one.annotation is not None}
    found: dict[str, str] = {}
    for node in ast.walk(init):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Attribute):
                said = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
                value = node.value
                name = value.id if isinstance(value, ast.Name) else ""
                if not target.attr.startswith("_"):
                    found[target.attr] = said or found.get(target.attr) or given.get(name, "")
    return found


@cache
def _given_types(kind: type) -> dict[str, str]:
    """What a type checker is shown for ``__init__``, where that is more than the types of the fields."""
    init = _init_of(kind)
    every = [*init.args.args, *init.args.kwonlyargs] if init is not None else []
    return {one.arg: ast.unparse(one.annotation) for one in every if one.annotation is not None}


@cache
def _init_of(kind: type) -> ast.FunctionDef | None:
    """As it is written; also one that only type checkers are shown."""
    path = Path(layertee.__file__).parents[1] / (kind.__module__.replace(".", "/") + ".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            for each in ast.walk(node):
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    return each
    return None


def _shown(default: object) -> str:
    if default is os.environ:
        return "os.environ"
    return str(default) if isinstance(default, enum.Enum) else repr(default)


def _call(head: str, arguments: list[Argument] | None, returned: str = "") -> Iterator[str]:
    tail = f" -> {returned}" if returned else ""
    if arguments is None:
        yield head + tail
        return
    whole = f"{head}({', '.join(map(str, arguments))}){tail}"
    if len(whole) <= WIDTH:
        yield whole
        return
    yield f"{head}("
    yield from (f"    {argument}," for argument in arguments)
    yield f"){tail}"


def reached() -> dict[str, set[str]]:
    """The classes of the package that signatures name and that are not public, with what names them."""
    public = {*layertee.__all__, *errors.__all__}
    found: dict[str, set[str]] = {}
    for name in public_names():
        for line in _lines_of(name, getattr(layertee, name)):
            for text in re.findall(r"(?::|->) ([^=]+?)(?: =|,?$|, \w+:)", line):
                for word in set(_WORD.findall(text)) & _classes() - public:
                    found.setdefault(word, set()).add(name)
    return found


@cache
def _classes() -> frozenset[str]:
    texts = (path.read_text(encoding="utf-8") for path in Path(layertee.__file__).parent.rglob("*.py"))
    return frozenset(name for text in texts for name in re.findall(r"^class (\w+)", text, re.MULTILINE))
