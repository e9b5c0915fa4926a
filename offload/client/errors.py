"""What can go wrong on the client's side.

What the server answered carries its RFC 9457 problem; `problem.kind` is the stable word of docs/errors.md.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

from offload.errors import OffloadError


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 9457 problem, or what could be made of an answer that is none."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    retry_after: float | None = None
    """Seconds to wait, where the answer names them."""

    @property
    def kind(self) -> str:
        """The last part of `type`, such as `run-not-found`."""
        return re.split(r"[/#:]", self.type)[-1]


class ClientError(OffloadError):
    """The client could not do what was asked."""

    type: ClassVar[str] = "client"


class OutOfReachError(ClientError):
    """The server did not answer, also after retries."""


class SourceChangedError(ClientError):
    """A file changed while it was sent."""


class SourceSpentError(OutOfReachError):
    """The upload failed, and its source can be read only once."""

    remedy: ClassVar[str] = "the stream was partly sent and can't be read again: write it to a file first"


class DamagedDownloadError(ClientError):
    """The bytes that came do not have the SHA-256 that the server announced; nothing was written."""


class StrangeAnswerError(ClientError):
    """What answered does not speak as an offload server does."""


class AnswerError(ClientError):
    """The server answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.may_be_done = False
        """An earlier attempt of the same request may have been carried out unheard."""
        super().__init__(_sentence(problem))


class UnauthorizedError(AnswerError):
    """401: no token was sent, or not a valid one."""


class MissingError(AnswerError):
    """404 or 410: there is no such run or artifact, the token does not reach it, or its bytes are gone."""


class NameTakenError(AnswerError):
    """412: the name has a current version, and the upload was for a new name only."""


class BusyError(AnswerError, OutOfReachError):
    """408, 429 or 5xx, also after retries: the same request may succeed later."""


def error_of(problem: Problem) -> AnswerError:
    """The error that says what `problem` says."""
    if is_passing(problem.status):
        return BusyError(problem)
    by_status: dict[int, type[AnswerError]] = {
        401: UnauthorizedError,
        404: MissingError,
        410: MissingError,
        412: NameTakenError,
    }
    return by_status.get(problem.status, AnswerError)(problem)


def is_passing(status: int) -> bool:
    """Whether an answer with this status may be another one when the same request comes again."""
    never_mends = {501, 505}
    return status in {408, 429} or (status >= 500 and status not in never_mends)  # noqa: PLR2004 - 5xx


def is_refusal(problem: Problem) -> bool:
    """Whether an answer that is passing says for certain that nothing was carried out."""
    return problem.status == 429 or problem.kind in _REFUSALS  # noqa: PLR2004 - too many requests


_REFUSALS = frozenset(
    {
        "cluster-forbidden",
        "cluster-unavailable",
        "run-changed",
        "shutting-down",
        "store-refused",
        "store-unavailable",
        "too-many-uploads",
        "upload-timed-out",
    }
)


def _sentence(problem: Problem) -> str:
    said = problem.detail or problem.title
    by = f", request {problem.request_id}" if problem.request_id else ""
    return f"{said} ({problem.status} {problem.kind}{by})"
