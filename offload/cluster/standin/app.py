"""The HTTP side: which object a path means, how it is answered, and watches."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from offload.cluster.standin import failures, protobuf
from offload.cluster.standin.discovery import documents
from offload.cluster.standin.queries import flag, included, number, selector, wants_table
from offload.cluster.standin.resources import ACCESS_REVIEWS, Resource
from offload.cluster.standin.store import Key, Object, Store, TooOldError
from offload.cluster.standin.tables import table
from offload.cluster.standin.watches import watch
from offload.cluster.standin.writes import Request, Writes

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def build(
    store: Store, writes: Writes, resources: Sequence[Resource], *, bookmark_seconds: float
) -> Starlette:
    """The API as an ASGI application. All of it runs on one event loop, so each write is atomic."""
    api = _Api(store, writes, resources, bookmark_seconds)
    routes = [Route("/{path:path}", api.answer, methods=METHODS)]
    return Starlette(routes=routes, exception_handlers={Exception: _internal_error})


class _Api:
    def __init__(
        self, store: Store, writes: Writes, resources: Sequence[Resource], bookmark_seconds: float
    ) -> None:
        self._store, self._writes, self._bookmark_seconds = store, writes, bookmark_seconds
        self._resources = {(r.root, r.plural): r for r in resources}
        self._documents = documents(resources)

    async def answer(self, http: HttpRequest) -> Response:
        try:
            return await self._answer(http)
        except failures.StatusError as error:
            return JSONResponse(error.body, error.code)

    async def _answer(self, http: HttpRequest) -> Response:
        path = http.url.path.rstrip("/") or "/"
        if path in ("/livez", "/readyz", "/healthz"):
            return PlainTextResponse("ok")
        if path in self._documents:
            if http.method != "GET":
                raise failures.method_not_allowed()
            return JSONResponse(self._documents[path])
        request = self._locate(path)
        request.validation = http.query_params.get("fieldValidation") or "Warn"
        if "dryRun" in http.query_params:
            raise failures.bad_request("the AgentRun stand-in does not imitate dryRun")
        if http.method == "GET":
            return self._read(http, request)
        return await self._write(http, request)

    def _locate(self, path: str) -> Request:
        """The object or collection that a path names: `ROOT[/namespaces/NS]/PLURAL[/NAME[/status]]`."""
        steps = path.split("/")[1:]
        root, rest = steps[: 3 if steps[0] == "apis" else 2], steps[3 if steps[0] == "apis" else 2 :]
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:  # noqa: PLR2004 - a plural follows the namespace
            namespace, rest = rest[1], rest[2:]
        resource = self._resources.get(("/" + "/".join(root), rest[0])) if rest else None
        if not resource or (namespace and not resource.namespaced):
            raise failures.no_such_path()
        name, status = [*rest[1:], "", ""][:2]
        if len(rest) > 3 or status not in ("", "status"):  # noqa: PLR2004 - plural, name, subresource
            raise failures.no_such_path()
        if name and resource.namespaced and not namespace:
            raise failures.no_such_path()
        if status and not resource.has_status:
            # Where a CRD has no such subresource, an API server answers as if the object were missing.
            raise failures.not_found(resource, name) if resource.group else failures.no_such_path()
        return Request(resource, namespace, name, bool(status))

    def _read(self, http: HttpRequest, request: Request) -> Response:
        if "get" not in request.resource.verbs:
            raise failures.method_not_allowed()
        if not request.name:
            return self._list(http, request)
        found = self._writes.read(request)
        if wants_table(http):
            metadata = {"resourceVersion": found["metadata"]["resourceVersion"]}
            return JSONResponse(table(request.resource, [found], metadata, included(http)))
        return JSONResponse(found)

    async def _write(self, http: HttpRequest, request: Request) -> Response:
        resource, code = request.resource, 200
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[http.method]
        if verb not in resource.verbs or (verb == "create") is bool(request.name):
            raise failures.method_not_allowed()
        if request.status and verb == "delete":
            raise failures.method_not_allowed()
        if verb == "create" and resource.namespaced and not request.namespace:
            raise failures.method_not_allowed()
        body = await _body(http)
        if resource is ACCESS_REVIEWS:
            answer, code = {**body, "status": {"allowed": True}}, 201
        elif verb == "create":
            answer, code = self._writes.create(request, body), 201
        elif verb == "update":
            answer = self._writes.replace(request, body)
        elif verb == "patch":
            answer = self._writes.patch(request, body)
        else:
            answer = self._delete(request, http, body)
        if wants_table(http) and answer.get("kind") == resource.kind:
            metadata = {"resourceVersion": answer["metadata"].get("resourceVersion", "")}
            answer = table(resource, [answer], metadata, included(http))
        response = JSONResponse(answer, code)
        for warning in request.warnings:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.append("Warning", f'299 - "{text}"')
        return response

    def _delete(self, request: Request, http: HttpRequest, options: Object) -> Object:
        policy = options.get("propagationPolicy") or http.query_params.get("propagationPolicy")
        if policy not in (None, "Background") or options.get("dryRun"):
            raise failures.bad_request(
                "the AgentRun stand-in imitates propagationPolicy Background only, no dryRun"
            )
        answer = self._writes.delete(request, options.get("preconditions") or {})
        if self._store.get(request.key):
            return answer
        resource = request.resource
        details = {"name": request.name, "group": resource.group, "kind": resource.plural}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {**details, "uid": answer["metadata"]["uid"]},
        }

    def _list(self, http: HttpRequest, request: Request) -> Response:
        resource, query = request.resource, http.query_params
        chosen = selector(resource, query)
        if flag(query, "watch"):
            for name in ("resourceVersion", "timeoutSeconds"):
                number(query, name)  # refused now: later the answer has begun
            events = watch(self._store, http, request, chosen, self._bookmark_seconds)
            return StreamingResponse(events, media_type="application/json")
        limit = number(query, "limit")
        revision, after = _unfold(query["continue"]) if query.get("continue") else (None, None)
        if revision is None and query.get("resourceVersionMatch") == "Exact":
            revision = number(query, "resourceVersion")
        try:
            entries = self._store.snapshot(resource.qualified, request.namespace, revision)
        except TooOldError:
            message = "The provided continue parameter is too old to display a consistent list result."
            raise failures.expired(message) from None
        entries = [e for e in entries if chosen.matches(e[1]) and (after is None or e[0] > after)]
        revision = revision or self._store.revision
        metadata: Object = {"resourceVersion": str(revision)}
        if limit and len(entries) > limit:
            metadata["continue"] = _fold(revision, entries[limit - 1][0])
            if not chosen:
                metadata["remainingItemCount"] = len(entries) - limit
            entries = entries[:limit]
        items = [body for _, body in entries]
        if wants_table(http):
            return JSONResponse(table(resource, items, metadata, included(http)))
        kind = resource.list_kind or f"{resource.kind}List"
        return JSONResponse(
            {"kind": kind, "apiVersion": resource.api_version, "metadata": metadata, "items": items}
        )


async def _internal_error(_: HttpRequest, error: Exception) -> Response:
    refusal = failures.StatusError(500, "InternalError", f"the AgentRun stand-in failed: {error!r}")
    return JSONResponse(refusal.body, refusal.code)


async def _body(http: HttpRequest) -> Object:
    content_type = http.headers.get("content-type", "application/json").partition(";")[0].strip()
    raw = await http.body()
    readable = _PATCH_TYPES if http.method == "PATCH" else _BODY_TYPES
    if raw and content_type not in readable:
        message = f"the AgentRun stand-in reads {' and '.join(readable)}, not {content_type}"
        raise failures.unsupported(_REFUSED.get(content_type, message))
    try:
        body: Any = protobuf.decode(raw) if content_type == protobuf.CONTENT_TYPE else json.loads(raw or "{}")
    except ValueError as error:
        raise failures.bad_request(f"the body cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise failures.bad_request("the body is not a JSON object")
    if content_type == _STRATEGIC and not _merges_alike(http, body):
        raise failures.unsupported("the AgentRun stand-in imitates merge patches only: use --type=merge")
    return body


_STRATEGIC = "application/strategic-merge-patch+json"
_PATCH_TYPES = ("application/merge-patch+json", _STRATEGIC)
_BODY_TYPES = ("application/json", protobuf.CONTENT_TYPE)
_REFUSED = {
    "application/apply-patch+yaml": "the AgentRun stand-in does not imitate server-side apply; "
    "leave --server-side out",
    "application/json-patch+json": "the AgentRun stand-in imitates merge patches only: use --type=merge",
}


def _merges_alike(http: HttpRequest, patch: Any) -> bool:
    """Whether a strategic merge patch means what a merge patch does: core kinds, no lists, no directives."""
    if isinstance(patch, dict):
        return http.url.path.startswith("/api/") and all(
            not key.startswith("$") and _merges_alike(http, value) for key, value in patch.items()
        )
    return not isinstance(patch, list)


def _fold(revision: int, key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([revision, *key]).encode()).decode()


def _unfold(token: str) -> tuple[int, Key]:
    try:
        revision, *key = json.loads(base64.urlsafe_b64decode(token))
        return int(revision), Key(*map(str, key))
    except (binascii.Error, ValueError, TypeError):
        raise failures.bad_request("the continue token is not one of this server's") from None
