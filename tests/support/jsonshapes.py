"""The JSON Schema of what ``--json`` prints, as it is published, and more strictly than that.

What is published lets keys be added. A test wants to know of a key that was added and is in no schema.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.support.ccore import ROOT

FILE = ROOT / "docs" / "reference" / "json-1.schema.json"
PUBLISHED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
SHAPES = tuple(one["$ref"].rpartition("/")[2] for one in PUBLISHED["anyOf"])


def check(shape: str, value: object) -> None:
    """Fail unless ``value`` is what the schema has under ``shape``, with no other key anywhere."""
    Draft202012Validator(PUBLISHED).validate(value)
    strict = {name: _closed(one) for name, one in PUBLISHED["$defs"].items()}
    Draft202012Validator({"$ref": f"#/$defs/{shape}", "$defs": strict}).validate(value)


def keys_of_errors() -> set[str]:
    """The facts that an error's object may have."""
    return set(PUBLISHED["$defs"]["error_object"]["properties"])


def _closed(schema: Any) -> Any:
    """``schema`` without the freedom to have more properties than it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed["additionalProperties"] = False
    return closed
