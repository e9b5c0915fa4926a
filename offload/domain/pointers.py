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

from offload.domain.artifact import Artifact
from offload.domain.limits import URI_LENGTH
from offload.errors import PointersNotKeptError

ADDRESSES = ("uri", "url", "key")
"""Fields that can say where an entry of ours points."""

_NATIVE = ("name", "type", "uri", "contentType", "sizeBytes")
_LEGACY = ("name", "key", "url")
_KNOWN = frozenset({*_NATIVE, *_LEGACY, "path"})
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT32_MOST = 2**31 - 1

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
    entry: Mapping[str, Any]
    """The part of it that describes one entry of `artifacts`."""
    native: bool
    legacy: bool
    fields: tuple[str, ...]
    """What an entry of ours is written with, where the value fits."""
    required: frozenset[str]
    """What an entry must have, defaults aside."""
    max_items: int | None

    @property
    def narrow(self) -> bool:
        """Whether an artifact's name or address can be too long for it: in general they stay far below."""
        rules = self.entry.get("properties", {})
        lengths = (rules.get(field, {}).get("maxLength", URI_LENGTH) for field in ("name", "uri", "url"))
        return any(length < URI_LENGTH for length in lengths)

    @property
    def digest(self) -> str:
        """Equal for equal schemas."""
        return hashlib.sha256(compact(self.served)).hexdigest()

    def keeps(self, field: str) -> bool:
        """Whether a field of `status` outlives pruning."""
        return _keeps(self.served, field)

    def stored(self, field: str, value: Any) -> Any:
        """`value` of the field `status.{field}` after pruning and defaulting, as the API server stores it."""
        return as_stored(self.served.get("properties", {}).get(field), value)

    def stored_entry(self, entry: Entry) -> dict[str, Any]:
        """One entry of `artifacts` after pruning and defaulting."""
        stored: dict[str, Any] = as_stored(self.entry, entry)
        return stored

    def fits(self, field: str, value: object) -> bool:
        """Whether an entry's field may have this value: it is kept, of the right type and not too long."""
        if not _keeps(self.entry, field):
            return False
        rule = self.entry.get("properties", {}).get(field, {})
        if "enum" in rule and value not in rule["enum"]:
            return False
        if isinstance(value, str):
            most = min(URI_LENGTH, rule.get("maxLength", URI_LENGTH))
            return bool(rule.get("type", "string") == "string" and len(value) <= most)
        if isinstance(value, int):
            most = rule.get("maximum", _INT32_MOST if rule.get("format") == "int32" else value)
            return bool(rule.get("type", "integer") in {"integer", "number"} and value <= most)
        return True

    def takes(self, entry: Entry) -> bool:
        """Whether an entry may be written: every field fits, and none that is required is missing."""
        return self.required <= entry.keys() and all(self.fits(field, entry[field]) for field in entry)


def open_schema() -> StatusSchema:
    """A schema that keeps everything: what is assumed where no API server is known."""
    return read_schema({"type": "object", _PRESERVE: True})


def read_schema(served: Mapping[str, Any]) -> StatusSchema:
    """Reduce the served OpenAPI schema of `status` (references resolved).

    Native needs `name` and `uri` to be kept, named or by preserving unknown fields; legacy needs `name` to be
    kept and `url` to be named (a `key` without its bucket points nowhere). The other fields are written where
    they are kept.

    Raises:
        PointersNotKeptError: neither dialect can be kept, or an entry must have a field that is not ours.
    """
    if not _keeps(served, "artifacts"):
        raise PointersNotKeptError("the served AgentRun schema has no status.artifacts")
    artifacts = served.get("properties", {}).get("artifacts", {"items": {_PRESERVE: True}})
    entry = artifacts.get("items") or {_PRESERVE: artifacts.get(_PRESERVE, False)}
    rules = entry.get("properties", {})
    named = _keeps(entry, "name")
    native, legacy = named and _keeps(entry, "uri"), named and "url" in rules
    if not native and not legacy:
        raise PointersNotKeptError
    fields = dict.fromkeys((_NATIVE if native else ()) + (_LEGACY if legacy else ()))
    required = frozenset(
        field for field in entry.get("required", ()) if "default" not in rules.get(field, {})
    )
    if foreign := required - fields.keys():
        raise PointersNotKeptError(
            f"the served AgentRun schema requires of each artifact: {', '.join(sorted(foreign))}"
        )
    return StatusSchema(
        served=served,
        entry=entry,
        native=native,
        legacy=legacy,
        fields=tuple(field for field in fields if _keeps(entry, field)),
        required=required,
        max_items=artifacts.get("maxItems"),
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
    entry = {field: values[field] for field in schema.fields if schema.fits(field, values[field])}
    pointed = "name" in entry and ("uri" in entry or "url" in entry)
    return entry if pointed and schema.required <= entry.keys() else None


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


def as_stored(schema: Mapping[str, Any] | None, value: Any) -> Any:
    """`value` after pruning and defaulting by a structural schema; None for the schema keeps all."""
    if schema is None:
        return value
    if isinstance(value, list):
        return [as_stored(schema.get("items"), item) for item in value]
    if not isinstance(value, Mapping):
        return value
    rules = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    defaults = {name: rule["default"] for name, rule in rules.items() if "default" in rule}
    kept = {
        name: as_stored(rules.get(name, extra if isinstance(extra, Mapping) else None), item)
        for name, item in value.items()
        if _keeps(schema, name)
    }
    return {**kept, **{name: default for name, default in defaults.items() if name not in kept}}


def compact(value: object) -> bytes:
    """Compact UTF-8 JSON: what the byte budget of status counts."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)
    return text.encode(errors="surrogatepass")


def _keeps(schema: Mapping[str, Any], field: str) -> bool:
    return (
        field in schema.get("properties", {})
        or bool(schema.get("additionalProperties"))
        or schema.get(_PRESERVE, False) is True
    )


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
