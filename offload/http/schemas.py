"""What goes over the wire: camelCase JSON, RFC 3339 times."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from offload.domain.artifact import Artifact, State
from offload.domain.pointers import pointing
from offload.domain.run import Run
from offload.http.parts import parts_of
from offload.http.problems import Problem
from offload.services.browse import Explanation, Shown


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class RunReference(Wire):
    namespace: str
    name: str
    uid: str


class ArtifactOut(Wire):
    """An artifact, whatever its fate."""

    id: UUID
    name: str
    type: str
    uri: str = Field(description="`s3://bucket/key`, verbatim.")
    content_type: str
    size_bytes: int
    sha256: str = Field(description="Lower-case hexadecimal.")
    created_at: datetime
    expires_at: datetime | None = Field(
        description="When the rules in force end it; null while that is not known, or for ever."
    )
    state: State
    current: bool = Field(description="The newest stored version of its name.")
    seq: int = Field(description="Place in the run's history: larger is newer.")
    ended_at: datetime | None = None
    ended_by: str | None = Field(None, description="`rule:NAME`, `token:NAME` or `store`.")
    erased_at: datetime | None = Field(None, description="When the bytes were seen deleted.")
    origin: str | None = Field(None, description="Where in status it was found, for an adopted one.")
    run: RunReference
    history_url: str


class ArtifactPage(Wire):
    items: list[ArtifactOut]
    next: str | None = Field(description="URL of the next page; null on the last.")


class UploadResult(Wire):
    """What became of one file of several: `artifact` or `problem`."""

    name: str | None
    status: int
    artifact: ArtifactOut | None = None
    problem: Problem | None = None


class UploadResults(Wire):
    results: list[UploadResult]


class Counts(Wire):
    total: int = Field(description="Ever acknowledged.")
    current: int = Field(description="Newest stored versions of their names: what status could list.")
    stored: int
    stored_bytes: int
    listed: int = Field(description="Entries of ours in status as last published.")
    left_out: int = Field(description="Current ones that status did not list when last published.")


class PublishOut(Wire):
    mode: str
    published_at: datetime | None
    behind: bool
    dirty_since: datetime | None
    error: str | None = Field(description="Why the last publish failed.")


class RunOut(Wire):
    """An AgentRun as the index knows it; stays after it is deleted."""

    namespace: str
    name: str
    uid: str
    created_at: datetime
    labels: dict[str, str]
    agent: str | None
    phase: str | None
    finished_at: datetime | None
    deleted_at: datetime | None
    artifacts: Counts
    publish: PublishOut
    history_url: str


class RunPage(Wire):
    items: list[RunOut]
    next: str | None = Field(description="URL of the next page; null on the last.")


class EntryOut(Wire):
    position: int
    name: str
    uri: str | None
    ours: bool


class AbsentOut(Wire):
    id: UUID
    name: str
    type: str
    size_bytes: int
    created_at: datetime
    reason: str
    detail: str


class DifferenceOut(Wire):
    of: Literal["entry", "condition", "field"]
    name: str
    before: str | None = Field(description="As status has it; null where it is not there.")
    after: str | None = Field(description="As a publish would leave it; null where it would not be there.")


class ExternalOut(Wire):
    """Another writer's entry that status does not list."""

    name: str
    uri: str | None
    state: Literal["left-out", "removed"] = Field(
        description="`left-out`: by the limits of status. `removed`: by its writer."
    )


class ExplanationOut(Wire):
    """What status lists, why each of the others (the newest 1,000) is not there, and what is to change."""

    run: RunReference
    status: list[EntryOut]
    left_out: list[AbsentOut]
    pending: list[DifferenceOut] = Field(
        description="What a publish would change in status now, or would with `OFFLOAD_PUBLISH=on`."
    )
    externals: list[ExternalOut]
    publish: PublishOut


class Readiness(Wire):
    ready: Literal[True] = True
    parts: dict[str, str] = Field(description="Part → `ok`, or what is wrong with one that is not needed.")


def base_url(request: Request) -> str:
    """What absolute links start with: the setting, else the request's own address."""
    return (parts_of(request).public_url or str(request.base_url)).rstrip("/")


def run_url(request: Request, namespace: str, run: str) -> str:
    return f"{base_url(request)}/v1/namespaces/{quote(namespace)}/agentruns/{quote(run)}"


def artifact_out(request: Request, artifact: Artifact, expires_at: datetime | None) -> ArtifactOut:
    """An artifact as it is shown to who asked."""
    run = RunReference(namespace=artifact.namespace, name=artifact.run_name, uid=artifact.run_uid)
    return _artifact_out(artifact, expires_at, run, _history_url(request, run.namespace, run.name, run.uid))


def page_out(request: Request, run: Run, page: Sequence[Shown], next_url: str | None) -> ArtifactPage:
    """Artifacts of one run as they are shown to who asked."""
    reference = RunReference(namespace=run.namespace, name=run.name, uid=run.uid)
    history_url = _history_url(request, run.namespace, run.name, run.uid)
    items = [_artifact_out(shown.artifact, shown.expires_at, reference, history_url) for shown in page]
    return ArtifactPage(items=items, next=next_url)


def _artifact_out(
    artifact: Artifact, expires_at: datetime | None, run: RunReference, history_url: str
) -> ArtifactOut:
    return ArtifactOut(
        id=artifact.id,
        name=artifact.name,
        type=artifact.type,
        uri=artifact.location.uri,
        content_type=artifact.content_type,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256.hex(),
        created_at=artifact.created_at,
        expires_at=expires_at,
        state=artifact.state,
        current=artifact.current,
        seq=artifact.seq,
        ended_at=artifact.ended_at,
        ended_by=artifact.ended_by,
        erased_at=artifact.erased_at,
        origin=artifact.origin,
        run=run,
        history_url=history_url,
    )


def run_out(request: Request, run: Run) -> RunOut:
    """A run as it is shown to who asked."""
    return RunOut(
        namespace=run.namespace,
        name=run.name,
        uid=run.uid,
        created_at=run.created_at,
        labels=dict(run.labels),
        agent=run.agent,
        phase=run.phase,
        finished_at=run.finished_at,
        deleted_at=run.deleted_at,
        artifacts=Counts(
            total=run.total_count,
            current=run.current_count,
            stored=run.stored_count,
            stored_bytes=run.stored_bytes,
            listed=run.listed_count,
            left_out=max(0, run.current_count - run.listed_count),
        ),
        publish=_publish_out(request, run),
        history_url=_history_url(request, run.namespace, run.name, run.uid),
    )


def explanation_out(request: Request, explanation: Explanation) -> ExplanationOut:
    """An explanation as it is shown to who asked."""
    run = explanation.run
    return ExplanationOut(
        run=RunReference(namespace=run.namespace, name=run.name, uid=run.uid),
        status=[
            EntryOut(position=position, name=entry.name, uri=entry.uri, ours=entry.ours)
            for position, entry in enumerate(explanation.entries)
        ],
        left_out=[
            AbsentOut(
                id=absent.artifact.id,
                name=absent.artifact.name,
                type=absent.artifact.type,
                size_bytes=absent.artifact.size_bytes,
                created_at=absent.artifact.created_at,
                reason=absent.reason,
                detail=absent.message,
            )
            for absent in explanation.absent
        ],
        pending=[
            DifferenceOut(of=one.of, name=one.name, before=one.before, after=one.after)
            for one in explanation.pending
        ],
        externals=[
            ExternalOut(
                name=str(external.entry.get("name", "")),
                uri=next(pointing(external.entry), None),
                state="removed" if external.state == "removed" else "left-out",
            )
            for external in explanation.externals
        ],
        publish=_publish_out(request, run),
    )


def _publish_out(request: Request, run: Run) -> PublishOut:
    return PublishOut(
        mode=parts_of(request).publish_mode,
        published_at=run.published_at,
        behind=run.dirty_since is not None,
        dirty_since=run.dirty_since,
        error=run.publish_error,
    )


def _history_url(request: Request, namespace: str, run: str, uid: str) -> str:
    return f"{run_url(request, namespace, run)}/artifacts?uid={quote(uid, safe='')}"
