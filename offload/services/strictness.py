"""Strict mode judges what comes after it was turned on: it must not fail what was put right before.

The index knows since when, so that every replica and every restart judges alike.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from offload.domain.conditions import is_over_limit
from offload.domain.projection import finished_at
from offload.domain.run import Run
from offload.index import Index, Transaction, clock, leases

LAPSE = timedelta(minutes=10)
"""Without a controller in strict mode for so long, it was turned off."""
_STRICT = "strict-since"


def note_strictness(index: Index) -> None:
    """Say, as a strict controller starts and every minute, that runs are judged."""
    with index.begin() as tx:
        leases.keep_up(tx, _STRICT, lapse=LAPSE)


def strict_since(tx: Transaction) -> datetime:
    """Since when runs are judged; now, where no controller has said that they are."""
    return leases.kept_up_since(tx, _STRICT) or clock.now(tx)


def is_judged(run: Run, status: Mapping[str, Any], since: datetime) -> bool:
    """Whether strict mode may fail the run: not if it succeeded before, unless the verdict was given already.

    One that does not say when it ended did so at its creation, at the earliest.
    """
    # Kubernetes counts creation in whole seconds.
    ended = finished_at(status) or run.created_at + timedelta(seconds=1)
    return is_over_limit(status) or status.get("phase") != "Succeeded" or ended >= since
