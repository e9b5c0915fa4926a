"""Who may what.

Cases: every route of the application names its need, and one that names none is refused; no token, another
scheme, an unknown and an expired token (401 with WWW-Authenticate, the same answer); each permission by
itself; a namespace, a run, a glob of runs; the list of a namespace needs all of its runs; what a token does
not reach answers as what is not there, to the byte but for the request id, for each route that reads or
writes; a refused upload is not read and leaves nothing; what is open to all; a token that is taken away.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from offload.domain.access import Permission
from offload.http import batches, contents, health, history, uploads
from offload.http.access import Need
from offload.http.app import document

NOBODY = "/v1/namespaces/agents/agentruns/nobody"
READ, WRITE, DELETE = Permission.READ, Permission.WRITE, Permission.DELETE


def test_every_operation_names_its_need(service: Any) -> None:
    app = service.app._app._app
    endpoints = _endpoints(app)
    described = {(m.upper(), path) for path, methods in document(app)["paths"].items() for m in methods}
    assert described == set(endpoints) - {("GET", "/openapi.json"), ("HEAD", "/openapi.json")}
    for (_, path), endpoint in endpoints.items():
        assert isinstance(endpoint.need, Need)
        assert (endpoint.need.permission is None) == (path in {"/livez", "/readyz", "/openapi.json"})


def test_a_route_that_names_no_need_is_refused(serve: Any) -> None:
    def with_forgetful_route(app: Any) -> Any:
        app._app._app.add_api_route("/forgetful", lambda: "secret")
        return app

    service = serve(around=with_forgetful_route)
    answer = httpx.get(f"{service.url}/forgetful")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:offload:problem:not-found")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer offload_unknown"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "offload_unknown"},
    ],
)
def test_who_has_no_token_is_told_to_bring_one(service: Any, run: Any, headers: dict[str, str]) -> None:
    answers = [
        httpx.request(method, service.url + path, headers=headers)
        for method, path in (("GET", run.path), ("PUT", run.at("x")), ("GET", f"{NOBODY}/artifacts"))
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="offload"'
    assert len({_without_id(answer) for answer in answers}) == 1


def test_an_expired_token_is_an_unknown_one(service: Any, run: Any) -> None:
    expired = service.token(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    answer = httpx.get(service.url + run.path, headers=expired)
    assert answer.status_code == 401
    unknown = httpx.get(service.url + run.path, headers={"Authorization": "Bearer other"})
    assert _without_id(answer) == _without_id(unknown)


def test_the_scheme_is_case_insensitive(service: Any, run: Any) -> None:
    token = service.http.headers["Authorization"].removeprefix("Bearer ")
    answer = httpx.get(service.url + run.path, headers={"Authorization": f"bearer {token}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("permission", "allowed"),
    [(READ, {"GET", "HEAD", "LIST"}), (WRITE, {"PUT", "POST"}), (DELETE, {"DELETE"})],
)
def test_each_permission_allows_its_own(
    service: Any, run: Any, permission: Permission, allowed: set[str]
) -> None:
    stored = run.stored("x", b"1")
    token = service.token(permission)
    with httpx.Client(base_url=service.url, headers=token) as client:
        answers = {
            "GET": client.get(run.at("x")),
            "HEAD": client.head(f"/v1/artifacts/{stored['id']}"),
            "LIST": client.get("/v1/namespaces/agents/agentruns"),
            "PUT": client.put(run.at("y"), content=b"1"),
            "POST": client.post(run.artifacts, files={"file": ("z", b"1")}),
            "DELETE": client.delete(f"/v1/artifacts/{stored['id']}"),
        }
    assert {name for name, answer in answers.items() if answer.is_success} == allowed
    assert {answer.status_code for name, answer in answers.items() if name not in allowed} == {404}


def test_a_tokens_runs_are_reached_and_no_others(service: Any) -> None:
    mine, other = service.run(f"ci-{uuid4().hex[:6]}"), service.run()
    token = service.token(READ, WRITE, runs=("ci-*",))
    with httpx.Client(base_url=service.url, headers=token) as client:
        assert client.put(mine.at("x"), content=b"1").status_code == 201
        assert client.get(mine.path).status_code == 200
        assert client.put(other.at("x"), content=b"1").status_code == 404
        assert client.get(other.path).status_code == 404
        assert client.get("/v1/namespaces/agents/agentruns").status_code == 404  # it would show others
        assert client.get("/v1/namespaces/elsewhere/agentruns/ci-1").status_code == 404
    service.assert_nothing_left(other)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "{run}"),
        ("GET", "{run}/explanation"),
        ("GET", "{run}/artifacts"),
        ("GET", "{run}/artifacts/x"),
        ("HEAD", "{run}/artifacts/x"),
        ("PUT", "{run}/artifacts/x"),
        ("POST", "{run}/artifacts"),
    ],
)
def test_a_run_out_of_reach_looks_like_one_that_is_not_there(
    service: Any, run: Any, method: str, path: str
) -> None:
    run.stored("x")
    token = service.token(runs=("other-*",))
    hidden = _ask(service, method, path.format(run=run.path), token)
    absent = _ask(service, method, path.format(run=NOBODY), token)
    # And as one that is not there looks to who reaches everything.
    truly = _ask(service, method, path.format(run=NOBODY), dict(service.http.headers))
    assert hidden.status_code == 404
    assert _without_id(hidden) == _without_id(absent) == _without_id(truly)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/artifacts/{id}"),
        ("HEAD", "/v1/artifacts/{id}"),
        ("DELETE", "/v1/artifacts/{id}"),
        ("GET", "/v1/artifacts/{id}/content"),
        ("HEAD", "/v1/artifacts/{id}/content"),
    ],
)
def test_an_artifact_out_of_reach_looks_like_one_that_is_not_there(
    service: Any, run: Any, method: str, path: str
) -> None:
    stored, nothing = run.stored("x"), str(uuid4())
    erased = run.stored("y")
    service.http.delete(f"/v1/artifacts/{erased['id']}")
    token = service.token(runs=("other-*",))
    absent = _ask(service, method, path.format(id=nothing), token)
    assert absent.status_code == 404
    for hidden_id in (stored["id"], erased["id"]):
        hidden = _ask(service, method, path.format(id=hidden_id), token)
        assert _without_id(hidden).replace(hidden_id, nothing) == _without_id(absent)
    assert run.history()[1]["state"] == "stored"


def test_a_refused_upload_is_not_read(service: Any, run: Any, read_answer: Callable[..., Any]) -> None:
    token = service.token(READ)["Authorization"]
    with service.connect() as connection:
        head = f"PUT {run.at('x')} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        connection.sendall((head + f"Content-Length: {2**40}\r\nExpect: 100-continue\r\n\r\n").encode())
        answer = read_answer(connection)
        assert answer.status == 404
    service.assert_nothing_left(run)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json"])
def test_what_is_nobodys_own_is_open_to_all(service: Any, path: str) -> None:
    assert httpx.get(service.url + path).status_code == 200


@pytest.mark.parametrize("name", ["..", "UPPER", "a_b", "%2e%2e", "a%2Fb", "*", "%00", "x" * 300, "a%0A"])
def test_a_run_that_no_kubernetes_has_is_not_there(service: Any, name: str) -> None:
    for path in (f"/v1/namespaces/agents/agentruns/{name}", f"/v1/namespaces/{name}/agentruns"):
        assert _raw_status(service, path) == 404


def test_a_token_that_is_taken_away_is_unknown(service: Any, run: Any) -> None:
    before = service.tokens_file.read_text()
    token = service.token(READ)
    assert httpx.get(service.url + run.path, headers=token).status_code == 200
    fresh = service.tokens_file.with_suffix(".new")
    fresh.write_text(before)
    fresh.replace(service.tokens_file)
    assert httpx.get(service.url + run.path, headers=token).status_code == 401


def _ask(service: Any, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    content = b"x" if method in {"PUT", "POST"} else None
    form = {"Content-Type": "multipart/form-data; boundary=b"} if method == "POST" else {}
    wanted = {"Authorization": headers.get("Authorization") or headers["authorization"], **form}
    return httpx.request(method, service.url + path, headers=wanted, content=content)


def _without_id(answer: httpx.Response) -> str:
    """The whole answer, save what differs for every request."""
    headers = [
        (name, value) for name, value in answer.headers.items() if name not in {"date", "x-request-id"}
    ]
    return f"{answer.status_code} {headers} " + re.sub(r'"requestId":"[^"]*"', "", answer.text)


def _raw_status(service: Any, path: str) -> int:
    with service.connect() as connection:
        connection.sendall(service.request("GET", path, "Connection: close"))
        return int(connection.recv(64).split()[1])


def _endpoints(app: Any) -> dict[tuple[str, str], Any]:
    """Method and path → what the application calls."""
    routes = [
        route for module in (uploads, batches, contents, history, health) for route in module.router.routes
    ]
    routes += [route for route in app.routes if hasattr(route, "endpoint")]
    return {(method, route.path_format): route.endpoint for route in routes for method in route.methods}
