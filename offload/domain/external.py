"""Entries of other writers in a run's status that point elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ExternalState = Literal["listed", "left-out", "removed"]


@dataclass(frozen=True, slots=True)
class External:
    """One entry. `fingerprint` tells it from the run's other ones."""

    seq: int
    """Its place among the run's artifacts, by when it was first seen; 0 for one that is new."""
    fingerprint: str
    entry: Mapping[str, Any]
    """As the other writer wrote it."""
    state: ExternalState = "listed"
