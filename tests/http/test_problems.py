"""Errors: RFC 9457 problems from a catalogue, whoever finds them.

Cases: every error class has a status, a type of its own and a title; what an adapter said of addresses is not
told; subclasses that only carry more keep their type's title; an unknown path, a wrong method (with every
method that the path has in Allow), a broken query, a path parameter that is none; an unexpected failure (500,
the request id, no internals, the log has the trace); a request id of the client's own, and an unusable one;
the request log has the request's, the run's and the artifact's ids and the problem; the OpenAPI document
describes every error that its operations can raise.
"""

import inspect
import re
from typing import Any

import pytest
import structlog

from offload import errors
from offload.cluster.api import AskedToWaitError
from offload.errors import OffloadError
from offload.http import problems
from offload.objects.memory import MemoryObjects

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, OffloadError) and kind is not OffloadError
]
INSIDE = {
    errors.ConfigError,
    errors.PlanNotFoundError,
    errors.ObjectMissingError,
    errors.StatusConflictError,
    errors.AgentRunGoneError,
    errors.StatusRefusedError,
    errors.PointersNotKeptError,
    errors.StatusNotKeptError,
}
"""Between rooms, or of the command line: never an answer."""


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in INSIDE])
def test_every_error_that_can_be_an_answer_has_a_status(kind: type[OffloadError]) -> None:
    status = next(problems.STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in problems.STATUS)
    assert status != 500 or kind is errors.InternalError
    assert "type" in vars(kind)
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", kind.type)
    assert (kind.__doc__ or "").strip()


def test_types_are_told_apart() -> None:
    assert len({kind.type for kind in ALL}) == len(ALL)


def test_what_the_api_server_said_stays_in_the_log() -> None:
    for kind in (errors.ClusterUnavailableError, errors.ClusterForbiddenError, AskedToWaitError):
        problem = problems.problem_of(kind("GET /apis: host='10.0.0.1', user secret-robot"), "id")
        assert "10.0.0.1" not in problem.detail
        assert "secret-robot" not in problem.detail


def test_a_class_that_only_carries_more_has_its_types_title() -> None:
    plain = problems.problem_of(errors.ClusterUnavailableError(), None)
    carrying = problems.problem_of(AskedToWaitError(retry_after=7.2), None)
    assert (carrying.type, carrying.title) == (plain.type, plain.title)
    assert problems.headers_of(AskedToWaitError(retry_after=7.2)) == {"Retry-After": "8"}
    assert problems.headers_of(errors.StoreUnavailableError(retry_after=0)) == {"Retry-After": "1"}


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/v1/namespaces", "/livez/", "/v1/artifacts/", "/docs", "/metrics"]
)
def test_a_path_that_is_not_there_is_a_problem(service: Any, path: str) -> None:
    answer = service.http.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:offload:problem:not-found")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["requestId"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "{run}/artifacts/x", "GET, HEAD, PUT"),
        ("POST", "{run}/artifacts/x", "GET, HEAD, PUT"),
        ("DELETE", "{run}/artifacts", "GET, POST"),
        ("HEAD", "{run}/artifacts", "GET, POST"),
        ("PUT", "/v1/artifacts/01a20d88-7681-747a-9f84-c0e899c908f9", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/artifacts/01a20d88-7681-747a-9f84-c0e899c908f9/content", "GET, HEAD"),
        ("POST", "/readyz", "GET"),
        ("OPTIONS", "{run}", "GET"),
        ("TRACE", "{run}", "GET"),
        ("PROPFIND", "{run}", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    service: Any, run: Any, method: str, path: str, allow: str
) -> None:
    answer = service.http.request(method, path.format(run=run.path))
    assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
    if method != "HEAD":
        assert answer.json()["type"] == "urn:offload:problem:method-not-allowed"


def test_a_path_parameter_that_is_none_is_told_by_its_name(service: Any) -> None:
    answer = service.http.get("/v1/artifacts/not-a-uuid")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("id: ")


def test_an_unexpected_failure_tells_no_internals(serve: Any) -> None:
    objects = MemoryObjects()
    service = serve(objects=objects)
    run = service.run()

    def fail(operation: str, _key: str) -> None:
        if operation == "put":
            raise ZeroDivisionError("secret of /var/lib")

    objects.before = fail
    with structlog.testing.capture_logs() as logged:
        answer = run.put("x")
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (500, "urn:offload:problem:internal")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert problem["requestId"] == answer.headers["X-Request-Id"]
    failed = [entry for entry in logged if entry["event"] == "request.failed"]
    assert len(failed) == 1
    assert failed[0]["exc_info"]
    objects.before = lambda _operation, _key: None
    service.assert_nothing_left(run)


def test_a_client_names_its_request_where_the_name_is_usable(service: Any) -> None:
    own = service.http.get("/v1/none", headers={"X-Request-Id": "build-7.step:2"})
    assert own.headers["X-Request-Id"] == own.json()["requestId"] == "build-7.step:2"
    for unusable in ("a b", "x" * 129, "ünï", '"'):
        answer = service.http.get("/v1/none", headers={"X-Request-Id": unusable.encode()})
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-Id"])


def test_the_request_log_has_the_ids(run: Any, eventually: Any) -> None:
    with structlog.testing.capture_logs() as logged:
        stored = run.put("x", headers={"X-Request-Id": "mine"})
        refused = run.put("/x")
        eventually(lambda: len([entry for entry in logged if entry["event"] == "request"]) == 2)
    first, second = (entry for entry in logged if entry["event"] == "request")
    assert (first["run"], first["artifact"]) == (run.uid, stored.json()["id"])
    assert (first["method"], first["path"], first["status"]) == ("PUT", run.at("x"), 201)
    assert (second["status"], second["problem"]) == (refused.status_code, "invalid-name")


def test_the_document_describes_every_problem(service: Any) -> None:
    document = service.http.get("/openapi.json").json()
    assert "HTTPValidationError" not in str(document)
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    described = str([list(methods.values()) for methods in document["paths"].values()])
    beyond = {errors.MethodNotAllowedError, errors.OffloadError}
    for kind in set(ALL) - INSIDE - beyond:
        if kind.__subclasses__() and kind not in (errors.NotFoundError, errors.StoreUnavailableError):
            continue  # its subclasses are what is raised
        assert f"`{kind.type}`" in described, kind
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["operationId"], (method, path)
            for status, response in operation["responses"].items():
                assert response["description"]
                if status >= "400" and "application/json" not in response.get("content", {}):
                    assert "application/problem+json" in response["content"], (method, path, status)
