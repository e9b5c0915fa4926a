"""deploy/policy on the API server: what it refuses, and what it lets through.

- content in any text of an entry, in any case and behind white space, and a text over 2048 characters is
  refused, whatever shape entries have, with a message that names the entry and the way out
- with each of the schemas, a good entry and a change of something else pass
- an old bad entry is nobody's fault: left as it is, or fewer of them, passes; one more or another does not
- 500 entries of 2 KB are within the cost limit: with one bad entry refused, and without it let through
- audit lets through, with a warning to kubectl and an annotation in the audit log
- no expression has a type-check warning against any of the schemas
- our controller cures what it adopts under `deny`, and takes a refusal, by 422 or 403, as one: with back-off
"""

import itertools
import json
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from offload.cluster.kubernetes import KubernetesCluster
from offload.errors import StatusRefusedError
from tests.kube.audit import OURS, patches
from tests.kube.control_plane import ControlPlane
from tests.kube.site import Kubectl, KubeSite
from tests.programs import ROOT, until

NAME = "offload-pointers-only"
NAMESPACE = "policy"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RUNS = f"/apis/agents.proompteng.ai/v1alpha1/namespaces/{NAMESPACE}/agentruns"
OLD = {"name": "old", "path": "data:,old"}
GOOD = {"name": "log", "path": "out/log"}

Crd = dict[str, Any]


def _installed(path: str, **status: Any) -> Crd:
    """A CRD of these tests, with another schema for status where one is given."""
    crd: Crd = yaml.safe_load((ROOT / path).read_text())
    if status:
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"] = status
    return crd


EARLY = "tests/cluster/crds/early.yaml"
KEEP: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
TEXT = {"type": "string"}
CRDS = {
    "ours": _installed("deploy/crd/agentruns.yaml"),
    "early": _installed(EARLY),
    "newer": _installed("tests/cluster/crds/legacy.yaml"),
    "open": _installed(EARLY, **KEEP),
    "open entries": _installed(
        EARLY, type="object", properties={"phase": TEXT, "artifacts": {"type": "array", "items": KEEP}}
    ),
    "no artifacts": _installed(EARLY, type="object", properties={"phase": TEXT}),
}


class Guarded:
    """Runs of a namespace in a cluster whose policy and schema can be changed."""

    def __init__(self, plane: ControlPlane, kubectl: Kubectl) -> None:
        self.plane, self.kubectl = plane, kubectl
        self._numbers = itertools.count(1)
        kubectl("create", "namespace", NAMESPACE)
        self._probe = self.create()

    def create(self, artifacts: Any = None, **status: Any) -> str:
        name = f"run-{next(self._numbers)}"
        body = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name},
            "spec": {"agentRef": {"name": "coder"}},
            "status": status,
        }
        self.plane.request("POST", RUNS, body)
        if artifacts is not None:
            assert not self.write(name, artifacts, **status)
        return name

    def write(self, name: str, artifacts: Any, *, dry: bool = False, **status: Any) -> str:
        """Set the whole status; empty, or why it was refused."""
        run = self.plane.request("GET", f"{RUNS}/{name}")
        run["status"] = {"artifacts": artifacts, **status}
        try:
            self.plane.request("PUT", f"{RUNS}/{name}/status{'?dryRun=All' * dry}", run)
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
            return f"{error.code} {answer['message']}"
        return ""

    def artifacts(self, name: str) -> Any:
        return self.plane.request("GET", f"{RUNS}/{name}").get("status", {}).get("artifacts")

    def apply(self, folder: str) -> None:
        """Apply one of the folders of deploy/policy; it is in force when this returns."""
        if folder == "audit":
            self.apply("deny")  # that it refuses no more then shows that the change has arrived
        self.kubectl("apply", "-k", f"deploy/policy/{folder}")
        until(lambda: self._refuses() is (folder == "deny"))

    def remove(self) -> None:
        """It is out of force when this returns."""
        self.kubectl("delete", "--ignore-not-found", "-k", "deploy/policy/audit")
        until(lambda: not self._refuses())

    def _refuses(self) -> bool:
        return bool(self.write(self._probe, [{"name": "probe", "path": "data:,probe"}], dry=True))


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[Guarded]:
    guarded = Guarded(control_plane, kubectl)
    yield guarded
    guarded.remove()
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def deny(cluster: Guarded) -> Guarded:
    cluster.apply("deny")
    return cluster


@pytest.fixture
def schema(control_plane: ControlPlane) -> Iterator[Callable[[Crd], None]]:
    """Installs another CRD; ours is back at the end."""
    yield control_plane.install_crd
    control_plane.install_crd(CRDS["ours"])


def test_content_and_long_texts_are_refused_wherever_they_are(
    deny: Guarded, schema: Callable[[Crd], None]
) -> None:
    schema(CRDS["open"])
    run = deny.create()
    refused = [
        [{"name": "log", "url": "data:,x"}],
        [{"name": "log", "url": "DATA:,x"}],
        [{"name": "log", "uri": " \t\r\n\v\f\u00a0dAtA:text/plain;base64,eA=="}],
        [{"name": "data:,x"}],
        [{"name": "log", "unheardOf": "data:,x"}],
        [{"name": "log", "url": "s3://b/k" + "x" * 2041}],
        [{"name": "log", "content": "x" * 2049}],
        [{"name": "log", "content": "é" * 2049}],
        [{"name": "log", "sources": ["s3://b/k", "data:,x"]}],
        [{"name": "log", "more": {"inner": "data:,x"}}],
        [{"content": "x" * 2049}],
        [{"name": 7, "url": "data:,x"}],
        [GOOD, "data:,x"],
        [GOOD, ["data:,x"]],
        [None, GOOD, {}, {"name": "log", "url": "data:,x"}],
        {"log": "data:,x"},
        "data:,x",
    ]
    let_through = [
        [],
        [GOOD],
        [{"name": "log", "url": "s3://b/k" + "x" * 2040}],
        [{"name": "log", "content": "é" * 2048}],
        [{"name": "data", "url": "https://data:1@host/data:,x"}],
        [
            {
                "name": "log",
                "sizeBytes": 7,
                "ratio": 0.5,
                "final": True,
                "none": None,
                "tags": ["a"],
                "more": {"a": 1},
            }
        ],
        [None, {}, 7, "text", [1, {"a": ["b"]}], {"a": [{"b": "c"}]}],
        [],
        {"log": "s3://b/k"},
        "text",
        7,
    ]
    assert [one for one in refused if not deny.write(run, one).startswith("422 ")] == []
    assert deny.artifacts(run) is None
    assert [one for one in let_through if deny.write(run, one)] == []


@pytest.mark.parametrize(
    ("artifacts", "named"),
    [
        ([GOOD, {"name": "report", "path": "data:,x"}], "'report' with"),
        (
            [{"name": "report", "path": "data:,x"}, {"name": "b", "path": "data:,x"}, OLD],
            "'report' and 2 more",
        ),
        ([{"name": "n" * 300, "path": "data:,x"}], "an entry with"),
    ],
)
def test_the_message_names_the_entry_and_the_way_out(deny: Guarded, artifacts: Any, named: str) -> None:
    message = deny.write(deny.create(), artifacts)
    assert f"status.artifacts: {named}" in message
    assert message.endswith("upload it with `offload put` and list a pointer")
    assert len(message) < 700


def test_a_name_of_two_lines_gets_a_message_too(deny: Guarded) -> None:
    message = deny.write(deny.create(), [{"name": "a\nb", "path": "data:,x"}])
    assert message.endswith("upload it with `offload put` and list a pointer")


@pytest.mark.parametrize("name", CRDS)
def test_pointers_pass_with_every_schema(deny: Guarded, schema: Callable[[Crd], None], name: str) -> None:
    schema(CRDS[name])
    run = deny.create()
    assert deny.write(run, [GOOD]) == ""
    assert deny.write(run, [GOOD], phase="Running") == ""
    assert deny.write(run, [GOOD, {"name": "other", "url": "s3://bucket/key"}], phase="Running") == ""
    if name == "no artifacts":
        assert deny.write(run, [OLD]) == ""
        assert deny.artifacts(run) is None
    else:
        assert "'old' with" in deny.write(run, [GOOD, OLD])
        assert len(deny.artifacts(run)) == 2


def test_an_old_bad_entry_is_held_against_nobody(cluster: Guarded) -> None:
    bad = [{"name": f"old-{place}", "path": f"data:,{place}"} for place in range(3)]
    other = {"name": "other", "path": "data:,other"}
    cluster.apply("audit")
    run = cluster.create([*bad, GOOD])
    cluster.apply("deny")
    assert not cluster.write(run, [*bad, GOOD], phase="Running")
    assert not cluster.write(run, [GOOD, *reversed(bad)])
    assert not cluster.write(run, [*bad, {"name": "more", "path": "out/more"}])
    for worse in (
        [*bad, other],
        [*bad[:2], other],
        [*bad[:2], {**bad[2], "path": "data:,longer"}],
        [other] * 4,
        [*bad, bad[0]],
        [GOOD, *bad, *bad],
    ):
        assert NAME in cluster.write(run, worse)
    assert cluster.artifacts(run) == [*bad, {"name": "more", "path": "out/more"}]
    assert not cluster.write(run, [bad[0], bad[2]])
    assert not cluster.write(run, [other])  # fewer than before, whichever they are
    assert not cluster.write(run, [GOOD])
    assert NAME in cluster.write(run, [GOOD, bad[0]])


def test_a_status_given_at_creation_is_nothing_to_refuse(deny: Guarded) -> None:
    run = deny.create(phase="Running")
    assert "status" not in deny.plane.request("GET", f"{RUNS}/{run}")


def test_500_entries_of_2_kb_are_within_the_cost_limit(deny: Guarded, schema: Callable[[Crd], None]) -> None:
    schema(CRDS["early"])
    run = deny.create()
    clean = [{"name": f"artifact-{n}", "url": f"s3://bucket/{n}/{'k' * 2000}"} for n in range(500)]
    again = [{"name": f"other-{n}", "url": f"s3://bucket/{n}/{'k' * 2000}"} for n in range(500)]
    all_bad = [{"name": f"artifact-{n}", "url": f" data:,{n}{'k' * 2000}"} for n in range(500)]
    assert not deny.write(run, clean)
    for place in (0, 499):
        one_bad = [*clean[:place], {"name": "bad", "url": " dAta:," + "k" * 2000}, *clean[place + 1 :]]
        assert "'bad' with" in deny.write(run, one_bad)
    assert "'artifact-0' and 499 more" in deny.write(run, all_bad)
    assert not deny.write(run, again)
    deny.apply("audit")
    assert not deny.write(run, all_bad)
    deny.apply("deny")
    assert not deny.write(run, list(reversed(all_bad)))
    assert "'bad' with" in deny.write(run, [*all_bad, {"name": "bad", "url": "data:,x"}])
    assert not deny.write(run, clean)


def test_audit_tells_and_lets_through(cluster: Guarded) -> None:
    cluster.apply("audit")
    run = cluster.create()
    patch = json.dumps({"status": {"artifacts": [OLD]}})
    said = cluster.kubectl(
        "patch", "agentrun", run, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch,
        "--warnings-as-errors", fails=True,
    )  # fmt: skip
    assert f"Warning: Validation failed for ValidatingAdmissionPolicy '{NAME}'" in said
    assert "'old' with content" in said
    assert cluster.artifacts(run) == [OLD]
    [event] = [
        one
        for one in cluster.plane.audit()
        if one["verb"] == "patch" and one["requestURI"].startswith(f"{RUNS}/{run}/status?")
    ]
    [failure] = json.loads(event["annotations"]["validation.policy.admission.k8s.io/validation_failure"])
    assert failure["policy"] == NAME
    assert failure["validationActions"] == ["Audit", "Warn"]
    assert "'old' with content" in failure["message"]


@pytest.mark.parametrize("name", CRDS)
def test_no_expression_has_a_type_warning(cluster: Guarded, schema: Callable[[Crd], None], name: str) -> None:
    """Rules for subresources are not type-checked: a copy for the resource itself is, bound by nothing."""
    schema(CRDS[name])
    policy, _ = yaml.safe_load_all(cluster.kubectl("kustomize", "deploy/policy/audit"))
    policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"] = ["agentruns"]
    assert "expressionWarnings" not in _checked(cluster, policy)
    policy["spec"]["validations"].append({"expression": "object.unheard == 'of'"})
    assert "unheard" in json.dumps(_checked(cluster, policy))  # such warnings are given


def _checked(cluster: Guarded, policy: Crd) -> Any:
    """What the type checker says of a policy, which is gone again."""
    path = f"{ADMISSION}/validatingadmissionpolicies"
    policy["metadata"]["name"] = "type-checked"
    cluster.plane.request("POST", path, policy)
    try:
        return until(lambda: cluster.plane.request("GET", f"{path}/type-checked").get("status"))
    finally:
        cluster.plane.request("DELETE", f"{path}/type-checked")


def test_the_controller_cures_under_deny(cluster: Guarded, kube_site: KubeSite) -> None:
    cluster.apply("audit")
    stage = kube_site.stage
    stage.create_run("demo")
    stage.patch_status(
        "demo", artifacts=[{"name": "log", "path": "data:,hello"}, {"name": "x", "path": "out/x"}]
    )
    cluster.apply("deny")
    kube_site.all()
    until(lambda: stage.is_current("demo") and stage.names("demo") == ["log", "x"])
    assert stage.put("demo", "report", b"more").status_code == 201
    until(lambda: stage.names("demo") == ["log", "x", "report"])
    assert "data:" not in json.dumps(stage.status("demo"))
    assert stage.get(f"namespaces/{stage.namespace}/agentruns/demo/artifacts/log").content == b"hello"


def test_a_refusal_is_taken_as_one(cluster: Guarded, kube_site: KubeSite) -> None:
    cluster.apply("deny")
    kube_site.stage.create_run("demo")
    controller = KubernetesCluster.from_config(str(kube_site.accounts["controller"]), [kube_site.namespace])
    run = controller.get(kube_site.namespace, "demo")
    with closing(controller), pytest.raises(StatusRefusedError, match=r"422 .*'old' with content"):
        controller.patch_status(run, {"artifacts": [OLD]})


def test_a_refusal_by_403_is_retried_ever_later_and_ends_with_its_cause(
    cluster: Guarded, kube_site: KubeSite
) -> None:
    kube_site.stage.create_run("demo")
    cluster.kubectl("apply", "-f", "-", stdin=freezing(kube_site.namespace))
    try:
        until(lambda: _is_frozen(kube_site))
        kube_site.all()
        assert kube_site.stage.put("demo", "log", b"hello").status_code == 201
        until(lambda: len(_attempts(kube_site)) >= 3)
        attempts = _attempts(kube_site)
        assert {code for code, _ in attempts} == {403}
        first, second, third = (at for _, at in attempts[:3])
        assert second - first >= timedelta(seconds=1)
        assert third - second >= timedelta(seconds=2)
        publish = kube_site.stage.get(f"namespaces/{kube_site.namespace}/agentruns/demo").json()["publish"]
        assert "status-refused" in publish["error"]
    finally:
        cluster.kubectl("delete", "-f", "-", stdin=freezing(kube_site.namespace))
    until(lambda: kube_site.stage.names("demo") == ["log"])


def freezing(namespace: str) -> str:
    """A policy of somebody else's, which lets nobody write a status in `namespace`."""
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    rule = {
        "apiGroups": ["agents.proompteng.ai"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": ["agentruns/status"],
    }
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "frozen", "reason": "Forbidden"}],
    }
    binding = {"policyName": "frozen", "validationActions": ["Deny"], "matchResources": selector}
    return yaml.safe_dump_all(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"ValidatingAdmissionPolicy{kind}",
            "metadata": {"name": "frozen"},
            "spec": spec,
        }
        for kind, spec in (("", policy), ("Binding", binding))
    )


def _is_frozen(site: KubeSite) -> bool:
    path = f"/apis/agents.proompteng.ai/v1alpha1/namespaces/{site.namespace}/agentruns/demo"
    run = site.plane.request("GET", path)
    try:
        site.plane.request("PUT", f"{path}/status", run)
    except urllib.error.HTTPError as error:
        return error.code == 403
    return False


def _attempts(site: KubeSite) -> list[tuple[int, datetime]]:
    """The controller's writes in this namespace: what each was answered, and when it came."""
    return [
        (event["responseStatus"]["code"], datetime.fromisoformat(event["requestReceivedTimestamp"]))
        for event in patches(site.plane, OURS, site.namespace)
    ]
