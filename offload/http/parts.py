"""What the routes are given to work with."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from fastapi import Request

from offload.domain.access import Grant
from offload.domain.artifact import Artifact, Location
from offload.objects.interface import Objects
from offload.services.browse import Browse
from offload.services.ingest import Ingest
from offload.services.lookups import Lookups


@dataclass(frozen=True, slots=True)
class PartState:
    """How one thing that the service stands on is."""

    name: Literal["index", "store", "cluster"]
    problem: str | None
    needed: bool
    """Without it the service is not ready; without the others it does less."""


class Tokens(Protocol):
    """What knows tokens."""

    def grant_for(self, token: str) -> Grant | None:
        """What the token may do; None for one that is unknown or expired."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Services and values, made once by `offload.wiring`."""

    ingest: Ingest
    browse: Browse
    lookups: Lookups
    objects: Objects
    redirects: bool
    """Whether readers can reach the store themselves."""
    downloads: asyncio.Semaphore
    """Free places for downloads: each holds a connection to the store and some pieces."""
    stall_seconds: float
    """How long a reader may take nothing before its download ends."""
    find_again: Callable[[Artifact], Location]
    """Where bytes are that are not where their row says; blocking."""
    erase: Callable[[UUID, str], Artifact]
    """Ends an artifact on request; the second argument is who asked."""
    tokens: Tokens | None
    """None: no access control."""
    look: Callable[[], Sequence[PartState]]
    """How the parts are now; blocking."""
    public_url: str | None
    publish_mode: str


def parts_of(request: Request) -> Parts:
    """The parts that the application was made with."""
    parts: Parts = request.app.state.parts
    return parts
