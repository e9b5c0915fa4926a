"""What we last knew of our part of each status, so that the watch tells our own writes from others'."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from offload.domain.pointers import compact
from offload.domain.projection import OUR_CONDITIONS, OVER_LIMIT
from offload.services.reads import version_of

_MOST = 50_000


class Echoes:
    """One digest a run, of the runs last in use.

    A run that fell out, or was written by another replica, is unknown.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[bytes, int]] = OrderedDict()

    def remember(self, uid: str, status: Mapping[str, Any], resource_version: str) -> None:
        """Say that `status` is as it should be, and that what came before `resource_version` is history.

        Also to be called before a patch is sent, with what it should make of the version that was read: the
        event can come before the answer.
        """
        with self._lock:
            self._known[uid] = (_digest(status), version_of(resource_version))
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

    def clear(self) -> None:
        """Nothing is known any more: what status should be has changed for all."""
        with self._lock:
            self._known.clear()

    def forget(self, uid: str) -> None:
        with self._lock:
            self._known.pop(uid, None)


def _digest(status: Mapping[str, Any]) -> bytes:
    conditions = [
        condition
        for condition in status.get("conditions") or ()
        if isinstance(condition, Mapping) and condition.get("type") in OUR_CONDITIONS
    ]
    failed = any(c.get("type") == OVER_LIMIT and c.get("status") == "True" for c in conditions)
    ours = [status.get("artifacts") or [], conditions, status.get("phase") if failed else None]
    return hashlib.sha256(compact(ours)).digest()
