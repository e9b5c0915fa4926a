"""What `deploy/` renders to.

- each folder renders, and each object is one that Kubernetes takes (its own schemas, strict)
- each Pod meets the restricted Pod Security Standard, and our own rules on top; each rule notices its breach
- the rights are exactly the ones that the code uses, in both modes, and reach the watched namespaces only
- Services, budgets and policies select the Pods that they are for
- the policy judges what was there as it judges what is, refuses only as `deny`, and lets through
  what it cannot evaluate
- images are pinned, environment variables are settings, ports and paths are the ones that are served,
  retention files are valid
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from offload import __version__
from offload.cluster.kubernetes import PERMISSIONS
from offload.domain.limits import URI_LENGTH
from offload.rules_file import load_rules
from offload.settings import Settings, environment_names

Objects = list[dict[str, Any]]
Render = Callable[[str], Objects]

BASE, EXAMPLE = "deploy/base", "deploy/overlays/example"
CLUSTER, NAMESPACED = "deploy/base/rbac-cluster", "deploy/base/rbac-namespaced"
AUDIT, DENY = "deploy/policy/audit", "deploy/policy/deny"
FOLDERS = [BASE, CLUSTER, NAMESPACED, EXAMPLE, AUDIT, DENY]
POLICY = "offload-pointers-only"
WORKLOADS = ["offload-serve", "offload-controller"]
KUBERNETES = ["1.30", "1.37"]
AWS_CHAIN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_one_that_kubernetes_takes(folder: str, version: str, render: Render) -> None:
    objects = render(folder)
    assert objects
    for manifest in objects:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_has_the_recommended_labels(folder: str, render: Render) -> None:
    for manifest in render(folder):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "offload", manifest
        assert labels["app.kubernetes.io/part-of"] == "offload", manifest


# The restricted Pod Security Standard (Kubernetes documentation, "Pod Security Standards"), and below it what
# we add. Each row: the rule, whether a Pod meets it, and a change that breaks it.

Pod = dict[str, Any]
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral",
    "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def _containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _security(pod: Pod) -> list[Mapping[str, Any]]:
    return [container.get("securityContext", {}) for container in _containers(pod)]


def _with(path: str, value: Any) -> Callable[[Pod], None]:
    """Set what `path` leads to; a `*` is the first container."""

    def change(pod: Pod) -> None:
        *parents, last = path.split(".")
        place: Any = pod
        for key in parents:
            place = place["containers"][0] if key == "*" else place.setdefault(key, {})
        place[last] = value

    return change


POD_RULES: list[tuple[str, Callable[[Pod], bool], Callable[[Pod], None]]] = [
    (
        "no namespace of the host",
        lambda pod: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
        _with("hostPID", True),
    ),
    (
        "volumes of harmless kinds only",
        lambda pod: all(set(volume) - {"name"} <= RESTRICTED_VOLUMES for volume in pod["volumes"]),
        lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    (
        "no port of the host",
        lambda pod: not any("hostPort" in port for c in _containers(pod) for port in c.get("ports", [])),
        lambda pod: pod["containers"][0]["ports"][0].update(hostPort=80),
    ),
    (
        "not privileged",
        lambda pod: not any(security.get("privileged") for security in _security(pod)),
        _with("*.securityContext.privileged", True),
    ),
    (
        "no privilege escalation",
        lambda pod: all(security.get("allowPrivilegeEscalation") is False for security in _security(pod)),
        _with("*.securityContext.allowPrivilegeEscalation", True),
    ),
    (
        "no capabilities",
        lambda pod: all(security.get("capabilities") == {"drop": ["ALL"]} for security in _security(pod)),
        _with("*.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}),
    ),
    (
        "not root",
        lambda pod: (
            pod["securityContext"].get("runAsNonRoot") is True
            and all(security.get("runAsNonRoot", True) for security in _security(pod))
        ),
        _with("securityContext.runAsNonRoot", False),
    ),
    (
        "the image's user",
        lambda pod: (
            pod["securityContext"].get("runAsUser") == pod["securityContext"].get("runAsGroup") == 10001
            and not any("runAsUser" in security for security in _security(pod))
        ),
        _with("*.securityContext.runAsUser", 0),
    ),
    (
        "the runtime's seccomp profile",
        lambda pod: (
            pod["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"}
            and not any("seccompProfile" in security for security in _security(pod))
        ),
        _with("*.securityContext.seccompProfile", {"type": "Unconfined"}),
    ),
    (
        "no sysctls, no other /proc",
        lambda pod: (
            "sysctls" not in pod["securityContext"]
            and not any("procMount" in security for security in _security(pod))
        ),
        _with("*.securityContext.procMount", "Unmasked"),
    ),
    (
        "a root file system that nobody writes to",
        lambda pod: all(security.get("readOnlyRootFilesystem") is True for security in _security(pod)),
        _with("*.securityContext.readOnlyRootFilesystem", False),
    ),
    (
        "requests, and a limit of memory",
        lambda pod: all(
            {"cpu", "memory"} <= set(container["resources"]["requests"])
            and set(container["resources"].get("limits", {})) == {"memory"}
            for container in _containers(pod)
        ),
        lambda pod: pod["containers"][0]["resources"].pop("limits"),
    ),
    (
        "three probes",
        lambda pod: all(
            container[probe]["httpGet"]["path"] == path
            for container in pod["containers"]
            for probe, path in [
                ("startupProbe", "/livez"),
                ("livenessProbe", "/livez"),
                ("readinessProbe", "/readyz"),
            ]
        ),
        _with("*.livenessProbe", {"httpGet": {"path": "/readyz"}}),
    ),
    (
        "replicas apart from each other",
        lambda pod: (
            {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]}
            == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        ),
        lambda pod: pod["topologySpreadConstraints"].pop(),
    ),
    (
        "more time to end than requests in flight get",
        lambda pod: (
            pod["terminationGracePeriodSeconds"]
            > Settings.model_fields["shutdown_grace"].default.total_seconds() + _pre_stop(pod)
        ),
        _with("terminationGracePeriodSeconds", 30),
    ),
    (
        "a schema that is there before the process",
        lambda pod: [container["args"] for container in pod["initContainers"]] == [["migrate"]],
        _with("initContainers", []),
    ),
]


def _pre_stop(pod: Pod) -> int:
    (container,) = pod["containers"]
    return int(container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 5))


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(("rule", "meets", "breach"), POD_RULES, ids=[row[0] for row in POD_RULES])
def test_a_pod_has(
    name: str,
    rule: str,
    meets: Callable[[Pod], bool],
    breach: Callable[[Pod], None],
    render: Render,
) -> None:
    pod = _one(render(EXAMPLE), "Deployment", name)["spec"]["template"]["spec"]
    assert meets(pod), rule
    broken = copy.deepcopy(pod)
    breach(broken)
    assert not meets(broken), f"nothing would notice a breach of: {rule}"


def test_the_namespace_enforces_the_restricted_standard(render: Render) -> None:
    labels = _one(render(BASE), "Namespace", "offload")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


RIGHTS = {
    "offload-serve": {("agents.proompteng.ai", "agentruns", "get")},
    "offload-controller": {
        ("agents.proompteng.ai", "agentruns", "get"),
        ("agents.proompteng.ai", "agentruns", "list"),
        ("agents.proompteng.ai", "agentruns", "watch"),
        ("agents.proompteng.ai", "agentruns/status", "patch"),
        ("", "events", "create"),
    },
}


@pytest.mark.parametrize(("folder", "kind"), [(CLUSTER, "ClusterRole"), (NAMESPACED, "Role")])
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_service_account_has_exactly_its_rights(name: str, folder: str, kind: str, render: Render) -> None:
    objects = render(folder)
    role = _one(objects, kind, name)
    assert set(_rights(role)) == RIGHTS[name]
    binding = _one(objects, f"{kind}Binding", name)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "offload"}]
    assert len(objects) == 2 * len(WORKLOADS)


def test_the_controller_may_do_what_its_adapter_does() -> None:
    used = {
        (group, f"{plural}/{subresource}" if subresource else plural, verb)
        for verb, group, plural, subresource in PERMISSIONS
    }
    assert used == RIGHTS["offload-controller"]


def test_the_base_gives_no_rights(render: Render) -> None:
    assert not [manifest for manifest in render(BASE) if "rbac" in manifest["apiVersion"]]


def test_the_example_gives_rights_in_the_watched_namespaces_only(render: Render) -> None:
    objects = render(EXAMPLE)
    rights = [manifest for manifest in objects if "rbac" in manifest["apiVersion"]]
    assert {manifest["kind"] for manifest in rights} == {"Role", "RoleBinding"}
    watched = _settings(objects)["OFFLOAD_NAMESPACES"].split(",")
    assert {manifest["metadata"]["namespace"] for manifest in rights} == set(watched)
    assert {manifest["metadata"].get("namespace", "offload") for manifest in objects} == {"offload", *watched}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_known_by_what_is_for_it(name: str, render: Render) -> None:
    objects = render(EXAMPLE)
    workload = _one(objects, "Deployment", name)
    selector = workload["spec"]["selector"]["matchLabels"]
    assert selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    assert workload["spec"]["replicas"] == 2
    pod = workload["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == _one(objects, "ServiceAccount", name)["metadata"]["name"]
    budget = _one(objects, "PodDisruptionBudget", name)["spec"]
    assert (budget["selector"]["matchLabels"], budget["maxUnavailable"]) == (selector, 1)
    assert _one(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"] == selector
    assert [spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]] == [
        selector,
        selector,
    ]


def test_the_service_leads_to_serve(render: Render) -> None:
    objects = render(EXAMPLE)
    service = _one(objects, "Service", "offload")["spec"]
    serve = _one(objects, "Deployment", "offload-serve")["spec"]
    assert service["selector"] == serve["selector"]["matchLabels"]
    ports = {
        port["name"]: port["containerPort"] for port in serve["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports[service["ports"][0]["targetPort"]] == _default("port")


@pytest.mark.parametrize("name", WORKLOADS)
def test_policies_and_annotations_name_the_ports_that_are_served(name: str, render: Render) -> None:
    objects = render(EXAMPLE)
    template = _one(objects, "Deployment", name)["spec"]["template"]
    served = {port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    expected = {_default("metrics_port")} | ({_default("port")} if name == "offload-serve" else set())
    policy = _one(objects, "NetworkPolicy", name)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert served == expected
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == expected
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(_default("metrics_port"))


def test_policies_lead_to_the_clouds_credentials_and_no_other_port_80(render: Render) -> None:
    objects = render(EXAMPLE)
    serves, controllers = (_one(objects, "NetworkPolicy", name)["spec"]["egress"] for name in WORKLOADS)
    assert serves == controllers
    [to_port_80] = [rule for rule in serves if 80 in {port["port"] for port in rule["ports"]}]
    assert to_port_80["ports"] == [{"port": 80}]
    addresses = {peer["ipBlock"]["cidr"] for peer in to_port_80["to"]}
    assert addresses == {"169.254.169.254/32", "169.254.170.23/32"}


@pytest.mark.parametrize("folder", [BASE, EXAMPLE])
def test_images_are_pinned_to_this_release(folder: str, render: Render) -> None:
    images = {c["image"] for pod in _pods(render(folder)) for c in _containers(pod)}
    assert {image.rpartition(":")[2] for image in images} == {__version__}


@pytest.mark.parametrize("folder", [BASE, EXAMPLE])
def test_every_environment_variable_is_a_setting(folder: str, render: Render) -> None:
    objects = render(folder)
    known = {name for field in Settings.model_fields for name in environment_names(field)} | AWS_CHAIN
    given = {entry["name"] for pod in _pods(objects) for c in _containers(pod) for entry in c.get("env", [])}
    assert given | set(_settings(objects)) <= known


def test_the_example_is_a_configuration_that_loads(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(EXAMPLE)
    (serve,) = _one(objects, "Deployment", "offload-serve")["spec"]["template"]["spec"]["containers"]
    plain = {entry["name"]: entry["value"] for entry in serve["env"] if "value" in entry}
    for name, value in (_settings(objects) | plain).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    settings.check_exposure("0.0.0.0")
    assert settings.namespaces == ("agents",)


def test_secrets_come_from_secrets(render: Render) -> None:
    for pod in _pods(render(EXAMPLE)):
        for container in _containers(pod):
            sources = {entry["name"]: entry.get("valueFrom") for entry in container["env"]}
            assert sources["OFFLOAD_DATABASE_URL"] == {
                "secretKeyRef": {"name": "offload-database", "key": "uri"}
            }
            assert all(sources[name] for name in AWS_CHAIN & set(sources))


@pytest.mark.parametrize("name", WORKLOADS)
def test_files_that_settings_name_are_mounted(name: str, render: Render) -> None:
    objects = render(EXAMPLE)
    (container,) = _one(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    values = _settings(objects) | {entry["name"]: entry.get("value") for entry in container["env"]}
    files = [Path(value) for variable, value in values.items() if variable.endswith("_FILE")]
    assert files
    for file in files:
        assert mounts[str(file.parent)]["readOnly"]
        assert "subPath" not in mounts[str(file.parent)]


@pytest.mark.parametrize("folder", [BASE, EXAMPLE])
def test_retention_files_are_valid(folder: str, root: Path) -> None:
    load_rules(root / folder / "retention.yaml")


def test_the_policy_judges_what_was_there_as_it_judges_what_is(render: Render) -> None:
    policy = _one(render(AUDIT), "ValidatingAdmissionPolicy", POLICY)["spec"]
    words = {variable["name"]: variable["expression"] for variable in policy["variables"]}
    assert words["badNow"].replace("variables.now", "variables.before") == words["badBefore"]
    assert words["now"].replace("(object)", "(oldObject)") == words["before"]
    assert f"size(text) > {URI_LENGTH} ||" in words["badNow"]


@pytest.mark.parametrize(("folder", "actions"), [(AUDIT, ["Audit", "Warn"]), (DENY, ["Deny", "Audit"])])
def test_only_deny_refuses(folder: str, actions: list[str], render: Render) -> None:
    objects = render(folder)
    policy, binding = (_one(objects, f"ValidatingAdmissionPolicy{kind}", POLICY) for kind in ("", "Binding"))
    assert binding["spec"] == {"policyName": POLICY, "validationActions": actions}
    assert policy == _one(render(AUDIT), "ValidatingAdmissionPolicy", POLICY)
    assert policy["spec"]["failurePolicy"] == "Ignore"


def _one(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = [m for m in objects if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def _pods(objects: Objects) -> list[Pod]:
    return [m["spec"]["template"]["spec"] for m in objects if m["kind"] == "Deployment"]


def _settings(objects: Objects) -> dict[str, str]:
    (found,) = [
        m["data"]
        for m in objects
        if m["kind"] == "ConfigMap" and m["metadata"]["name"].startswith("offload-settings-")
    ]
    return dict(found)


def _rights(role: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb


def _default(field: str) -> Any:
    return Settings.model_fields[field].default
