"""The rights of deploy/base, by what the API server's audit log says of our service accounts.

- over a run's whole life nothing that they ask for is refused, and every right that they have is used
- with OFFLOAD_NAMESPACES nothing is asked for outside these namespaces, and runs of others stay untouched
- without it all namespaces are followed, as one
- what else they read, the default roles for every authenticated identity give; `offload doctor` tells where
  a cluster took that away
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from offload.index import publishing
from tests.kube.control_plane import ControlPlane
from tests.kube.site import SYSTEM, Kubectl, KubeSite
from tests.programs import Stage, until

AGENTRUNS = "agents.proompteng.ai"
ROLES = ("serve", "controller")
Right = tuple[str, str, str]
"""API group, resource with subresource, verb."""
DEFAULT_RIGHTS: set[Right] = {("authorization.k8s.io", "selfsubjectaccessreviews", "create")}
"""What system:basic-user gives to everyone."""
DISCOVERY = {"/version", "/openapi/v3", f"/openapi/v3/apis/{AGENTRUNS}/v1alpha1"}
"""What system:discovery gives to everyone."""


class Audit:
    """What our accounts asked for since this was made."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._before = {role: sum(1 for _ in plane.audit(_user(role))) for role in ROLES}

    def events(self, role: str) -> list[dict[str, Any]]:
        return list(islice(self._plane.audit(_user(role)), self._before[role], None))

    def used(self, role: str) -> set[Right]:
        return {
            (one.get("apiGroup", ""), "/".join(filter(None, (one["resource"], one.get("subresource")))), verb)
            for one, verb in self._objects(role)
        }

    def namespaces(self, role: str) -> set[str]:
        """Where it asked for AgentRuns and Events; the empty one is all of them."""
        return {
            one.get("namespace", "")
            for one, _ in self._objects(role)
            if one["resource"] in ("agentruns", "events")
        }

    def paths(self, role: str) -> set[str]:
        """What it asked for that is no object."""
        return {
            event["requestURI"].partition("?")[0] for event in self.events(role) if "objectRef" not in event
        }

    def refused(self) -> list[tuple[Any, ...]]:
        return [
            (role, event["verb"], event["requestURI"], event["responseStatus"])
            for role in ROLES
            for event in self.events(role)
            if event["annotations"].get("authorization.k8s.io/decision") != "allow"
            or event["responseStatus"]["code"] in (401, 403)
        ]

    def _objects(self, role: str) -> Iterator[tuple[dict[str, Any], str]]:
        for event in self.events(role):
            if "objectRef" in event:
                yield event["objectRef"], event["verb"]


def test_in_some_namespaces_every_right_is_used_and_no_other_is_missed(
    kube_site: KubeSite, control_plane: ControlPlane
) -> None:
    second, third = kube_site.another("second"), kube_site.another("third")
    second.kubectl("apply", "-f", "-", stdin=kube_site.kubectl("kustomize", "deploy/base/rbac-namespaced"))
    kube_site.environment["OFFLOAD_NAMESPACES"] = f"{kube_site.namespace},{second.namespace}"
    third.create_run("theirs", phase="Running")
    before = third.read("theirs")
    audit = Audit(control_plane)

    live(kube_site, [kube_site.stage, second])

    assert third.put("theirs", "log", b"hello").status_code == 404
    assert third.read("theirs") == before
    assert audit.refused() == []
    for role in ROLES:
        assert audit.namespaces(role) == {kube_site.namespace, second.namespace}
        assert audit.paths(role) <= DISCOVERY
        for stage in (kube_site.stage, second):
            found = json.loads(stage.kubectl("get", "role", f"offload-{role}", "-o", "json"))
            assert audit.used(role) - DEFAULT_RIGHTS == rights(found)


def test_in_all_namespaces_every_right_is_used_and_no_other_is_missed(
    kube_site: KubeSite, control_plane: ControlPlane, cluster_role: Kubectl
) -> None:
    kube_site.environment["OFFLOAD_NAMESPACES"] = ""
    audit = Audit(control_plane)

    live(kube_site, [kube_site.stage, kube_site.another("second")])

    assert audit.refused() == []
    for role in ROLES:
        assert audit.paths(role) <= DISCOVERY
        assert audit.used(role) - DEFAULT_RIGHTS == rights(
            cluster_role.json("get", "clusterrole", f"offload-{role}")
        )
    followed = [
        event["objectRef"].get("namespace")
        for event in audit.events("controller")
        if event["verb"] in ("list", "watch")
    ]
    assert set(followed) == {None}


def test_a_cluster_without_the_discovery_roles_is_told_of_by_doctor(
    kube_site: KubeSite, control_plane: ControlPlane
) -> None:
    name = "clusterrolebinding/system:discovery"
    binding = kube_site.kubectl.json("get", name)
    binding["metadata"] = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}
    kube_site.kubectl("delete", name)
    try:
        until(lambda: not may_discover(control_plane))
        found = json.loads(doctor(kube_site, "--json", code=1))["findings"]
    finally:
        kube_site.kubectl("create", "-f", "-", stdin=binding)
    broken = {one["check"]: one["found"] for one in found if one["state"] == "broken"}
    assert broken["get /openapi/v3"] == "not granted"


@pytest.fixture
def cluster_role(kube_site: KubeSite) -> Iterator[Kubectl]:
    """Rights in all namespaces, in place of those in one."""
    kube_site.kubectl("delete", "role,rolebinding", "--all")
    kube_site.grant("rbac-cluster")
    yield kube_site.kubectl
    kube_site.kubectl("delete", "-k", "deploy/base/rbac-cluster")


def live(site: KubeSite, stages: list[Stage]) -> None:
    """The whole life of a run in each namespace, and an operator's look at the service."""
    site.serve()
    for stage in stages:
        stage.create_run("demo", phase="Running")
        # The controller is not there yet: the API server tells which run it is.
        assert stage.put("demo", "log", b"hello").status_code == 201
    site.controller(JANGAR_AGENTRUN_ARTIFACTS_MAX="1")
    for stage in stages:
        until(lambda stage=stage: stage.names("demo") == ["log"])
        assert stage.put("demo", "diff", b"+").status_code == 201
        until(lambda stage=stage: stage.names("demo") == ["diff"])
        until(lambda stage=stage: stage.events("demo"))
        look_again(site, stage)
        stage.kubectl("delete", "agentrun", "demo")
        until(lambda stage=stage: deleted(stage, "demo"))
        assert len(stage.history("demo")) == 2
    doctor(site)


def look_again(site: KubeSite, stage: Stage) -> None:
    """Have the status confirmed where there is nothing to write."""
    until(lambda: stage.is_current("demo"))
    uid = stage.read("demo")["metadata"]["uid"]
    with site.index.begin() as tx:
        publishing.touch(tx, uid)
    until(lambda: stage.is_current("demo"))


def deleted(stage: Stage, run: str) -> bool:
    return bool(stage.get(f"namespaces/{stage.namespace}/agentruns/{run}").json()["deletedAt"])


def may_discover(plane: ControlPlane) -> bool:
    attributes = {"path": "/openapi/v3", "verb": "get"}
    spec = {"user": _user("controller"), "groups": ["system:authenticated"]}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {**spec, "nonResourceAttributes": attributes},
    }
    answer = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def doctor(site: KubeSite, *options: str, code: int = 0) -> str:
    """What it says in the controller's Pod."""
    environment = {**site.environment, "OFFLOAD_KUBECONFIG": str(site.accounts["controller"])}
    return Stage(site.stage.url, environment, site.folder).offload("doctor", *options, code=code)


def rights(role: dict[str, Any]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _user(role: str) -> str:
    return f"system:serviceaccount:{SYSTEM}:offload-{role}"
