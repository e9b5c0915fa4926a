"""Parts that are away.

Cases: the API server is down: known runs are served, status catches up after; the database is down, and does
not answer: 503 with Retry-After, nothing is acknowledged, an empty list never stands for an error, and all
goes on after; the store is down: the same of bytes, while history is answered and the service stays ready;
readiness says which part; the client's patience covers an outage.
"""

import json
import threading
import time

import httpx
import pytest

from tests.programs import until
from tests.site import Site


def test_the_api_server_is_down(site: Site) -> None:
    standin = site.standin()
    service = site.serve()
    site.controller()
    stage = site.stage
    stage.create_run("known")
    assert stage.put("known", "0.log", b"0").status_code == 201
    until(lambda: stage.names("known") == ["0.log"])
    standin.kill()

    assert stage.put("known", "1.log", b"1").status_code == 201
    service.end()
    site.serve()  # a process that remembers no run
    assert stage.put("known", "2.log", b"2").status_code == 201
    refusal = stage.put("never-seen", "x.log", b"x")
    assert refusal.status_code == 503
    assert int(refusal.headers["Retry-After"]) >= 1
    assert [one["name"] for one in stage.history("known")] == ["2.log", "1.log", "0.log"]
    ready = httpx.get(f"{stage.url}/readyz", timeout=30)
    assert ready.status_code == 200  # uploads and reads work
    assert ready.json()["parts"]["cluster"] != "ok"

    site.standin()
    until(lambda: stage.names("known") == ["0.log", "1.log", "2.log"])
    assert stage.put("never-seen", "x.log", b"x").status_code == 404


@pytest.mark.parametrize("how", ["cut", "held up"])
def test_the_database_is_down(site: Site, how: str) -> None:
    wire = site.wire_to_database()
    site.all()
    stage = site.stage
    stage.create_run("steady")
    assert stage.put("steady", "0.log", b"0").status_code == 201
    until(lambda: stage.is_current("steady"))
    if how == "cut":
        wire.cut()
    else:
        wire.hold_up()

    began = time.monotonic()
    refusal = stage.put("steady", "1.log", b"1")
    assert_unavailable(refusal)
    for path in (
        "namespaces/agents/agentruns",
        "namespaces/agents/agentruns/steady",
        "namespaces/agents/agentruns/steady/artifacts",
    ):
        assert_unavailable(stage.get(path))
    print(f"database {how}: four refusals in {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure
    ready = httpx.get(f"{stage.url}/readyz", timeout=60)
    assert ready.status_code == 503
    assert "index" in ready.json()["detail"]
    assert httpx.get(f"{stage.url}/livez", timeout=5).status_code == 200

    wire.mend()
    until(lambda: stage.put("steady", "2.log", b"2").status_code == 201)
    names = [one["name"] for one in stage.history("steady")]
    # 1.log was refused; that it is there all the same is legal where the commit's answer was lost.
    assert [name for name in names if name != "1.log"] == ["2.log", "0.log"]
    until(lambda: set(stage.names("steady")) == set(names))
    until(lambda: httpx.get(f"{stage.url}/readyz", timeout=60).status_code == 200)


def test_the_store_is_down(site: Site) -> None:
    wire = site.wire_to_store()
    site.all()
    stage = site.stage
    stage.create_run("steady")
    artifact = stage.put("steady", "0.log", b"0").json()
    until(lambda: stage.is_current("steady"))
    until(lambda: httpx.get(f"{stage.url}/readyz", timeout=60).status_code == 200)
    wire.cut()

    assert_unavailable(stage.put("steady", "1.log", b"1"))
    assert_unavailable(stage.get(f"artifacts/{artifact['id']}/content"))
    assert [one["name"] for one in stage.history("steady")] == ["0.log"]  # history needs no store
    ready = httpx.get(f"{stage.url}/readyz", timeout=120)
    assert ready.status_code == 200  # a Service goes on sending readers of history here
    assert ready.json()["parts"]["store"] != "ok"

    wire.mend()
    until(lambda: stage.put("steady", "2.log", b"2").status_code == 201)
    assert [one["name"] for one in stage.history("steady")] == ["2.log", "0.log"]
    assert stage.get(f"artifacts/{artifact['id']}/content").content == b"0"
    until(lambda: stage.names("steady") == ["0.log", "2.log"])


def test_the_clients_patience_covers_an_outage(site: Site) -> None:
    wire = site.wire_to_store()
    site.all()
    site.stage.create_run("patient")
    wire.cut()
    threading.Timer(4, wire.mend).start()
    told = site.stage.offload(
        "put", "-", "--name", "a.log", "--run", "agents/patient", "--json", stdin=b"kept"
    )
    assert json.loads(told)["outcome"] == "stored"
    until(lambda: site.stage.names("patient") == ["a.log"])


def test_a_put_that_may_fail_ends_the_run_by_no_error(site: Site) -> None:
    wire = site.wire_to_store()
    site.all()
    site.stage.create_run("brave")
    wire.cut()
    arguments = ("put", "-", "--name", "a.log", "--run", "agents/brave", "--retry-for", "1s")
    site.stage.offload(*arguments, stdin=b"x", code=5)
    site.stage.offload(*arguments, "--best-effort", stdin=b"x", code=0)


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
