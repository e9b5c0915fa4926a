"""Follow: the watch's changes into the index, and a second look at status that others changed."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from offload import metrics
from offload.cluster.interface import AgentRun, Change, Cluster, Deleted, Fresh, Listed, Present, Refused
from offload.domain.pointers import compact
from offload.domain.run import Run
from offload.errors import IndexUnavailableError, OffloadError
from offload.index import Index, Transaction, clock, publishing, runs
from offload.services.echoes import Echoes, is_blank
from offload.services.publish import Publisher
from offload.services.schema import ServedSchema

BATCH = 250
"""The most changes of one transaction."""
TICK_SECONDS = 0.5
LARGE_STATUS_BYTES = 256 * 1024
UNKNOWN_LIST_SECONDS = 60.0
"""How long a list that does not say when it began is taken to have run."""
LONGEST_REPAIR_PAUSE = 3.0
"""So that status is ours again within 5 s after another writer falls silent."""
QUIET_SECONDS = 30.0
"""After so long without interference a run is repaired at once again."""

log = structlog.get_logger()


class Follower:
    """Keeps the index's runs as the API server shows them. One thread runs it; any may ask its age."""

    def __init__(  # noqa: PLR0913 - parts and values, each once
        self,
        index: Index,
        cluster: Cluster,
        echoes: Echoes,
        schema: ServedSchema,
        *,
        publisher: Publisher | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """With a `publisher`, runs whose status is not as it should be are marked for publishing."""
        self._index, self._cluster, self._echoes, self._schema = index, cluster, echoes, schema
        self._publisher, self._monotonic = publisher, monotonic
        self._repairs = Repairs()
        self._fresh_at: float | None = None
        self._refused: dict[str | None, str] = {}

    def age(self) -> float:
        """Seconds since the index was known to show every run as it is; infinite before the first time."""
        return float("inf") if self._fresh_at is None else self._monotonic() - self._fresh_at

    def refusals(self) -> list[str]:
        """Where runs cannot be followed for want of a right, and what the API server says."""
        return [
            f"AgentRuns of {'all namespaces' if namespace is None else namespace} are not followed: {why}"
            for namespace, why in list(self._refused.items())
        ]

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop` is set. Raises what ends the watch."""
        while not stop.is_set():
            if self._publisher and self._schema.problem:
                self._schema.refresh()
            self._follow(stop, self._schema.generation)

    def _follow(self, stop: threading.Event, schema: int) -> None:
        """List and watch until `stop` is set, or another schema is served: then all is looked at anew."""
        # What was remembered was right for the schema before.
        self._echoes.clear()
        self._refused.clear()
        metrics.WATCH_REFUSED.set(0)
        arriving: queue.Queue[_Arrived] = queue.Queue(2 * BATCH)
        ended = threading.Event()
        reader = threading.Thread(target=self._read, args=(arriving, ended), name="watch", daemon=True)
        reader.start()
        try:
            while not stop.is_set() and self._schema.generation == schema:
                batch = _next_batch(arriving)
                while not self._applied(batch) and not stop.wait(1):
                    pass
                if batch and isinstance(failure := batch[-1], Exception):
                    raise failure
        finally:
            ended.set()
            reader.join(timeout=5)

    def _read(self, arriving: "queue.Queue[_Arrived]", ended: threading.Event) -> None:
        try:
            for change in self._cluster.changes(ended, self._now):
                _put(arriving, change, ended)
        except Exception as error:  # noqa: BLE001 - it is raised where the changes are applied
            _put(arriving, error, ended)

    def _now(self) -> datetime:
        """By the index's clock, which every process shares."""
        with self._index.read() as tx:
            return clock.now(tx)

    def _applied(self, batch: "list[_Arrived]") -> bool:
        """Whether the batch is in the index now; it must be, since a change that is missed stays missed."""
        try:
            for run, agent_run in self._transact(batch):
                self._look(run, agent_run)
            self._mark(self._repairs.due(self._monotonic()))
        except IndexUnavailableError as error:
            log.warning("follow.index_unavailable", problem=str(error))
            return False
        for change in batch:
            if isinstance(change, Fresh):
                self._fresh_at = change.at
                # The API server ends watches when the CRD changes.
                self._schema.doubt()
        return True

    def _transact(self, batch: "list[_Arrived]") -> list[tuple[Run, AgentRun]]:
        """Apply a batch in order: changes of single runs together, what concerns many runs by itself."""
        seen: list[tuple[Run, AgentRun]] = []
        together: list[Present | Deleted] = []
        for change in batch:
            match change:
                case Present() | Deleted():
                    together.append(change)
                case Listed() | Refused():
                    seen += self._keep(together)
                    together = []
                    self._take(change)
        return seen + self._keep(together)

    def _keep(self, changes: list[Present | Deleted]) -> list[tuple[Run, AgentRun]]:
        """Apply changes in one transaction; where that fails, each in its own, which tells whose it is."""
        if not changes:
            return []
        try:
            with self._index.begin() as tx:
                present = [change.run for change in changes if isinstance(change, Present)]
                gone = [change.run.seen.uid for change in changes if isinstance(change, Deleted)]
                unchanged = runs.lock(tx, [run.seen for run in present], gone)
                return [seen for change in changes if (seen := self._apply(tx, change, unchanged))]
        except IndexUnavailableError:
            raise
        except Exception:
            if len(changes) > 1:
                return [seen for change in changes for seen in self._keep([change])]
            # A run that the index cannot keep is its own trouble, and no other's.
            [run] = (change.run.seen for change in changes)
            log.exception("follow.skipped", run=run.uid, namespace=run.namespace, name=run.name)
            return []

    def _apply(
        self, tx: Transaction, change: Present | Deleted, unchanged: Mapping[str, Run]
    ) -> tuple[Run, AgentRun] | None:
        match change:
            case Present(agent_run):
                run = unchanged.get(agent_run.seen.uid) or runs.observe(tx, agent_run.seen)
                return run, agent_run
            case Deleted(agent_run):
                runs.mark_deleted(tx, agent_run.seen.uid)
                self._echoes.forget(agent_run.seen.uid)
                if self._publisher:
                    self._publisher.forget(agent_run.seen.uid)
                self._repairs.forget(agent_run.seen.uid)
        return None

    def _take(self, change: Listed | Refused) -> None:
        match change:
            case Listed(namespace, uids, began, began_at):
                with self._index.begin() as tx:
                    now = clock.now(tx)
                    # Taken after it: a wait between the two has the list begin too early, never too late.
                    ran = UNKNOWN_LIST_SECONDS if began is None else self._monotonic() - began
                    # And either clock can be wrong: one stands still with its host, one is set by others.
                    before = min(now - timedelta(seconds=ran), began_at or now)
                    gone = runs.mark_deleted_except(tx, namespace, uids, before=before)
                log.info("follow.listed", namespace=namespace, runs=len(uids), gone=gone)
            case Refused(namespace, why):
                self._note_refusal(namespace, why)
                if why is None:
                    with self._index.begin() as tx:
                        publishing.try_again(tx, namespace)

    def _note_refusal(self, namespace: str | None, why: str | None) -> None:
        if why is None:
            log.info("follow.granted", namespace=namespace)
            self._refused.pop(namespace, None)
        else:
            log.error("follow.refused", namespace=namespace, problem=why)
            self._refused[namespace] = why
        metrics.WATCH_REFUSED.set(len(self._refused))

    def _look(self, run: Run, agent_run: AgentRun) -> None:
        """Have a status that is neither our own write nor as it should be repaired."""
        try:
            wrong = self._is_wrong(run, agent_run)
        except IndexUnavailableError:
            raise
        except OffloadError:
            # No usable schema: the list that follows its mending looks again.
            return
        except Exception:
            # A status that trips over a bug of ours is its run's trouble, and no other's.
            log.exception("follow.look_failed", run=run.uid, namespace=run.namespace, name=run.name)
            return
        if wrong:
            self._repairs.note(run.uid, self._monotonic())
        elif wrong is not None:
            self._repairs.forget_pending(run.uid)

    def _is_wrong(self, run: Run, agent_run: AgentRun) -> bool | None:
        """Whether status is to be repaired; None where that is not ours to say."""
        status, version = agent_run.status, agent_run.resource_version
        if len(compact(status)) > LARGE_STATUS_BYTES:
            metrics.LARGE_STATUS.inc()
            log.warning("follow.large_status", run=run.uid, namespace=run.namespace, name=run.name)
        if not self._publisher or run.deleted_at:
            return None
        self._publisher.note(run, agent_run)
        if self._echoes.matches(run.uid, status, version):
            return False
        # The many runs that never had artifacts need no look into the index.
        blank = not run.revision and is_blank(status)
        if not blank and self._publisher.would_change(run, status):
            return True
        self._echoes.remember(run.uid, status, version)
        return False

    def _mark(self, due: list[str]) -> None:
        if not due:
            return
        with self._index.begin() as tx:
            for uid in sorted(due):  # so that two controllers never wait for each other
                publishing.touch(tx, uid)
        for uid in due:
            self._repairs.done(uid, self._monotonic())
            metrics.WATCH_REPAIRS.inc()
            log.info("follow.changed_by_others", run=uid)


class Repairs:
    """When a run that others changed is looked at again: at once, then ever later while they go on."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def note(self, uid: str, now: float) -> None:
        """Others changed the run's status."""
        if uid in self._due:
            return
        last, pause = self._last.get(uid, (now - QUIET_SECONDS, 0.0))
        if now - last >= QUIET_SECONDS:
            self._last.pop(uid, None)
            self._due[uid] = now
        else:
            self._due[uid] = last + pause

    def due(self, now: float) -> list[str]:
        """Runs whose time has come."""
        return [uid for uid, at in self._due.items() if at <= now]

    def done(self, uid: str, now: float) -> None:
        """The run was marked; the next time comes later."""
        self._due.pop(uid, None)
        _, pause = self._last.pop(uid, (now, 0.5))
        self._last[uid] = (now, min(LONGEST_REPAIR_PAUSE, pause * 2))
        while now - (oldest := next(iter(self._last.items())))[1][0] >= QUIET_SECONDS:
            del self._last[oldest[0]]

    def forget_pending(self, uid: str) -> None:
        """The status is as it should be after all."""
        self._due.pop(uid, None)

    def forget(self, uid: str) -> None:
        self._due.pop(uid, None)
        self._last.pop(uid, None)


_Arrived = Change | Exception
"""A change, or what ended them."""


def _next_batch(arriving: "queue.Queue[_Arrived]") -> list[_Arrived]:
    """What has arrived, at most a batch; empty after a tick without anything."""
    batch: list[_Arrived] = []
    try:
        batch.append(arriving.get(timeout=TICK_SECONDS))
        while len(batch) < BATCH:
            batch.append(arriving.get_nowait())
    except queue.Empty:
        pass
    return batch


def _put(arriving: "queue.Queue[_Arrived]", arrived: _Arrived, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            arriving.put(arrived, timeout=TICK_SECONDS)
        except queue.Full:
            continue
        return
