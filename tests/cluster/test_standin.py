"""The stand-in's own semantics, over plain HTTP, where they are more than the adapter asks for.

- creation: server fields, status dropped, names, namespaces, kinds
- the two halves: spec writes keep status, status writes keep all else; generation; empty writes
- the resourceVersion as precondition, and the uid of deletion too; a PUT needs a resourceVersion; finalizers
- unknown fields: pruned with a warning, refused when strict, silent when told
- other CRDs: legacy, early, one with defaults, one without the status subresource
- lists: pages of one revision, selectors, tables
- watches: from now, from a revision, bookmarks, initial events, selectors, 410 past the log
- namespaces: what is inside goes with them
- openapi and discovery; what is refused
- data that stays, one process a folder, a taken port, ends quickly
"""

import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from offload.cluster.standin import StandIn, crd_file
from offload.errors import ConfigError

CRDS = Path(__file__).with_name("crds")
RUNS = "/apis/agents.proompteng.ai/v1alpha1/namespaces/agents/agentruns"
ALL_RUNS = "/apis/agents.proompteng.ai/v1alpha1/agentruns"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
def http(standin: StandIn) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=standin.url, timeout=10) as client:
        yield client


def run_body(name: str = "demo", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, **rest.pop("metadata", {})}
    body = {"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", "metadata": metadata}
    return {**body, "spec": {"agentRef": {"name": "coder"}}, **rest}


def create(http: httpx.Client, name: str = "demo", **rest: Any) -> dict[str, Any]:
    answer = http.post(RUNS, json=run_body(name, **rest))
    assert answer.status_code == 201, answer.text
    return answer.json()


def patch(http: httpx.Client, change: Any, path: str = f"{RUNS}/demo/status", **query: str) -> httpx.Response:
    return http.patch(path, content=json.dumps(change), headers=MERGE, params=query)


# Creation.


def test_the_server_decides_what_is_the_servers(http: httpx.Client) -> None:
    lies = {
        "uid": "mine",
        "generation": 9,
        "creationTimestamp": "2000-01-01T00:00:00Z",
        "managedFields": [{}],
    }
    made = create(http, metadata=lies, status={"phase": "Done"})
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["generation"] == 1
    assert not made["metadata"]["creationTimestamp"].startswith("2000")
    assert "status" not in made
    assert "managedFields" not in made["metadata"]


def test_the_same_name_gets_another_uid_after_deletion(http: httpx.Client) -> None:
    first = create(http)
    assert http.delete(f"{RUNS}/demo").json()["status"] == "Success"
    assert create(http)["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_name_can_be_generated(http: httpx.Client) -> None:
    names = {
        http.post(RUNS, json=run_body("", metadata={"generateName": "r-"})).json()["metadata"]["name"]
        for _ in "abc"
    }
    assert len(names) == 3
    assert all(name.startswith("r-") for name in names)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (run_body("Upper"), 422, "Invalid"),
        (run_body(""), 422, "Invalid"),
        (run_body(metadata={"namespace": "default"}), 400, "BadRequest"),
        (run_body(kind="Other"), 400, "BadRequest"),
        (run_body(metadata={"labels": {"a": 1}}), 422, "Invalid"),
        (run_body(spec="x"), 422, "Invalid"),
        (["x"], 400, "BadRequest"),
    ],
)
def test_what_is_not_a_run_is_refused(http: httpx.Client, body: Any, code: int, reason: str) -> None:
    answer = http.post(RUNS, json=body)
    assert (answer.status_code, answer.json()["reason"]) == (code, reason)
    assert http.get(RUNS).json()["items"] == []


def test_a_namespace_must_exist(http: httpx.Client) -> None:
    answer = http.post(RUNS.replace("agents/agentruns", "nowhere/agentruns"), json=run_body())
    assert (answer.status_code, answer.json()["details"]["kind"]) == (404, "namespaces")


def test_a_second_run_of_a_name_is_refused(http: httpx.Client) -> None:
    create(http)
    assert http.post(RUNS, json=run_body()).json()["reason"] == "AlreadyExists"


# The two halves.


def test_a_write_to_the_spec_never_changes_status(http: httpx.Client) -> None:
    create(http)
    patch(http, {"status": {"phase": "Running"}})
    change = {"spec": {"goal": "x"}, "status": {"phase": "Hacked"}, "metadata": {"labels": {"a": "b"}}}
    after = patch(http, change, f"{RUNS}/demo").json()
    assert (after["status"], after["spec"]["goal"], after["metadata"]["generation"]) == (
        {"phase": "Running"},
        "x",
        2,
    )


def test_a_write_to_the_status_never_changes_the_rest(http: httpx.Client) -> None:
    before = create(http)
    change = {
        "status": {"phase": "Running"},
        "spec": None,
        "metadata": {"labels": {"a": "b"}, "name": "demo"},
    }
    after = patch(http, change).json()
    assert after["spec"] == before["spec"]
    assert "labels" not in after["metadata"]
    assert after["metadata"]["generation"] == 1


def test_labels_do_not_count_as_a_generation(http: httpx.Client) -> None:
    create(http)
    assert (
        patch(http, {"metadata": {"labels": {"a": "b"}}}, f"{RUNS}/demo").json()["metadata"]["generation"]
        == 1
    )


def test_a_write_that_changes_nothing_is_not_one(http: httpx.Client) -> None:
    before = create(http)
    same = patch(http, {"spec": before["spec"]}, f"{RUNS}/demo").json()
    assert same == before


def test_a_status_can_be_replaced_whole(http: httpx.Client) -> None:
    made = create(http)
    patch(http, {"status": {"phase": "Running", "reason": "x"}})
    assert http.put(f"{RUNS}/demo/status", json={**made, "status": {"phase": "Done"}}).status_code == 409
    fresh = http.get(f"{RUNS}/demo/status").json()
    after = http.put(f"{RUNS}/demo/status", json={**fresh, "status": {"phase": "Done"}}).json()
    assert after["status"] == {"phase": "Done"}


def test_a_replacement_must_say_what_it_replaces(http: httpx.Client) -> None:
    create(http)
    assert http.put(f"{RUNS}/demo", json=run_body()).status_code == 422


def test_a_stale_precondition_conflicts(http: httpx.Client) -> None:
    create(http)
    answer = patch(http, {"metadata": {"resourceVersion": "1"}, "status": {"phase": "x"}})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    for field in ("uid", "resourceVersion"):
        answer = http.request("DELETE", f"{RUNS}/demo", json={"preconditions": {field: "1"}})
        assert answer.status_code == 409
    assert "status" not in http.get(f"{RUNS}/demo").json()


def test_a_finalizer_keeps_a_deleted_run_until_it_is_removed(http: httpx.Client) -> None:
    create(http, metadata={"finalizers": ["example.com/hold"]})
    assert "deletionTimestamp" in http.delete(f"{RUNS}/demo").json()["metadata"]
    http.delete(f"{RUNS}/demo")
    assert http.get(f"{RUNS}/demo").status_code == 200
    patch(http, {"metadata": {"finalizers": None}}, f"{RUNS}/demo")
    assert http.get(f"{RUNS}/demo").status_code == 404


# Schemas.


@pytest.fixture
def closed() -> Iterator[httpx.Client]:
    """A stand-in whose CRD keeps nothing that it does not name."""
    with StandIn(CRDS / "early.yaml").running() as standin, httpx.Client(base_url=standin.url) as http:
        create(http)
        yield http


def test_unknown_fields_are_pruned_with_a_warning(closed: httpx.Client) -> None:
    answer = patch(closed, {"status": {"artifacts": [{"name": "a", "inline": "bytes"}]}})
    assert answer.json()["status"] == {"artifacts": [{"name": "a"}]}
    assert answer.headers["Warning"] == '299 - "unknown field \\"status.artifacts[0].inline\\""'


def test_unknown_fields_are_refused_when_strict(closed: httpx.Client) -> None:
    answer = patch(closed, {"status": {"artifacts": [{"name": "a", "inline": 1}]}}, fieldValidation="Strict")
    assert answer.status_code == 422
    assert 'unknown field "status.artifacts[0].inline"' in answer.json()["message"]
    answer = closed.post(
        RUNS, json=run_body("b", metadata={"lables": {}}), params={"fieldValidation": "Strict"}
    )
    assert answer.status_code == 400
    assert 'unknown field "metadata.lables"' in answer.json()["message"]


def test_unknown_fields_can_be_pruned_in_silence(closed: httpx.Client) -> None:
    answer = patch(closed, {"status": {"artifacts": [{"name": "a", "inline": 1}]}}, fieldValidation="Ignore")
    assert (answer.status_code, "Warning" in answer.headers) == (200, False)


def test_our_crd_keeps_unknown_fields_of_spec_status_and_entries(http: httpx.Client) -> None:
    create(http, spec={"anything": {"goes": [1]}})
    status = {"anything": {"goes": [1]}, "artifacts": [{"name": "a", "inline": {"goes": [1]}}]}
    patch(http, {"status": status})
    stored = http.get(f"{RUNS}/demo").json()
    assert stored["spec"] == {"anything": {"goes": [1]}}
    assert stored["status"] == status


NATIVE = {"name": "a", "type": "log", "uri": "s3://b/k", "contentType": "text/plain", "sizeBytes": 1}
LEGACY = {"name": "a", "key": "k", "url": "s3://b/k", "path": "/tmp/a"}


@pytest.mark.parametrize(
    ("crd", "sent", "kept"),
    [
        ("legacy", NATIVE, {"name": "a"}),
        ("legacy", LEGACY, LEGACY),
        ("early", NATIVE, {"name": "a"}),
        ("early", LEGACY, LEGACY),
        (None, NATIVE | LEGACY, NATIVE | LEGACY),
    ],
)
def test_each_crd_keeps_its_own_dialect(crd: str | None, sent: Any, kept: Any) -> None:
    path = CRDS / f"{crd}.yaml" if crd else None
    with StandIn(path).running() as standin, httpx.Client(base_url=standin.url) as http:
        create(http)
        assert patch(http, {"status": {"artifacts": [sent]}}).json()["status"] == {"artifacts": [kept]}


@pytest.mark.parametrize(
    ("crd", "status", "field"),
    [
        ("legacy", {"artifacts": [LEGACY] * 51}, "status.artifacts"),
        ("early", {"artifacts": [LEGACY] * 51}, None),
        ("legacy", {"artifacts": [{"name": "a", "url": "x" * 2049}]}, "status.artifacts[0].url"),
        ("early", {"artifacts": [{"name": "a", "url": "x" * 2049}]}, None),
        ("legacy", {"artifacts": [{"url": "x"}]}, "status.artifacts[0].name"),
        (
            "legacy",
            {"conditions": [{"type": "A", "status": "True", "reason": "B"}]},
            "status.conditions[0].message",
        ),
        ("legacy", {"observedGeneration": "1"}, "status.observedGeneration"),
    ],
)
def test_each_crd_holds_its_limits(crd: str, status: Any, field: str | None) -> None:
    with StandIn(CRDS / f"{crd}.yaml").running() as standin, httpx.Client(base_url=standin.url) as http:
        create(http)
        answer = patch(http, {"status": status})
        if field is None:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code == 422
            assert field in {cause["field"] for cause in answer.json()["details"]["causes"]}


def test_early_crds_have_no_reason() -> None:
    with StandIn(CRDS / "early.yaml").running() as standin, httpx.Client(base_url=standin.url) as http:
        create(http)
        assert patch(http, {"status": {"phase": "Failed", "reason": "x"}}).json()["status"] == {
            "phase": "Failed"
        }


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    crd = yaml.safe_load(crd_file().read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    schema["artifacts"]["items"]["properties"]["type"]["default"] = "file"
    path = tmp_path / "crd.yaml"
    path.write_text(yaml.safe_dump(crd))
    with StandIn(path).running() as standin, httpx.Client(base_url=standin.url) as http:
        create(http)
        stored = patch(http, {"status": {"artifacts": [{"name": "a"}]}}).json()
        assert stored["status"]["artifacts"] == [{"name": "a", "type": "file"}]


def test_without_the_status_subresource_a_status_is_not_found_by_the_name_of_its_run(tmp_path: Path) -> None:
    crd = yaml.safe_load(crd_file().read_text())
    del crd["spec"]["versions"][0]["subresources"]
    path = tmp_path / "crd.yaml"
    path.write_text(yaml.safe_dump(crd))
    with StandIn(path).running() as standin, httpx.Client(base_url=standin.url) as http:
        create(http)
        answer = patch(http, {"status": {"phase": "Failed"}})
        assert (answer.status_code, answer.json()["details"]["name"]) == (404, "demo")
        assert http.get(f"{RUNS}/demo").status_code == 200


def test_an_object_past_etcds_limit_is_refused(http: httpx.Client) -> None:
    assert http.post(RUNS, json=run_body(spec={"text": "x" * 1_600_000})).status_code == 413


@pytest.mark.parametrize("text", ["", "kind: Pod", "{unclosed", "spec: {versions: []}"])
def test_a_file_that_is_no_crd_is_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"crd\.yaml"):
        StandIn(path)


def test_a_missing_crd_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        StandIn(tmp_path / "missing.yaml")


# Lists.


def test_pages_show_one_revision(http: httpx.Client) -> None:
    for name in "abcd":
        create(http, name)
    first = http.get(RUNS, params={"limit": 2}).json()
    assert first["metadata"]["remainingItemCount"] == 2
    http.delete(f"{RUNS}/c")
    create(http, "bb")
    patch(http, {"status": {"phase": "x"}}, f"{RUNS}/d/status")
    second = http.get(RUNS, params={"limit": 2, "continue": first["metadata"]["continue"]}).json()
    assert [r["metadata"]["name"] for r in first["items"] + second["items"]] == ["a", "b", "c", "d"]
    assert "status" not in second["items"][1]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


def test_a_page_token_expires_with_the_log() -> None:
    with StandIn(log_length=3).running() as standin, httpx.Client(base_url=standin.url) as http:
        for name in "abcd":
            create(http, name)
        token = http.get(RUNS, params={"limit": 2}).json()["metadata"]["continue"]
        for i in range(5):
            patch(http, {"status": {"phase": str(i)}}, f"{RUNS}/a/status")
        answer = http.get(RUNS, params={"limit": 2, "continue": token})
        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"labelSelector": "team=red"}, ["a"]),
        ({"labelSelector": "team==red,size=s"}, ["a"]),
        ({"labelSelector": "team!=red"}, ["b", "c"]),
        ({"fieldSelector": "metadata.name=b"}, ["b"]),
        ({"fieldSelector": "metadata.name!=b"}, ["a", "c"]),
        ({"fieldSelector": "metadata.namespace=other"}, []),
    ],
)
def test_selectors_choose_by_equality(http: httpx.Client, query: Any, names: list[str]) -> None:
    create(http, "a", metadata={"labels": {"team": "red", "size": "s"}})
    create(http, "b", metadata={"labels": {"team": "blue"}})
    create(http, "c")
    assert [r["metadata"]["name"] for r in http.get(RUNS, params=query).json()["items"]] == names


@pytest.mark.parametrize(
    "query",
    [
        {"labelSelector": "team in (red)"},
        {"labelSelector": "team"},
        {"fieldSelector": "status.phase=x"},
        {"limit": "many"},
        {"continue": "no token"},
        {"dryRun": "All"},
    ],
)
def test_queries_that_are_not_imitated_are_refused(http: httpx.Client, query: Any) -> None:
    assert http.get(RUNS, params=query).json()["reason"] == "BadRequest"


# Watches.


def events(http: httpx.Client, most: int = 99, path: str = RUNS, **query: Any) -> list[tuple[str, Any]]:
    """What a watch of one second says, `most` lines of it."""
    with http.stream("GET", path, params={"watch": "1", "timeoutSeconds": 1, **query}) as stream:
        lines = [json.loads(line) for line in itertools.islice(stream.iter_lines(), most)]
    return [(line["type"], line["object"]) for line in lines]


def names(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(kind, body["metadata"].get("name", "")) for kind, body in found]


def test_a_watch_resumes_after_its_revision(http: httpx.Client) -> None:
    revision = create(http, "a")["metadata"]["resourceVersion"]
    create(http, "b")
    patch(http, {"status": {"phase": "x"}}, f"{RUNS}/a/status")
    http.delete(f"{RUNS}/a")
    found = events(http, 3, resourceVersion=revision)
    assert names(found) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]
    revisions = [int(body["metadata"]["resourceVersion"]) for _, body in found]
    assert revisions == sorted(set(revisions))
    assert found[2][1]["status"] == {"phase": "x"}


def test_a_watch_without_a_revision_begins_with_what_is_there(http: httpx.Client) -> None:
    create(http, "a")
    assert names(events(http, 1)) == [("ADDED", "a")]


def test_bookmarks_come_when_asked_for_and_can_be_resumed(http: httpx.Client) -> None:
    revision = create(http)["metadata"]["resourceVersion"]
    http.post("/api/v1/namespaces", json={"metadata": {"name": "x"}, "apiVersion": "v1", "kind": "Namespace"})
    found = events(http, resourceVersion=revision, allowWatchBookmarks="true")
    assert {kind for kind, _ in found} == {"BOOKMARK"}
    assert len(found) >= 3
    assert int(found[-1][1]["metadata"]["resourceVersion"]) == int(revision) + 1


def test_initial_events_end_with_a_marked_bookmark(http: httpx.Client) -> None:
    create(http, "a")
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    found = events(http, 2, **query)
    assert names(found[:2]) == [("ADDED", "a"), ("BOOKMARK", "")]
    assert found[1][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_run_that_leaves_the_selection_is_deleted_to_its_watcher(http: httpx.Client) -> None:
    revision = create(http, "a", metadata={"labels": {"team": "red"}})["metadata"]["resourceVersion"]
    patch(http, {"metadata": {"labels": {"team": "blue"}}}, f"{RUNS}/a")
    patch(http, {"metadata": {"labels": {"team": "red"}}}, f"{RUNS}/a")
    found = events(http, 2, resourceVersion=revision, labelSelector="team=red")
    assert names(found) == [("DELETED", "a"), ("ADDED", "a")]


def test_a_watch_sees_only_its_namespace(http: httpx.Client) -> None:
    revision = create(http)["metadata"]["resourceVersion"]
    http.post(RUNS.replace("/agents/", "/default/"), json=run_body("other"))
    assert events(http, resourceVersion=revision) == []
    assert names(events(http, 1, ALL_RUNS, resourceVersion=revision)) == [("ADDED", "other")]


def test_a_watch_from_before_the_log_is_too_old() -> None:
    with StandIn(log_length=3).running() as standin, httpx.Client(base_url=standin.url) as http:
        revision = create(http)["metadata"]["resourceVersion"]
        for i in range(5):
            patch(http, {"status": {"phase": str(i)}})
        ((kind, body),) = events(http, resourceVersion=revision)
        assert (kind, body["code"], body["reason"]) == ("ERROR", 410, "Expired")


# Namespaces, discovery, refusals.


def test_a_namespace_takes_what_is_inside_with_it(http: httpx.Client) -> None:
    revision = create(http)["metadata"]["resourceVersion"]
    assert http.delete("/api/v1/namespaces/agents").status_code == 200
    assert names(events(http, 1, ALL_RUNS, resourceVersion=revision)) == [("DELETED", "demo")]
    assert http.get("/api/v1/namespaces/agents").status_code == 404
    assert http.delete("/api/v1/namespaces/default").status_code == 403


def test_the_openapi_hash_follows_the_crd(http: httpx.Client) -> None:
    key = "apis/agents.proompteng.ai/v1alpha1"
    address = http.get("/openapi/v3").json()["paths"][key]["serverRelativeURL"]
    schemas = http.get(address).json()["components"]["schemas"]
    kind = {"group": "agents.proompteng.ai", "version": "v1alpha1", "kind": "AgentRun"}
    assert [s for s in schemas.values() if kind in s.get("x-kubernetes-group-version-kind", [])]
    with StandIn(CRDS / "legacy.yaml").running() as other:
        assert httpx.get(f"{other.url}/openapi/v3").json()["paths"][key]["serverRelativeURL"] != address


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/namespaces/agents/pods", 404),
        ("GET", "/apis/apps/v1/deployments", 404),
        ("GET", "/", 404),
        ("GET", f"{RUNS}/demo/scale", 404),
        ("GET", f"{ALL_RUNS}/demo", 404),
        ("GET", "/api/v1/namespaces/agents/events/x/status", 404),
        ("DELETE", RUNS, 405),
        ("POST", ALL_RUNS, 405),
        ("POST", f"{RUNS}/demo", 405),
        ("POST", "/version", 405),
        ("DELETE", f"{RUNS}/demo/status", 405),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
    ],
)
def test_what_is_not_there_is_refused_with_a_status(
    http: httpx.Client, method: str, path: str, code: int
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["kind"], answer.json()["code"]) == (code, "Status", code)


@pytest.mark.parametrize(
    ("method", "content_type"),
    [
        ("PATCH", "application/json-patch+json"),
        ("PATCH", "application/apply-patch+yaml"),
        ("PATCH", "application/strategic-merge-patch+json"),
        ("POST", "application/yaml"),
    ],
)
def test_bodies_that_are_not_imitated_are_refused(http: httpx.Client, method: str, content_type: str) -> None:
    create(http)
    path = RUNS if method == "POST" else f"{RUNS}/demo"
    answer = http.request(method, path, content="{}", headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"k8s\x00\x0a\xff"])
def test_bodies_that_cannot_be_read_are_refused(http: httpx.Client, content: bytes) -> None:
    for content_type in ("application/json", "application/vnd.kubernetes.protobuf"):
        answer = http.post(RUNS, content=content, headers={"Content-Type": content_type})
        assert answer.status_code == 400


# Running it.


def test_objects_and_their_revision_outlive_the_process(tmp_path: Path) -> None:
    with StandIn(data=tmp_path).running() as standin, httpx.Client(base_url=standin.url) as http:
        made = create(http)
        create(http, "gone")
        http.delete(f"{RUNS}/gone")
        last = http.get(RUNS).json()["metadata"]["resourceVersion"]
    with StandIn(data=tmp_path).running() as standin, httpx.Client(base_url=standin.url) as http:
        again = http.get(RUNS).json()
        assert again["items"] == [made]
        assert again["metadata"]["resourceVersion"] == last
        assert events(http, resourceVersion=last) == []
        assert events(http, resourceVersion=int(last) - 1)[0][0] == "ERROR"


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from offload.cluster.standin import StandIn; import time\n"
        "s = StandIn(data=Path(sys.argv[1])); s.start(); print(s.url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        with httpx.Client(base_url=process.stdout.readline().strip()) as http:
            made = create(http)
        process.kill()
    with StandIn(data=tmp_path).running() as standin, httpx.Client(base_url=standin.url) as http:
        assert http.get(RUNS).json()["items"] == [made]


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    with StandIn(data=tmp_path).running(), pytest.raises(ConfigError, match="locked"):
        StandIn(data=tmp_path)


def test_a_folder_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        StandIn(data=tmp_path / "file")


def test_a_taken_port_is_a_config_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            StandIn().start(port=port)


def test_it_ends_quickly_with_watches_open() -> None:
    standin = StandIn()
    standin.start()
    with httpx.stream("GET", f"{standin.url}{RUNS}", params={"watch": "1"}) as stream:
        began = time.monotonic()
        standin.stop()
        assert time.monotonic() - began < 3
        assert list(stream.iter_lines()) == []


def test_a_kubeconfig_can_name_another_address(standin: StandIn, tmp_path: Path) -> None:
    standin.write_kubeconfig(tmp_path / "config", server="http://standin:8001")
    assert (
        json.loads((tmp_path / "config").read_text())["clusters"][0]["cluster"]["server"]
        == "http://standin:8001"
    )


def test_it_says_what_it_does_not_do(standin: StandIn) -> None:
    assert "2 CEL rules of the CRD are not evaluated" in standin.notice


def test_it_imports_nothing_of_other_rooms() -> None:
    script = (
        "import sys, offload.cluster.standin\n"
        "print(*(m for m in ('boto3', 'sqlalchemy', 'fastapi', 'kubernetes') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
