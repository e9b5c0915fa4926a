"""Lengths: what other writers cut runs' lists to, as this process saw it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from offload import metrics
from offload.domain.conditions import listed
from offload.domain.cuts import Cuts, Names, Situation, cut_to, names_of
from offload.domain.pointers import status_entries
from offload.domain.run import Run

LIMITED = "ArtifactsLimited"
"""The condition by which the installed controller says that it left artifacts out."""
_MOST = 10_000

log = structlog.get_logger()


class Lengths:
    """Counts cuts of the runs last cut, and answers what to adopt; threads share it.

    Nothing is kept elsewhere: after a restart a writer with a lower cap is answered three times again.
    """

    def __init__(self, most: int = _MOST, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most, self._monotonic = most, monotonic
        self._lock = threading.Lock()
        self._cuts: OrderedDict[str, Cuts] = OrderedDict()

    def note(self, run: Run, ours: Names, theirs: Mapping[str, Any]) -> None:
        """Count what another writer made of a list as it should be, `ours` by name, where it is a cut."""
        length = cut_to(ours, names_of(status_entries(theirs)), says_so=_says_so(theirs))
        if length is None:
            return
        situation, now = _situation(run, theirs), self._monotonic()
        with self._lock:
            before = self._cuts.pop(run.uid, Cuts(length, 0, situation, now))
            after = self._cuts[run.uid] = before.and_then(length, situation, now)
            if len(self._cuts) > self._most:
                self._cuts.popitem(last=False)
        if after.adopted(situation, now) and not before.adopted(situation, now):
            metrics.LENGTHS_ADOPTED.inc()
            log.warning(
                "publish.length_adopted", run=run.uid, namespace=run.namespace, name=run.name, length=length
            )

    def adopted(self, run: Run, status: Mapping[str, Any]) -> int | None:
        """The most entries that `status` is to list on account of another writer; None for no such limit."""
        with self._lock:
            cuts = self._cuts.get(run.uid)
        return cuts.adopted(_situation(run, status), self._monotonic()) if cuts else None

    def forget(self, uid: str) -> None:
        with self._lock:
            self._cuts.pop(uid, None)


def _situation(run: Run, status: Mapping[str, Any]) -> Situation:
    return Situation(str(status.get("phase")), run.total_count)


def _says_so(status: Mapping[str, Any]) -> bool:
    return any(
        isinstance(one, Mapping) and one.get("type") == LIMITED and one.get("status") == "True"
        for one in listed(status)
    )
