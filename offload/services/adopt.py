"""Adopt: what other writers put into status, told apart, stored where it is content, and kept known."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import structlog

from offload import metrics
from offload.domain.artifact import Artifact, Location, NewArtifact, State
from offload.domain.external import External
from offload.domain.inline import Content, split
from offload.domain.keys import object_key
from offload.domain.names import check_name
from offload.domain.pointers import (
    Entry,
    StatusSchema,
    addresses,
    artifact_id_in,
    fingerprint,
    is_ours,
    pointer,
    points_elsewhere,
    recorded_addresses,
    status_entries,
    unfit_fields,
)
from offload.domain.run import Run
from offload.errors import InvalidNameError, OffloadError
from offload.index import Index, Transaction, artifacts, externals
from offload.index.recorder import Recorded, Recorder
from offload.objects.interface import Objects

AT_A_TIME = 16
"""Artifacts that are stored side by side: a status of 500 entries must not outlast its run's claim."""

_BESIDE_AN_ADDRESS = {"name", "type", "contentType", "sizeBytes"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sorted:
    """The entries of one status, by whose they are."""

    foreign: Sequence[Entry]
    """Other writers', in their order."""
    ours: Sequence[Artifact]
    """Artifacts of the run that an entry points at, whatever their fate."""


def sort_entries(
    tx: Transaction,
    run_uid: str,
    status: Mapping[str, Any],
    current: Sequence[Artifact],
    schema: StatusSchema | None,
) -> Sorted:
    """Tell entries of ours from other writers', knowing the `current` artifacts already.

    An entry is ours if its address is one recorded for the run, or if it has none and its name is that of an
    artifact of ours, which then stands in its place. What `schema` adds to an entry says nothing.
    """
    entries = status_entries(status)
    by_address = {address: one for one in current for address in recorded_addresses(one)}
    foreign, ours = [], []
    for entry in entries:
        artifact = next((by_address[a] for a in addresses(entry) if a in by_address), None)
        artifact = artifact or _recorded(tx, run_uid, entry)
        if artifact:
            ours.append(artifact)
        elif not _stands_for_ours(tx, run_uid, entry, schema):
            foreign.append(entry)
    return Sorted(foreign, ours)


def is_whole(run: Run, current: Sequence[Artifact], ours: Sequence[Artifact], schema: StatusSchema) -> bool:
    """Whether a status still has the pointers that it was last published with, as far as `current` tells.

    One that has not was written from an older view, or was cut. That another writer's entry is missing from
    it as well says nothing about what that writer wants.
    """
    if run.listed_count == 0:
        return True
    there = {artifact.id for artifact in ours}
    published = (one for one in current if one.seq <= run.published_revision and pointer(one, schema))
    newest = next(published, None)
    # Where all that is current is newer than the last publish, there are only their numbers to go by. Where a
    # newer one ended since, which status has, what is the newest now may not have been listed.
    is_there = (
        newest is None
        or newest.id in there
        or any(one.seq > newest.seq and _ended_since_publish(one, run) for one in ours)
    )
    return is_there and len(there) >= run.listed_count


def _ended_since_publish(artifact: Artifact, run: Run) -> bool:
    ended_at, published_at = artifact.ended_at, run.published_at
    return ended_at is not None and published_at is not None and ended_at > published_at


def needs_adopting(
    foreign: Sequence[Entry], known: Sequence[External], schema: StatusSchema, *, whole: bool
) -> bool:
    """Whether `adopt` would have anything to do."""
    if any(unfit_fields(entry, schema) for entry in foreign):
        return True
    return bool(_changes(_recognised(foreign, known), known, whole=whole))


def as_adopted(
    run: Run, foreign: Sequence[Entry], known: Sequence[External], schema: StatusSchema, *, whole: bool
) -> list[External]:
    """`known` as `adopt` would leave it, new ones in the places that they would get.

    As nothing is stored, an entry with content stays as it is.
    """
    fit: list[Entry] = []
    unfit: list[Entry] = []
    for entry in foreign:
        (unfit if unfit_fields(entry, schema) else fit).append(entry)
    found = _recognised(fit, known) | {fingerprint(entry): entry for entry in unfit}
    after = {external.fingerprint: external for external in known}
    for seq, external in enumerate(_changes(found, known, whole=whole), run.revision + 1):
        before = after.get(external.fingerprint)
        after[external.fingerprint] = replace(external, seq=before.seq if before else seq)
    return list(after.values())


class Adopter:
    """Stores other writers' content and remembers their pointers. Adopting again changes nothing."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        objects: Objects,
        recorder: Recorder,
        *,
        prefix: str,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any],
        new_id: Callable[[], UUID],
    ) -> None:
        """`run_coroutine` runs a coroutine on the event loop for streams and answers what it answers."""
        self._index, self._objects, self._recorder = index, objects, recorder
        self._prefix, self._run_coroutine, self._new_id = prefix, run_coroutine, new_id

    def adopt(
        self,
        run: Run,
        foreign: Sequence[Entry],
        known: Sequence[External],
        schema: StatusSchema,
        *,
        whole: bool,
    ) -> bool:
        """Take `foreign` entries over; whether anything changed in the index.

        When this returns, every inline or over-long field is stored as an artifact and every entry that
        points elsewhere is known. One that its writer took out of a status that is `whole` otherwise becomes
        removed.

        Raises:
            StoreUnavailableError, IndexUnavailableError, RunChangedError: and nothing may leave status.
            NameExistsError: as above; an upload took a name meanwhile, and adopting again finds another.
        """
        parted = [split(entry, unfit_fields(entry, schema)) for entry in foreign]
        contents = [content for _, contents in parted for content in contents]
        missing = self._not_stored(run, contents) if contents else []
        for start in range(0, len(missing), AT_A_TIME):
            self._store(run, missing[start : start + AT_A_TIME])
        pointing = _recognised([rest for rest, _ in parted if rest is not None], known)
        changed = _changes(pointing, known, whole=whole)
        if changed:
            with self._index.begin() as tx:
                externals.save(tx, run.uid, changed)
        return bool(missing or changed)

    def _not_stored(self, run: Run, contents: Sequence[Content]) -> list[Content]:
        """Those whose bytes never had their name here, each by the name that it gets."""
        with self._index.read() as tx:
            versions = artifacts.versions_by_name(
                tx, run.uid, {name for content in contents for name in content.names}
            )
        missing: dict[tuple[str, bytes], Content] = {}
        for content in contents:
            name = _free_name(content, versions)
            if name is not None:
                missing[name, content.sha256] = replace(content, name=name)
        return list(missing.values())

    def _store(self, run: Run, contents: Sequence[Content]) -> None:
        for location, recorded in self._run_coroutine(self._stored(run, contents)):
            artifact = recorded.artifact
            if not recorded.created and artifact.location != location:
                self._forget(location)
                continue
            metrics.ADOPTED.inc()
            log.info(
                "adopt.stored",
                run=run.uid,
                artifact=str(artifact.id),
                name=artifact.name,
                origin=artifact.origin,
            )

    async def _stored(self, run: Run, contents: Sequence[Content]) -> list[tuple[Location, Recorded]]:
        """Store side by side, then record in order; what is stored is recorded though another one failed."""
        began_at = datetime.now(UTC)
        ids = [self._new_id() for _ in contents]
        puts = [self._put(run, id_, content) for id_, content in zip(ids, contents, strict=True)]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        new = [
            NewArtifact(
                id=id_,
                run_uid=run.uid,
                name=content.name,
                type=content.type,
                content_type=content.content_type,
                size_bytes=len(content.data),
                sha256=content.sha256,
                location=location,
                stored_since=began_at,
                origin=content.origin,
                # It may have come while these bytes were on their way. The last name is nobody else's.
                beside_uploads=content.name != content.names[-1],
            )
            for id_, content, location in zip(ids, contents, outcomes, strict=True)
            if isinstance(location, Location)
        ]
        recorded = await asyncio.gather(*(self._recorder.record(one) for one in new))
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return list(zip((one.location for one in new), recorded, strict=True))

    async def _put(self, run: Run, artifact_id: UUID, content: Content) -> Location:
        return await self._objects.put(
            object_key(self._prefix, run.namespace, run.name, run.uid, artifact_id, content.name),
            _source(content.data),
            size_bytes=len(content.data),
            content_type=content.content_type,
            metadata={"name": quote(content.name, safe="/")},
        )

    def _forget(self, location: Location) -> None:
        """Delete an object for which another controller's stands; else the orphan cleaner does it."""
        try:
            self._objects.delete([location])
        except OffloadError as error:
            log.warning("adopt.leftover", key=location.key, problem=str(error))


def _recorded(tx: Transaction, run_uid: str, entry: Entry) -> Artifact | None:
    for address in addresses(entry):
        artifact_id = artifact_id_in(address, run_uid)
        artifact = artifacts.get(tx, artifact_id) if artifact_id else None
        if artifact and artifact.run_uid == run_uid and is_ours(entry, recorded_addresses(artifact)):
            return artifact
    return None


def _stands_for_ours(tx: Transaction, run_uid: str, entry: Entry, schema: StatusSchema | None) -> bool:
    name = entry.get("name")
    added = schema.stored_entry({"name": name}) if schema else {}
    said = {field for field, value in entry.items() if value not in (None, "", added.get(field))} | {"name"}
    if not isinstance(name, str) or not said <= _BESIDE_AN_ADDRESS:
        return False
    try:
        return artifacts.current(tx, run_uid, check_name(name)) is not None
    except InvalidNameError:
        return False


def _free_name(content: Content, versions: Mapping[str, Sequence[Artifact]]) -> str | None:
    """The name under which to store it: the first that no upload has; None where its bytes had one of them.

    Also where they were erased since: a stale writer does not bring back what was ended.
    """
    free = None
    for name in content.names:
        named = versions.get(name, ())
        if any(one.sha256 == content.sha256 and one.state is not State.LOST for one in named):
            return None
        uploaded = any(one.current and one.origin is None for one in named)
        if free is None and not uploaded:
            free = name
    return free or content.names[-1]


def _recognised(foreign: Iterable[Entry], known: Sequence[External]) -> dict[str, Entry]:
    """Entries by fingerprint; one that lost its address on the way is the known one of its name."""
    addressed = {
        str(one.entry.get("name")): one
        for one in known
        if one.state != "removed" and points_elsewhere(one.entry)
    }
    found: dict[str, Entry] = {}
    for entry in foreign:
        stands_for = None if points_elsewhere(entry) else addressed.get(str(entry.get("name")))
        if stands_for:
            found.setdefault(stands_for.fingerprint, stands_for.entry)
        else:
            found[fingerprint(entry)] = entry
    return found


def _changes(pointing: Mapping[str, Entry], known: Sequence[External], *, whole: bool) -> list[External]:
    before = {external.fingerprint: external for external in known}
    changed = []
    for found, entry in pointing.items():
        external = before.get(found)
        if not external or external.state == "removed" or external.entry != entry:
            changed.append(External(0, found, entry))
    if whole:
        changed += [
            replace(external, state="removed")
            for external in known
            if external.state == "listed" and external.fingerprint not in pointing
        ]
    return changed


async def _source(data: bytes) -> AsyncIterator[bytes]:
    yield data
