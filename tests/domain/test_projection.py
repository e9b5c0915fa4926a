"""What status should say of a run's history, as tables.

Cases: order and caps; served maxItems; the byte budget; the truncation condition's life; others' conditions;
strict mode by phase, and where its verdict is taken back; when a run had ended; another writer's
cap; schemas without reason or conditions; entries of other writers; the patch holds what differs; why an
artifact is absent.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from offload.domain.artifact import Artifact, Location, State
from offload.domain.external import External
from offload.domain.pointers import Reason, compact, read_schema
from offload.domain.projection import (
    Caps,
    History,
    Projection,
    effective_cap,
    finished_at,
    project,
    why_absent,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
UID = "5f0c1a3e-0000-4000-8000-000000000001"
TEXT = {"type": "string"}
ITEM = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": TEXT,
        "type": TEXT,
        "uri": {"type": "string", "maxLength": 2048},
        "contentType": TEXT,
        "sizeBytes": {"type": "integer", "format": "int64"},
    },
}
CONDITION = {
    "type": "object",
    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
    "properties": dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), TEXT),
}


def schema(*, without: Sequence[str] = (), **artifacts: Any) -> Any:
    properties = {
        "phase": TEXT,
        "reason": TEXT,
        "finishedAt": TEXT,
        "conditions": {"type": "array", "items": CONDITION},
        "artifacts": {"type": "array", "items": ITEM, **artifacts},
    }
    kept = {name: rule for name, rule in properties.items() if name not in without}
    return read_schema({"type": "object", "properties": kept})


SCHEMA = schema()


def artifact(seq: int, **changes: Any) -> Artifact:
    id_ = UUID(int=seq)
    return replace(
        Artifact(
            id=id_,
            run_uid=UID,
            namespace="agents",
            run_name="fix",
            seq=seq,
            name=f"log-{seq}",
            type="log",
            content_type="text/plain",
            size_bytes=seq,
            sha256=b"\0" * 32,
            location=Location("bucket", f"agents/fix/{UID}/{id_}/log-{seq}"),
            created_at=NOW - timedelta(hours=2),
            current=True,
            state=State.STORED,
        ),
        **changes,
    )


def history(count: int, *, externals: Sequence[External] = (), **changes: Any) -> History:
    newest_first = [artifact(seq) for seq in range(count, 0, -1)]
    return replace(
        History(newest_first, externals, current_count=count, stored_bytes=2048, hint="HINT"), **changes
    )


def projected(
    of: History,
    status: dict[str, Any] | None = None,
    *,
    served: Any = SCHEMA,
    count: int = 3,
    size_bytes: int = 64 * 1024,
    strict: bool = False,
    now: datetime = NOW,
) -> Projection:
    caps = Caps(count, size_bytes)
    return project(of, status or {}, schema=served, caps=caps, strict=strict, now=now)


def names(projection: Projection) -> list[str]:
    return [entry["name"] for entry in projection.artifacts]


def test_entries_run_oldest_to_newest_and_carry_the_pointer_only() -> None:
    projection = projected(history(2))
    assert names(projection) == ["log-1", "log-2"]
    assert projection.artifacts[0] == {
        "name": "log-1",
        "type": "log",
        "uri": f"s3://bucket/agents/fix/{UID}/{UUID(int=1)}/log-1",
        "contentType": "text/plain",
        "sizeBytes": 1,
    }
    assert projection.left_out == {}
    assert "conditions" not in projection.desired


def test_the_newest_survive_the_count_cap() -> None:
    projection = projected(history(5))
    assert names(projection) == ["log-3", "log-4", "log-5"]
    assert projection.left_out == {Reason.COUNT_LIMIT: 2}


def test_artifacts_that_were_not_loaded_count_as_left_out() -> None:
    of = history(5)
    projection = projected(replace(of, artifacts=of.artifacts[:3], current_count=500))
    assert projection.left_out == {Reason.COUNT_LIMIT: 497}
    [condition] = projection.desired["conditions"]
    assert condition["message"] == ("3 of 500 artifacts are listed; 2 KiB are stored; full history: HINT")


@pytest.mark.parametrize(("served", "setting", "cap"), [(None, 500, 500), (10, 50, 10), (50, 10, 10)])
def test_the_lower_of_setting_and_served_cap_holds(served: int | None, setting: int, cap: int) -> None:
    limits = {} if served is None else {"maxItems": served}
    assert effective_cap(Caps(setting), schema(**limits)) == cap


def test_the_byte_budget_counts_the_list_as_compact_json() -> None:
    whole = projected(history(3))
    size = len(compact(whole.artifacts))
    assert names(projected(history(3), size_bytes=size)) == ["log-1", "log-2", "log-3"]
    smaller = projected(history(3), size_bytes=size - 1)
    assert names(smaller) == ["log-2", "log-3"]
    assert smaller.left_out == {Reason.BYTE_LIMIT: 1}


def test_the_condition_turns_true_once_and_false_when_all_is_listed_again() -> None:
    first = projected(history(5))
    [condition] = first.desired["conditions"]
    assert condition["type"] == "ArtifactsTruncated"
    assert condition["status"] == "True"
    assert condition["reason"] == "CountLimit"
    assert condition["lastTransitionTime"] == "2026-01-02T00:00:00Z"
    assert [transition.reason for transition in first.transitions] == ["ArtifactsTruncated"]

    more = projected(history(6), dict(first.desired), now=LATER)
    [condition] = more.desired["conditions"]
    assert condition["lastTransitionTime"] == "2026-01-02T00:00:00Z"
    assert condition["message"].startswith("3 of 6 ")
    assert more.transitions == ()

    fewer = projected(history(2), dict(more.desired), now=LATER)
    [condition] = fewer.desired["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "AllListed")
    assert condition["lastTransitionTime"] == "2026-01-02T01:00:00Z"
    assert [transition.reason for transition in fewer.transitions] == ["AllListed"]


def test_conditions_of_others_stay_as_they_are_and_where_they_are() -> None:
    theirs = {"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "t"}
    limited = {**theirs, "type": "ArtifactsLimited"}
    ours = {**theirs, "type": "ArtifactsTruncated", "status": "True"}
    projection = projected(history(5), {"conditions": [theirs, ours, limited, ours]})
    assert [condition["type"] for condition in projection.desired["conditions"]] == [
        "Ready",
        "ArtifactsTruncated",
        "ArtifactsLimited",
    ]
    assert projection.desired["conditions"][0] == theirs
    assert projection.desired["conditions"][2] == limited
    assert "conditions" not in projected(history(1), {"conditions": [theirs]}).desired


@pytest.mark.parametrize("phase", [None, "Pending", "Running"])
def test_strict_mode_fails_a_run_that_has_not_ended(phase: str | None) -> None:
    projection = projected(history(4), {"phase": phase} if phase else {}, strict=True)
    desired = projection.desired
    assert (desired["phase"], desired["reason"]) == ("Failed", "ArtifactsOverLimit")
    assert desired["finishedAt"] == "2026-01-02T00:00:00Z"
    assert {c["type"]: c["status"] for c in desired["conditions"]} == {
        "ArtifactsTruncated": "True",
        "ArtifactsOverLimit": "True",
    }
    again = projected(history(4), dict(desired), strict=True, now=LATER)
    assert not again.differs_from(desired)
    assert again.transitions == ()


@pytest.mark.parametrize("phase", ["Failed", "Cancelled"])
def test_strict_mode_leaves_a_run_that_failed_or_was_cancelled_its_phase(phase: str) -> None:
    projection = projected(history(4), {"phase": phase}, strict=True)
    assert "phase" not in projection.desired
    assert projection.desired["conditions"][-1]["type"] == "ArtifactsOverLimit"


@pytest.mark.parametrize(("at_finish", "fails"), [(4, True), (3, False)])
def test_strict_mode_fails_a_succeeded_run_only_for_what_was_there_before(
    at_finish: int, fails: bool
) -> None:
    status = {"phase": "Succeeded", "finishedAt": "2026-01-01T23:00:00Z"}
    projection = projected(replace(history(4), entries_at_finish=at_finish), status, strict=True)
    assert ("phase" in projection.desired) is fails
    if fails:
        assert projection.desired["finishedAt"] == "2026-01-01T23:00:00Z"


def test_strict_mode_takes_the_zero_time_for_none() -> None:
    status = {"phase": "Succeeded", "finishedAt": "0001-01-01T00:00:00Z"}
    adopted = [artifact(1, origin="status:uri")]
    projection = projected(replace(history(1), artifacts=adopted), status, strict=True)
    assert projection.desired["phase"] == "Failed"
    assert projection.desired["finishedAt"] == "2026-01-02T00:00:00Z"


def test_strict_mode_counts_what_was_adopted_and_never_the_byte_budget() -> None:
    adopted = [artifact(1, origin="status:uri")]
    projection = projected(replace(history(1), artifacts=adopted), strict=True)
    assert projection.desired["phase"] == "Failed"
    assert "phase" not in projected(history(3), size_bytes=10, strict=True).desired


def test_a_verdict_once_given_stays_when_the_excess_is_gone() -> None:
    failed = dict(projected(history(4), strict=True).desired)
    later = projected(history(1), failed, strict=True, now=LATER)
    assert later.desired["conditions"][1] == failed["conditions"][1]
    assert "phase" not in later.desired


def test_what_the_schema_does_not_keep_is_not_written() -> None:
    early = projected(history(4), served=schema(without=["reason"]), strict=True)
    assert set(early.desired) == {"artifacts", "conditions", "phase", "finishedAt"}
    bare = projected(history(4), served=schema(without=["conditions"]), strict=True)
    assert "conditions" not in bare.desired
    assert bare.transitions == ()


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_verdict_that_was_given_is_given_again_where_its_phase_is_lost(phase: str) -> None:
    failed = dict(projected(history(4), strict=True).desired)
    within = projected(history(1), {**failed, "phase": phase}, strict=True, now=LATER)
    assert within.desired["phase"] == "Failed"
    assert within.desired["conditions"][1] == failed["conditions"][1]


def test_what_came_before_a_verdict_came_before_its_finish_whatever_the_clocks_say() -> None:
    """`finishedAt` is in whole seconds, and artifacts are dated by the database's clock."""
    late = [artifact(n, created_at=NOW + timedelta(seconds=3.5), origin="status:url") for n in range(2)]
    of = replace(history(2), artifacts=late)
    verdict = projected(of, {"phase": "Running"}, strict=True)
    taken_back = {**verdict.desired, "phase": "Succeeded", "conditions": []}
    assert projected(of, taken_back, strict=True).desired["phase"] == "Failed"


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("2026-01-02T00:00:00Z", NOW + timedelta(seconds=1)),
        ("2026-01-02T01:00:00+01:00", NOW + timedelta(seconds=1)),
        ("2026-01-02T00:00:00", NOW + timedelta(seconds=1)),
        ("2026-01-02T00:00:00.5Z", NOW + timedelta(seconds=0.5)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("9999-12-31T23:59:59-01:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("0001-01-01T00:00:00Z", None),  # Go's zero time
        ("yesterday", None),
        (7, None),
        (None, None),
    ],
)
def test_a_run_had_ended_once_its_last_second_was_over(text: Any, ended: datetime | None) -> None:
    assert finished_at({"finishedAt": text}) == ended


def test_another_writers_cap_shortens_the_list_and_fails_no_run() -> None:
    of = history(3)
    projection = project(of, {}, schema=SCHEMA, caps=Caps(count=3, kept=2), strict=True, now=NOW)
    assert names(projection) == ["log-2", "log-3"]
    assert projection.left_out == {Reason.COUNT_LIMIT: 1}
    assert projection.desired["conditions"][0]["message"].startswith("2 of 3 ")
    assert "phase" not in projection.desired


def test_entries_of_others_stand_where_they_were_first_seen_and_count() -> None:
    externals = [External(seq=3, fingerprint="f", entry={"name": "theirs", "uri": "https://e.org"})]
    of = replace(history(0, externals=externals), artifacts=[artifact(4), artifact(2), artifact(1)])
    projection = projected(replace(of, current_count=3))
    assert names(projection) == ["log-2", "theirs", "log-4"]
    assert projection.listed_externals == {"f"}
    assert projection.total == 4


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "a", "uri": "data:,x"}, Reason.INLINE_DATA),
        ({"name": "a", "uri": "https://" + "x" * 2048}, Reason.URI_TOO_LONG),
        ({"uri": "https://e.org"}, Reason.URI_TOO_LONG),
    ],
)
def test_an_entry_of_others_that_may_not_be_in_status_is_left_out(
    entry: dict[str, Any], reason: Reason
) -> None:
    projection = projected(history(1, externals=[External(5, "f", entry)]))
    assert names(projection) == ["log-1"]
    assert projection.left_out == {reason: 1}
    assert projection.desired["conditions"][0]["reason"] == reason


def test_the_patch_holds_only_what_differs() -> None:
    projection = projected(history(5))
    assert set(projection.patch_for({})) == {"artifacts", "conditions"}
    assert set(projection.patch_for({**projection.desired, "artifacts": []})) == {"artifacts"}
    assert projection.patch_for({**projection.desired, "phase": "Running", "theirs": 1}) == {}
    assert not projected(history(0)).differs_from({})


def test_defaults_that_the_server_adds_are_no_difference() -> None:
    item = {**ITEM, "properties": {**ITEM["properties"], "tier": {"type": "string", "default": "hot"}}}  # type: ignore[dict-item]
    projection = projected(history(1), served=schema(items=item))
    assert projection.artifacts[0]["tier"] == "hot"


def test_every_absence_has_its_reason() -> None:
    projection = projected(history(5))
    assert why_absent(artifact(5), projection) is None
    cases = {
        "CountLimit": artifact(2),
        "Superseded": artifact(9, current=False),
        "Expired": artifact(9, state=State.EXPIRED, current=False, ended_by="rule:logs", ended_at=NOW),
        "Lost": artifact(9, state=State.LOST, current=False),
    }
    for reason, of in cases.items():
        absence = why_absent(of, projection)
        assert absence is not None
        assert absence.reason == reason
    expired = why_absent(cases["Expired"], projection)
    assert expired is not None
    assert expired.message == "expired by rule:logs at 2026-01-02T00:00:00Z"
