"""Structural schemas at work: pruning, defaulting, validation.

The rules are those of "Extend the Kubernetes API with CustomResourceDefinitions" in its documentation.
CEL rules (`x-kubernetes-validations`) are not evaluated.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any, cast

from jsonschema import Draft4Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from offload.cluster.standin.failures import Problem

Schema = Mapping[str, Any]
ROOT_FIELDS = ("apiVersion", "kind", "metadata")


def prune(value: Any, schema: Schema, unknown: list[str], path: str = "") -> Any:
    """`value` without the fields that `schema` does not name; their paths are added to `unknown`."""
    if isinstance(value, dict):
        return _prune_object(value, schema, unknown, path)
    if isinstance(value, list) and "items" in schema:
        return [prune(item, schema["items"], unknown, f"{path}[{i}]") for i, item in enumerate(value)]
    return value


def default(value: Any, schema: Schema) -> Any:
    """`value` with the schema's defaults where a field is absent; a null that may not be counts as absent."""
    if isinstance(value, dict):
        filled = dict(value)
        for key, sub in schema.get("properties", {}).items():
            if filled.get(key) is None and not sub.get("nullable"):
                filled.pop(key, None)
            if key not in filled and "default" in sub:
                filled[key] = deepcopy(sub["default"])
            if key in filled:
                filled[key] = default(filled[key], sub)
        extra = schema.get("additionalProperties")
        if isinstance(extra, Mapping):
            filled = {key: default(item, extra) for key, item in filled.items()}
        return filled
    if isinstance(value, list) and "items" in schema:
        return [default(item, schema["items"]) for item in value]
    return value


def validator(schema: Schema) -> Draft4Validator:
    """A validator for `problems`. OpenAPI 3.0 extends the draft before JSON Schema 4."""
    return Draft4Validator(_as_json_schema(schema), format_checker=_FORMATS)


def problems(value: Any, checker: Draft4Validator, schema: Schema) -> list[Problem]:
    """All that does not fit, as Kubernetes would name it."""
    found = [problem for error in checker.iter_errors(value) for problem in _problems(error)]
    return list(dict.fromkeys(found)) + list(_duplicates(value, schema, ""))


def count_cel_rules(schema: Any) -> int:
    """How many `x-kubernetes-validations` a schema holds."""
    if isinstance(schema, Mapping):
        own = schema.get("x-kubernetes-validations")
        return (len(own) if isinstance(own, list) else 0) + sum(map(count_cel_rules, schema.values()))
    if isinstance(schema, list):
        return sum(map(count_cel_rules, schema))
    return 0


def _prune_object(value: dict[str, Any], schema: Schema, unknown: list[str], path: str) -> dict[str, Any]:
    known = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    implied = ROOT_FIELDS if not path or schema.get("x-kubernetes-embedded-resource") else ()
    pruned = {}
    for key, item in value.items():
        below = f"{path}.{key}" if path else key
        if key in known and key not in implied:
            pruned[key] = prune(item, known[key], unknown, below)
        elif isinstance(extra, Mapping):
            pruned[key] = prune(item, extra, unknown, below)
        elif keeps or extra is True or key in implied:
            pruned[key] = item
        else:
            unknown.append(below)
    return pruned


def _as_json_schema(schema: Any) -> Any:
    """The same rules in JSON Schema's words: `nullable` and `x-kubernetes-int-or-string` become types."""
    if isinstance(schema, list):
        return [_as_json_schema(sub) for sub in schema]
    if not isinstance(schema, Mapping):
        return schema
    words: dict[str, Any] = {}
    for key, item in schema.items():
        if key == "properties":
            words[key] = {name: _as_json_schema(sub) for name, sub in item.items()}
        elif key in _SUBSCHEMAS:
            words[key] = (
                [_as_json_schema(sub) for sub in item] if isinstance(item, list) else _as_json_schema(item)
            )
        elif key in _WORDS:
            words[key] = item
    if schema.get("x-kubernetes-int-or-string"):
        words["type"] = ["integer", "string"]
        words.pop("anyOf", None)
    if schema.get("nullable") and "type" in words:
        kinds = words["type"] if isinstance(words["type"], list) else [words["type"]]
        words["type"] = [*kinds, "null"]
        if "enum" in words:
            words["enum"] = [*words["enum"], None]
    return words


_SUBSCHEMAS = frozenset({"items", "additionalProperties", "not", "allOf", "anyOf", "oneOf"})
_WORDS = frozenset(
    {"type", "format", "enum", "required", "pattern", "minLength", "maxLength"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"}
)

_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if isinstance(value, str):
        if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", value):
            return False
        return datetime.fromisoformat(value).tzinfo is not None
    return True


def _problems(error: ValidationError) -> Iterator[Problem]:
    """What Kubernetes says where jsonschema says `error`; of missing fields it says each one."""
    path = ""
    for step in error.absolute_path:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    word, got, rule = str(error.validator), cast("Any", error.instance), cast("Any", error.validator_value)
    shown = json.dumps(got)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    match word:
        case "required":
            for key in rule:
                if key not in got:
                    yield Problem(f"{path}.{key}" if path else key, "Required value", "FieldValueRequired")
        case "maxItems":
            message = f"Too many: {len(got)}: must have at most {rule} items"
            yield Problem(path, message, "FieldValueTooMany")
        case "maxLength":
            yield Problem(path, f"Too long: may not be more than {rule} bytes", "FieldValueTooLong")
        case "enum":
            allowed = ", ".join(json.dumps(item) for item in rule)
            message = f"Unsupported value: {shown}: supported values: {allowed}"
            yield Problem(path, message, "FieldValueNotSupported")
        case _:
            reason = "FieldValueTypeInvalid" if word == "type" else "FieldValueInvalid"
            yield Problem(path, f"Invalid value: {shown}: {word} must be {rule}", reason)


_SHOWN = 100


def _duplicates(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    if isinstance(value, list):
        items = schema.get("items", {})
        keys = schema.get("x-kubernetes-list-map-keys", ())
        kind = schema.get("x-kubernetes-list-type")
        seen = set()
        for i, item in enumerate(value):
            identity = None
            if kind == "set":
                identity = json.dumps(item, sort_keys=True)
            elif kind == "map" and isinstance(item, dict):
                identity = json.dumps([item.get(key) for key in keys])
            if identity is not None and identity in seen:
                message = f"Duplicate value: {json.dumps(item)[:_SHOWN]}"
                yield Problem(f"{path}[{i}]", message, "FieldValueDuplicate")
            seen.add(identity)
            yield from _duplicates(item, items, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, sub in schema.get("properties", {}).items():
            if key in value:
                yield from _duplicates(value[key], sub, f"{path}.{key}" if path else key)
