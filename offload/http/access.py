"""Every route names the permission it needs; one that names none is refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from fastapi import Request

from offload.domain.access import EVERYTHING, Grant, Permission, permits, permits_namespace
from offload.domain.artifact import Artifact
from offload.errors import ArtifactNotFoundError, NotFoundError, RunNotFoundError, UnauthenticatedError
from offload.http.parts import parts_of

_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

Over = Literal["run", "namespace", "artifact", "nothing"]
Route = TypeVar("Route", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Need:
    """What a route needs, and over what: `nothing` is open to everyone."""

    permission: Permission | None
    over: Over


def needs(permission: Permission, over: Over) -> Callable[[Route], Route]:
    """Say what a route needs. Over an artifact, the route itself calls `reach_artifact` once it has it."""
    return _marked(Need(permission, over))


def open_to_all(route: Route) -> Route:
    """Say that a route tells nothing that is anyone's own."""
    return _marked(Need(None, "nothing"))(route)


async def authorise(request: Request) -> None:
    """Let the request through to its route, or raise; a dependency of the whole application.

    What a token does not reach looks as if it were not there.
    """
    need: Need | None = getattr(request.scope["route"].endpoint, "need", None)
    if need is None:
        raise NotFoundError
    if need.permission is None:
        return
    grant = _grant(request)
    request.state.grant, request.state.permission = grant, need.permission
    namespace, run = request.path_params.get("namespace", ""), request.path_params.get("run", "")
    now = datetime.now(UTC)
    if need.over == "run" and not (
        _DNS_SUBDOMAIN.fullmatch(namespace)
        and _DNS_SUBDOMAIN.fullmatch(run)
        and permits(grant, need.permission, namespace, run, now=now)
    ):
        raise RunNotFoundError
    if need.over == "namespace" and not (
        _DNS_SUBDOMAIN.fullmatch(namespace) and permits_namespace(grant, need.permission, namespace, now=now)
    ):
        raise NotFoundError(f"there is no namespace {namespace!r}, or the token does not reach all of it")


def reach_artifact(request: Request, artifact: Artifact) -> Artifact:
    """Answer `artifact` if the request may have it. Raises what an unknown one would."""
    now = datetime.now(UTC)
    state = request.state
    if not permits(state.grant, state.permission, artifact.namespace, artifact.run_name, now=now):
        raise ArtifactNotFoundError(f"there is no artifact {artifact.id}, or the token does not reach it")
    return artifact


def asker(request: Request) -> str:
    """Who asks, for the record."""
    grant: Grant = request.state.grant
    return f"token:{grant.name}"


def _grant(request: Request) -> Grant:
    tokens = parts_of(request).tokens
    if tokens is None:
        return EVERYTHING
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    grant = tokens.grant_for(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
    if grant is None:
        raise UnauthenticatedError
    return grant


def _marked(need: Need) -> Callable[[Route], Route]:
    def mark(route: Route) -> Route:
        route.need = need  # type: ignore[attr-defined] # read by `authorise`
        return route

    return mark
