"""The main job over HTTP and kubectl, on each way to run the service.

Cases: an upload becomes a pointer, and what is acknowledged is what is stored; the same bytes again, and
other bytes; many files in one request; what a status leaves out is said by a condition and one Event, is in
history, and all is listed again once there is room; the command line; an expiry, its plan, its sweep and
its tombstone; an erasure; a run's history after its deletion, and beside its successor; what other writers
put into status; a run that is not there.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from tests.programs import Stage, until

KEPT = 50
STATUS_BYTES = 64 * 2**10


def test_an_upload_becomes_a_pointer(stage: Stage) -> None:
    uid = stage.create_run("pointer")
    body = b"one\ntwo\n" * 1000
    answer = stage.put("pointer", "logs/build.log", body)
    assert answer.status_code == 201, answer.text
    artifact = answer.json()
    assert artifact["sha256"] == hashlib.sha256(body).hexdigest()
    assert (artifact["name"], artifact["type"], artifact["sizeBytes"]) == ("logs/build.log", "log", len(body))
    assert artifact["run"] == {"namespace": "agents", "name": "pointer", "uid": uid}

    (entry,) = until(lambda: stage.status("pointer").get("artifacts"), 15)
    assert {field: entry[field] for field in ("name", "type", "uri", "contentType", "sizeBytes")} == {
        field: artifact[field] for field in ("name", "type", "uri", "contentType", "sizeBytes")
    }
    assert stored(stage, entry["uri"]) == body
    assert stage.get(f"artifacts/{artifact['id']}/content").content == body
    assert stage.get("namespaces/agents/agentruns/pointer/artifacts/logs/build.log").content == body
    assert [one["id"] for one in stage.history("pointer")] == [artifact["id"]]


def test_the_same_bytes_are_the_same_artifact_and_others_a_new_version(stage: Stage) -> None:
    stage.create_run("versions")
    first = stage.put("versions", "report.json", b'{"passed": 1}')
    again = stage.put("versions", "report.json", b'{"passed": 1}')
    other = stage.put("versions", "report.json", b'{"passed": 2}')
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    until(lambda: uris(stage, "versions") == [other.json()["uri"]])
    history = stage.history("versions")
    assert [(one["id"], one["current"]) for one in history] == [
        (other.json()["id"], True),
        (first.json()["id"], False),
    ]


def test_status_is_bounded_and_says_what_it_leaves_out(stage: Stage) -> None:
    stage.create_run("many")
    answer = stage.post("many", {f"part-{number}.log": b"%d" % number for number in range(60)})
    assert answer.status_code == 201, answer.text
    assert [one["status"] for one in answer.json()["results"]] == [201] * 60

    until(lambda: stage.is_current("many") and len(stage.names("many")) == KEPT)
    history = stage.history("many")
    assert {one["name"] for one in history} == {f"part-{number}.log" for number in range(60)}
    assert stage.names("many") == [one["name"] for one in reversed(history[:KEPT])]
    text = stage.kubectl("get", "agentrun", "many", "-o", "jsonpath={.status.artifacts}")
    assert len(text.encode()) <= STATUS_BYTES
    condition = stage.condition("many", "ArtifactsTruncated")
    assert condition
    assert (condition["status"], condition["reason"]) == ("True", "CountLimit")
    assert "50 of 60" in condition["message"]
    assert "offload history agents/many" in condition["message"]
    (event,) = until(lambda: stage.events("many"))
    assert event["type"] == "Warning"
    assert "ArtifactsTruncated" in stage.kubectl("describe", "agentrun", "many")
    for one in history[:15]:
        erased = erase(stage, one["id"])
        assert erased["state"] == "deleted"
    until(lambda: stage.is_current("many") and len(stage.names("many")) == 45)
    condition = stage.condition("many", "ArtifactsTruncated")
    assert condition
    assert (condition["status"], condition["reason"]) == ("False", "AllListed")
    assert len(stage.history("many")) == 60
    assert len(stage.events("many")) <= 2


def test_the_command_line_sends_lists_explains_and_fetches(stage: Stage, tmp_path: Path) -> None:
    stage.create_run("typed")
    binary = tmp_path / "core.bin"
    binary.write_bytes(bytes(range(256)) * 2**14 * 5)  # 20 MiB: a multipart upload
    stage.offload("put", str(binary), "--run", "agents/typed", "--type", "dump")
    stage.offload("put", "-", "--name", "notes.txt", "--run", "agents/typed", stdin=b"from a pipe\n")
    until(lambda: stage.names("typed") == ["core.bin", "notes.txt"])

    listed = lines(stage.offload("history", "agents/typed", "--json"))
    assert [one["name"] for one in listed] == ["notes.txt", "core.bin"]
    assert listed[1]["type"] == "dump"
    assert "notes.txt" in stage.offload("explain", "agents/typed")
    assert "typed" in stage.offload("runs", "agents")
    fetched = tmp_path / "fetched"
    stage.offload("get", "agents/typed/core.bin", "-o", str(fetched))
    assert fetched.read_bytes() == binary.read_bytes()
    assert stage.offload("get", "agents/typed/notes.txt", "-o", "-") == "from a pipe\n"
    stage.offload("get", "agents/typed/nothing", "-o", "-", code=4)
    stage.offload("put", "-", "--name", "x", "--run", "agents/unknown", stdin=b"x", code=4)


def test_what_expires_is_planned_swept_and_remembered(stage: Stage) -> None:
    stage.create_run("short")
    kept = stage.put("short", "kept.log", b"kept").json()
    gone = stage.put("short", "gone.log", b"gone", expires="1s").json()
    until(lambda: len(stage.names("short")) == 2)
    time.sleep(1)

    (planned,) = (
        one
        for one in json.loads(stage.offload("retention", "plan", "--json"))["artifacts"]
        if one["run"] == "short"
    )
    assert (planned["name"], planned["rule"]) == ("gone.log", "own-expiry")
    until(lambda: sweeps(stage), 40)  # it waits for the first word of the watch
    refusal = stage.get(f"artifacts/{gone['id']}/content")
    assert refusal.status_code == 410
    assert refusal.json()["type"].endswith("artifact-expired")
    until(lambda: stage.names("short") == ["kept.log"])
    until(lambda: stage.is_current("short") and sweeps(stage) and is_erased(stage, gone["id"]))
    with pytest.raises(ClientError, match="NoSuchKey"):
        stored(stage, gone["uri"])
    assert stored(stage, kept["uri"]) == b"kept"
    tombstone = stage.get(f"artifacts/{gone['id']}").json()
    assert (tombstone["state"], tombstone["endedBy"]) == ("expired", "rule:own-expiry")
    assert [one["name"] for one in stage.history("short", state="expired")] == ["gone.log"]


def test_a_deleted_runs_history_stays_and_its_successor_begins_anew(stage: Stage) -> None:
    first_uid = stage.create_run("again")
    first = stage.put("again", "run.log", b"of the first").json()
    until(lambda: stage.names("again") == ["run.log"])
    stage.kubectl("delete", "agentrun", "again")
    until(lambda: stage.get("namespaces/agents/agentruns/again").json()["deletedAt"])
    assert [one["id"] for one in stage.history("again")] == [first["id"]]
    assert stage.get(f"artifacts/{first['id']}/content").content == b"of the first"
    # For some seconds the name may be thought to mean the first one; then the answer is to come back.
    assert put_patiently(stage, "again", "late.log", b"too late").status_code == 404
    assert stage.put("again", "late.log", b"its last words", uid=first_uid).status_code == 201

    time.sleep(1 - time.time() % 1)  # runs of one second are listed in no order of time
    second_uid = stage.create_run("again")
    second = put_patiently(stage, "again", "run.log", b"of the second")
    assert second.status_code == 201, second.text
    until(lambda: uris(stage, "again") == [second.json()["uri"]])
    assert [one["id"] for one in stage.history("again")] == [second.json()["id"]]
    assert {one["name"] for one in stage.history("again", uid=first_uid)} == {"run.log", "late.log"}
    assert stage.put("again", "x", b"x", uid="0b7f3c52-6e0e-4c1a-9a55-2f0d6f4f9e11").status_code == 409
    listed = stage.get("namespaces/agents/agentruns").json()["items"]
    assert [one["uid"] for one in listed if one["name"] == "again"] == [second_uid, first_uid]


def test_what_others_write_is_kept_and_inline_data_is_adopted(stage: Stage) -> None:
    stage.create_run("shared", phase="Running")
    stage.put("shared", "ours.log", b"ours")
    until(lambda: stage.names("shared") == ["ours.log"])
    ours = stage.status("shared")["artifacts"]
    external = {"name": "page", "uri": "https://example.test/page"}
    inline = {"name": "inline.txt", "uri": "data:text/plain;base64,aGVsbG8="}
    stage.patch_status("shared", phase="Succeeded", artifacts=[*ours, external, inline])

    def adopted() -> dict[str, Any] | None:
        entries = {one["name"]: one for one in stage.status("shared")["artifacts"]}
        return entries if entries.get("inline.txt", {}).get("uri", "").startswith("s3://") else None

    entries = until(adopted)
    assert set(entries) == {"ours.log", "page", "inline.txt"}
    assert entries["page"]["uri"] == external["uri"]
    assert stored(stage, entries["inline.txt"]["uri"]) == b"hello"
    assert stage.status("shared")["phase"] == "Succeeded"
    assert "inline.txt" in [one["name"] for one in stage.history("shared")]


def test_an_unknown_run_is_refused_and_nothing_stays(stage: Stage) -> None:
    refusal = stage.put("no-such-run", "x.log", b"x")
    assert refusal.status_code == 404
    assert refusal.headers["content-type"] == "application/problem+json"
    assert stage.get("namespaces/agents/agentruns/no-such-run").status_code == 404


def stored(stage: Stage, uri: str) -> bytes:
    """What the store has under `uri`, by its own client."""
    bucket, key = uri.removeprefix("s3://").split("/", 1)
    environment = stage.environment
    store = boto3.client(
        "s3",
        endpoint_url=environment["OFFLOAD_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )
    try:
        body: bytes = store.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body
    finally:
        store.close()


def put_patiently(stage: Stage, run: str, name: str, body: bytes) -> httpx.Response:
    """A PUT that does what a 503 asks for."""
    while True:
        answer = stage.put(run, name, body)
        if answer.status_code != 503:
            return answer
        time.sleep(float(answer.headers["Retry-After"]))


def uris(stage: Stage, run: str) -> list[str]:
    return [entry["uri"] for entry in stage.status(run).get("artifacts", [])]


def erase(stage: Stage, artifact_id: str) -> dict[str, Any]:
    answer = httpx.delete(f"{stage.url}/v1/artifacts/{artifact_id}", timeout=60)
    assert answer.status_code == 200, answer.text
    erased: dict[str, Any] = answer.json()
    return erased


def is_erased(stage: Stage, artifact_id: str) -> bool:
    return bool(stage.get(f"artifacts/{artifact_id}").json()["erasedAt"])


def sweeps(stage: Stage) -> bool:
    try:
        stage.offload("sweep")
    except AssertionError as error:
        if "was not heard" not in str(error) and "refused" not in str(error):
            raise
        return False
    return True


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
