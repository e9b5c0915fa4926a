"""Structural schemas, as CRDs have them: what the API server keeps of a value, adds to it, and takes."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

PRESERVE = "x-kubernetes-preserve-unknown-fields"

Schema = Mapping[str, Any]

OPEN: Schema = {"type": "object", PRESERVE: True}
"""Keeps every object as it is."""


def keeps(schema: Schema, field: str) -> bool:
    """Whether an object's field outlives pruning."""
    return (
        field in schema.get("properties", {})
        or bool(schema.get("additionalProperties"))
        or schema.get(PRESERVE, False) is True
    )


def rule(schema: Schema, field: str) -> Schema:
    """What holds for an object's field; empty for anything that is kept as it is."""
    extra = schema.get("additionalProperties")
    found: Schema = schema.get("properties", {}).get(field, extra if isinstance(extra, Mapping) else {})
    return found


def as_stored(schema: Schema, value: Any) -> Any:
    """`value`, sent in a merge patch, after pruning and defaulting.

    A field that is null is not there: a merge patch drops it, in the items of a list as well.
    """
    schema = schema or OPEN
    if isinstance(value, list):
        return [as_stored(schema.get("items", OPEN), item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {
        name: as_stored(rule(schema, name), item)
        for name, item in value.items()
        if item is not None and keeps(schema, name)
    }
    missing = {
        name: as_stored(found, found["default"])
        for name, found in schema.get("properties", {}).items()
        if "default" in found and name not in kept
    }
    return {**kept, **missing}


def takes(schema: Schema, value: Any) -> bool:
    """Whether `value`, as stored, is valid.

    CEL rules and formats of strings are the API server's to judge, and so are patterns of many lines, with
    classes by name, or that repeat a group: Python would try every way to split a value among the
    repetitions, RE2 does not.
    """
    if value is None or not schema:
        return not schema or bool(schema.get("nullable"))
    if not _is_of(schema, value) or value not in schema.get("enum", [value]):
        return False
    judge: _Judge = _JUDGES.get(type(value), _takes_object)
    return _takes_nested(schema, value) and judge(schema, value)


def list_key(schema: Schema, item: Any) -> tuple[Any, ...] | None:
    """What may be in the list that `schema` describes only once; None where `item` may be repeated."""
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, Mapping):
        return None
    return tuple(item.get(key) for key in schema.get("x-kubernetes-list-map-keys", ()))


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (Mapping,),
}
_Judge = Callable[[Schema, Any], bool]
_COMBINED = frozenset({"allOf", "anyOf", "oneOf", "not"})
_NOT_JUDGED = re.compile(r"\)[*+{]|\[:\^?\w+:\]|\(\?\w*m")
_END = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\$")
"""The end of a pattern's text, behind what may hold a dollar that means itself."""


def _is_of(schema: Schema, value: Any) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, (int, str)) and not isinstance(value, bool)
    wanted = _TYPES.get(schema.get("type", ""))
    if isinstance(value, bool):
        return wanted is None or wanted == (bool,)
    return wanted is None or isinstance(value, wanted)


def _takes_nested(schema: Schema, value: Any) -> bool:
    if _COMBINED.isdisjoint(schema):
        return True
    return (
        all(takes(one, value) for one in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(takes(one, value) for one in schema["anyOf"]))
        and ("oneOf" not in schema or sum(takes(one, value) for one in schema["oneOf"]) == 1)
        and ("not" not in schema or not takes(schema["not"], value))
    )


def _takes_object(schema: Schema, value: Mapping[str, Any]) -> bool:
    required = set(schema.get("required", ()))
    return required <= value.keys() and all(takes(rule(schema, name), item) for name, item in value.items())


def _takes_text(schema: Schema, value: str) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return False
    pattern = _pattern(schema.get("pattern") or "")
    return pattern is None or pattern.search(value) is not None


@cache
def _pattern(written: str) -> re.Pattern[str] | None:
    """As RE2 reads it; None where it is not judged here."""
    if _NOT_JUDGED.search(written):
        return None
    # RE2's classes are ASCII, and its `$` is not before a last line's end.
    written = _END.sub(lambda found: found[1] or r"\Z", written)
    try:
        return re.compile(written, re.ASCII)
    except re.error:  # RE2 has words that Python has not
        return None


def _takes_number(schema: Schema, value: float) -> bool:
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    if schema.get("format") == "int32":
        least, most = max(least, -(2**31)), min(most, 2**31 - 1)
    return bool(
        least <= value <= most
        and not (schema.get("exclusiveMinimum") and value == least)
        and not (schema.get("exclusiveMaximum") and value == most)
    )


def _takes_list(schema: Schema, value: list[Any]) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    keys = [key for key in (list_key(schema, item) for item in value) if key is not None]
    items = schema.get("items") or {}
    return len(set(keys)) == len(keys) and all(takes(items, item) for item in value)


def _takes_bool(_schema: Schema, _value: bool) -> bool:
    return True


_JUDGES: Mapping[type, _Judge] = {
    str: _takes_text,
    int: _takes_number,
    float: _takes_number,
    list: _takes_list,
    bool: _takes_bool,
}
