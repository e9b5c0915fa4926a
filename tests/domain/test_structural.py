"""What an API server makes of a value by a structural schema. tests/kube/test_schemas.py asks a real one.

- kept: fields that are named, preserved or additional; nested objects by their own rules
- dropped: an object's nulls, also where unknown fields are preserved; a list's stay
- defaulted: absent and null fields, nested defaults
- taken: types, enumerations, lengths, patterns, numbers, lists and their keys, required fields, combinations
"""

from typing import Any

import pytest

from offload.domain.structural import PRESERVE, as_stored, takes

TEXT = {"type": "string"}
OBJECT = {"type": "object"}
BY_NAME = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


@pytest.mark.parametrize(
    ("schema", "value", "stored"),
    [
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        (OBJECT, {"a": 1}, {}),
        ({**OBJECT, "properties": {"a": TEXT}}, {"a": "x", "b": 1}, {"a": "x"}),
        ({**OBJECT, PRESERVE: True, "properties": {"a": OBJECT}}, {"a": {"x": 1}, "b": 1}, {"a": {}, "b": 1}),
        (
            {**OBJECT, "additionalProperties": {**OBJECT, "properties": {"a": TEXT}}},
            {"k": {"a": "1", "b": 2}},
            {"k": {"a": "1"}},
        ),
        ({**OBJECT, "additionalProperties": True}, {"k": {"a": 1}}, {"k": {"a": 1}}),
        ({**OBJECT, PRESERVE: True}, {"a": None, "b": {"c": None}, "d": [None]}, {"b": {}, "d": [None]}),
        ({**OBJECT, "properties": {"a": {**TEXT, "nullable": True}}}, {"a": None}, {}),
        ({**OBJECT, "properties": {"a": {**TEXT, "default": "x"}}}, {}, {"a": "x"}),
        ({**OBJECT, "properties": {"a": {**TEXT, "default": "x"}}}, {"a": "y"}, {"a": "y"}),
        (
            {**OBJECT, "properties": {"a": {**TEXT, "default": "x", "nullable": True}}},
            {"a": None},
            {"a": "x"},
        ),
        (
            {"properties": {"a": {"default": {}, "properties": {"b": {"default": 1}}}}},
            {},
            {"a": {"b": 1}},
        ),
        ({"properties": {"a": {"properties": {"b": {"default": 1}}}}}, {}, {}),
        ({"items": {"properties": {"b": {"default": 1}}}}, [{"c": 2}], [{"b": 1}]),
    ],
)
def test_what_is_stored(schema: dict[str, Any], value: Any, stored: Any) -> None:
    assert as_stored(schema, value) == stored
    assert as_stored(schema, stored) == stored


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, [None, {"a": [None]}], []),
        ({**OBJECT, PRESERVE: True}, [{"a": {"b": [None]}}], []),
        (TEXT, ["", "x"], [1, True, None, {}]),
        ({"type": "integer"}, [1], ["1", 1.5, True]),
        ({"type": "number"}, [1, 1.5], ["1", True]),
        ({"type": "boolean"}, [True], [1, "true"]),
        (OBJECT, [{}], [[], "x"]),
        ({"type": "array"}, [[]], [{}, "x"]),
        ({**TEXT, "nullable": True}, [None], [1]),
        ({"x-kubernetes-int-or-string": True}, [1, "1"], [1.5, True]),
        ({**TEXT, "enum": ["a", "b"]}, ["a"], ["c"]),
        ({**TEXT, "minLength": 1, "maxLength": 2}, ["é", "éé"], ["", "abc"]),
        ({**TEXT, "pattern": "^a"}, ["ab"], ["ba"]),
        ({**TEXT, "pattern": r"^\pL"}, ["1"], []),  # RE2 knows classes that Python does not: not judged here
        ({**TEXT, "pattern": "^(a+)+$"}, ["a" * 64 + "b"], []),  # would never end
        ({**TEXT, "pattern": "^[a-c[:digit:]]$"}, ["x"], []),
        ({**TEXT, "pattern": "(?m)^a$"}, ["a\nb"], []),
        # As RE2 has it: classes are ASCII, and a dollar is the end.
        ({**TEXT, "pattern": r"^[\w./-]+$"}, ["logs/a_1.log"], ["übersicht.log", "a\n"]),
        ({**TEXT, "pattern": r"^\d\s[$]\$$"}, ["1 $$"], ["\u0661 $$", "1\u00a0$$", "1 $$\n", "1 $"]),
        ({"type": "integer", "minimum": 0, "maximum": 9}, [0, 9], [-1, 10]),
        (
            {
                "type": "integer",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 9,
                "exclusiveMaximum": True,
            },
            [1, 8],
            [0, 9],
        ),
        ({"type": "integer", "format": "int32"}, [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1]),
        ({"type": "integer", "format": "int64"}, [2**31], []),
        ({"type": "array", "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"type": "array", "items": TEXT}, [["a"]], [["a", 1]]),
        (BY_NAME, [[{"name": "a"}, {"name": "b"}]], [[{"name": "a"}, {"name": "a"}]]),
        ({**OBJECT, "required": ["a"]}, [{"a": 1}], [{"b": 1}]),
        ({**OBJECT, "additionalProperties": TEXT}, [{"a": "x"}], [{"a": 1}]),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}, {"a": 1, "b": 1}], [{}]),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}], [{}, {"a": 1, "b": 1}]),
        ({"allOf": [{"minLength": 2}], "not": {"enum": ["bad"]}}, ["ok"], ["x", "bad"]),
    ],
)
def test_what_is_taken(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not takes(schema, value)] == []
    assert [value for value in bad if takes(schema, value)] == []
