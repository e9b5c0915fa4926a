"""Properties of the projection, for any history, status, schema and limits.

Cases: caps and byte budget hold exactly; order holds; the newest survive; nothing inline and no over-long
address; what is not ours is untouched; counts add up; projecting onto the result changes nothing.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from offload.domain.artifact import Artifact, Location, State
from offload.domain.conditions import OUR_CONDITIONS
from offload.domain.external import External
from offload.domain.pointers import StatusSchema, compact, read_schema
from offload.domain.projection import (
    Caps,
    History,
    Projection,
    effective_cap,
    project,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
UID = "5f0c1a3e-0000-4000-8000-000000000001"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
TEXT = {"type": "string"}
CONDITION = {
    "type": "object",
    "properties": dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), TEXT),
}
NATIVE = {"name": TEXT, "type": TEXT, "uri": TEXT, "contentType": TEXT, "sizeBytes": {"type": "integer"}}
LEGACY = {"name": TEXT, "key": TEXT, "path": TEXT, "url": TEXT}

texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40
) | st.sampled_from(["é" * 300, "x" * 2049, "data:text/plain,x", " DATA:;base64,eA=="])
times = st.datetimes(datetime(2025, 12, 1), datetime(2026, 2, 1)).map(  # noqa: DTZ001 - made aware below
    lambda time: time.replace(tzinfo=UTC)
)


@st.composite
def schemas(draw: st.DrawFn) -> StatusSchema:
    item: dict[str, Any] = {
        "type": "object",
        "required": ["name"],
        "properties": draw(st.sampled_from([NATIVE, LEGACY, {**NATIVE, **LEGACY}])),
        PRESERVE: draw(st.booleans()),
    }
    length = draw(st.none() | st.integers(100, 400))
    if length:
        item["properties"] = {
            name: {**rule, "maxLength": length} if rule == TEXT else rule
            for name, rule in item["properties"].items()
        }
    if draw(st.booleans()):
        item["properties"] = {**item["properties"], "tier": {"type": "string", "default": "hot"}}
    artifacts: dict[str, Any] = {"type": "array", "items": item}
    most = draw(st.none() | st.integers(0, 12))
    if most is not None:
        artifacts["maxItems"] = most
    properties = {
        "phase": TEXT,
        "reason": TEXT,
        "finishedAt": TEXT,
        "conditions": {"type": "array", "items": CONDITION},
    }
    kept = draw(st.sets(st.sampled_from(sorted(properties))))
    return read_schema(
        {"type": "object", "properties": {"artifacts": artifacts, **{k: properties[k] for k in kept}}}
    )


@st.composite
def histories(draw: st.DrawFn) -> History:
    places = sorted(draw(st.sets(st.integers(1, 60), max_size=20)))
    artifacts, externals = [], []
    for seq in places:
        if draw(st.integers(0, 3)):
            id_ = UUID(int=seq)
            artifacts.append(
                Artifact(
                    id=id_,
                    run_uid=UID,
                    namespace="agents",
                    run_name="fix",
                    seq=seq,
                    name=f"{seq}-{draw(texts)}",
                    type="log",
                    content_type="text/plain",
                    size_bytes=draw(st.integers(0, 2**40)),
                    sha256=b"\0" * 32,
                    location=Location("bucket", f"{UID}/{id_}/{'k' * draw(st.integers(1, 300))}"),
                    created_at=draw(times),
                    current=True,
                    state=State.STORED,
                    origin=draw(st.none() | st.just("status:uri")),
                )
            )
        else:
            fields = st.sampled_from(["name", "uri", "url", "key", "path", "note"])
            values = texts | st.lists(texts, max_size=2) if draw(st.booleans()) else texts
            externals.append(External(seq, f"f{seq}", draw(st.dictionaries(fields, values, max_size=4))))
    artifacts.reverse()
    unloaded = draw(st.integers(0, 5))
    return History(
        artifacts,
        externals,
        current_count=len(artifacts) + unloaded,
        stored_bytes=draw(st.integers(0, 2**50)),
        entries_at_finish=draw(st.none() | st.integers(0, 30)),
        hint="offload history agents/fix",
    )


conditions = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["Ready", "ArtifactsLimited", *sorted(OUR_CONDITIONS)]),
        "status": st.sampled_from(["True", "False", "Unknown"]),
        "reason": texts,
        "message": texts,
        "lastTransitionTime": st.just("2026-01-01T00:00:00Z"),
    }
)
statuses = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Cancelled"]),
        "reason": texts,
        "finishedAt": st.just("2026-01-01T00:00:00Z") | st.just("not a time"),
        "conditions": st.lists(conditions, max_size=5),
        "artifacts": st.lists(st.dictionaries(texts, texts, max_size=3), max_size=3),
        "theirs": st.dictionaries(texts, texts, max_size=2),
    },
)
caps_of_any_size = st.builds(Caps, st.integers(0, 30), st.integers(2, 6000))


@st.composite
def projections(draw: st.DrawFn) -> tuple[History, dict[str, Any], Caps, bool, Projection]:
    history, status, caps = draw(histories()), draw(statuses), draw(caps_of_any_size)
    strict, schema = draw(st.booleans()), draw(schemas())
    projection = project(history, status, schema=schema, caps=caps, strict=strict, now=NOW)
    return history, status, caps, strict, projection


@given(projections())
def test_caps_hold(case: tuple[History, dict[str, Any], Caps, bool, Projection]) -> None:
    _, _, caps, _, projection = case
    assert len(projection.artifacts) <= effective_cap(caps, projection.schema)
    assert len(compact(projection.artifacts)) <= caps.size_bytes


@given(projections())
def test_order_holds_and_the_newest_that_can_be_listed_survive(
    case: tuple[History, dict[str, Any], Caps, bool, Projection],
) -> None:
    history, _, caps, _, projection = case
    listed = sorted(a.seq for a in history.artifacts if a.id in projection.listed)
    listed += [f.seq for f in history.externals if f.fingerprint in projection.listed_externals]
    by_place = {
        **{a.seq: a.name for a in history.artifacts},
        **{f.seq: f.entry.get("name") for f in history.externals},
    }
    assert [by_place[seq] for seq in sorted(listed)] == [e.get("name") for e in projection.artifacts]

    unlimited = project(history, {}, schema=projection.schema, caps=Caps(10**6, 10**9), strict=False, now=NOW)
    if projection.schema.max_items is None:
        could = [e for e in unlimited.artifacts if len(compact([e])) <= caps.size_bytes]
        kept = len(projection.artifacts)
        assert projection.artifacts == could[len(could) - kept :]
        if kept < len(could):
            one_more = could[len(could) - kept - 1 :]
            assert len(one_more) > caps.count or len(compact(one_more)) > caps.size_bytes


@given(projections())
def test_nothing_inline_and_no_long_string_is_listed(
    case: tuple[History, dict[str, Any], Caps, bool, Projection],
) -> None:
    projection = case[-1]
    for entry in projection.artifacts:
        for field, value in entry.items():
            for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
                assert len(text) <= 2048
                assert field == "name" or not text.strip().lower().startswith("data:")


@given(projections())
def test_what_is_not_ours_is_untouched(
    case: tuple[History, dict[str, Any], Caps, bool, Projection],
) -> None:
    _, status, _, strict, projection = case
    ours = {"artifacts", "conditions"} | ({"phase", "reason", "finishedAt"} if strict else set())
    assert projection.patch_for(status).keys() <= ours
    if "conditions" in projection.desired:
        before = [c for c in status.get("conditions", ()) if c["type"] not in OUR_CONDITIONS]
        after = [c for c in projection.desired["conditions"] if c["type"] not in OUR_CONDITIONS]
        assert before == after
    if status.get("phase") in {"Failed", "Cancelled"}:
        assert "phase" not in projection.desired


@given(projections())
def test_the_counts_add_up(case: tuple[History, dict[str, Any], Caps, bool, Projection]) -> None:
    projection = case[-1]
    assert len(projection.artifacts) + sum(projection.left_out.values()) == projection.total
    assert len(projection.listed) + len(projection.listed_externals) == len(projection.artifacts)


@given(projections(), st.timedeltas(timedelta(0), timedelta(days=9)))
def test_projecting_onto_the_result_changes_nothing(
    case: tuple[History, dict[str, Any], Caps, bool, Projection], pause: timedelta
) -> None:
    history, status, caps, strict, projection = case
    result = {**status, **projection.patch_for(status)}
    again = project(history, result, schema=projection.schema, caps=caps, strict=strict, now=NOW + pause)
    assert again.patch_for(result) == {}
    assert again.transitions == ()


@given(projections())
def test_a_transition_time_changes_only_with_its_status(
    case: tuple[History, dict[str, Any], Caps, bool, Projection],
) -> None:
    _, status, _, _, projection = case
    before: dict[str, Any] = {}
    for condition in status.get("conditions", ()):
        before.setdefault(condition["type"], condition)
    for condition in projection.desired.get("conditions", ()):
        if condition["type"] in OUR_CONDITIONS and condition["type"] in before:
            earlier = before[condition["type"]]
            moved = condition["lastTransitionTime"] != earlier["lastTransitionTime"]
            assert moved == (condition["status"] != earlier["status"])
