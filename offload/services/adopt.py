"""Adopt: what other writers put into status, told apart, stored where it is content, and kept known."""

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

import structlog

from offload import metrics
from offload.domain.artifact import Artifact, Location, NewArtifact, State
from offload.domain.keys import object_key
from offload.domain.names import UNKNOWN_CONTENT, check_content_type, check_name, check_type, default_type
from offload.domain.pointers import (
    Entry,
    Reason,
    StatusSchema,
    addresses,
    artifact_id_in,
    compact,
    fingerprint,
    is_ours,
    points_elsewhere,
    recorded_addresses,
    unfit_fields,
)
from offload.domain.run import Run
from offload.errors import InvalidContentTypeError, InvalidNameError, InvalidTypeError
from offload.index import Index, Transaction, artifacts, externals
from offload.index.externals import External
from offload.index.recorder import Recorder
from offload.objects.interface import Objects

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sorted:
    """The entries of one status, by whose they are."""

    foreign: Sequence[Entry]
    """Other writers', in their order."""
    ours: Sequence[Artifact]
    """Artifacts of the run that an entry points at, whatever their fate."""


def sort_entries(
    tx: Transaction, run_uid: str, status: Mapping[str, Any], current: Sequence[Artifact]
) -> Sorted:
    """Tell entries of ours from other writers', knowing the `current` artifacts already.

    An entry is ours if its address is one recorded for the run, or if it has none and its name is that of an
    artifact of ours, which then stands in its place.
    """
    found = status.get("artifacts")
    entries = [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
    by_address = {address: one for one in current for address in recorded_addresses(one)}
    foreign, ours = [], []
    for entry in entries:
        artifact = next((by_address[a] for a in addresses(entry) if a in by_address), None)
        artifact = artifact or _recorded(tx, run_uid, entry)
        if artifact:
            ours.append(artifact)
        elif not _stands_for_ours(tx, run_uid, entry):
            foreign.append(entry)
    return Sorted(foreign, ours)


def needs_adopting(foreign: Sequence[Entry], known: Sequence[External], schema: StatusSchema) -> bool:
    """Whether `adopt` would have anything to do."""
    if any(unfit_fields(entry, schema) for entry in foreign):
        return True
    return bool(_changes("", {fingerprint(entry): entry for entry in foreign}, known))


class Adopter:
    """Stores other writers' content and remembers their pointers. Adopting again changes nothing."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        objects: Objects,
        recorder: Recorder,
        *,
        prefix: str,
        run_coroutine: Callable[[Coroutine[Any, Any, Location]], Location],
        new_id: Callable[[], UUID],
    ) -> None:
        """`run_coroutine` runs a coroutine on the event loop for streams and answers what it answers."""
        self._index, self._objects, self._recorder = index, objects, recorder
        self._prefix, self._run_coroutine, self._new_id = prefix, run_coroutine, new_id

    def adopt(
        self, run: Run, foreign: Sequence[Entry], known: Sequence[External], schema: StatusSchema
    ) -> bool:
        """Take `foreign` entries over; whether anything changed in the index.

        When this returns, every inline or over-long field is stored as an artifact and every entry that
        points elsewhere is known. One that its writer took out of status becomes removed.

        Raises:
            StoreUnavailableError, IndexUnavailableError, RunChangedError: and nothing may leave status.
        """
        stored = False
        pointing: dict[str, Entry] = {}
        for entry in foreign:
            unfit = unfit_fields(entry, schema)
            rest = {field: value for field, value in entry.items() if field not in unfit}
            stays = points_elsewhere(rest) or not unfit
            for field, reason in unfit.items():
                alone = not stays and len(unfit) == 1
                content_type, data = _content(entry[field], reason)
                name = _name(rest, field, data, alone=alone)
                if not self._is_stored(run, name, data):
                    self._store(run, name, _type(rest, content_type), content_type, data, origin=field)
                    stored = True
            if stays:
                pointing[fingerprint(rest)] = rest
        changed = _changes(run.uid, pointing, known)
        if changed:
            with self._index.begin() as tx:
                externals.save(tx, run.uid, changed)
        return stored or bool(changed)

    def _is_stored(self, run: Run, name: str, data: bytes) -> bool:
        """Whether these bytes ever had this name here.

        Also where they were erased since: a stale writer does not bring back what was ended.
        """
        sha256 = hashlib.sha256(data).digest()
        with self._index.read() as tx:
            versions = artifacts.versions(tx, run.uid, name)
        return any(one.sha256 == sha256 and one.state is not State.LOST for one in versions)

    def _store(  # noqa: PLR0913 - what an artifact is
        self, run: Run, name: str, type_: str, content_type: str, data: bytes, *, origin: str
    ) -> None:
        artifact_id, began_at = self._new_id(), datetime.now(UTC)
        location = self._run_coroutine(
            self._objects.put(
                object_key(self._prefix, run.namespace, run.name, run.uid, artifact_id, name),
                _source(data),
                size_bytes=len(data),
                content_type=content_type,
                metadata={"name": quote(name, safe="/")},
            )
        )
        recorded = self._recorder.record_blocking(
            NewArtifact(
                id=artifact_id,
                run_uid=run.uid,
                name=name,
                type=type_,
                content_type=content_type,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).digest(),
                location=location,
                stored_since=began_at,
                origin=f"status:{origin}",
            )
        )
        metrics.ADOPTED.inc()
        log.info("adopt.stored", run=run.uid, artifact=str(recorded.artifact.id), name=name, field=origin)


def _recorded(tx: Transaction, run_uid: str, entry: Entry) -> Artifact | None:
    for address in addresses(entry):
        artifact_id = artifact_id_in(address, run_uid)
        artifact = artifacts.get(tx, artifact_id) if artifact_id else None
        if artifact and artifact.run_uid == run_uid and is_ours(entry, recorded_addresses(artifact)):
            return artifact
    return None


def _stands_for_ours(tx: Transaction, run_uid: str, entry: Entry) -> bool:
    name = entry.get("name")
    bare = entry.keys() <= {"name", "type", "contentType", "sizeBytes"}
    return isinstance(name, str) and bare and artifacts.current(tx, run_uid, name) is not None


def _changes(run_uid: str, pointing: Mapping[str, Entry], known: Sequence[External]) -> list[External]:
    before = {external.fingerprint: external for external in known}
    changed = []
    for found, entry in pointing.items():
        external = before.get(found)
        if not external or external.state == "removed" or external.entry != entry:
            changed.append(External(0, run_uid, found, entry, "listed"))
    changed += [
        replace(external, state="removed")
        for external in known
        if external.state == "listed" and external.fingerprint not in pointing
    ]
    return changed


def _content(value: Any, reason: Reason) -> tuple[str, bytes]:
    """The bytes that an unfit field stands for, and their content type."""
    if not isinstance(value, str):
        return "application/json", compact(value)
    raw = value.encode(errors="surrogatepass")
    if reason is Reason.URI_TOO_LONG:
        return "text/uri-list", raw + b"\r\n"
    scheme, _, rest = value.strip().partition(":")
    if scheme.lower() != "data" or "," not in rest:
        return "text/plain; charset=utf-8", raw
    return _data_uri(rest) or ("text/plain; charset=utf-8", raw)


def _data_uri(rest: str) -> tuple[str, bytes] | None:
    """A `data:` URI behind its scheme (RFC 2397); None where it cannot be decoded."""
    head, _, payload = rest.partition(",")
    encoded = head.lower().endswith(";base64")
    media_type = (head[: -len(";base64")] if encoded else head) or "text/plain;charset=US-ASCII"
    try:
        data = unquote_to_bytes(payload)
        if encoded:
            data = base64.b64decode(data, validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    try:
        return check_content_type(media_type.strip()), data
    except InvalidContentTypeError:
        return UNKNOWN_CONTENT, data


def _name(rest: Entry, field: str, data: bytes, *, alone: bool) -> str:
    """The entry's own name where nothing else of the entry needs it, else with the field behind it."""
    name = str(rest.get("name") or "").strip()
    try:
        return check_name(name if alone or not name else f"{name}.{field}")
    except InvalidNameError:
        return f"adopted-{hashlib.sha256(data).hexdigest()[:16]}"


def _type(rest: Entry, content_type: str) -> str:
    try:
        return check_type(str(rest.get("type", "")))
    except InvalidTypeError:
        return default_type(content_type)


async def _source(data: bytes) -> AsyncIterator[bytes]:
    yield data
