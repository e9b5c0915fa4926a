"""The control plane of these tests is a whole one, and the service works on it.

- an account without rights is refused; one that bears no token is nobody
- each namespace gets its default service account; a namespace that is deleted goes, with what is in it
- what an object owns goes with it
- admission policies in CEL are served and enforced
- aggregated roles are filled
- an artifact's pointer reaches the status, with the service's processes as their service accounts
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.control_plane import ControlPlane
from tests.kube.site import Kubectl, KubeSite
from tests.programs import until

AGENTRUNS = "agents.proompteng.ai/v1alpha1"
ADMISSION = "admissionregistration.k8s.io/v1"


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = "whole"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--ignore-not-found")


def test_an_account_without_rights_is_refused(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    until(lambda: "default" in kubectl("get", "serviceaccounts", "-n", namespace, "-o", "name"))
    path = control_plane.service_account_kubeconfig(tmp_path / "kubeconfig", namespace, "default")
    account = Kubectl(path, namespace)
    assert "gitVersion" in account("get", "--raw", "/version")
    assert "Forbidden" in account("get", "agentruns", fails=True)
    path.with_suffix(".token").write_text("nonsense")
    assert "Unauthorized" in account("get", "--raw", "/version", fails=True)


def test_a_deleted_namespace_goes_with_what_is_in_it(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", stdin=an_object("AgentRun", "demo"))
    kubectl("delete", "namespace", namespace)
    assert f"{namespace} " not in kubectl("get", "agentruns", "--all-namespaces", "--no-headers")


def test_what_an_object_owns_goes_with_it(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "configmap", "owner", "-n", namespace)
    uid = kubectl.json("get", "configmap", "owner", "-n", namespace)["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = an_object("ConfigMap", "owned", "v1", ownerReferences=[owner])
    kubectl("create", "-n", namespace, "-f", "-", stdin=owned)
    kubectl("delete", "configmap", "owner", "-n", namespace)
    until(lambda: "owned" not in kubectl("get", "configmaps", "-n", namespace, "-o", "name"))


def test_admission_policies_are_enforced(kubectl: Kubectl, namespace: str) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    validation = {"expression": "object.metadata.name != 'refused'", "message": "not this name"}
    policy = an_object("ValidatingAdmissionPolicy", "whole", ADMISSION)
    policy["spec"] = {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]}
    binding = an_object("ValidatingAdmissionPolicyBinding", "whole", ADMISSION)
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding["spec"] = {"policyName": "whole", "validationActions": ["Deny"], "matchResources": here}
    create = ("create", "configmap", "refused", "-n", namespace, "--dry-run=server")
    both = {"apiVersion": "v1", "kind": "List", "items": [policy, binding]}
    kubectl("create", "-f", "-", stdin=both)
    try:
        # A policy is in force some time after it was made.
        until(lambda: "not this name" in kubectl(*create, fails=None))
    finally:
        kubectl("delete", "-f", "-", stdin=both)


def test_aggregated_roles_are_filled(kubectl: Kubectl) -> None:
    assert kubectl.json("get", "clusterrole", "view")["rules"]


def test_a_pointer_reaches_the_status(kube_site: KubeSite) -> None:
    kube_site.all()
    stage = kube_site.stage
    stage.create_run("demo")
    assert stage.put("demo", "log", b"hello").status_code == 201
    until(lambda: stage.names("demo") == ["log"])


def an_object(kind: str, name: str, version: str = AGENTRUNS, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}}
