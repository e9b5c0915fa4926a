"""Which run does a name mean? The index answers, and at a miss the API server."""

from collections.abc import Collection
from datetime import timedelta

from offload.cluster.interface import Cluster
from offload.domain.run import Run
from offload.errors import AgentRunGoneError, RunDeletedError, RunNotFoundError, RunUidMismatchError
from offload.index import Index, clock, runs


class Incarnations:
    """Finds runs by name and, where given, uid. Blocking; threads share it."""

    def __init__(
        self, index: Index, cluster: Cluster, *, namespaces: Collection[str], deleted_grace: timedelta
    ) -> None:
        """`deleted_grace` is how long uploads to a deleted run that name its uid are taken."""
        self._index, self._cluster = index, cluster
        self._namespaces, self._deleted_grace = frozenset(namespaces), deleted_grace

    def to_read(self, namespace: str, name: str, uid: str | None) -> Run:
        """The newest incarnation, deleted or not, or the one with this `uid`.

        Raises:
            RunNotFoundError: neither the index nor the API server knows it.
            RunUidMismatchError: the name is known, and never had this uid.
            ClusterUnavailableError: the index does not know it, and the API server is away.
        """
        run = self._known(namespace, name, uid)
        return run or self._ask(namespace, name, uid)

    def to_write(self, namespace: str, name: str, uid: str | None) -> Run:
        """As `to_read`, for an upload: the newest incarnation must be alive.

        Raises:
            RunDeletedError: the incarnation that `uid` pins was deleted longer ago than the grace.
        """
        run = self._known(namespace, name, uid)
        if run is None or (run.deleted_at and uid is None):
            # The watch may be a moment behind a run that was just created, or created again.
            return self._ask(namespace, name, uid)
        if run.deleted_at:
            with self._index.read() as tx:
                late = clock.now(tx) - run.deleted_at
            if late > self._deleted_grace:
                raise RunDeletedError(
                    f"AgentRun {namespace}/{name} ({run.uid}) was deleted at {run.deleted_at.isoformat()}"
                )
        return run

    def _known(self, namespace: str, name: str, uid: str | None) -> Run | None:
        if self._namespaces and namespace not in self._namespaces:
            raise RunNotFoundError
        with self._index.read() as tx:
            return runs.find(tx, namespace, name, uid)

    def _ask(self, namespace: str, name: str, uid: str | None) -> Run:
        try:
            seen = self._cluster.get(namespace, name).seen
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

    def _refuse_stranger(self, namespace: str, name: str, uid: str | None) -> None:
        if uid is None:
            return
        with self._index.read() as tx:
            if runs.find(tx, namespace, name):
                raise RunUidMismatchError(f"AgentRun {namespace}/{name} never had the uid {uid!r}")
