"""What status says where the served schema has rules of its own. tests/kube/test_schemas.py has real ones.

Cases: conditions of ours that cannot be kept, that are cut, that would have those of others refused; defaults
beside ours; phases that the schema does not know; one entry of a name; nulls of others; names by a pattern;
conditions, phases and entries of any shape where the schema takes anything.
"""

from typing import Any

import pytest

from offload.domain.conditions import OVER_LIMIT, TRUNCATED
from offload.domain.external import External
from offload.domain.pointers import Reason, read_schema
from offload.errors import PointersNotKeptError
from tests.domain.test_projection import CONDITION, ITEM, TEXT, artifact, history, names, projected

OTHERS = {"type": "Ready", "status": "True", "reason": "Up", "message": "", "lastTransitionTime": "x"}
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def served(*, item: dict[str, Any] | None = None, **fields: Any) -> Any:
    properties = {
        "phase": TEXT,
        "reason": TEXT,
        "finishedAt": TEXT,
        "conditions": {"type": "array", "items": CONDITION},
        "artifacts": {"type": "array", "items": item or ITEM},
        **fields,
    }
    return read_schema({"type": "object", "properties": properties})


def conditions(**item: Any) -> dict[str, Any]:
    return {"type": "array", "items": {**CONDITION, **item}}


def properties(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {**CONDITION["properties"], **changes}  # type: ignore[dict-item]
    return {name: rule for name, rule in found.items() if rule}


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (conditions(), True),
        (conditions(required=["type"], properties=properties(lastTransitionTime=None)), True),
        (conditions(properties=properties(message={"type": "string", "maxLength": 10})), True),
        ({"type": "array", "items": {"type": "object", PRESERVE: True}}, True),
        (conditions(required=["observedGeneration"]), False),
        (conditions(properties=properties(type={"type": "string", "enum": ["Ready"]})), False),
        (conditions(required=["status"], properties=properties(type=None)), False),
        ({"type": "object", PRESERVE: True}, False),
    ],
)
def test_a_condition_is_written_where_it_is_kept_and_found_again(rule: dict[str, Any], told: bool) -> None:
    schema = served(conditions=rule)
    projection = projected(history(4), served=schema)
    assert schema.tells is told
    assert ("conditions" in projection.desired) is told
    assert bool(projection.transitions) is told
    assert names(projection) == ["log-2", "log-3", "log-4"]
    again = projected(history(4), dict(projection.desired), served=schema)
    assert not again.differs_from(projection.desired)


def test_a_message_is_cut_to_what_the_schema_takes() -> None:
    schema = served(conditions=conditions(properties=properties(message={"type": "string", "maxLength": 20})))
    [condition] = projected(history(4), served=schema).desired["conditions"]
    assert condition["message"] == "3 of 4 artifacts are"


@pytest.mark.parametrize("rule", [{"maxItems": 1}, {"items": {**CONDITION, "required": ["url"]}}])
def test_conditions_stay_as_they_are_where_ours_would_have_all_refused(rule: dict[str, Any]) -> None:
    schema = served(conditions={**conditions(), **rule})
    projection = projected(history(4), {"conditions": [OTHERS]}, served=schema)
    assert set(projection.patch_for({"conditions": [OTHERS]})) == {"artifacts"}


def test_conditions_that_status_would_have_by_default_stand_beside_ours() -> None:
    schema = served(conditions={**conditions(), "default": [OTHERS]})
    types = [one["type"] for one in projected(history(4), served=schema).desired["conditions"]]
    assert types == ["Ready", TRUNCATED]


def test_a_phase_that_the_schema_does_not_know_is_not_written() -> None:
    schema = served(phase={"type": "string", "enum": ["Running", "Error"]})
    projection = projected(history(4), {"phase": "Running"}, served=schema, strict=True)
    assert "phase" not in projection.desired
    assert projection.desired["reason"] == "ArtifactsOverLimit"


def test_where_a_name_may_be_listed_once_it_is_the_artifact_s_then_the_newest_s() -> None:
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    schema = served(artifacts={"type": "array", "items": ITEM, **keys})
    externals = [
        External(5, "newer", {"name": "log-1", "uri": "https://e.org/1"}),
        External(6, "first", {"name": "site", "uri": "https://e.org/2"}),
        External(7, "last", {"name": "site", "uri": "https://e.org/3"}),
    ]
    projection = projected(history(1, externals=externals), served=schema)
    assert [(entry["name"], entry["uri"][:13]) for entry in projection.artifacts] == [
        ("log-1", "s3://bucket/a"),
        ("site", "https://e.org"),
    ]
    assert projection.listed_externals == {"last"}
    assert projection.left_out == {Reason.COUNT_LIMIT: 2}


def test_a_null_of_others_is_neither_kept_nor_a_difference() -> None:
    schema = served(item={"type": "object", PRESERVE: True})
    entry = {"name": "a", "uri": "https://e.org", "extra": None, "more": [None, {"x": None}]}
    projection = projected(history(0, externals=[External(1, "f", entry)]), served=schema)
    assert projection.artifacts == [{"name": "a", "uri": "https://e.org", "more": [None, {}]}]
    assert projection.patch_for({"artifacts": [entry]}) == {}


def test_an_artifact_whose_name_the_schema_refuses_holds_up_no_other() -> None:
    item = {
        **ITEM,
        "properties": {**ITEM["properties"], "name": {"type": "string", "pattern": "^[a-z0-9-]+$"}},
    }  # type: ignore[dict-item]
    schema = served(item=item)
    of = history(3)
    of.artifacts[1:2] = [artifact(2, name="Logs/2")]  # type: ignore[index]
    projection = projected(of, served=schema)
    assert schema.narrow
    assert names(projection) == ["log-1", "log-3"]
    assert projection.left_out == {Reason.URI_TOO_LONG: 1}


@pytest.mark.parametrize(
    "artifacts",
    [
        {"type": "object", PRESERVE: True},
        {"type": "array", "items": TEXT},
        {
            "type": "array",
            "items": {**ITEM, "properties": {"name": TEXT, "uri": {**TEXT, "pattern": "^https:"}}},
        },
        {"type": "array", "items": {**ITEM, "properties": {"name": TEXT, "uri": {**TEXT, "maxLength": 60}}}},
    ],
    ids=["no-list", "strings", "other-scheme", "too-short"],
)
def test_a_schema_that_takes_no_address_of_ours_keeps_no_pointers(artifacts: dict[str, Any]) -> None:
    with pytest.raises(PointersNotKeptError):
        served(artifacts=artifacts)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "odd",
    [5, True, "text", {"type": "Ready"}, [5], ["text"], [{"type": {}}], [{"type": ["Ready"]}], [None]],
    ids=str,
)
def test_a_status_of_any_shape_is_projected_onto(odd: Any, strict: bool) -> None:
    status = {"conditions": odd, "phase": odd, "finishedAt": odd, "artifacts": odd}
    anything = read_schema({"type": "object", PRESERVE: True})
    projection = projected(history(4), status, served=anything, strict=strict)
    assert projection.desired["conditions"][-1]["type"] in {TRUNCATED, OVER_LIMIT}
    theirs = [item for item in odd if item is not None] if isinstance(odd, list) else []
    assert projection.desired["conditions"][: len(theirs)] == theirs
    assert not projected(
        history(4), {**status, **projection.patch_for(status)}, served=anything, strict=strict
    ).differs_from({**status, **projection.patch_for(status)})
