"""Watches: what happened since a revision, then what happens, as JSON lines."""

import json
import time
from collections.abc import AsyncIterator

from starlette.requests import Request as HttpRequest

from offload.cluster.standin import failures
from offload.cluster.standin.queries import Selector, flag, included, number, wants_table
from offload.cluster.standin.store import Change, Object, Store, TooOldError
from offload.cluster.standin.tables import table
from offload.cluster.standin.writes import Request

LONGEST_SECONDS = 1800


async def watch(
    store: Store, http: HttpRequest, request: Request, chosen: Selector, bookmark_seconds: float
) -> AsyncIterator[str]:
    """The lines of one watch, until its time is over or the store closes."""
    query, line = http.query_params, _Lines(http, request)
    ends = time.monotonic() + (number(query, "timeoutSeconds") or LONGEST_SECONDS)
    told, bookmarks = time.monotonic(), flag(query, "allowWatchBookmarks")
    revision = number(query, "resourceVersion")
    if flag(query, "sendInitialEvents") or not revision:
        revision = store.revision
        for text in _initial(store, request, chosen, line):
            yield text
        if flag(query, "sendInitialEvents") and bookmarks:
            yield line.bookmark(revision, {"k8s.io/initial-events-end": "true"})
    while time.monotonic() < ends and not store.closed:
        try:
            changes = store.since(revision)
        except TooOldError:
            yield line.too_old(revision, store.revision)
            return
        # The revision moves on past changes of other kinds too, as a bookmark's does.
        revision = changes[-1].revision if changes else store.revision
        for event in filter(None, (_event(change, request, chosen) for change in changes)):
            yield line.event(*event)
        if bookmarks and time.monotonic() - told >= bookmark_seconds:
            told = time.monotonic()
            yield line.bookmark(revision)
        if store.revision == revision:
            await store.wait(max(0, min(ends - time.monotonic(), bookmark_seconds)))
    if bookmarks:
        yield line.bookmark(revision)


class _Lines:
    """Watch events as the client wants them: objects, or tables of one row."""

    def __init__(self, http: HttpRequest, request: Request) -> None:
        self._resource = request.resource
        self._include = included(http) if wants_table(http) else None

    def event(self, kind: str, body: Object) -> str:
        if self._include:
            metadata = {"resourceVersion": body["metadata"]["resourceVersion"]}
            body = table(self._resource, [body], metadata, self._include)
        return json.dumps({"type": kind, "object": body}) + "\n"

    def bookmark(self, revision: int, annotations: Object | None = None) -> str:
        body: Object = {"kind": self._resource.kind, "apiVersion": self._resource.api_version}
        body["metadata"] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            body["metadata"]["annotations"] = annotations
        return json.dumps({"type": "BOOKMARK", "object": body}) + "\n"

    def too_old(self, revision: int, current: int) -> str:
        refusal = failures.expired(f"too old resource version: {revision} ({current})")
        return json.dumps({"type": "ERROR", "object": refusal.body}) + "\n"


def _initial(store: Store, request: Request, chosen: Selector, line: _Lines) -> list[str]:
    objects = store.snapshot(request.resource.qualified, request.namespace)
    return [line.event("ADDED", body) for _, body in objects if chosen.matches(body)]


def _event(change: Change, request: Request, chosen: Selector) -> tuple[str, Object] | None:
    """The watch event that a change is to one who sees what `chosen` matches."""
    key = change.key
    if key.resource != request.resource.qualified or request.namespace not in ("", key.namespace):
        return None
    saw, sees = chosen.matches(change.before), chosen.matches(change.after)
    if sees and change.after:
        return ("MODIFIED" if saw else "ADDED"), change.after
    if saw and change.before:
        last = change.after or change.before
        metadata = {**last["metadata"], "resourceVersion": str(change.revision)}
        return "DELETED", {**last, "metadata": metadata}
    return None
