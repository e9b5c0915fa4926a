"""What this process last knew of each status, from the watch and from the answers to its own writes."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offload.cluster.interface import AgentRun
from offload.domain import conditions
from offload.domain.cuts import Names, names_of
from offload.domain.pointers import compact, status_entries
from offload.services.reads import LastReads, version_of

_MOST = 50_000


@dataclass(slots=True)
class _Known:
    """What one status should be."""

    digest: bytes
    version: int
    """What came before it is history."""
    names: Names
    seen: int
    """The newest version that was seen."""
    intact: bool
    """Whether that was as it should be."""


class Echoes:
    """Tells our own writes from others', and keeps the runs last seen; threads share it.

    One digest a run, of the runs last in use.

    A run that fell out, or was written by another replica, is unknown.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._reads = LastReads()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def remember(self, uid: str, status: Mapping[str, Any], resource_version: str) -> None:
        """Say that `status`, as seen, is as it should be, and that what came before it is history."""
        self._remember(uid, status, resource_version, intact=True)

    def foretell(self, uid: str, status: Mapping[str, Any], resource_version: str) -> None:
        """As `remember`, of what a patch is about to make of the version that was read.

        The event can come before the answer.
        """
        self._remember(uid, status, resource_version, intact=False)

    def _remember(self, uid: str, status: Mapping[str, Any], resource_version: str, *, intact: bool) -> None:
        digest, names = _digest(status), names_of(status_entries(status))
        version = version_of(resource_version)
        with self._lock:
            seen, before = version, self._known.pop(uid, None)
            if before and before.seen > version:  # another writer's came since
                seen, intact = before.seen, intact and before.intact
            self._known[uid] = _Known(digest, version, names, seen, intact)
            if len(self._known) > self._most:
                self._known.popitem(last=False)

    def matches(self, uid: str, status: Mapping[str, Any], resource_version: str) -> bool | None:
        """Whether our part of `status` is what was remembered, or older; None where nothing was."""
        with self._lock:
            known = self._known.get(uid)
        if known is None:
            return None
        return version_of(resource_version) < known.version or _digest(status) == known.digest

    def keep(self, run: AgentRun) -> Names | None:
        """Keep a run as the watch, a read or an answer showed it, unless a newer version is kept.

        Answers the names of the list before, where that was as it should be and this one is not.
        """
        self._reads.keep(run)
        uid, version, digest = run.seen.uid, version_of(run.resource_version), _digest(run.status)
        with self._lock:
            known = self._known.get(uid)
            if known is None or version <= known.seen:
                return None
            was, known.intact, known.seen = known.intact, digest == known.digest, version
            return known.names if was and not known.intact else None

    def last_seen(self, uid: str) -> AgentRun | None:
        """The run as last seen, or None; only the API server knows whether it still is so."""
        return self._reads.get(uid)

    def clear(self) -> None:
        """Nothing is known any more: what status should be has changed for all."""
        with self._lock:
            self._known.clear()

    def forget(self, uid: str) -> None:
        """Nothing is known of the run."""
        self._reads.forget(uid)
        with self._lock:
            self._known.pop(uid, None)


def is_blank(status: Mapping[str, Any]) -> bool:
    """Whether nothing in `status` is of the kind that we write."""
    return not status.get("artifacts") and not conditions.ours(status)


def _digest(status: Mapping[str, Any]) -> bytes:
    phase = status.get("phase") if conditions.is_over_limit(status) else None
    ours = [status.get("artifacts") or [], conditions.ours(status), phase]
    return hashlib.sha256(compact(ours)).digest()
