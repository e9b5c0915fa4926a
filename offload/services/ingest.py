"""Ingest: one body into the object store and one row into the index, or nothing at all.

What can be refused is refused before the body is read. The bytes are complete in the store before their row
is committed; what a crash leaves between the two has no row, and the orphan cleaner takes it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import quote
from uuid import UUID

import structlog
import uuid_utils.compat

from offload import metrics
from offload.domain import retention
from offload.domain.artifact import Artifact, Location, NewArtifact
from offload.domain.keys import object_key
from offload.domain.names import (
    check_content_type,
    check_name,
    check_type,
    default_content_type,
    default_type,
)
from offload.domain.quantities import format_size
from offload.domain.retention import Policy, check_requested_expiry, parse_expires
from offload.domain.run import Run
from offload.errors import (
    LengthMismatchError,
    NameExistsError,
    OffloadError,
    RunChangedError,
    UploadTooLargeError,
)
from offload.index import Index, artifacts, runs
from offload.index.recorder import Recorded, Recorder
from offload.objects.interface import Objects
from offload.services.admission import Admission
from offload.services.budget import ByteBudget
from offload.services.incarnations import Incarnations
from offload.services.known_runs import KnownRuns
from offload.services.pieces import PIECE, Hashing, joined, start_of
from offload.services.senders import Senders

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request says of the body it sends."""

    namespace: str
    run: str
    name: str
    uid: str | None = None
    type: str | None = None
    content_type: str | None = None
    size_bytes: int | None = None
    """None: not known before the body ends."""
    digests: Mapping[str, bytes] | None = None
    """Algorithm (sha-256, sha-512) to digest, to be verified."""
    expires: str | None = None
    only_new_name: bool = False


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of an upload that was taken."""

    artifact: Artifact
    created: bool
    """False: the current version of the name had these bytes already."""
    expires_at: datetime | None
    """When the rules in force end it; None while that is not known, or for ever."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one process takes."""

    size_bytes: int
    concurrent: int
    stall: timedelta
    min_rate: int
    """Bytes a second, of a sender that holds a window."""


@dataclass(frozen=True, slots=True)
class _Described:
    """An upload whose every word is checked."""

    upload: Upload
    run: Run
    type: str
    content_type: str
    expires_at: datetime | None


class Ingest:
    """Takes uploads. Used from one event loop; what blocks runs in its own few threads."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        objects: Objects,
        recorder: Recorder,
        incarnations: Incarnations,
        *,
        policy: Policy,
        prefix: str,
        budget: ByteBudget,
        limits: Limits,
        new_id: Callable[[], UUID] = uuid_utils.compat.uuid7,
    ) -> None:
        self._index, self._objects, self._recorder = index, objects, recorder
        self._policy, self._prefix = policy, prefix
        self._budget, self._limits, self._new_id = budget, limits, new_id
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="ingest")
        self._known_runs = KnownRuns(incarnations, self._threads)
        self._admission = Admission(limits.concurrent)
        # Apart: in the places of uploads, requests would leave none to their own files.
        self._requests = Admission(limits.concurrent)
        self._senders = Senders(stall_seconds=limits.stall.total_seconds(), min_rate=limits.min_rate)

    @property
    def most_of_a_run(self) -> int:
        """Uploads that one run may have running at once."""
        return self._admission.most_of_a_run

    @asynccontextmanager
    async def expect(self, upload: Upload) -> AsyncIterator[None]:
        """A place for a request that brings several files; each is then an upload by itself.

        What would be refused of every file that comes as `upload`, whatever its name, is refused now.

        Raises:
            OffloadError: as `put` does.
        """
        with self._requests.place(f"{upload.namespace}/{upload.run}"):
            self._admission.check()
            if upload.type is not None:
                check_type(upload.type)
            if upload.expires is not None:
                parse_expires(upload.expires, datetime.now(UTC))
            await self._known_runs.find(upload.namespace, upload.run, upload.uid)
            yield

    async def put(self, upload: Upload, body: AsyncIterator[bytes], *, of_several: bool = False) -> Ingested:
        """Store `body`, a `steady` one, and record it; what the current version has is not stored twice.

        One `of_several` comes in a request that has its place by `expect`.

        When this returns, the bytes and their row are durable. When it raises, nothing of the upload can be
        seen, and what could not be cleaned up is the orphan cleaner's.
        """
        place = self._admission.place(f"{upload.namespace}/{upload.run}", equal=not of_several)
        with place, metrics.UPLOADS_RUNNING.track_inprogress():
            described = await self._describe(upload)
            known = await self._answer_before_body(described)
            recorded = Recorded(known, created=False) if known else await self._take(described, body)
            artifact = recorded.artifact
            expires_at = retention.expiry(artifact, described.run, self._policy)
            return Ingested(artifact, recorded.created, expires_at)

    def steady(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`body`, ended by an error where it stalls or the process is shutting down."""
        return self._senders.steady(body)

    def end_sources(self) -> None:
        """End all bodies that are still being read: their uploads answer 503 and leave nothing behind."""
        self._requests.close()
        self._admission.close()
        self._senders.end()

    async def settled(self, within: float) -> None:
        """Return once no upload runs any more, at the latest after `within` seconds."""
        await self._admission.settled(within)

    def close(self) -> None:
        """End the threads; what hangs in one of them is not waited for."""
        self._known_runs.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _describe(self, upload: Upload) -> _Described:
        """Check every word that came with the body; the body itself was not looked at yet."""
        check_name(upload.name)
        content_type = check_content_type(upload.content_type or default_content_type(upload.name))
        type_ = check_type(upload.type) if upload.type is not None else default_type(content_type)
        if upload.size_bytes is not None and upload.size_bytes > self._limits.size_bytes:
            raise self._too_large(upload.size_bytes)
        now = datetime.now(UTC)
        expires_at = parse_expires(upload.expires, now) if upload.expires is not None else None
        run = await self._known_runs.find(upload.namespace, upload.run, upload.uid)
        if expires_at:
            check_requested_expiry(
                expires_at, artifact_type=type_, name=upload.name, run=run, policy=self._policy, now=now
            )
        return _Described(upload, run, type_, content_type, expires_at)

    async def _answer_before_body(self, described: _Described) -> Artifact | None:
        """The current version if the request's digest says that it has the same bytes."""
        upload = described.upload
        sha256 = (upload.digests or {}).get("sha-256")
        if sha256 is None and not upload.only_new_name:
            return None
        try:
            current = await self._in_thread(self._current, upload, described.run)
        except RunChangedError:
            self._known_runs.forget()
            raise
        if current is None:
            return None
        if upload.only_new_name:
            raise NameExistsError(f"{upload.name!r} has a current version, {current.id}")
        return current if current.sha256 == sha256 and not current.is_over(datetime.now(UTC)) else None

    def _current(self, upload: Upload, run: Run) -> Artifact | None:
        with self._index.read() as tx:
            if upload.uid is None:
                # It may have been deleted or created again since `KnownRuns` found it.
                newest = runs.find(tx, run.namespace, run.name)
                if newest is None or newest.uid != run.uid or newest.deleted_at:
                    raise RunChangedError
            return artifacts.current(tx, run.uid, upload.name)

    async def _take(self, described: _Described, body: AsyncIterator[bytes]) -> Recorded:
        first, rest = await start_of(self._bounded(described.upload, body))
        if rest is None:
            # It holds no more than an upload may without a reservation: small bodies wait for no large one.
            return await self._store(described, joined(first, None), len(first))
        size_bytes = described.upload.size_bytes
        piece = PIECE if size_bytes is None else min(PIECE, size_bytes)
        async with self._budget.reserve(self._objects.window(size_bytes) + piece, described.run.uid):
            paced = self._senders.paced(rest, pressed=lambda: self._budget.pressed)
            return await self._store(described, joined(first, paced), size_bytes)

    async def _bounded(self, upload: Upload, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body, ended by an error where it grows too large or has not the length it claims."""
        size = 0
        async for chunk in body:
            size += len(chunk)
            if size > self._limits.size_bytes:
                raise self._too_large(size)
            if upload.size_bytes is not None and size > upload.size_bytes:
                break
            yield chunk
        if upload.size_bytes is not None and size != upload.size_bytes:
            raise LengthMismatchError(f"Content-Length says {upload.size_bytes} bytes; {size} came")

    async def _store(
        self, described: _Described, pieces: AsyncIterator[bytes], size_bytes: int | None
    ) -> Recorded:
        upload, run = described.upload, described.run
        artifact_id = self._new_id()
        began_at = datetime.now(UTC)
        hashing = Hashing(pieces, upload.digests or {}, self._threads)
        started = time.perf_counter()
        location = await self._objects.put(
            object_key(self._prefix, run.namespace, run.name, run.uid, artifact_id, upload.name),
            hashing.pieces(),
            size_bytes=size_bytes,
            content_type=described.content_type,
            metadata={"name": quote(upload.name, safe="/"), "artifact-id": str(artifact_id)},
        )
        metrics.STORE_SECONDS.labels("put").observe(time.perf_counter() - started)
        new = NewArtifact(
            id=artifact_id,
            run_uid=run.uid,
            name=upload.name,
            type=described.type,
            content_type=described.content_type,
            size_bytes=hashing.size_bytes,
            sha256=hashing.sha256,
            location=location,
            stored_since=began_at,
            expires_at=described.expires_at,
            only_new_name=upload.only_new_name,
            newest_run_only=upload.uid is None,
        )
        return await self._record(new)

    async def _record(self, new: NewArtifact) -> Recorded:
        started = time.perf_counter()
        try:
            recorded = await self._recorder.record(new)
        except (NameExistsError, RunChangedError):
            # Decided inside the transaction: there is no row, and there will be none.
            self._known_runs.forget()
            await self._in_thread(self._forget, new.location)
            raise
        metrics.INDEX_SECONDS.labels("record").observe(time.perf_counter() - started)
        if not recorded.created:
            await self._in_thread(self._forget, new.location)
        return recorded

    def _forget(self, location: Location) -> None:
        """Delete an object that has no row; what fails here is left to the orphan cleaner."""
        try:
            self._objects.delete([location])
        except OffloadError as error:
            log.warning("ingest.leftover", key=location.key, problem=str(error))

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _too_large(self, size: int) -> UploadTooLargeError:
        return UploadTooLargeError(
            f"an artifact may have {format_size(self._limits.size_bytes)}; this one has at least {size} bytes"
        )
