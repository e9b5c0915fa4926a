"""Publish: bring one AgentRun's status to what its history says.

Take the AgentRun as last seen, load, adopt, project, compare, patch if different, and believe only what the
answer shows. The AgentRun comes before the index: a projection is then never older than the status it is
written over, whichever replica wrote that.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

import structlog

from offload import metrics
from offload.cluster.interface import AgentRun, Cluster
from offload.domain import conditions
from offload.domain.artifact import State
from offload.domain.external import External
from offload.domain.pointers import StatusSchema, compact
from offload.domain.projection import Caps, Projection, project
from offload.domain.run import Run
from offload.errors import (
    AgentRunGoneError,
    ClusterForbiddenError,
    ClusterUnavailableError,
    IndexUnavailableError,
    NameExistsError,
    OffloadError,
    PointersNotKeptError,
    StatusConflictError,
    StatusNotKeptError,
    StatusRefusedError,
    UnavailableError,
)
from offload.index import Index, externals, publishing, runs
from offload.services.adopt import Adopter, needs_adopting
from offload.services.echoes import Echoes
from offload.services.lengths import Lengths
from offload.services.preview import Loaded, foreseen, history_hint, load, not_removed
from offload.services.schema import ServedSchema

Mode = Literal["on", "observe", "off"]

BETWEEN = timedelta(seconds=1)
ATTEMPTS = 5
"""How often a conflict is answered by projecting again before it counts as a failure."""
LONGEST_ASKED_SECONDS = 30.0
_REMEMBERED_MOST = 10_000
"""Runs whose conditions, and patches that were not kept, are remembered: not all that go are heard of."""
LONGEST_PAUSE = timedelta(minutes=5)
LONGEST_CONFLICT_PAUSE = timedelta(seconds=2)
"""So that status is ours within 5 s after a writer falls silent that was quicker every time."""

log = structlog.get_logger()


class Outcome(StrEnum):
    """How a publish ended."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    OBSERVED = "observed"
    GONE = "gone"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    """A part is away; whoever publishes should pause."""


@dataclass(frozen=True, slots=True)
class _NotKept:
    """A patch that the API server accepted and did not keep."""

    digest: bytes
    projected_at: datetime
    published_at: datetime | None
    """When the run was published last, then. Once it was published since, by any replica, this is history."""


class Publisher:
    """Publishes runs that were claimed; threads share it."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        cluster: Cluster,
        schema: ServedSchema,
        adopter: Adopter,
        echoes: Echoes,
        *,
        holder: str,
        caps: Caps,
        strict: bool,
        mode: Mode,
        public_url: str | None = None,
        between: timedelta = BETWEEN,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`holder` is who claims; `public_url` is where conditions say that history is.

        `between` is the least time between two patches of one run, and the first pause after a failure.
        """
        self._index, self._cluster, self._schema = index, cluster, schema
        self._adopter, self._echoes = adopter, echoes
        self._holder, self._caps, self._strict, self._mode = holder, caps, strict, mode
        self._public_url, self._between, self._clock = public_url, between, clock
        self._lengths = Lengths()
        self._said: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        self._not_kept: dict[str, _NotKept] = {}

    def publish(self, run: Run) -> Outcome:
        """Publish a claimed run, say in the index how it went, and answer it; nothing is raised."""
        try:
            outcome = self._attempt(run)
        except IndexUnavailableError as error:
            # The claim ends by itself.
            log.warning("publish.index_unavailable", run=run.uid, problem=str(error))
            outcome = Outcome.UNAVAILABLE
        metrics.PUBLISHES.labels(outcome).inc()
        return outcome

    def would_change(self, run: Run, status: Mapping[str, Any]) -> bool:
        """Whether a publish of `run` onto `status` would write anything, as far as the index tells.

        Raises:
            PointersNotKeptError, ClusterUnavailableError: there is no usable schema.
            IndexUnavailableError: the index is away.
        """
        schema = self._schema.current()
        loaded = self._load(run.uid, status, schema)
        if needs_adopting(loaded.sorted.foreign, loaded.externals, schema, whole=loaded.whole):
            return True
        return self._project(loaded, not_removed(loaded.externals), status, schema).differs_from(status)

    def note(self, run: Run, found: AgentRun) -> None:
        """Take to mind what the watch or a read shows of a run: the next publish starts from it."""
        ours = self._echoes.keep(found)
        if ours is not None:
            self._lengths.note(run, ours, found.status)

    def forget(self, uid: str) -> None:
        """The run is gone."""
        self._echoes.forget(uid)
        self._lengths.forget(uid)
        self._not_kept.pop(uid, None)
        self._said.pop(uid, None)

    def _attempt(self, run: Run) -> Outcome:
        try:
            return self._publish(run)
        except IndexUnavailableError:
            raise
        except AgentRunGoneError:
            with self._index.begin() as tx:
                runs.mark_deleted(tx, run.uid)
            self.forget(run.uid)
            return Outcome.GONE
        except OffloadError as error:
            log.warning("publish.failed", run=run.uid, reason=error.type, problem=str(error))
            return self._fail(run, error)
        except Exception as error:
            # A run that trips over a bug of ours waits like any other that fails, and holds up none.
            log.exception("publish.failed", run=run.uid)
            return self._fail(run, OffloadError(f"unexpected {type(error).__name__}"))

    def _publish(self, run: Run) -> Outcome:
        schema = self._schema.current()
        if self._mode == "observe":
            read = self._read(run)
            return self._observe(self._load(run.uid, read.status, schema), read, schema)
        # What was last seen saves a request: were it old, the patch would be refused.
        last_seen = self._echoes.last_seen(run.uid)
        for _ in range(ATTEMPTS):
            read = last_seen or self._read(run)
            loaded = self._load(run.uid, read.status, schema)
            foreign, known = loaded.sorted.foreign, loaded.externals
            try:
                if self._adopter.adopt(loaded.run, foreign, known, schema, whole=loaded.whole):
                    loaded = self._load(run.uid, read.status, schema)
                outcome = self._write(loaded, read, schema, fresh=last_seen is None)
            except NameExistsError:
                continue  # an upload came while content was stored under its name
            except StatusConflictError:
                metrics.PUBLISH_CONFLICTS.inc()
            else:
                if outcome:
                    return outcome
            last_seen = None
        raise StatusConflictError(f"the AgentRun changed {ATTEMPTS} times while its status was written")

    def _read(self, run: Run) -> AgentRun:
        read = self._cluster.get(run.namespace, run.name)
        if read.seen.uid != run.uid:
            raise AgentRunGoneError(f"another AgentRun is called {run.namespace}/{run.name}")
        self.note(run, read)
        return read

    def _load(self, uid: str, status: Mapping[str, Any], schema: StatusSchema) -> Loaded:
        with self._index.read() as tx:
            return load(tx, uid, status, schema=schema, caps=self._caps, strict=self._strict)

    def _write(self, loaded: Loaded, read: AgentRun, schema: StatusSchema, *, fresh: bool) -> Outcome | None:
        """Write what differs, and confirm; None, with nothing done, where only a fresh read can confirm."""
        run = loaded.run
        known = not_removed(loaded.externals)
        projection = self._project(loaded, known, read.status, schema)
        patch = projection.patch_for(read.status)
        if not patch and not fresh:
            # That nothing is to be written must be read, not remembered: bytes are deleted by it.
            return None
        left_out = [
            replace(one, state="left-out")
            for one in known
            if one.state == "listed" and one.fingerprint not in projection.listed_externals
        ]
        if left_out:
            # Before it leaves status: a crash in between must not look as if its writer had removed it.
            with self._index.begin() as tx:
                externals.save(tx, run.uid, left_out)
        if patch:
            self._check_not_sent_before(loaded, known, read.status, schema)
            self._send(run, read, projection, patch)
        else:
            self._echoes.remember(run.uid, read.status, read.resource_version)
            self._remember_said(run.uid, read.status)
        self._not_kept.pop(run.uid, None)
        listed_again = [
            replace(one, state="listed")
            for one in known
            if one.state == "left-out" and one.fingerprint in projection.listed_externals
        ]
        self._confirm(run, listed_count=len(projection.listed), listed_again=listed_again, wrote=bool(patch))
        return Outcome.WRITTEN if patch else Outcome.UNCHANGED

    def _project(
        self,
        loaded: Loaded,
        others: Sequence[External],
        status: Mapping[str, Any],
        schema: StatusSchema,
        now: datetime | None = None,
    ) -> Projection:
        return project(
            loaded.history(others, history_hint(loaded.run, self._public_url)),
            status,
            schema=schema,
            caps=replace(self._caps, kept=self._lengths.adopted(loaded.run, status)),
            strict=loaded.strict,
            now=now or self._clock(),
            said=self._said.get(loaded.run.uid, {}),
        )

    def _check_not_sent_before(
        self, loaded: Loaded, others: Sequence[External], status: Mapping[str, Any], schema: StatusSchema
    ) -> None:
        """Raises `StatusNotKeptError` where the patch is, but for its times, one that was not kept."""
        before = self._not_kept.get(loaded.run.uid)
        if before is None or before.published_at != loaded.run.published_at:
            return
        patch = self._project(loaded, others, status, schema, before.projected_at).patch_for(status)
        if before.digest == _digest(schema, patch):
            raise StatusNotKeptError(f"not sent again: {', '.join(patch)} was not kept, and nothing changed")

    def _send(self, run: Run, read: AgentRun, projection: Projection, patch: Mapping[str, Any]) -> None:
        uid = run.uid
        self._echoes.foretell(uid, {**read.status, **patch}, read.resource_version)
        try:
            answer = self._cluster.patch_status(read, patch)
        except OffloadError:
            self._echoes.forget(uid)
            raise
        self._echoes.keep(answer)
        lacking = projection.patch_for(answer.status)
        if lacking:
            self._echoes.forget(uid)
            if len(self._not_kept) >= _REMEMBERED_MOST:
                self._not_kept.clear()
            self._not_kept[uid] = _NotKept(_digest(projection.schema, patch), projection.at, run.published_at)
            raise StatusNotKeptError(
                f"the API server accepted the status and did not keep {', '.join(lacking)}"
            )
        self._echoes.remember(uid, answer.status, answer.resource_version)
        self._remember_said(uid, answer.status)
        log.info(
            "publish.written",
            run=uid,
            listed=len(projection.artifacts),
            of=projection.total,
            fields=sorted(patch),
        )
        for reason, count in projection.left_out.items():
            metrics.PUBLISH_LEFT_OUT.labels(reason.value).inc(count)
        self._warn(read, projection)

    def _remember_said(self, uid: str, status: Mapping[str, Any]) -> None:
        """So that a condition which another writer takes out, again and again, is told of once."""
        said = {condition["type"]: condition for condition in conditions.ours(status)}
        if not said:
            self._said.pop(uid, None)
            return
        if len(self._said) >= _REMEMBERED_MOST:
            self._said.clear()
        self._said[uid] = said

    def _warn(self, read: AgentRun, projection: Projection) -> None:
        for transition in projection.transitions:
            try:
                self._cluster.warn(read.seen, transition.reason, transition.message)
            except OffloadError as error:
                # The condition is the record; an Event expires anyway.
                log.warning("publish.event_lost", run=read.seen.uid, problem=str(error))

    def _observe(self, loaded: Loaded, read: AgentRun, schema: StatusSchema) -> Outcome:
        """Say what would be written; confirm only a status that points at nothing that ended."""
        projection = self._project(loaded, foreseen(loaded, schema), read.status, schema)
        patch = projection.patch_for(read.status)
        if patch:
            metrics.PUBLISH_OBSERVED_DIFFERENCES.inc()
            log.info(
                "publish.observed",
                run=loaded.run.uid,
                fields=sorted(patch),
                listed=len(projection.artifacts),
                of=projection.total,
            )
        if any(artifact.state is not State.STORED for artifact in loaded.sorted.ours):
            raise StatusRefusedError("observed only: status still points at artifacts that ended")
        self._echoes.remember(loaded.run.uid, read.status, read.resource_version)
        self._confirm(loaded.run, listed_count=len(loaded.sorted.ours))
        return Outcome.OBSERVED

    def _confirm(
        self, run: Run, *, listed_count: int, listed_again: Sequence[External] = (), wrote: bool = False
    ) -> None:
        transaction = self._index.begin if listed_again else self._index.begin_single
        try:
            with transaction() as tx:
                confirmed = publishing.published(
                    tx,
                    run.uid,
                    holder=self._holder,
                    revision=run.revision,
                    listed_count=listed_count,
                    not_before=self._between,
                )
                if confirmed and listed_again:
                    externals.save(tx, run.uid, listed_again)
        except IndexUnavailableError:
            # Whether the claim was lost is not known: the watch has the status looked at.
            self._echoes.forget(run.uid)
            raise
        if confirmed:
            return
        # The claim was lost, and whoever took it may have confirmed another status before this one came.
        self._echoes.forget(run.uid)
        if wrote or listed_again:
            with self._index.begin() as tx:
                publishing.touch(tx, run.uid)

    def _fail(self, run: Run, error: OffloadError) -> Outcome:
        metrics.PUBLISH_FAILURES.labels(error.type).inc()
        if isinstance(error, (StatusRefusedError, StatusNotKeptError)):
            self._schema.refresh()
        with self._index.begin_single() as tx:
            publishing.failed(
                tx,
                run.uid,
                holder=self._holder,
                error=f"{error.type}: {error}",
                retry_in=_pause(run, error, self._between) * random.uniform(1.0, 1.4),  # noqa: S311 - so that runs spread
                # An outage is no fault of the run's.
                counts=not _concerns_all(error),
            )
        return Outcome.UNAVAILABLE if _concerns_all(error) else Outcome.FAILED


def _digest(schema: StatusSchema, patch: Mapping[str, Any]) -> bytes:
    return compact([schema.digest, patch])


def _concerns_all(error: OffloadError) -> bool:
    """Whether no other run would fare better."""
    return isinstance(error, (ClusterUnavailableError, PointersNotKeptError)) and not isinstance(
        error, ClusterForbiddenError
    )


def _pause(run: Run, error: OffloadError, first: timedelta) -> timedelta:
    if isinstance(error, UnavailableError) and _concerns_all(error):
        return timedelta(seconds=min(error.retry_after, LONGEST_ASKED_SECONDS))
    if _concerns_all(error):
        return first
    longest = LONGEST_CONFLICT_PAUSE if isinstance(error, StatusConflictError) else LONGEST_PAUSE
    return min(longest, first * (1 << min(run.publish_failures, 10)))
