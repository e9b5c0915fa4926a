"""What the crash tests run in a process of its own: a sweep that kills its process at a chosen boundary."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast
from unittest.mock import patch

from offload.domain.artifact import Location
from offload.domain.retention import Policy
from offload.index import Index, publishing
from offload.objects.interface import Objects
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection
from offload.services import sweep as service


class Boundaries:
    """Counts the instants between two steps, and kills the process at the one chosen."""

    def __init__(self, fatal: int) -> None:
        self.fatal, self.passed = fatal, 0

    def reach(self) -> None:
        self.passed += 1
        if self.passed == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingIndex:
    """An index with a boundary right before each commit and right after it."""

    def __init__(self, index: Index, boundaries: Boundaries) -> None:
        self._index, self._boundaries = index, boundaries
        self.read = index.read

    @contextmanager
    def begin(self) -> Iterator[Any]:
        with self._index.begin() as tx:
            yield tx
            self._boundaries.reach()
        self._boundaries.reach()


class CrashingObjects:
    """A store with a boundary in the middle of each deletion and after it."""

    def __init__(self, objects: Objects, boundaries: Boundaries) -> None:
        self._objects, self._boundaries = objects, boundaries

    def delete(self, locations: Sequence[Location]) -> Sequence[Location]:
        half = len(locations) // 2
        gone = [*self._objects.delete(locations[:half])] if half else []
        self._boundaries.reach()
        gone += self._objects.delete(locations[half:])
        self._boundaries.reach()
        return gone


def sweep_and_publish(url: str, store: S3Connection, policy: Policy, now: datetime, fatal: int) -> None:
    """Sweep, publish, sweep: an artifact's whole way out. Dies at boundary number `fatal`, if it is reached.

    The exit code is 0 where it was not.
    """
    boundaries = Boundaries(fatal)
    index, objects = Index.connect(url), S3Objects(store, threads=1)
    crashing_index = cast("Index", CrashingIndex(index, boundaries))
    crashing_objects = cast("Objects", CrashingObjects(objects, boundaries))
    with patch.object(service, "DELETE_BATCH", 3):  # several batches of a few artifacts
        report = service.sweep(crashing_index, crashing_objects, policy, now=now)
        if report.parked:
            service.sweep(crashing_index, crashing_objects, policy, now=now, confirm=report.parked.id)
        publish(crashing_index)
        service.sweep(crashing_index, crashing_objects, policy, now=now)
    objects.close()
    index.close()


def publish(index: Index) -> None:
    """What the publisher does: the status of every dirty run is written without what has ended."""
    with index.begin() as tx:
        for run in publishing.claim(tx, holder="me", limit=1000, lease=timedelta(minutes=1)):
            publishing.published(
                tx,
                run.uid,
                holder="me",
                revision=run.revision,
                listed_count=run.current_count,
                not_before=timedelta(),
            )
