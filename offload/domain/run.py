"""What is known of an AgentRun."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

TERMINAL_PHASES = frozenset({"Succeeded", "Failed", "Cancelled"})
"""Phases that a run does not leave."""


@dataclass(frozen=True, slots=True)
class SeenRun:
    """An AgentRun as the API server showed it: what the index keeps of it."""

    uid: str
    namespace: str
    name: str
    created_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    agent: str | None = None
    """`spec.agentRef.name`."""
    phase: str | None = None
    finished_at: datetime | None = None
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run in the index. `revision` counts every change of its artifacts."""

    uid: str
    namespace: str
    name: str
    created_at: datetime
    labels: Mapping[str, str]
    agent: str | None
    phase: str | None
    finished_at: datetime | None
    deleted_at: datetime | None
    revision: int
    published_revision: int
    """The newest revision that a status read back from the API server reflects."""
    published_at: datetime | None
    dirty_since: datetime | None
    """Since when `revision` is ahead of `published_revision`; None where it is not."""
    stored_count: int
    stored_bytes: int
    total_count: int
    current_count: int
    listed_count: int
    """Entries of ours in status as last published."""
    publish_error: str | None
    """Why the last publish failed; None after one that succeeded."""
    publish_failures: int = 0
    """Failed publishes since the last one that succeeded."""

    @property
    def ended_at(self) -> datetime | None:
        """When it finished, or was deleted before it did; None while it may still run.

        Any writer can set a finish time, or leave one that no longer holds. One in a run whose phase says
        that it goes on, or from before its creation (as Go's zero time), says nothing.
        """
        finished = self.finished_at
        if finished and finished >= self.created_at and (not self.phase or self.phase in TERMINAL_PHASES):
            return finished
        return self.deleted_at
