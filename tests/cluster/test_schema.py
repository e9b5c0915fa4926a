"""Structural schemas, as tables: pruning, defaulting, validation; and the small parts of tables and patches.

- prune: known, unknown, preserved, additional properties, lists, embedded resources
- default: absent, null, nullable, nested, not invented
- problems: each keyword once, nullable, int-or-string, list types, all problems at once
- merge: RFC 7396's own examples; JSONPath and ages as kubectl prints them; protobuf bodies
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from offload.cluster.standin import protobuf
from offload.cluster.standin.schema import count_cel_rules, default, problems, prune, validator
from offload.cluster.standin.tables import find, human_age
from offload.cluster.standin.writes import merge

TEXT = {"type": "string"}
KEEP = {"x-kubernetes-preserve-unknown-fields": True}


def inside(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"at": schema}}


@pytest.mark.parametrize(
    ("schema", "value", "kept", "unknown"),
    [
        ({"type": "object", "properties": {"a": TEXT}}, {"a": "x", "b": 1}, {"a": "x"}, ["at.b"]),
        ({"type": "object"}, {"b": 1}, {}, ["at.b"]),
        ({"type": "object", **KEEP}, {"b": {"c": 1}}, {"b": {"c": 1}}, []),
        (
            {"type": "object", **KEEP, "properties": {"a": {"type": "object"}}},
            {"a": {"x": 1}, "b": 1},
            {"a": {}, "b": 1},
            ["at.a.x"],
        ),
        ({"type": "object", "additionalProperties": TEXT}, {"b": "x"}, {"b": "x"}, []),
        ({"type": "object", "additionalProperties": True}, {"b": {"c": 1}}, {"b": {"c": 1}}, []),
        (
            {"type": "object", "additionalProperties": {"type": "object"}},
            {"b": {"c": 1}},
            {"b": {}},
            ["at.b.c"],
        ),
        (
            {"type": "array", "items": {"type": "object", "properties": {"a": TEXT}}},
            [{"a": "x"}, {"b": 1}],
            [{"a": "x"}, {}],
            ["at[1].b"],
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True},
            {"kind": "A", "metadata": {"x": 1}, "b": 1},
            {"kind": "A", "metadata": {"x": 1}},
            ["at.b"],
        ),
        ({"type": "object", "properties": {"a": TEXT}}, "not an object", "not an object", []),
    ],
)
def test_pruning(schema: Any, value: Any, kept: Any, unknown: list[str]) -> None:
    found: list[str] = []
    assert prune({"at": value}, inside(schema), found) == {"at": kept}
    assert found == unknown


def test_pruning_keeps_what_every_object_has() -> None:
    body = {"apiVersion": "v1", "kind": "A", "metadata": {"name": "x"}}
    assert prune(body, {"type": "object"}, []) == body


@pytest.mark.parametrize(
    ("schema", "value", "filled"),
    [
        ({"properties": {"a": {**TEXT, "default": "x"}}}, {}, {"a": "x"}),
        ({"properties": {"a": {**TEXT, "default": "x"}}}, {"a": "y"}, {"a": "y"}),
        ({"properties": {"a": {**TEXT, "default": "x"}}}, {"a": None}, {"a": "x"}),
        ({"properties": {"a": {**TEXT, "default": "x", "nullable": True}}}, {"a": None}, {"a": None}),
        ({"properties": {"a": {"properties": {"b": {"default": 1}}}}}, {}, {}),
        ({"properties": {"a": {"default": {}, "properties": {"b": {"default": 1}}}}}, {}, {"a": {"b": 1}}),
        ({"items": {"properties": {"b": {"default": 1}}}}, [{}, {"b": 2}], [{"b": 1}, {"b": 2}]),
        ({"additionalProperties": {"properties": {"b": {"default": 1}}}}, {"k": {}}, {"k": {"b": 1}}),
    ],
)
def test_defaults(schema: Any, value: Any, filled: Any) -> None:
    assert default(value, schema) == filled


@pytest.mark.parametrize(
    ("schema", "bad", "reason"),
    [
        (TEXT, 1, "FieldValueTypeInvalid"),
        (TEXT, None, "FieldValueTypeInvalid"),
        ({"type": "integer"}, 1.5, "FieldValueTypeInvalid"),
        ({"type": "integer"}, True, "FieldValueTypeInvalid"),
        ({**TEXT, "maxLength": 2}, "abc", "FieldValueTooLong"),
        ({**TEXT, "minLength": 1}, "", "FieldValueInvalid"),
        ({**TEXT, "pattern": "^a"}, "b", "FieldValueInvalid"),
        ({**TEXT, "enum": ["a"]}, "b", "FieldValueNotSupported"),
        ({**TEXT, "format": "date-time"}, "today", "FieldValueInvalid"),
        ({**TEXT, "format": "date-time"}, "2026-01-01T00:00:00", "FieldValueInvalid"),
        ({"type": "integer", "minimum": 0}, -1, "FieldValueInvalid"),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, 0, "FieldValueInvalid"),
        ({"type": "array", "maxItems": 1}, [1, 2], "FieldValueTooMany"),
        ({"type": "array", "x-kubernetes-list-type": "set"}, [1, 1], "FieldValueDuplicate"),
        (
            {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
            [{"k": 1, "a": 1}, {"k": 1}],
            "FieldValueDuplicate",
        ),
        ({"x-kubernetes-int-or-string": True}, 1.5, "FieldValueTypeInvalid"),
        ({"type": "object", "additionalProperties": TEXT}, {"a": 1}, "FieldValueTypeInvalid"),
    ],
)
def test_what_does_not_fit(schema: Any, bad: Any, reason: str) -> None:
    whole = inside(schema)
    (found,) = problems({"at": bad}, validator(whole), whole)
    assert found.field.startswith("at")
    assert found.reason == reason


@pytest.mark.parametrize(
    ("schema", "good"),
    [
        ({**TEXT, "nullable": True}, None),
        ({**TEXT, "nullable": True, "enum": ["a"]}, None),
        ({"x-kubernetes-int-or-string": True}, 1),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, TEXT]}, "1"),
        ({**TEXT, "format": "date-time"}, "2026-01-01T00:00:00.123456Z"),
        ({**TEXT, "format": "date-time"}, "2026-01-01T00:00:00+02:00"),
        ({**TEXT, "maxLength": 2}, "éé"),
        ({"type": "array", "x-kubernetes-list-type": "atomic"}, [1, 1]),
    ],
)
def test_what_fits(schema: Any, good: Any) -> None:
    whole = inside(schema)
    assert problems({"at": good}, validator(whole), whole) == []


def test_every_missing_field_is_named() -> None:
    whole = inside({"type": "object", "required": ["a", "b"]})
    assert [p.field for p in problems({"at": {}}, validator(whole), whole)] == ["at.a", "at.b"]


def test_cel_rules_are_counted() -> None:
    rules = {"x-kubernetes-validations": [{"rule": "true"}, {"rule": "false"}]}
    assert count_cel_rules({"properties": {"a": rules, "b": {"items": rules, "anyOf": [rules]}}}) == 6


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ],
)
def test_merge_patches_as_the_rfc_has_them(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b", [1]),
        (".a.missing", []),
        (".list[0].name", ["x"]),
        (".list[9].name", []),
        (".list[*].name", ["x", "y"]),
        ('.list[?(@.name=="y")].value', [2]),
        (".list[?(@.name=='z')].value", []),
    ],
)
def test_json_paths_of_columns(path: str, values: list[Any]) -> None:
    body = {"a": {"b": 1}, "list": [{"name": "x", "value": 1}, {"name": "y", "value": 2}]}
    assert find(body, path) == values


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (312, "5m12s"), (660, "11m"), (10_800, "3h"), (172_800, "2d")],
)
def test_ages_read_as_kubectls(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert human_age((now - timedelta(seconds=seconds)).isoformat(), now) == text


def test_a_protobuf_body_reads_as_json_would() -> None:
    body = bytes.fromhex("6b3873000a0f0a02763112094e616d6573706163651210") + (
        b"\x0a\x06\x0a\x04team\x12\x00\x1a\x02\x0a\x00" + b"\x08\x01"
    )
    assert protobuf.decode(body) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}


@pytest.mark.parametrize("body", [b"", b"json", b"k8s\x00", b"k8s\x00\x0a\x7f", b"k8s\x00\x80"])
def test_a_protobuf_body_that_is_none_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        protobuf.decode(body)
