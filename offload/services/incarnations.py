"""Which run does a name mean? The index answers, and at a miss the API server."""

import threading
from collections.abc import Collection
from datetime import timedelta

from offload.cluster.interface import AgentRun, Cluster
from offload.domain.run import Run
from offload.errors import (
    AgentRunGoneError,
    ClusterUnavailableError,
    RunDeletedError,
    RunNotFoundError,
    RunUidMismatchError,
)
from offload.index import Index, clock, runs

ASKING = 8
"""Questions to the API server at a time: one that hangs must not take every thread with it."""
PATIENCE_SECONDS = 1.0


class Incarnations:
    """Finds runs by name and, where given, uid. Blocking; threads share it."""

    def __init__(
        self, index: Index, cluster: Cluster, *, namespaces: Collection[str], deleted_grace: timedelta
    ) -> None:
        """`deleted_grace` is how long uploads to a deleted run that name its uid are taken."""
        self._index, self._cluster = index, cluster
        self._namespaces, self._deleted_grace = frozenset(namespaces), deleted_grace
        self._places = threading.BoundedSemaphore(ASKING)

    def watches(self, namespace: str) -> bool:
        """Whether runs of the namespace are known here."""
        return not self._namespaces or namespace in self._namespaces

    def to_read(self, namespace: str, name: str, uid: str | None) -> Run:
        """The newest incarnation, deleted or not, or the one with this `uid`.

        Raises:
            RunNotFoundError: neither the index nor the API server knows it.
            RunUidMismatchError: the name is known, and never had this uid.
            ClusterUnavailableError: the index does not know it, and the API server is away.
        """
        return self._known(namespace, name, uid) or self.ask(namespace, name, uid)

    def to_write(self, namespace: str, name: str, uid: str | None) -> Run | None:
        """The run that an upload is for, as far as the index knows; None where only the API server can tell.

        Raises:
            RunNotFoundError: the namespace is not one that is watched.
            RunDeletedError: the incarnation that `uid` pins was deleted longer ago than the grace.
        """
        run = self._known(namespace, name, uid)
        if run is None or (run.deleted_at and uid is None):
            # The watch may be a moment behind a run that was just created, or created again.
            return None
        if run.deleted_at:
            with self._index.read() as tx:
                late = clock.now(tx) - run.deleted_at
            if late > self._deleted_grace:
                raise RunDeletedError(
                    f"AgentRun {namespace}/{name} ({run.uid}) was deleted at {run.deleted_at.isoformat()}"
                )
        return run

    def _known(self, namespace: str, name: str, uid: str | None) -> Run | None:
        if not self.watches(namespace):
            raise RunNotFoundError
        with self._index.read() as tx:
            return runs.find(tx, namespace, name, uid)

    def ask(self, namespace: str, name: str, uid: str | None) -> Run:
        """The living run that the API server has under the name.

        Raises:
            RunNotFoundError: there is none.
            RunUidMismatchError: it is not the one with this `uid`.
            ClusterUnavailableError: the API server is away, or busy with as many questions as it is asked.
        """
        try:
            seen = self.read(namespace, name).seen
        except AgentRunGoneError as error:
            self._refuse_stranger(namespace, name, uid)
            raise RunNotFoundError from error
        with self._index.begin() as tx:
            run = runs.observe(tx, seen)
        if uid is not None and run.uid != uid:
            raise RunUidMismatchError(f"AgentRun {namespace}/{name} never had the uid {uid!r}")
        if run.deleted_at:
            raise RunNotFoundError
        return run

    def read(self, namespace: str, name: str) -> AgentRun:
        """The AgentRun as the API server has it, asked with a bounded number of others. Raises as it does."""
        if not self._places.acquire(timeout=PATIENCE_SECONDS):
            raise ClusterUnavailableError("too many look-ups wait for the API server", retry_after=2)
        try:
            return self._cluster.get(namespace, name)
        finally:
            self._places.release()

    def _refuse_stranger(self, namespace: str, name: str, uid: str | None) -> None:
        if uid is None:
            return
        with self._index.read() as tx:
            if runs.find(tx, namespace, name):
                raise RunUidMismatchError(f"AgentRun {namespace}/{name} never had the uid {uid!r}")
