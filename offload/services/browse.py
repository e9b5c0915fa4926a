"""Browse: what a run produced, where it went, and why status shows what it shows. Blocking and read only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from offload.cluster.interface import Cluster
from offload.domain import retention
from offload.domain.artifact import Artifact, State
from offload.domain.differences import Difference, differences
from offload.domain.external import External
from offload.domain.limits import PAGE_MOST
from offload.domain.pointers import Reason, StatusSchema, addresses, fingerprint, status_entries
from offload.domain.projection import Caps, Projection, why_absent
from offload.domain.retention import Policy
from offload.domain.run import Run
from offload.domain.times import format_time
from offload.errors import (
    AgentRunGoneError,
    ArtifactNotFoundError,
    PointersNotKeptError,
    RunNotFoundError,
)
from offload.index import Index, Transaction, artifacts, externals, runs
from offload.services.adopt import sort_entries
from offload.services.incarnations import Incarnations
from offload.services.preview import preview
from offload.services.schema import ServedSchema

Order = Literal["newest", "oldest"]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which artifacts of a run; None: any."""

    type: str | None = None
    name_glob: str | None = None
    state: State | None = None
    since: datetime | None = None
    """Inclusive, of the time of creation."""
    until: datetime | None = None
    """Exclusive."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An artifact, and when the rules in force end it; None while that is not known, or for ever."""

    artifact: Artifact
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the status that the API server has."""

    name: str
    uri: str | None
    ours: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """An artifact that status does not list, and why."""

    artifact: Artifact
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What status lists, the newest 1,000 of what it does not, and what a publish would change now."""

    run: Run
    entries: Sequence[Entry]
    absent: Sequence[Absent]
    externals: Sequence[External]
    """Entries of other writers that were left out of status, or removed by their writers."""
    pending: Sequence[Difference]


class Browse:
    """Answers operators' questions. Threads share it."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        cluster: Cluster,
        schema: ServedSchema,
        incarnations: Incarnations,
        *,
        policy: Policy,
        caps: Caps,
        strict: bool,
        public_url: str | None,
    ) -> None:
        """`caps`, `strict` and `public_url` are those that the controller publishes by."""
        self._index, self._cluster, self._schema = index, cluster, schema
        self._incarnations, self._policy = incarnations, policy
        self._caps, self._strict, self._public_url = caps, strict, public_url

    def run(self, namespace: str, name: str, uid: str | None = None) -> Run:
        """The newest incarnation of a name, or the one with this uid; see `Incarnations.to_read`."""
        return self._incarnations.to_read(namespace, name, uid)

    def runs(  # noqa: PLR0913 - each filter that is offered
        self,
        namespace: str,
        *,
        agent: str | None,
        phase: str | None,
        deleted: bool | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Run]:
        """Runs of a namespace, newest first; `after` is the place of the last one already shown."""
        with self._index.read() as tx:
            return runs.page(
                tx, namespace, agent=agent, phase=phase, deleted=deleted, after=after, limit=limit
            )

    def history(
        self, run: Run, filters: Filters, *, order: Order, after: int | None, limit: int
    ) -> list[Shown]:
        """A run's artifacts by sequence; `after` is the sequence number of the last one already shown."""
        with self._index.read() as tx:
            found = artifacts.history(
                tx,
                run.uid,
                type=filters.type,
                name_glob=filters.name_glob,
                state=filters.state,
                since=filters.since,
                until=filters.until,
                order=order,
                after=after,
                limit=limit,
            )
        return [self.shown(artifact, run) for artifact in found]

    def artifact(self, artifact_id: UUID) -> Artifact:
        """Whatever its fate. Raises `ArtifactNotFoundError`."""
        with self._index.read() as tx:
            artifact = artifacts.get(tx, artifact_id)
        if artifact is None:
            raise ArtifactNotFoundError(f"there is no artifact {artifact_id}, or the token does not reach it")
        return artifact

    def named(self, run: Run, name: str, version: UUID | None = None) -> Artifact:
        """The current version of a name, else the newest that ended, or the one with the id `version`.

        Raises:
            ArtifactNotFoundError: the run never had it.
        """
        with self._index.read() as tx:
            if version is not None:
                found = artifacts.get(tx, version)
                matching = [found] if found and (found.run_uid, found.name) == (run.uid, name) else []
            else:
                current = artifacts.current(tx, run.uid, name)
                matching = [current] if current else artifacts.versions(tx, run.uid, name)
        if not matching:
            raise ArtifactNotFoundError(f"the run has no artifact {name!r} of this version")
        return matching[0]

    def shown(self, artifact: Artifact, run: Run | None = None) -> Shown:
        """`artifact` with its expiry. `run` saves a look-up where it is at hand."""
        if artifact.state is not State.STORED:
            return Shown(artifact, artifact.expires_at)
        if run is None:
            with self._index.read() as tx:
                run = runs.get(tx, artifact.run_uid)
        if run is None:
            raise RunNotFoundError
        return Shown(artifact, retention.expiry(artifact, run, self._policy))

    def explain(self, run: Run) -> Explanation:
        """Compare what status lists with all that the run has, and with what a publish would make of it.

        Raises:
            ClusterUnavailableError: a run that was not deleted has a status, and it cannot be read.
        """
        schema = self._served_schema(run)
        status = self._status(run)
        with self._index.read() as tx:
            newest = artifacts.newest_current(tx, run.uid, PAGE_MOST)
            found = sort_entries(tx, run.uid, status, newest, schema)
            projection = self._preview(tx, run, status, schema)
            history = artifacts.history(tx, run.uid, limit=PAGE_MOST)
            others = [one for one in externals.of_run(tx, run.uid) if one.state != "listed"]
        foreign = {fingerprint(entry) for entry in found.foreign}
        entries = [
            Entry(
                str(entry.get("name", "")),
                next(iter(addresses(entry)), None),
                fingerprint(entry) not in foreign,
            )
            for entry in status_entries(status)
        ]
        listed = {artifact.id for artifact in found.ours}
        absent = [
            Absent(artifact, *_why_absent(artifact, run, projection, listed=len(entries)))
            for artifact in history
            if artifact.id not in listed
        ]
        pending = differences(status, projection.patch_for(status)) if projection else []
        return Explanation(run, entries, absent, others, pending)

    def _served_schema(self, run: Run) -> StatusSchema | None:
        """None where status can list nothing: the run is deleted, or the schema keeps no pointers."""
        if run.deleted_at:
            return None
        self._schema.refresh()
        try:
            return self._schema.current()
        except PointersNotKeptError:
            return None

    def _preview(
        self, tx: Transaction, run: Run, status: Mapping[str, Any], schema: StatusSchema | None
    ) -> Projection | None:
        if schema is None:
            return None
        return preview(
            tx,
            run.uid,
            status,
            schema=schema,
            caps=self._caps,
            strict=self._strict,
            public_url=self._public_url,
        )

    def _status(self, run: Run) -> Mapping[str, Any]:
        if run.deleted_at:
            return {}
        try:
            read = self._incarnations.read(run.namespace, run.name)
        except AgentRunGoneError:
            return {}
        return read.status if read.seen.uid == run.uid else {}


def _why_absent(
    artifact: Artifact, run: Run, projection: Projection | None, *, listed: int
) -> tuple[str, str]:
    if run.deleted_at:
        return "RunDeleted", f"deleted at {format_time(run.deleted_at)}"
    if projection is None:
        return "PointersNotKept", PointersNotKeptError().detail
    absence = why_absent(artifact, projection)
    if absence:
        return absence.reason, absence.message
    if run.dirty_since is None:
        return Reason.COUNT_LIMIT, f"another writer of status has cut the list to {listed} entries"
    return "NotYetPublished", run.publish_error or "the next publish lists it"
