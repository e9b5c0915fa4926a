"""Strict mode judges what comes after it was turned on: it must not fail what was put right before.

The index knows since when, so that every replica and every restart judges alike.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from offload.domain.projection import finished_at
from offload.domain.run import Run
from offload.index import Index, Transaction, clock, leases

_STRICT = "strict-since"


def note_strictness(index: Index, *, strict: bool) -> None:
    """Say as a controller starts whether its runs are judged from now on."""
    with index.begin() as tx:
        if strict:
            leases.done_first(tx, _STRICT)
        else:
            leases.undo(tx, _STRICT)


def strict_since(tx: Transaction) -> datetime:
    """Since when runs are judged; now, where a controller that does not has started since."""
    return leases.done_at(tx, _STRICT) or clock.now(tx)


def is_judged(run: Run, status: Mapping[str, Any], since: datetime) -> bool:
    """Whether strict mode may fail the run: not if it succeeded before.

    One that does not say when it ended did so at its creation, at the earliest.
    """
    # Kubernetes counts creation in whole seconds.
    ended = finished_at(status) or run.created_at + timedelta(seconds=1)
    return status.get("phase") != "Succeeded" or ended >= since
