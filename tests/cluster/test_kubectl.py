"""Real kubectl against the stand-in: every command that a person or the demo uses.

- api-resources, version, explain, auth can-i
- apply: create, unchanged, changed, validation on; what server-side apply and dry runs are told
- create, get (table, wide, json, yaml, jsonpath, -l, -A, -w, one, none), describe with Events, events
- patch --subresource=status --type=merge, also refused; label, annotate; replace; delete, --all, --wait
- namespaces: create, apply, get, delete with what is inside
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offload.cluster.kubernetes import KubernetesCluster
from offload.cluster.standin import StandIn

RUN = {
    "apiVersion": "agents.proompteng.ai/v1alpha1",
    "kind": "AgentRun",
    "metadata": {"name": "demo", "namespace": "agents", "labels": {"team": "red"}},
    "spec": {"agentRef": {"name": "coder"}, "goal": "ship"},
}
Kubectl = Callable[..., str]


def patch_status(kubectl: Kubectl, status: Any, *more: str, **how: Any) -> str:
    words = ("patch", "agentrun", "demo", "--subresource=status", "--type=merge", *more)
    return kubectl("-n", "agents", *words, "-p", json.dumps({"status": status}), **how)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_api_resources_and_version(kubectl: Kubectl) -> None:
    listed = kubectl("api-resources")
    assert ["agentruns", "arun", "agents.proompteng.ai/v1alpha1", "true", "AgentRun"] in rows(listed)
    assert "Server Version: v1.37" in kubectl("version")


def test_apply_creates_changes_and_leaves_alone(kubectl: Kubectl) -> None:
    name = "agentrun.agents.proompteng.ai/demo"
    assert kubectl("apply", "-f", "-", stdin=RUN).strip() == f"{name} created"
    assert kubectl("apply", "-f", "-", stdin=RUN).strip() == f"{name} unchanged"
    changed = {**RUN, "spec": {"agentRef": {"name": "coder"}}}
    assert kubectl("apply", "-f", "-", stdin=changed).strip() == f"{name} configured"
    assert (
        kubectl("-n", "agents", "get", "arun", "demo", "-o", "jsonpath={.spec}")
        == '{"agentRef":{"name":"coder"}}'
    )


def test_apply_refuses_what_the_schema_does_not_take(kubectl: Kubectl) -> None:
    wrong = {**RUN, "metadata": {**RUN["metadata"], "lables": {}}}
    assert 'unknown field "metadata.lables"' in kubectl("apply", "-f", "-", stdin=wrong, fails=True)
    wrong = {**RUN, "spec": {"agentRef": {"name": 3}}}
    assert "spec.agentRef.name" in kubectl("apply", "-f", "-", stdin=wrong, fails=True)


def test_what_is_not_imitated_says_so(kubectl: Kubectl) -> None:
    said = kubectl("apply", "--server-side", "-f", "-", stdin=RUN, fails=True)
    assert "does not imitate server-side apply" in said
    assert "does not imitate dryRun" in kubectl(
        "create", "--dry-run=server", "-f", "-", stdin=RUN, fails=True
    )
    assert "doesn't have a resource type" in kubectl("get", "pods", fails=True)
    kubectl("create", "-f", "-", stdin=RUN)
    said = kubectl("-n", "agents", "patch", "arun", "demo", "--type=json", "-p", "[]", fails=True)
    assert "use --type=merge" in said


def test_create_is_once(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    assert "AlreadyExists" in kubectl("create", "-f", "-", stdin=RUN, fails=True)


def test_get_prints_the_columns_of_the_crd(kubectl: Kubectl) -> None:
    assert "No resources found" in kubectl("-n", "agents", "get", "agentruns")
    kubectl("create", "-f", "-", stdin=RUN)
    condition = {"type": "ArtifactsTruncated", "status": "True"}
    patch_status(kubectl, {"phase": "Running", "reason": "Going", "conditions": [condition]})
    header, row = rows(kubectl("-n", "agents", "get", "agentruns"))
    assert header == ["NAME", "AGENT", "PHASE", "TRUNCATED", "AGE"]
    assert row[:4] == ["demo", "coder", "Running", "True"]
    header, row = rows(kubectl("get", "arun", "-A", "-o", "wide"))
    assert header == ["NAMESPACE", "NAME", "AGENT", "PHASE", "TRUNCATED", "REASON", "AGE"]
    assert row[:6] == ["agents", "demo", "coder", "Running", "True", "Going"]
    assert rows(kubectl("-n", "agents", "get", "agentrun/demo", "--no-headers"))[0][0] == "demo"


def test_get_prints_json_yaml_jsonpath_and_names(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    patch_status(kubectl, {"artifacts": [{"name": "log", "uri": "s3://b/k"}]})
    body = json.loads(kubectl("-n", "agents", "get", "agentrun", "demo", "-o", "json"))
    assert body["status"]["artifacts"] == [{"name": "log", "uri": "s3://b/k"}]
    assert "uri: s3://b/k" in kubectl("-n", "agents", "get", "agentrun", "demo", "-o", "yaml")
    shown = kubectl("-n", "agents", "get", "agentrun", "demo", "-o", "jsonpath={.status.artifacts}")
    assert json.loads(shown) == body["status"]["artifacts"]
    listed = kubectl("-n", "agents", "get", "agentruns", "-l", "team=red", "-o", "name")
    assert listed.strip() == "agentrun.agents.proompteng.ai/demo"
    assert not kubectl("-n", "agents", "get", "agentruns", "-l", "team=blue", "-o", "name").strip()


def test_a_missing_run_is_not_found(kubectl: Kubectl) -> None:
    said = kubectl("-n", "agents", "get", "agentrun", "nope", fails=True)
    assert 'agentruns.agents.proompteng.ai "nope" not found' in said


def test_get_w_follows(kubectl: Kubectl, kubectl_path: Path, standin: StandIn) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    command = [kubectl_path, f"--kubeconfig={standin.kubeconfig}", "-n", "agents", "get", "agentruns", "-w"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().split()[0] == "NAME"
            assert process.stdout.readline().split()[:2] == ["demo", "coder"]
            patch_status(kubectl, {"phase": "Running"})
            assert process.stdout.readline().split()[:3] == ["demo", "coder", "Running"]
            kubectl("-n", "agents", "delete", "agentrun", "demo")
            assert process.stdout.readline().split()[0] == "demo"
        finally:
            process.terminate()


def test_describe_shows_status_and_events(kubectl: Kubectl, standin: StandIn) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    patch_status(kubectl, {"artifacts": [{"name": "log"}]})
    cluster = KubernetesCluster.from_config(standin.kubeconfig)
    cluster.warn(cluster.get("agents", "demo").seen, "ArtifactsTruncated", "10 of 60 are listed")
    cluster.close()
    shown = kubectl("-n", "agents", "describe", "agentrun", "demo")
    assert "Artifacts:\n    Name:  log" in shown
    assert shown.splitlines()[-1].split()[:2] == ["Warning", "ArtifactsTruncated"]
    assert shown.splitlines()[-1].endswith("10 of 60 are listed")
    _, event = rows(kubectl("-n", "agents", "get", "events"))
    assert event[2:5] == ["Warning", "ArtifactsTruncated", "agentrun/demo"]
    assert "ArtifactsTruncated" in kubectl("-n", "agents", "events", "--for=agentrun/demo")


def test_a_status_patch_is_validated(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    said = patch_status(kubectl, {"artifacts": [{"uri": "s3://b/k"}]}, fails=True)
    assert "status.artifacts[0].name: Required value" in said
    said = patch_status(kubectl, {"artifacts": [{"name": "a", "sizeBytes": "many"}]}, fails=True)
    assert "status.artifacts[0].sizeBytes: Invalid value" in said


def test_label_and_annotate(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    kubectl("-n", "agents", "label", "agentrun", "demo", "team=blue", "--overwrite")
    kubectl("-n", "agents", "annotate", "agentrun", "demo", "note=x")
    body = json.loads(kubectl("-n", "agents", "get", "agentrun", "demo", "-o", "json"))
    assert (body["metadata"]["labels"], body["metadata"]["annotations"]) == ({"team": "blue"}, {"note": "x"})


def test_replace(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    body = json.loads(kubectl("-n", "agents", "get", "agentrun", "demo", "-o", "json"))
    kubectl("replace", "-f", "-", stdin={**body, "spec": {"goal": "other"}})
    assert kubectl("-n", "agents", "get", "agentrun", "demo", "-o", "jsonpath={.spec.goal}") == "other"


@pytest.mark.parametrize("which", [("demo",), ("--all",), ("-l", "team=red")])
def test_delete_waits_until_it_is_gone(kubectl: Kubectl, which: tuple[str, ...]) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    began = time.monotonic()
    assert 'agentrun.agents.proompteng.ai "demo" deleted' in kubectl(
        "-n", "agents", "delete", "agentrun", *which
    )
    assert time.monotonic() - began < 5
    assert "not found" in kubectl("-n", "agents", "get", "agentrun", "demo", fails=True)


def test_wait_sees_a_condition(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    patch_status(kubectl, {"conditions": [{"type": "Done", "status": "True"}]})
    assert "condition met" in kubectl(
        "-n", "agents", "wait", "--for=condition=Done", "agentrun/demo", "--timeout=5s"
    )


def test_namespaces(kubectl: Kubectl) -> None:
    assert [row[0] for row in rows(kubectl("get", "namespaces"))] == ["NAME", "agents", "default"]
    assert kubectl("create", "namespace", "team").strip() == "namespace/team created"
    labelled = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {"a": "b"}}}
    assert "namespace/team configured" in kubectl("apply", "-f", "-", stdin=labelled)
    assert kubectl("get", "ns", "team", "-o", "jsonpath={.metadata.labels.a}") == "b"
    kubectl("create", "-f", "-", stdin={**RUN, "metadata": {"name": "demo", "namespace": "team"}})
    kubectl("delete", "namespace", "team")
    assert "No resources found" in kubectl("get", "agentruns", "-A")
    assert "NotFound" in kubectl("get", "ns", "team", fails=True)


def test_only_background_deletion_is_imitated(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=RUN)
    said = kubectl("-n", "agents", "delete", "agentrun", "demo", "--cascade=foreground", fails=True)
    assert "Background only" in said
    kubectl("-n", "agents", "get", "agentrun", "demo")


def test_explain_and_can_i(kubectl: Kubectl) -> None:
    assert "contentType" in kubectl("explain", "agentrun.status.artifacts")
    assert kubectl("auth", "can-i", "patch", "agentruns", "--subresource=status").strip() == "yes"
