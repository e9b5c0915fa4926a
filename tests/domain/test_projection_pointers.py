"""What a served schema can keep, and how entries are written and read.

Cases: the dialect of each kind of schema; schemas that keep no pointers; fields that do not fit;
whose an entry is; inline data in every guise; fingerprints that outlive others' edits.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from offload.domain.artifact import Artifact, Location, State
from offload.domain.pointers import (
    Reason,
    artifact_id_in,
    fingerprint,
    is_ours,
    pointer,
    read_schema,
    recorded_addresses,
    unfit_fields,
)
from offload.errors import PointersNotKeptError

TEXT = {"type": "string"}
PRESERVE = "x-kubernetes-preserve-unknown-fields"
NATIVE_ITEM = {
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
LEGACY_ITEM = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": TEXT, "key": TEXT, "path": TEXT, "url": TEXT},
}
BOTH_ITEM = {
    "type": "object",
    "properties": {**NATIVE_ITEM["properties"], **LEGACY_ITEM["properties"]},  # type: ignore[dict-item]
}
UID = "5f0c1a3e-0000-4000-8000-000000000001"
ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ARTIFACT = Artifact(
    id=ID,
    run_uid=UID,
    namespace="agents",
    run_name="fix",
    seq=1,
    name="logs/test.log",
    type="log",
    content_type="text/plain",
    size_bytes=3 * 2**31,
    sha256=b"\0" * 32,
    location=Location("bucket", f"offload/agents/fix/{UID}/{ID}/logs/test.log"),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    current=True,
    state=State.STORED,
)


def status_schema(item: dict[str, Any], **artifacts: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"phase": TEXT, "artifacts": {"type": "array", "items": item, **artifacts}},
    }


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        (NATIVE_ITEM, {"name", "type", "uri", "contentType", "sizeBytes"}),
        (LEGACY_ITEM, {"name", "key", "url"}),
        (BOTH_ITEM, {"name", "type", "uri", "contentType", "sizeBytes", "key", "url"}),
        ({"type": "object", PRESERVE: True}, {"name", "type", "uri", "contentType", "sizeBytes"}),
        (
            {**LEGACY_ITEM, PRESERVE: True},
            {"name", "type", "uri", "contentType", "sizeBytes", "key", "url"},
        ),
        ({"type": "object", "properties": {"name": TEXT, "uri": TEXT}}, {"name", "uri"}),
        ({"type": "object", "properties": {"name": TEXT, "url": TEXT}}, {"name", "url"}),
    ],
    ids=["native", "legacy", "both", "preserving", "legacy-preserving", "name-uri", "name-url"],
)
def test_the_entry_speaks_the_dialect_that_the_schema_keeps(item: dict[str, Any], fields: set[str]) -> None:
    schema = read_schema(status_schema(item))
    entry = pointer(ARTIFACT, schema)
    assert entry is not None
    assert set(entry) == fields
    assert schema.stored_entry(entry) == entry
    assert {entry[field] for field in ("uri", "url") if field in entry} == {ARTIFACT.location.uri}


@pytest.mark.parametrize(
    "served",
    [
        {"type": "object", "properties": {"phase": TEXT}},
        status_schema({"type": "object", "properties": {"name": TEXT, "path": TEXT}}),
        status_schema({"type": "object", "properties": {"name": TEXT, "key": TEXT}}),
        status_schema({"type": "object", "properties": {"uri": TEXT}}),
        status_schema({**NATIVE_ITEM, "required": ["name", "checksum"]}),
    ],
    ids=["no-artifacts", "neither", "key-without-bucket", "no-name", "foreign-required-field"],
)
def test_a_schema_that_keeps_no_pointers_is_a_named_error(served: dict[str, Any]) -> None:
    with pytest.raises(PointersNotKeptError):
        read_schema(served)


def test_a_required_field_of_others_with_a_default_is_no_hindrance() -> None:
    item = {
        **NATIVE_ITEM,
        "required": ["name", "tier"],
        "properties": {**NATIVE_ITEM["properties"], "tier": {"type": "string", "default": "hot"}},  # type: ignore[dict-item]
    }
    schema = read_schema(status_schema(item))
    entry = pointer(ARTIFACT, schema)
    assert entry is not None
    assert schema.stored_entry(entry) == {**entry, "tier": "hot"}


def test_a_status_without_rules_keeps_native_entries() -> None:
    schema = read_schema({"type": "object", PRESERVE: True})
    assert schema.native
    assert not schema.legacy
    assert pointer(ARTIFACT, schema)


def test_an_optional_field_that_does_not_fit_is_left_out_of_the_entry() -> None:
    properties = {
        **NATIVE_ITEM["properties"],  # type: ignore[dict-item]
        "type": {"type": "string", "enum": ["report"]},
        "sizeBytes": {"type": "integer", "format": "int32"},
    }
    entry = pointer(ARTIFACT, read_schema(status_schema({"type": "object", "properties": properties})))
    assert entry is not None
    assert set(entry) == {"name", "uri", "contentType"}


@pytest.mark.parametrize(("field", "longest"), [("name", 5), ("uri", 100)])
def test_an_artifact_whose_name_or_address_does_not_fit_has_no_entry(field: str, longest: int) -> None:
    properties = {**NATIVE_ITEM["properties"], field: {"type": "string", "maxLength": longest}}  # type: ignore[dict-item]
    schema = read_schema(status_schema({"type": "object", "properties": properties}))
    assert pointer(ARTIFACT, schema) is None


@pytest.mark.parametrize("field", ["uri", "url", "key"])
def test_an_entry_is_ours_by_any_address_that_was_recorded(field: str) -> None:
    recorded = recorded_addresses(ARTIFACT)
    value = ARTIFACT.location.key if field == "key" else ARTIFACT.location.uri
    assert is_ours({"name": "renamed", field: value}, recorded)
    assert not is_ours({"name": ARTIFACT.name, field: value + "x"}, recorded)
    assert not is_ours({"name": ARTIFACT.name}, recorded)


def test_the_artifact_id_is_found_in_its_address_under_any_prefix() -> None:
    assert artifact_id_in(ARTIFACT.location.uri, UID) == ID
    assert artifact_id_in(f"s3://other/x/y/{UID}/{ID}/n", UID) == ID
    assert artifact_id_in(f"s3://other/x/y/{UID}/not-an-id/n", UID) is None
    assert artifact_id_in("https://example.org/x", UID) is None


@pytest.mark.parametrize(
    ("entry", "unfit"),
    [
        ({"name": "a", "uri": "https://example.org/a"}, {}),
        ({"name": "a", "uri": "data:text/plain,x"}, {"uri": Reason.INLINE_DATA}),
        ({"name": "a", "url": " \tDaTa:,x"}, {"url": Reason.INLINE_DATA}),
        (
            {"name": "a", "uri": "https://e.org", "extra": {"deep": ["data:,x"]}},
            {"extra": Reason.INLINE_DATA},
        ),
        ({"name": "a", "uri": "https://" + "x" * 2048}, {"uri": Reason.URI_TOO_LONG}),
        ({"name": "a", "path": "x" * 2049}, {"path": Reason.INLINE_DATA}),
        ({"name": "a", "content": "hello"}, {"content": Reason.INLINE_DATA}),
        ({"name": "a", "uri": "https://e.org", "note": "hello"}, {}),
        ({"name": "a", "uri": "https://e.org", "note": ["x" * 2048]}, {"note": Reason.INLINE_DATA}),
        ({"name": "database:x", "uri": "https://e.org/data:x"}, {}),
    ],
)
def test_inline_data_and_over_long_fields_are_found(entry: dict[str, Any], unfit: dict[str, Reason]) -> None:
    assert unfit_fields(entry, read_schema(status_schema({**NATIVE_ITEM, PRESERVE: True}))) == unfit


def test_a_fingerprint_outlives_trimming_and_dropped_fields() -> None:
    written = {"name": " report ", "url": "https://e.org/r ", "size": 3}
    rewritten = {"name": "report", "url": "https://e.org/r"}
    assert fingerprint(written) == fingerprint(rewritten)
    assert fingerprint(rewritten) != fingerprint({**rewritten, "name": "other"})
    assert fingerprint({"name": "a", "note": 1}) != fingerprint({"name": "a", "note": 2})
