"""What `Cluster` promises, on every cluster that `kubeconfig` knows.

- get: what is read of a run; a missing run; odd shapes read as absent
- patch_status: what is answered is what is stored; the rest of the object stays; stale, deleted and replaced
  runs; invalid fields; nulls delete, in lists too; the same again writes nothing
- changes: list, then every change; chunks; several namespaces; all namespaces; ends when told; revisions that
  are too old or none
- a namespace that is being deleted
- status_schema: the schema of the CRD, cached
- warn, permissions, check
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from offload.cluster import feed
from offload.cluster.interface import Cluster, Deleted, Fresh, Listed, Present
from offload.cluster.kubernetes import KubernetesCluster
from offload.errors import AgentRunGoneError, ClusterForbiddenError, StatusConflictError, StatusRefusedError

POINTER = {"name": "log", "type": "log", "uri": "s3://b/k", "contentType": "text/plain", "sizeBytes": 3}
CRD = Path(__file__).parents[2] / "deploy" / "crd" / "agentruns.yaml"


def test_the_adapter_is_a_cluster(cluster: KubernetesCluster) -> None:
    checked: Cluster = cluster
    assert len(checked.namespaces) == 1


def test_a_run_is_read_with_what_the_index_keeps(cluster: KubernetesCluster, admin: Any) -> None:
    created = admin.create("demo", labels={"team": "red"})
    admin.set_status("demo", {"phase": "Succeeded", "finishedAt": "2026-01-02T03:04:05Z"})
    run = cluster.get(admin.namespace, "demo")
    assert run.seen.uid == created["metadata"]["uid"]
    assert (run.seen.namespace, run.seen.name) == (admin.namespace, "demo")
    assert run.seen.labels == {"team": "red"}
    assert (run.seen.agent, run.seen.phase) == ("coder", "Succeeded")
    assert run.seen.finished_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert abs(run.seen.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert (
        run.seen.resource_version == run.resource_version == admin.read("demo")["metadata"]["resourceVersion"]
    )
    assert run.status["phase"] == "Succeeded"


def test_a_new_run_has_an_empty_status(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    run = cluster.get(admin.namespace, "demo")
    assert (dict(run.status), run.seen.phase, run.seen.finished_at) == ({}, None, None)


def test_a_missing_run_is_gone(cluster: KubernetesCluster, admin: Any) -> None:
    with pytest.raises(AgentRunGoneError):
        cluster.get(admin.namespace, "missing")


def test_a_run_of_a_missing_namespace_is_gone(cluster: KubernetesCluster) -> None:
    with pytest.raises(AgentRunGoneError):
        cluster.get("no-such-namespace", "demo")


def test_what_a_patch_answers_is_what_is_stored(cluster: KubernetesCluster, admin: Any) -> None:
    before = admin.create("demo")
    answer = cluster.patch_status(cluster.get(admin.namespace, "demo"), {"artifacts": [POINTER]})
    stored = admin.read("demo")
    assert answer.status == stored["status"] == {"artifacts": [POINTER]}
    assert answer.resource_version == stored["metadata"]["resourceVersion"]
    assert answer.resource_version != before["metadata"]["resourceVersion"]
    assert (stored["spec"], stored["metadata"]["generation"]) == (before["spec"], 1)


def test_a_patch_leaves_other_fields_and_removes_nulls(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    admin.set_status("demo", {"phase": "Running", "reason": "Started", "theirs": {"a": [1]}})
    cluster.patch_status(cluster.get(admin.namespace, "demo"), {"reason": None, "artifacts": []})
    assert admin.read("demo")["status"] == {"phase": "Running", "theirs": {"a": [1]}, "artifacts": []}


def test_the_same_patch_again_changes_nothing(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    once = cluster.patch_status(cluster.get(admin.namespace, "demo"), {"artifacts": [POINTER]})
    again = cluster.patch_status(once, {"artifacts": [POINTER]})
    assert again.resource_version == once.resource_version


def test_a_patch_of_a_stale_run_conflicts_and_writes_nothing(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    stale = cluster.get(admin.namespace, "demo")
    admin.set_status("demo", {"phase": "Running"})
    with pytest.raises(StatusConflictError):
        cluster.patch_status(stale, {"phase": "Failed"})
    assert admin.read("demo")["status"] == {"phase": "Running"}


def test_a_patch_of_a_deleted_run_finds_it_gone(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    run = cluster.get(admin.namespace, "demo")
    admin.delete("demo")
    with pytest.raises(AgentRunGoneError):
        cluster.patch_status(run, {"phase": "Failed"})


def test_a_patch_never_reaches_another_run_of_the_same_name(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    run = cluster.get(admin.namespace, "demo")
    admin.delete("demo")
    admin.create("demo")
    with pytest.raises(AgentRunGoneError):
        cluster.patch_status(run, {"phase": "Failed"})
    assert "status" not in admin.read("demo")


def test_a_status_write_is_guarded_by_the_resource_version_alone(admin: Any) -> None:
    before = admin.create("demo")["metadata"]["resourceVersion"]
    assert admin.set_status("demo", {"phase": "A"}, uid="another")["status"] == {"phase": "A"}
    with pytest.raises(ApiException) as caught:
        admin.set_status("demo", {"phase": "B"}, resourceVersion=before)
    assert caught.value.status == 409


def test_a_null_in_a_list_is_dropped(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    answer = cluster.patch_status(
        cluster.get(admin.namespace, "demo"), {"artifacts": [{**POINTER, "type": None}]}
    )
    assert answer.status == {"artifacts": [{key: POINTER[key] for key in POINTER if key != "type"}]}


@pytest.mark.parametrize(
    "status",
    [
        {"artifacts": [{"uri": "s3://b/k"}]},
        {"artifacts": [{"name": "log", "uri": "x" * 2049}]},
        {"artifacts": [{"name": "log", "sizeBytes": "1"}]},
        {"artifacts": [{"name": "log"}] * 501},
        {"artifacts": "none"},
        {"conditions": [{"type": "Ready", "status": "Perhaps"}]},
        {"finishedAt": "yesterday"},
    ],
)
def test_what_the_schema_does_not_take_is_refused_and_not_stored(
    cluster: KubernetesCluster, admin: Any, status: Any
) -> None:
    admin.create("demo")
    with pytest.raises(StatusRefusedError):
        cluster.patch_status(cluster.get(admin.namespace, "demo"), status)
    assert "status" not in admin.read("demo")


def test_runs_that_are_there_come_first_and_their_list_ends(
    cluster: KubernetesCluster, admin: Any, follow: Any
) -> None:
    uids = {admin.create(name)["metadata"]["uid"] for name in ("a", "b", "c")}
    follower = follow(cluster)
    follower.wait_for(lambda c: isinstance(c, Fresh))
    *present, listed = follower.seen[:4]
    assert all(isinstance(c, Present) for c in present)
    assert {c.run.seen.uid for c in present} == uids
    assert listed == Listed(admin.namespace, frozenset(uids))


def test_every_change_follows_the_list(cluster: KubernetesCluster, admin: Any, follow: Any) -> None:
    follower = follow(cluster)
    follower.wait_for(lambda c: isinstance(c, Listed))
    uid = admin.create("late")["metadata"]["uid"]
    admin.set_status("late", {"phase": "Running"})
    admin.delete("late")
    deleted = follower.wait_for(lambda c: isinstance(c, Deleted))
    assert deleted.run.seen.uid == uid
    phases = [c.run.seen.phase for c in follower.seen if isinstance(c, Present)]
    assert phases == [None, "Running"]


def test_a_list_in_several_pages_gives_each_run_once(
    cluster: KubernetesCluster, admin: Any, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE", 3)
    uids = {admin.create(f"run-{i}")["metadata"]["uid"] for i in range(8)}
    follower = follow(cluster)
    listed = follower.wait_for(lambda c: isinstance(c, Listed))
    given = [c.run.seen.uid for c in follower.seen if isinstance(c, Present)]
    assert sorted(given) == sorted(uids) == sorted(listed.uids)


def test_several_namespaces_are_one_stream(kubeconfig: str, admin: Any, follow: Any) -> None:
    cluster = KubernetesCluster.from_config(kubeconfig, [admin.namespace, "default"])
    first = admin.create("here")["metadata"]["uid"]
    follower = follow(cluster)
    follower.wait_for(lambda c: isinstance(c, Fresh))
    assert {c.namespace for c in follower.seen if isinstance(c, Listed)} == {admin.namespace, "default"}
    second = admin.create(f"there-{admin.namespace}", namespace="default")["metadata"]["uid"]
    follower.wait_for(lambda c: isinstance(c, Present) and c.run.seen.uid == second)
    assert first in {c.run.seen.uid for c in follower.seen if isinstance(c, Present)}
    follower.end()
    cluster.close()


def test_without_namespaces_all_are_followed(kubeconfig: str, admin: Any, follow: Any) -> None:
    cluster = KubernetesCluster.from_config(kubeconfig)
    uid = admin.create("demo")["metadata"]["uid"]
    follower = follow(cluster)
    listed = follower.wait_for(lambda c: isinstance(c, Listed))
    assert listed.namespace is None
    assert uid in listed.uids
    follower.end()
    cluster.close()


def test_other_namespaces_are_not_followed(cluster: KubernetesCluster, admin: Any, follow: Any) -> None:
    follower = follow(cluster)
    follower.wait_for(lambda c: isinstance(c, Fresh))
    admin.create(f"elsewhere-{admin.namespace}", namespace="default")
    admin.create("here")
    follower.wait_for(lambda c: isinstance(c, Present))
    assert {c.run.seen.name for c in follower.seen if isinstance(c, Present)} == {"here"}


def test_following_ends_soon_after_it_is_told(cluster: KubernetesCluster, follow: Any) -> None:
    follower = follow(cluster)
    follower.wait_for(lambda c: isinstance(c, Fresh))
    began = time.monotonic()
    follower.end()
    assert time.monotonic() - began < 2
    assert not [t for t in threading.enumerate() if t.name.startswith("watch-test-")]


def test_the_served_schema_is_the_crds(cluster: KubernetesCluster) -> None:
    crd = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    served = cluster.status_schema()
    items = served["properties"]["artifacts"]
    assert items == crd["properties"]["status"]["properties"]["artifacts"]
    assert served["x-kubernetes-preserve-unknown-fields"] is True


def test_the_served_schema_is_kept_while_its_hash_stays(cluster: KubernetesCluster) -> None:
    assert cluster.status_schema() is cluster.status_schema()


def test_a_warning_is_an_event_on_the_run(cluster: KubernetesCluster, admin: Any) -> None:
    admin.create("demo")
    run = cluster.get(admin.namespace, "demo").seen
    cluster.warn(run, "ArtifactsTruncated", "é" * 2000)
    cluster.warn(run, "ArtifactsTruncated", "again")
    first, second = sorted(admin.events(), key=lambda e: len(e.message), reverse=True)
    assert (first.type, first.reason, first.reporting_component) == (
        "Warning",
        "ArtifactsTruncated",
        "offload",
    )
    assert (first.involved_object.uid, first.involved_object.kind) == (run.uid, "AgentRun")
    assert first.message == "é" * 512
    assert second.metadata.name.startswith("demo.")


def test_a_namespace_that_is_being_deleted_takes_status_and_nothing_new(
    cluster: KubernetesCluster, admin: Any, follow: Any
) -> None:
    admin.create("held", finalizers=["tests.offload/hold"])
    uid = admin.create("free")["metadata"]["uid"]
    follower = follow(cluster)
    follower.wait_for(lambda c: isinstance(c, Listed))
    admin.end()
    follower.wait_for(lambda c: isinstance(c, Deleted) and c.run.seen.uid == uid, seconds=60)
    held = cluster.get(admin.namespace, "held")
    assert cluster.patch_status(held, {"phase": "Running"}).status == {"phase": "Running"}
    with pytest.raises(ClusterForbiddenError) as caught:
        cluster.warn(held.seen, "ArtifactsTruncated", "late")
    assert "being terminated" in caught.value.detail
    with pytest.raises(ApiException) as refused:
        admin.create("late")
    assert refused.value.status == 403

    admin.release("held")
    follower.wait_for(lambda c: isinstance(c, Deleted) and c.run.seen.uid == held.seen.uid, seconds=60)
    with pytest.raises(AgentRunGoneError):
        cluster.get(admin.namespace, "held")


def test_a_watch_from_a_revision_that_is_too_old_is_told_in_the_stream(admin: Any) -> None:
    admin.create("demo")
    (first,) = admin.watch("1")
    assert (first["type"], first["object"]["code"], first["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_a_watch_from_nonsense_is_refused_before_it_begins(admin: Any) -> None:
    with pytest.raises(ApiException):
        admin.watch("nonsense")


def test_each_needed_permission_is_named(cluster: KubernetesCluster) -> None:
    assert cluster.permissions() == dict.fromkeys(
        [
            "get agentruns",
            "list agentruns",
            "watch agentruns",
            "patch agentruns/status",
            "create events",
            "get /openapi/v3",
        ],
        True,
    )


def test_a_cluster_that_answers_passes_the_check(cluster: KubernetesCluster) -> None:
    cluster.check()
