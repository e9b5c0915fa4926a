"""Entries of `status.artifacts`: what a served schema can keep of them, and how one is written and read.

Two dialects. Native: `name`, `type`, `uri`, `contentType`, `sizeBytes`. Legacy, what the widely installed
AgentRun schema names: `name`, `key` (the S3 object key) and `url` (what `uri` would be).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from offload.domain import structural
from offload.domain.artifact import Artifact
from offload.domain.limits import URI_LENGTH
from offload.errors import PointersNotKeptError

ADDRESSES = ("uri", "url", "key")
"""Fields that can say where an entry of ours points."""

_NATIVE = ("name", "type", "uri", "contentType", "sizeBytes")
_LEGACY = ("name", "key", "url")
_KNOWN = frozenset({*_NATIVE, *_LEGACY, "path"})
_SHORT_ADDRESS = f"s3://abc/a/r/{UUID(int=0)}/{UUID(int=0)}/l"
"""As short as one of ours can be."""
_CONDITION: Mapping[str, str] = {
    "type": "ArtifactsTruncated",
    "status": "True",
    "reason": "CountLimit",
    "message": "",
    "lastTransitionTime": "2020-01-01T00:00:00Z",
}

Entry = Mapping[str, Any]


class Reason(StrEnum):
    """Why an entry is not in status; also the reason of the condition that says so."""

    COUNT_LIMIT = "CountLimit"
    BYTE_LIMIT = "ByteLimit"
    URI_TOO_LONG = "UriTooLong"
    INLINE_DATA = "InlineData"


@dataclass(frozen=True, slots=True)
class StatusSchema:
    """What matters here of the schema that the API server serves for an AgentRun's `status`."""

    served: Mapping[str, Any]
    """The OpenAPI schema it was read from."""
    artifacts: Mapping[str, Any]
    """The part of it that describes the list."""
    entry: Mapping[str, Any]
    """The part of it that describes one entry of the list."""
    native: bool
    legacy: bool
    fields: tuple[str, ...]
    """What an entry of ours is written with, where the value fits."""

    @property
    def max_items(self) -> int | None:
        return self.artifacts.get("maxItems")

    @property
    def narrow(self) -> bool:
        """Whether it can refuse an artifact for its name or the length of its address: few schemas do."""
        needed = {"name", "uri", "url", *self.entry.get("required", ())}
        rules = {field: structural.rule(self.entry, field) for field in needed}
        return not {"enum", "pattern"}.isdisjoint(rules["name"]) or any(
            rule.get("maxLength", URI_LENGTH) < URI_LENGTH for rule in rules.values()
        )

    @property
    def digest(self) -> str:
        """Equal for equal schemas."""
        return hashlib.sha256(compact(self.served)).hexdigest()

    @property
    def tells(self) -> bool:
        """Whether a condition of ours is kept, and found again."""
        stored = self.stored("conditions", [_CONDITION]) if self.keeps("conditions") else []
        return self.takes("conditions", stored) and bool(
            stored and isinstance(stored[0], Mapping) and {"type", "status"} <= stored[0].keys()
        )

    @property
    def longest_message(self) -> int | None:
        """Characters that a condition's message may have; None for any number."""
        conditions = structural.rule(self.served, "conditions")
        longest: int | None = structural.rule(conditions.get("items", {}), "message").get("maxLength")
        return longest

    def keeps(self, field: str) -> bool:
        """Whether a field of `status` outlives pruning."""
        return structural.keeps(self.served, field)

    def stored(self, field: str, value: Any) -> Any:
        """`value` of the field `status.{field}` after pruning and defaulting, as the API server stores it."""
        return structural.as_stored(structural.rule(self.served, field), value)

    def whole(self, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """A status after pruning and defaulting."""
        stored: Mapping[str, Any] = structural.as_stored(self.served, status)
        return stored

    def stored_entry(self, entry: Entry) -> dict[str, Any]:
        """One entry of `artifacts` after pruning and defaulting."""
        stored: dict[str, Any] = structural.as_stored(self.entry, entry)
        return stored

    def takes(self, field: str, value: Any) -> bool:
        """Whether `status.{field}` may have this value, as stored."""
        return structural.takes(structural.rule(self.served, field), value)

    def fits(self, field: str, value: object) -> bool:
        """Whether an entry's field may have this value: it is kept, valid and not too long."""
        if not structural.keeps(self.entry, field) or (isinstance(value, str) and len(value) > URI_LENGTH):
            return False
        return structural.takes(structural.rule(self.entry, field), value)

    def takes_entry(self, entry: Entry) -> bool:
        """Whether an entry, as stored, may be written."""
        short = all(len(value) <= URI_LENGTH for value in entry.values() if isinstance(value, str))
        return short and structural.takes(self.entry, entry)

    def key(self, entry: Entry) -> tuple[Any, ...] | None:
        """What only one entry of the list may have; None where entries may be alike."""
        return structural.list_key(self.artifacts, entry)


def read_schema(served: Mapping[str, Any]) -> StatusSchema:
    """Reduce the served OpenAPI schema of `status` (references resolved).

    Native needs `name` and `uri` to be kept, named or by preserving unknown fields; legacy needs `name` to be
    kept and `url` to be named (a `key` without its bucket points nowhere). Either needs an address of ours to
    be valid. The other fields are written where they are kept.

    Raises:
        PointersNotKeptError: neither dialect can be kept, or an entry must have a field that is not ours.
    """
    if not structural.keeps(served, "artifacts"):
        raise PointersNotKeptError("the served AgentRun schema has no status.artifacts")
    artifacts = structural.rule(served, "artifacts") or {"items": structural.OPEN}
    if artifacts.get("type", "array") != "array":
        raise PointersNotKeptError("status.artifacts of the served AgentRun schema is no list")
    entry = artifacts.get("items") or {structural.PRESERVE: artifacts.get(structural.PRESERVE, False)}
    rules = entry.get("properties", {})
    named = structural.keeps(entry, "name")
    native, legacy = (
        named and kept and structural.takes(structural.rule(entry, field), _SHORT_ADDRESS)
        for field, kept in (("uri", structural.keeps(entry, "uri")), ("url", "url" in rules))
    )
    if not native and not legacy:
        raise PointersNotKeptError
    fields = dict.fromkeys((_NATIVE if native else ()) + (_LEGACY if legacy else ()))
    required = {field for field in entry.get("required", ()) if "default" not in rules.get(field, {})}
    if foreign := required - fields.keys():
        raise PointersNotKeptError(
            f"the served AgentRun schema requires of each artifact: {', '.join(sorted(foreign))}"
        )
    return StatusSchema(
        served=served,
        artifacts=artifacts,
        entry=entry,
        native=native,
        legacy=legacy,
        fields=tuple(field for field in fields if structural.keeps(entry, field)),
    )


def pointer(artifact: Artifact, schema: StatusSchema) -> dict[str, Any] | None:
    """The entry for `artifact`; None where its name or address does not fit the schema.

    Other fields that do not fit are left out of the entry.
    """
    uri = artifact.location.uri
    values = {
        "name": artifact.name,
        "type": artifact.type,
        "uri": uri,
        "contentType": artifact.content_type,
        "sizeBytes": artifact.size_bytes,
        "key": artifact.location.key,
        "url": uri,
    }
    entry = {field: values[field] for field in schema.fields}
    if schema.takes_entry(entry):
        return entry
    entry = {field: value for field, value in entry.items() if schema.fits(field, value)}
    pointed = "name" in entry and ("uri" in entry or "url" in entry)
    return entry if pointed and structural.takes(schema.entry, schema.stored_entry(entry)) else None


def recorded_addresses(artifact: Artifact) -> frozenset[str]:
    """Every value of an address field that makes an entry ours."""
    return frozenset({artifact.location.uri, artifact.location.key})


def is_ours(entry: object, recorded: AbstractSet[str]) -> bool:
    """Whether an entry's address is one of those `recorded` for its run."""
    return not recorded.isdisjoint(addresses(entry))


def addresses(entry: object) -> list[str]:
    """What an entry's address fields hold."""
    if not isinstance(entry, Mapping):
        return []
    return [entry[field] for field in ADDRESSES if entry.get(field) and isinstance(entry[field], str)]


def pointing(entry: Entry) -> Iterator[str]:
    """Where an entry says that its content is: its addresses, then its path."""
    yield from addresses(entry)
    if entry.get("path") and isinstance(entry["path"], str):
        yield entry["path"]


def artifact_id_in(address: str, run_uid: str) -> UUID | None:
    """The artifact id in an address that was made here for this run, under whatever bucket and prefix."""
    _, found, rest = address.partition(f"/{run_uid}/")
    try:
        return UUID(rest.partition("/")[0]) if found else None
    except ValueError:
        return None


def fingerprint(entry: Entry) -> str:
    """Names an entry of another writer.

    It follows name and address where there is one, since other controllers drop fields and trim white space.
    """
    found = next(pointing(entry), None)
    identity = [str(entry.get("name")).strip(), found.strip()] if found else entry
    return hashlib.sha256(compact(identity)).hexdigest()


def status_entries(status: Mapping[str, Any]) -> list[Entry]:
    """The entries of `status.artifacts`, also where a schema that takes anything let anything in."""
    found = status.get("artifacts")
    items = found if isinstance(found, list) else [found]
    return [item if isinstance(item, Mapping) else {"value": item} for item in items if item is not None]


def unfit_fields(entry: Entry, schema: StatusSchema) -> dict[str, Reason]:
    """The fields of another writer's entry that may not stay in status, and why.

    Inline data is a `data:` URI in any field and any case, text with a NUL (the index keeps none), a field
    over 2,048 characters, and, where nothing says where the entry points, a field that neither dialect nor
    schema names.
    """
    named = _KNOWN | schema.entry.get("properties", {}).keys()
    pointed = points_elsewhere(entry)
    unfit = {}
    for field, value in entry.items():
        texts = list(_texts(value))
        size = len(value) if isinstance(value, str) else len(compact(value).decode(errors="replace"))
        if any("\0" in text or text.lstrip()[:5].lower() == "data:" for text in (field, *texts)):
            unfit[field] = Reason.INLINE_DATA
        elif size > URI_LENGTH:
            unfit[field] = Reason.URI_TOO_LONG if field in ADDRESSES else Reason.INLINE_DATA
        elif field not in named and not pointed:
            unfit[field] = Reason.INLINE_DATA
    return unfit


def points_elsewhere(entry: Entry) -> bool:
    """Whether another writer's entry says where its content is."""
    return next(pointing(entry), None) is not None


def compact(value: object) -> bytes:
    """Compact UTF-8 JSON: what the byte budget of status counts."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)
    return text.encode(errors="surrogatepass")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
