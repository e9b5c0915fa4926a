"""What the sweep's tests happen in: an index, a store in memory, and what runs and publishers do there."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from offload.domain.artifact import Artifact, Location, NewArtifact, State
from offload.domain.retention import KeepFor, Policy
from offload.domain.run import Run, SeenRun
from offload.index import Index, artifacts, clock, runs, sweeping
from offload.index.recording import record_all
from offload.objects.memory import MemoryObjects
from offload.services.sweep import SweepReport, sweep
from tests.services.crashing import publish

DAY = timedelta(days=1)
ONE_DAY = Policy((), KeepFor(DAY))


@dataclass
class World:
    """An index and a store, and what may happen in them."""

    index: Index
    objects: MemoryObjects = field(default_factory=MemoryObjects)

    @property
    def now(self) -> datetime:
        with self.index.read() as tx:
            return clock.now(tx)

    def run(self, name: str = "run", namespace: str = "agents", **fields: Any) -> Run:
        seen = SeenRun(f"uid-{name}", namespace, name, datetime(2026, 1, 1, tzinfo=UTC), **fields)
        with self.index.begin() as tx:
            return runs.observe(tx, seen)

    def new(self, run: Run, name: str, data: bytes, **fields: Any) -> NewArtifact:
        artifact_id = uuid4()
        location = asyncio.run(self._put(f"{run.uid}/{artifact_id}/{name}", data))
        defaults: dict[str, Any] = {"type": "log", "content_type": "text/plain"}
        return NewArtifact(
            id=artifact_id,
            run_uid=run.uid,
            name=name,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).digest(),
            location=location,
            stored_since=datetime.now(UTC),
            **{**defaults, **fields},
        )

    def record(self, new: Sequence[NewArtifact]) -> list[Artifact]:
        with self.index.begin() as tx:
            recorded = record_all(tx, new, grace=timedelta(hours=1), again=False)
        return [outcome.artifact for outcome in recorded if not isinstance(outcome, Exception)]

    def send(self, run: Run, *names: str, **fields: Any) -> list[Artifact]:
        return self.record([self.new(run, name, os.urandom(10), **fields) for name in names])

    async def _put(self, key: str, data: bytes) -> Location:
        async def source() -> AsyncIterator[bytes]:
            yield data

        return await self.objects.put(key, source(), size_bytes=len(data), content_type="", metadata={})

    def publish(self) -> None:
        publish(self.index)

    def artifact(self, artifact_id: UUID) -> Artifact:
        with self.index.read() as tx:
            artifact = artifacts.get(tx, artifact_id)
        assert artifact is not None
        return artifact

    def states(self, sent: Sequence[Artifact]) -> list[State]:
        return [self.artifact(artifact.id).state for artifact in sent]

    def has_bytes(self, artifact: Artifact) -> bool:
        return artifact.location in {info.location for info in self.objects.list("")}

    def sweep(self, policy: Policy = ONE_DAY, *, after: timedelta = 2 * DAY, **how: Any) -> SweepReport:
        return sweep(self.index, self.objects, policy, now=self.now + after, **how)

    def parked(self) -> list[sweeping.ParkedPlan]:
        with self.index.read() as tx:
            return sweeping.parked(tx)
