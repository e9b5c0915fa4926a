"""Problems, as they are read from answers.

Cases: the stable word of a problem's type, whatever kind of URI it is; answers that are no problem.
"""

import httpx
import pytest

from offload.client import BusyError, MissingError, Problem, UnauthorizedError
from offload.client.errors import error_of
from offload.client.exchange import problem_of


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("urn:offload:problem:run-not-found", "run-not-found"),
        ("https://host/docs/errors#run-not-found", "run-not-found"),
        ("/errors/run-not-found", "run-not-found"),
        ("about:blank", "blank"),
    ],
)
def test_the_kind_is_the_last_part_of_the_type(uri: str, kind: str) -> None:
    assert Problem(type=uri, title="", status=404, detail="").kind == kind


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b"", b"\xff"])
def test_an_answer_that_is_no_problem_becomes_one(body: bytes) -> None:
    answer = httpx.Response(502, content=body, headers={"Retry-After": "3", "X-Request-Id": "r"})
    problem = problem_of(answer)
    assert (problem.title, problem.status, problem.request_id, problem.retry_after) == (
        "Bad Gateway",
        502,
        "r",
        3,
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, UnauthorizedError), (404, MissingError), (410, MissingError), (429, BusyError), (503, BusyError)],
)
def test_the_status_decides_the_error(status: int, error: type[Exception]) -> None:
    assert type(error_of(Problem(type="", title="", status=status, detail=""))) is error
