"""What this process last knew of each status, from the watch and from the answers to its own writes."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from offload.cluster.interface import AgentRun
from offload.domain.conditions import OVER_LIMIT, is_ours, listed
from offload.domain.pointers import compact
from offload.services.reads import LastReads, version_of

_MOST = 50_000


class Echoes:
    """Tells our own writes from others', and keeps the runs last seen; threads share it.

    One digest a run, of the runs last in use.

    A run that fell out, or was written by another replica, is unknown.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._reads = LastReads()
        self._known: OrderedDict[str, tuple[bytes, int]] = OrderedDict()

    def remember(self, uid: str, status: Mapping[str, Any], resource_version: str) -> None:
        """Say that `status` is as it should be, and that what came before `resource_version` is history.

        Also to be called before a patch is sent, with what it should make of the version that was read: the
        event can come before the answer.
        """
        digest = _digest(status)
        with self._lock:
            self._known[uid] = (digest, version_of(resource_version))
            self._known.move_to_end(uid)
            if len(self._known) > self._most:
                self._known.popitem(last=False)

    def matches(self, uid: str, status: Mapping[str, Any], resource_version: str) -> bool | None:
        """Whether our part of `status` is what was remembered, or older; None where nothing was."""
        with self._lock:
            known = self._known.get(uid)
        if known is None:
            return None
        digest, version = known
        return version_of(resource_version) < version or _digest(status) == digest

    def keep(self, run: AgentRun) -> AgentRun | None:
        """Keep a run as the watch, a read or an answer showed it, unless a newer version is kept.

        Answers the version before, where that was as it should be and this one is not.
        """
        before = self._reads.keep(run)
        if before is None or not self._is_known(before) or self._is_known(run):
            return None
        return before

    def last_seen(self, uid: str) -> AgentRun | None:
        """The run as last seen, or None; only the API server knows whether it still is so."""
        return self._reads.get(uid)

    def _is_known(self, run: AgentRun) -> bool:
        return self.matches(run.seen.uid, run.status, run.resource_version) is True

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
    return not status.get("artifacts") and not _our_conditions(status)


def _our_conditions(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [condition for condition in listed(status) if is_ours(condition)]


def _digest(status: Mapping[str, Any]) -> bytes:
    conditions = _our_conditions(status)
    failed = any(c.get("type") == OVER_LIMIT and c.get("status") == "True" for c in conditions)
    ours = [status.get("artifacts") or [], conditions, status.get("phase") if failed else None]
    return hashlib.sha256(compact(ours)).digest()
