"""Which run does a request mean?

Cases: a run that only the API server knows yet; one that nobody knows (404); created again (the newest is
meant, each has its history by uid); an upload to a deleted one without a uid (404), with its uid within the
grace (201, history only), later (409 run-deleted); a uid that this name never had, known elsewhere or
nowhere (409), of an unknown run (404); a name that was taken over while it is remembered (503, then
201), also where the old run has the bytes or the name already; a namespace that is not watched (404); the API
server away: known runs go on, unknown ones and unknown uids are 503, and nothing that it said is told.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from offload.index import runs
from offload.services import known_runs

UNKNOWN = "/v1/namespaces/agents/agentruns/unknown"


def test_a_run_is_known_from_its_creation(run: Any) -> None:
    found = run.http.get(run.path)
    assert (found.status_code, found.json()["uid"]) == (200, run.uid)


def test_a_run_that_nobody_knows_is_404(service: Any) -> None:
    for answer in (
        service.http.put(f"{UNKNOWN}/artifacts/x", content=b"x"),
        service.http.get(UNKNOWN),
        service.http.get(f"{UNKNOWN}/artifacts"),
        service.http.get(f"{UNKNOWN}/artifacts/x"),
        service.http.get(f"{UNKNOWN}/explanation"),
        service.http.get(UNKNOWN, params={"uid": "some"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:offload:problem:run-not-found")


def test_two_incarnations_are_told_apart_by_uid(service: Any, run: Any) -> None:
    first = run.stored("x", b"first")
    again = service.create_again(run)
    second = again.stored("x", b"second")
    assert service.http.get(run.path).json()["uid"] == again.uid
    assert service.http.get(run.path, params={"uid": run.uid}).json()["deletedAt"]
    assert [item["id"] for item in run.history()] == [first["id"]]
    assert [item["id"] for item in again.history()] == [second["id"]]
    assert [item["id"] for item in service.http.get(run.artifacts).json()["items"]] == [second["id"]]


def test_an_upload_to_a_deleted_run_needs_its_uid(service: Any, run: Any) -> None:
    run.stored("x")
    service.delete_run(run)
    service.parts.ingest._known_runs.forget()
    without = run.put("last.log", b"last words")
    assert (without.status_code, without.json()["type"]) == (404, "urn:offload:problem:run-not-found")
    pinned = run.put("last.log", b"last words", params={"uid": run.uid})
    assert pinned.status_code == 201
    assert [item["name"] for item in run.history()] == ["last.log", "x"]
    files = {"file": ("more.log", b"1")}
    assert run.http.post(run.artifacts, files=files, params={"uid": run.uid}).status_code == 201


def test_an_upload_to_a_run_deleted_long_ago_is_refused(serve: Any) -> None:
    service = serve(deleted_run_grace=timedelta(0))
    run = service.run()
    run.stored("x")
    service.delete_run(run)
    answer = run.put("late", params={"uid": run.uid})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:offload:problem:run-deleted")
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_uid_that_the_name_never_had_is_409(service: Any, run: Any) -> None:
    other = service.run()
    other.stored("x")
    run.stored("x")
    for uid in (other.uid, "nobody"):
        for answer in (
            run.put("y", params={"uid": uid}),
            service.http.get(run.path, params={"uid": uid}),
            service.http.get(run.artifacts, params={"uid": uid}),
            service.http.get(run.at("x"), params={"uid": uid}),
            service.http.get(f"{run.path}/explanation", params={"uid": uid}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (
                409,
                "urn:offload:problem:run-uid-mismatch",
            )
    service.delete_run(run)
    assert service.http.get(run.path, params={"uid": "nobody"}).status_code == 409
    service.assert_nothing_left(run, objects=1, rows=1)


@pytest.mark.usefixtures("remembered")
def test_a_name_that_was_just_taken_over_asks_for_another_try(service: Any, run: Any) -> None:
    run.stored("x")
    service.delete_run(run)
    again = service.run(run.name)
    first = run.put("y")
    assert (first.status_code, first.json()["type"]) == (503, "urn:offload:problem:run-changed")
    assert "Retry-After" in first.headers
    assert run.put("y").json()["run"]["uid"] == again.uid
    service.assert_nothing_left(run, objects=1, rows=1)


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "headers",
    [{"Repr-Digest": "sha-256=:LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=:"}, {"If-None-Match": "*"}],
)
def test_what_a_run_had_is_no_answer_for_the_one_that_took_its_name(
    service: Any, run: Any, headers: dict[str, str], again: bool
) -> None:
    run.stored("x", b"x")
    service.delete_run(run)
    if again:
        service.run(run.name)
    answer = run.put("x", b"x", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:offload:problem:run-changed")
    answer = run.put("x", b"x", headers=headers)
    assert answer.status_code == (201 if again else 404)


def test_a_namespace_that_is_not_watched_is_not_there(serve: Any) -> None:
    service = serve(namespaces=("elsewhere",))
    run = service.run()
    assert run.put("x").status_code == 404
    assert service.http.get(run.path).status_code == 404


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the service remember which run a name means for as long as a test takes."""
    monkeypatch.setattr(known_runs, "KEPT_SECONDS", 60)


@pytest.fixture
def lonely(serve: Any, tmp_path: Path, standin: Any, closed_port: int) -> Any:
    """A service whose API server does not answer."""
    found = yaml.safe_load(Path(standin.kubeconfig).read_text())
    for cluster in found["clusters"]:
        cluster["cluster"]["server"] = f"http://127.0.0.1:{closed_port}"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(found))
    return serve(kubeconfig=tmp_path / "kubeconfig")


def test_known_runs_go_on_while_the_api_server_is_away(lonely: Any, standin: Any) -> None:
    from offload.cluster.kubernetes import KubernetesCluster  # noqa: PLC0415 - one use

    run = lonely.run()
    cluster = KubernetesCluster.from_config(standin.kubeconfig)
    with lonely.index.begin() as tx:
        runs.observe(tx, cluster.get("agents", run.name).seen)
    cluster.close()
    assert run.put("x").status_code == 201
    assert lonely.http.get(run.path).status_code == 200
    assert len(run.history()) == 1
    assert lonely.http.get(run.at("x")).content == b"x"


def test_unknown_runs_are_503_while_the_api_server_is_away(lonely: Any, closed_port: int) -> None:
    for answer in (
        lonely.http.put(f"{UNKNOWN}/artifacts/x", content=b"x"),
        lonely.http.get(UNKNOWN),
        lonely.http.get(f"{UNKNOWN}/artifacts"),
    ):
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (503, "urn:offload:problem:cluster-unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert problem["detail"] == "The Kubernetes API server is out of reach."
    posted = lonely.http.post(f"{UNKNOWN}/artifacts", files={"f": ("a", b"1")})
    assert posted.status_code == 503
    assert str(closed_port) not in posted.text


def test_a_service_without_its_api_server_is_ready(lonely: Any, closed_port: int) -> None:
    answer = lonely.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["parts"] == {
        "index": "ok",
        "store": "ok",
        "cluster": "The Kubernetes API server is out of reach.",
    }
    assert str(closed_port) not in answer.text
