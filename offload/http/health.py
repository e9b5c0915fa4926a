"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from offload import errors
from offload.errors import NotReadyError
from offload.http.access import open_to_all
from offload.http.parts import parts_of
from offload.http.problems import described
from offload.http.schemas import Readiness

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez", response_class=PlainTextResponse)
@open_to_all
async def livez() -> str:
    """The process answers."""
    return "ok"


@router.get("/readyz", operation_id="readyz", responses=described(errors.NotReadyError))
@open_to_all
def readyz(request: Request) -> Readiness:
    """Requests are better answered here than refused; says which part is missing, also where it is ready."""
    states = parts_of(request).look()
    missing = [f"{state.name}: {state.problem}" for state in states if state.problem and state.needed]
    if missing:
        raise NotReadyError("; ".join(missing), retry_after=5)
    return Readiness(parts={state.name: state.problem or "ok" for state in states})
