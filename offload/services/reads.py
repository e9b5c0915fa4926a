"""AgentRuns as last seen, so that a publish can be one request: the patch.

Its resourceVersion guards it. What turns out to be old is read again.
"""

import threading
from collections import OrderedDict

from offload.cluster.interface import AgentRun

_MOST = 500
"""Runs that are kept. With full lists they take some 25 MB."""


class LastReads:
    """The newest known version of the runs last in use; threads share it."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, AgentRun] = OrderedDict()

    def keep(self, run: AgentRun) -> None:
        """Keep what was shown, unless it or a newer version is kept."""
        uid = run.seen.uid
        with self._lock:
            kept = self._runs.get(uid)
            if kept is None or version_of(kept.resource_version) < version_of(run.resource_version):
                self._runs[uid] = run
            self._runs.move_to_end(uid)
            if len(self._runs) > self._most:
                self._runs.popitem(last=False)

    def get(self, uid: str) -> AgentRun | None:
        with self._lock:
            return self._runs.get(uid)

    def forget(self, uid: str) -> None:
        with self._lock:
            self._runs.pop(uid, None)


def version_of(resource_version: str) -> int:
    """A resourceVersion's place in time; -1 where it does not tell."""
    return int(resource_version) if resource_version.isdecimal() else -1
