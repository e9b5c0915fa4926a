"""What the server answers with. Fields that a newer server adds are kept, and none of them is an error."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Answer(BaseModel):
    """JSON in camelCase, attributes in snake_case."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """As the server wrote it, new fields included."""
        return self.model_dump(mode="json", by_alias=True)


class RunRef(Answer):
    """Which incarnation of which AgentRun."""

    namespace: str
    name: str
    uid: str


class Artifact(Answer):
    """Bytes that a run produced. Immutable but for its fate."""

    id: UUID
    name: str
    type: str
    uri: str
    content_type: str
    size_bytes: int
    sha256: str
    """Lower-case hexadecimal."""
    created_at: datetime
    expires_at: datetime | None = None
    state: str = "stored"
    """stored, expired, deleted or lost."""
    current: bool = True
    """The newest stored version of its name."""
    seq: int | None = None
    """Place in the run's history: larger is newer."""
    ended_at: datetime | None = None
    ended_by: str | None = None
    erased_at: datetime | None = None
    origin: str | None = None
    run: RunRef
    history_url: str | None = None
    created: bool | None = Field(default=None, exclude=True)
    """Answered by `put` only: True for a new version, False where these bytes were the current one."""


class ArtifactCounts(Answer):
    """How many artifacts a run has, and how many of them its status lists."""

    total: int = 0
    current: int = 0
    stored: int = 0
    stored_bytes: int = 0
    listed: int = 0
    left_out: int = 0


class PublishState(Answer):
    """How far the run's status follows its history."""

    mode: str = "on"
    published_at: datetime | None = None
    behind: bool = False
    dirty_since: datetime | None = None
    error: str | None = None


class Run(Answer):
    """An AgentRun as the index knows it; stays after the run is deleted."""

    namespace: str
    name: str
    uid: str
    created_at: datetime
    labels: dict[str, str] = Field(default_factory=dict)
    agent: str | None = None
    phase: str | None = None
    finished_at: datetime | None = None
    deleted_at: datetime | None = None
    artifacts: ArtifactCounts = ArtifactCounts()
    publish: PublishState = PublishState()
    history_url: str | None = None


class StatusEntry(Answer):
    """One entry of `status.artifacts`; `ours` is False for another writer's."""

    position: int
    name: str
    uri: str | None = None
    ours: bool = True


class LeftOut(Answer):
    """A current artifact that status does not list, and why."""

    id: UUID
    name: str
    type: str
    size_bytes: int
    created_at: datetime
    reason: str
    detail: str = ""


class Difference(Answer):
    """What a publish would change in status: an entry, a condition, a field; None where it is not there."""

    of: str
    name: str
    before: str | None = None
    after: str | None = None


class LeftOutExternal(Answer):
    """Another writer's entry not in status: `left-out` by the limits, or `removed` by its writer."""

    name: str
    uri: str | None = None
    state: str


class Page(Answer):
    """A part of a list; `next` is the address of the following one."""

    items: list[Any]
    next: str | None = None


class Explanation(Answer):
    """What a run's status shows, why each of the others is not there, and what is to change."""

    run: RunRef
    status: list[StatusEntry]
    left_out: list[LeftOut] = Field(default_factory=list)
    pending: list[Difference] = Field(default_factory=list)
    externals: list[LeftOutExternal] = Field(default_factory=list)
    publish: PublishState = PublishState()
