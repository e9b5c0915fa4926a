"""What the service needs of a cluster, and nothing more. All calls block; callers are threads.

Errors are translated where they enter, with the cause chained: `AgentRunGoneError` (404 or another uid),
`StatusConflictError` (409), `StatusRefusedError` (400, 422: sending the same again does not help),
`ClusterForbiddenError` (401, 403), `ClusterUnavailableError` (everything that passes: connection, time-out,
429, 5xx; `retry_after` from the server where it says).
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from offload.domain.run import SeenRun


@dataclass(frozen=True, slots=True)
class AgentRun:
    """An AgentRun as read, whole status included."""

    seen: SeenRun
    resource_version: str
    status: Mapping[str, Any]
    """The object's `status` as JSON values, null for what is deeper than 100; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Present:
    """A run was listed, added or modified."""

    run: AgentRun


@dataclass(frozen=True, slots=True)
class Deleted:
    """A run was deleted."""

    run: AgentRun


@dataclass(frozen=True, slots=True)
class Listed:
    """A list is complete: runs of `namespace` (None: all) whose uid is not in `uids` are gone."""

    namespace: str | None
    uids: frozenset[str]
    began: float | None = field(default=None, compare=False)
    """When the list began, by `time.monotonic()`; None where that is not known."""
    began_at: datetime | None = field(default=None, compare=False)
    """The same by the `clock` that was given to `changes`; None where none was."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The API server was heard: the view is as current as it was then.

    By a list, a bookmark, or the end of a watch that lasted or told of something.
    """

    at: float
    """When, by `time.monotonic()`: rather too early than too late."""


@dataclass(frozen=True, slots=True)
class Refused:
    """This identity may not follow `namespace` (None: all), or, where `why` is None, it may again."""

    namespace: str | None
    why: str | None


Change = Present | Deleted | Listed | Fresh | Refused

Clock = Callable[[], datetime]
"""Answers the time now; may raise an `OffloadError`."""


class Cluster(Protocol):
    """AgentRuns of the namespaces in reach."""

    def get(self, namespace: str, name: str) -> AgentRun:
        """Read one AgentRun from the API server. Raises `AgentRunGoneError`."""
        ...

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        """JSON-merge-patch (RFC 7396) the status subresource of `run` as it was read.

        `patch` is the value of `status`; the request carries `run`'s resourceVersion as its precondition
        (API servers do not look at the uid here; no other incarnation has had that version) and
        `fieldValidation=Strict`. Answers the object as the server now has it.

        Raises:
            StatusConflictError: it changed since it was read: read again, project again.
            AgentRunGoneError: deleted, or another incarnation has the name.
            StatusRefusedError: the schema or an admission rule refuses it, or there is no status subresource.
        """
        ...

    def changes(self, stop: threading.Event, clock: Clock | None = None) -> Iterator[Change]:
        """Every run that is there, then every change, until `stop` is set.

        Lists in chunks, watches with bookmarks, resumes by resourceVersion and lists again on 410. Failures
        are retried inside with back-off, those of `clock` too, which is read before each list, in threads of
        their own. Each list ends with `Listed`. A namespace where this identity is refused holds up no other,
        but nothing is `Fresh` until it is followed again.
        """
        ...

    def runs(self) -> Iterator[AgentRun]:
        """Every run that is there now, read page by page: no more than one page is held.

        Raises:
            ClusterForbiddenError, ClusterUnavailableError: it ends; what came before counts.
        """
        ...

    def status_schema(self) -> Mapping[str, Any]:
        """The served OpenAPI v3 schema of AgentRun's `status`, from `/openapi/v3` (references resolved).

        Cached by the document's hash as the API server names it: a call that finds nothing new costs one
        small request. Raises `PointersNotKeptError` where the API server has no AgentRuns.
        """
        ...

    def warn(self, run: SeenRun, reason: str, message: str) -> None:
        """Create a Warning Event on the run (`message` is cut to 1,024 characters, the API's limit)."""
        ...

    def permissions(self) -> Mapping[str, bool]:
        """Each permission this service needs (`patch agentruns/status`, …) and whether it is granted."""
        ...

    def version(self) -> str:
        """The API server's version, as it names it (`v1.37.0`). Raises `ClusterUnavailableError`."""
        ...

    def check(self) -> None:
        """One cheap request that shows that the API server answers. Raises `ClusterUnavailableError`."""
        ...

    @property
    def namespaces(self) -> Sequence[str]:
        """The namespaces that are watched; empty for all."""
        ...

    def close(self) -> None:
        """End connections."""
        ...
