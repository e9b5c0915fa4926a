"""Runs that change while they are published, on a real API server: by UID, and beside other field managers.

Cases: server-side apply of artifacts and of other fields, with and without force; `kubectl edit` that races a
publish; a run that another one's finalizer holds; deleted while its publish is in flight; deleted and created
again within a second.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from offload.cluster.interface import AgentRun
from offload.index import runs
from offload.services.publish import Outcome
from tests.kube.room import KubeRoom
from tests.kube.schemas import read
from tests.kube.site import Kubectl, KubeSite
from tests.programs import until
from tests.publishing import NAMESPACE

THEIRS = {"name": "theirs", "uri": "https://e.org/theirs"}


def applied(run: AgentRun, status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "agents.proompteng.ai/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": run.seen.name, "namespace": NAMESPACE},
        "status": dict(status),
    }


class Applier:
    """A field manager that applies status."""

    def __init__(self, kubectl: Kubectl, run: AgentRun) -> None:
        self._kubectl, self._run = kubectl, run

    def __call__(self, status: Mapping[str, Any], *options: str, fails: bool = False) -> str:
        words = ("apply", "--server-side", "--subresource=status", "--field-manager=applier", *options)
        return self._kubectl(*words, "-f", "-", stdin=applied(self._run, status), fails=fails)


@pytest.fixture
def room(kube_room: KubeRoom) -> KubeRoom:
    kube_room.serve(read("ours"))
    return kube_room


def owners(kubectl: Kubectl, run: AgentRun, field: str) -> set[str]:
    """The managers that own a field of status."""
    found = kubectl.json("get", "agentrun", run.seen.name, "-n", NAMESPACE, "--show-managed-fields")
    return {
        entry["manager"]
        for entry in found["metadata"]["managedFields"]
        if f"f:{field}" in entry.get("fieldsV1", {}).get("f:status", {})
    }


def test_one_that_applies_other_fields_keeps_them_and_is_never_in_conflict(
    room: KubeRoom, kubectl: Kubectl
) -> None:
    run = room.create()
    apply = Applier(kubectl, run)
    apply({"phase": "Running", "theirNote": "a"})
    room.upload(run, "log")
    assert room.publish(run) is Outcome.WRITTEN
    assert owners(kubectl, run, "phase") == owners(kubectl, run, "theirNote") == {"applier"}
    assert owners(kubectl, run, "artifacts") == {"offload"}
    apply({"phase": "Succeeded", "theirNote": "b"})
    status = room.status(run)
    assert (status["phase"], status["theirNote"]) == ("Succeeded", "b")
    assert room.names(run) == ["log"]
    # Applying less gives up a field, and takes none of ours with it.
    apply({"phase": "Succeeded"})
    assert room.names(run) == ["log"]
    assert "theirNote" not in room.status(run)
    assert room.look_again(run) is Outcome.UNCHANGED


def test_one_that_applies_artifacts_is_told_of_that_conflict_alone(room: KubeRoom, kubectl: Kubectl) -> None:
    run = room.create()
    apply = Applier(kubectl, run)
    wanted = {"phase": "Running", "artifacts": [THEIRS]}
    apply(wanted)
    room.look_again(run)
    room.upload(run, "log")
    assert room.publish(run) is Outcome.WRITTEN
    assert room.names(run) == ["theirs", "log"]
    assert owners(kubectl, run, "artifacts") == {"offload"}
    told = apply({**wanted, "phase": "Succeeded"}, fails=True)
    assert 'conflict with "offload"' in told
    assert ".status.artifacts" in told
    assert ".status.phase" not in told
    for _ in range(2):
        apply({**wanted, "phase": "Succeeded"}, "--force-conflicts")
        assert room.names(run) == ["theirs"]
        assert room.look_again(run) is Outcome.WRITTEN
        assert room.names(run) == ["theirs", "log"]
    assert room.status(run)["phase"] == "Succeeded"


def test_conditions_that_were_applied_stay_and_are_owned_with_ours(room: KubeRoom, kubectl: Kubectl) -> None:
    run = room.create()
    apply = Applier(kubectl, run)
    ready = {"type": "Ready", "status": "True", "reason": "r", "message": "m"}
    ready["lastTransitionTime"] = "2030-01-31T00:00:00Z"
    apply({"conditions": [ready]})
    for n in range(51):
        room.upload(run, f"log-{n}")
    assert room.publish(run) is Outcome.WRITTEN
    assert room.status(run)["conditions"][0] == ready
    # The list is atomic in every known schema: who writes one condition owns all of them.
    told = apply({"conditions": [{**ready, "status": "False"}]}, fails=True)
    assert ".status.conditions" in told
    apply({"conditions": [{**ready, "status": "False"}]}, "--force-conflicts")
    assert room.look_again(run) is Outcome.WRITTEN
    found = {one["type"]: one["status"] for one in room.status(run)["conditions"]}
    assert found == {"Ready": "False", "ArtifactsTruncated": "True"}


def test_an_edit_that_races_a_publish_loses_nothing_of_either(kube_site: KubeSite) -> None:
    kube_site.all()
    stage = kube_site.stage
    stage.create_run("edited", phase="Running")
    assert stage.put("edited", "before", b"1").status_code == 201
    until(lambda: stage.names("edited") == ["before"])
    # What the editor is given is a view from before the publish; it is saved after it.
    editor = kube_site.folder / "editor"
    upload = f"{stage.url}/v1/namespaces/{kube_site.namespace}/agentruns/edited/artifacts/during"
    editor.write_text(f"""#!/bin/sh -e
[ -e {editor}.ran ] || curl -sf -T {editor} {upload} >/dev/null
touch {editor}.ran
until kubectl get agentrun edited -n {kube_site.namespace} -o yaml | grep -q 'name: during'; do
  sleep 0.1
done
sed -i -e 's/phase: Running/phase: Paused/' \\
  -e 's#^  artifacts:#  artifacts:\\n  - name: theirs\\n    uri: https://e.org/theirs#' "$1"
""")
    editor.chmod(0o755)
    kube_site.environment["EDITOR"] = str(editor)
    stage.environment["EDITOR"] = str(editor)
    stage.kubectl("edit", "agentrun", "edited", "--subresource=status")
    until(lambda: stage.names("edited") == ["before", "during", "theirs"])
    assert stage.status("edited")["phase"] == "Paused"


def test_a_run_held_by_a_finalizer_is_published_until_it_is_gone(kube_site: KubeSite) -> None:
    kube_site.all()
    stage = kube_site.stage
    uid = stage.create_run("held")
    stage.kubectl("patch", "agentrun", "held", "--type=merge", "-p", finalizers("e.org/hold"))
    stage.kubectl("delete", "agentrun", "held", "--wait=false")
    assert stage.read("held")["metadata"]["deletionTimestamp"]
    assert stage.put("held", "last words", b"x").status_code == 201
    until(lambda: stage.names("held") == ["last words"])
    run = f"namespaces/{kube_site.namespace}/agentruns/held"
    assert stage.get(run).json()["deletedAt"] is None
    stage.kubectl("patch", "agentrun", "held", "--type=merge", "-p", finalizers())
    until(lambda: stage.get(run, uid=uid).json()["deletedAt"])
    # The name is remembered for some seconds, and an upload by it is refused also then.
    until(lambda: stage.put("held", "too late", b"x").status_code == 404)
    assert stage.put("held", "pinned", b"x", uid=uid).status_code == 201
    assert [one["name"] for one in stage.history("held", uid=uid)] == ["pinned", "last words"]


@pytest.mark.parametrize("again", [False, True])
def test_a_run_deleted_while_its_publish_is_in_flight_is_gone(
    room: KubeRoom, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    run = room.create()
    room.upload(run, "log")
    real, successors = room.cluster.patch_status, []

    def late(read: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        room.delete(run.seen.name)
        if again:
            successors.append(room.create(run.seen.name, observe=False))
        return real(read, patch)

    with monkeypatch.context() as patch:
        patch.setattr(room.cluster, "patch_status", late)
        assert room.publish(run) is Outcome.GONE
    assert room.run(run).deleted_at is not None
    for successor in successors:
        assert room.read(successor).resource_version == successor.resource_version
        with room.index.begin() as tx:
            runs.observe(tx, successor.seen)
        artifact = room.upload(successor, "log", b"another")
        assert room.publish(successor) is Outcome.WRITTEN
        assert [entry["uri"] for entry in room.status(successor)["artifacts"]] == [artifact.location.uri]


def test_incarnations_within_a_second_have_each_their_own_artifacts(kube_site: KubeSite) -> None:
    kube_site.all()
    stage = kube_site.stage
    uids = []
    for n in range(5):
        uids.append(stage.create_run("again"))
        # At once, where the watch may not have seen it yet.
        answer = stage.put("again", f"of-{n}", str(n).encode())
        until(lambda answer=answer, n=n: answer.status_code == 201 or retried(stage, n))  # type: ignore[misc]
        if n < 4:
            stage.kubectl("delete", "agentrun", "again")
    until(lambda: stage.names("again") == ["of-4"])
    assert stage.read("again")["metadata"]["uid"] == uids[-1]
    for n, uid in enumerate(uids):
        assert [one["name"] for one in stage.history("again", uid=uid)] == [f"of-{n}"]
    [entry] = stage.status("again")["artifacts"]
    assert uids[-1] in entry["uri"]


def retried(stage: Any, n: int) -> bool:
    """The last incarnation was deleted a moment ago: its name may still be thought to mean it."""
    return bool(stage.put("again", f"of-{n}", str(n).encode()).status_code == 201)


def finalizers(*names: str) -> str:
    return json.dumps({"metadata": {"finalizers": list(names)}})
