"""History: runs, what they produced, and each artifact's fate."""

import re
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from offload import errors
from offload.domain import cursors
from offload.domain.access import Permission
from offload.domain.artifact import State
from offload.domain.digests import format_digest
from offload.domain.limits import PAGE_DEFAULT, PAGE_MOST
from offload.domain.times import format_time, parse_time
from offload.errors import InvalidCursorError
from offload.http.access import asker, needs, reach_artifact
from offload.http.conditions import refuse_other_bytes
from offload.http.parts import parts_of
from offload.http.problems import described
from offload.http.queries import NO_QUERY
from offload.http.schemas import (
    ArtifactOut,
    ArtifactPage,
    ExplanationOut,
    RunOut,
    RunPage,
    artifact_out,
    base_url,
    explanation_out,
    page_out,
    run_out,
)
from offload.services.browse import Filters

router = APIRouter(tags=["history"])

_UID = re.compile("[!-~]{1,128}")
_SEQUENCE_MOST = 2**63 - 1
"""What a database takes as an integer."""

Uid = Annotated[
    str | None,
    Field(description="The incarnation that is meant; default: the newest.", pattern="^[!-~]{1,128}$"),
]
Limit = Annotated[int, Field(ge=1, le=PAGE_MOST, description="Entries of one page at most.")]
Cursor = Annotated[
    str | None, Field(description="From `next` of the page before.", pattern="^[A-Za-z0-9_-]{1,512}$")
]
Time = Annotated[
    str | None,
    AfterValidator(lambda text: text if text is None else format_time(parse_time(text))),
    Field(json_schema_extra={"format": "date-time"}),
]
Text = Annotated[str | None, Field(max_length=253, pattern="^[^\\x00]*$")]


class RunQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    uid: Uid = None


class RunsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agent: Text = None
    phase: Text = None
    deleted: bool | None = Field(None, description="Only deleted ones, or only living ones.")
    limit: Limit = PAGE_DEFAULT
    cursor: Cursor = None


class HistoryQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Annotated[str | None, Field(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = None
    name: Annotated[
        str | None, Field(description="A glob: `*`, `?`, `[…]`; `*` also stands for slashes.", max_length=512)
    ] = None
    state: State | None = None
    since: Time = None
    until: Time = None
    order: Literal["newest", "oldest"] = "newest"
    limit: Limit = PAGE_DEFAULT
    cursor: Cursor = None
    uid: Uid = None


@router.get(
    "/v1/namespaces/{namespace}/agentruns",
    operation_id="listRuns",
    responses=described(errors.InvalidCursorError),
)
@needs(Permission.READ, over="namespace")
def list_runs(
    request: Request, response: Response, namespace: str, query: Annotated[RunsQuery, Query()]
) -> RunPage:
    """Runs of a namespace, newest first, deleted ones included."""
    list_id = _list_id(request, query)
    after = None
    if query.cursor:
        after = _run_place(list_id, query.cursor)
    found = parts_of(request).browse.runs(
        namespace,
        agent=query.agent,
        phase=query.phase,
        deleted=query.deleted,
        after=after,
        limit=query.limit + 1,
    )
    page = found[: query.limit]
    more = len(found) > query.limit
    place: list[str | int] = [format_time(page[-1].created_at), page[-1].uid] if more else []
    next_url = _next_url(request, query, list_id, place)
    response.headers.update(_link(next_url))
    return RunPage(items=[run_out(request, run) for run in page], next=next_url)


@router.get(
    "/v1/namespaces/{namespace}/agentruns/{run}",
    operation_id="getRun",
    responses=described(errors.RunNotFoundError, errors.RunUidMismatchError),
)
@needs(Permission.READ, over="run")
def get_run(request: Request, namespace: str, run: str, query: Annotated[RunQuery, Query()]) -> RunOut:
    """One run: what it produced in sums, and whether status is up to date."""
    return run_out(request, parts_of(request).browse.run(namespace, run, query.uid))


@router.get(
    "/v1/namespaces/{namespace}/agentruns/{run}/explanation",
    operation_id="explainRun",
    responses=described(errors.RunNotFoundError, errors.RunUidMismatchError),
)
@needs(Permission.READ, over="run")
def explain_run(
    request: Request, namespace: str, run: str, query: Annotated[RunQuery, Query()]
) -> ExplanationOut:
    """What status lists now, and why each of the others is not there."""
    browse = parts_of(request).browse
    return explanation_out(request, browse.explain(browse.run(namespace, run, query.uid)))


@router.get(
    "/v1/namespaces/{namespace}/agentruns/{run}/artifacts",
    operation_id="listArtifacts",
    response_model=ArtifactPage,
    responses=described(errors.RunNotFoundError, errors.RunUidMismatchError, errors.InvalidCursorError),
)
@needs(Permission.READ, over="run")
async def list_artifacts(
    request: Request, namespace: str, run: str, query: Annotated[HistoryQuery, Query()]
) -> Response:
    """Everything a run ever produced, with its fate."""
    return await run_in_threadpool(_artifacts, request, namespace, run, query)


def _artifacts(request: Request, namespace: str, run: str, query: HistoryQuery) -> Response:
    browse = parts_of(request).browse
    known = browse.run(namespace, run, query.uid)
    # Bound to the incarnation: pages of a list never change over to a run that took the name meanwhile.
    list_id = f"{known.uid} {_list_id(request, query)}"
    after = None
    if query.cursor:
        after = _sequence_place(list_id, query.cursor)
    filters = Filters(
        type=query.type,
        name_glob=query.name,
        state=query.state,
        since=parse_time(query.since) if query.since else None,
        until=parse_time(query.until) if query.until else None,
    )
    found = browse.history(known, filters, order=query.order, after=after, limit=query.limit + 1)
    page = found[: query.limit]
    more = len(found) > query.limit
    next_url = _next_url(request, query, list_id, [page[-1].artifact.seq] if more else [], uid=known.uid)
    answer = page_out(request, known, page, next_url)
    # Written here and not by the framework, which would look at each of its fields again.
    return Response(
        answer.model_dump_json(by_alias=True), media_type="application/json", headers=_link(next_url)
    )


@router.get(
    "/v1/artifacts/{id}",
    operation_id="getArtifact",
    responses=described(errors.ArtifactNotFoundError),
    dependencies=[NO_QUERY],
)
@router.head(
    "/v1/artifacts/{id}",
    operation_id="headArtifact",
    responses=described(errors.ArtifactNotFoundError),
    dependencies=[NO_QUERY],
)
@needs(Permission.READ, over="artifact")
def get_artifact(request: Request, response: Response, id: UUID) -> ArtifactOut:  # noqa: A002 - its name in the path
    """One artifact, whatever its fate."""
    browse = parts_of(request).browse
    artifact = reach_artifact(request, browse.artifact(id))
    response.headers["ETag"] = artifact.etag
    response.headers["Repr-Digest"] = format_digest(artifact.sha256)
    return artifact_out(request, artifact, browse.shown(artifact).expires_at)


@router.delete(
    "/v1/artifacts/{id}",
    operation_id="eraseArtifact",
    responses=described(errors.ArtifactNotFoundError, errors.PreconditionFailedError),
    dependencies=[NO_QUERY],
)
@needs(Permission.DELETE, over="artifact")
def erase_artifact(request: Request, id: UUID) -> ArtifactOut:  # noqa: A002 - its name in the path
    """Erase: content answers 410 from now on, the bytes go once no pointer is left, history stays."""
    parts = parts_of(request)
    reached = reach_artifact(request, parts.browse.artifact(id))
    refuse_other_bytes(request, reached)
    erased = parts.erase(reached.id, asker(request))
    return artifact_out(request, erased, erased.expires_at)


def _run_place(list_id: str, cursor: str) -> tuple[datetime, str]:
    created_at, uid = (str(part) for part in cursors.decode(list_id, cursor, str, str))
    try:
        place = parse_time(created_at)
    except ValueError as error:
        raise _forged(cursor) from error
    if not _UID.fullmatch(uid):
        raise _forged(cursor)
    return place, uid


def _sequence_place(list_id: str, cursor: str) -> int:
    (place,) = cursors.decode(list_id, cursor, int)
    if not 0 <= int(place) <= _SEQUENCE_MOST:
        raise _forged(cursor)
    return int(place)


def _forged(cursor: str) -> InvalidCursorError:
    return InvalidCursorError("cursor", "must be one that this list gave", cursor)


def _list_id(request: Request, query: BaseModel) -> str:
    """What tells one list from another: its path and its filters, not how it is cut into pages."""
    filters = query.model_dump(mode="json", exclude={"limit", "cursor", "uid"}, exclude_none=True)
    return f"{request.url.path}?{urlencode(sorted(filters.items()))}"


def _next_url(
    request: Request, query: BaseModel, list_id: str, place: list[str | int], uid: str | None = None
) -> str | None:
    if not place:
        return None
    again = query.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    again["cursor"] = cursors.encode(list_id, place)
    if uid is not None:
        again["uid"] = uid
    return f"{base_url(request)}{request.url.path}?{urlencode(again)}"


def _link(next_url: str | None) -> dict[str, str]:
    return {"Link": f'<{next_url}>; rel="next"'} if next_url else {}
