"""Tokens of service accounts that are replaced, and that are no longer taken, on a real API server.

- one that was withdrawn and replaced: 401 is told in /readyz until then, nothing that was acknowledged is
  lost, and all goes on without a restart
- a watch goes on past the end of the token that it was opened with
- in a Pod, whose token the kubelet replaces, each request uses what is in the file
"""

import threading

import pytest
from kubernetes.config import incluster_config

from offload.cluster import feed
from offload.cluster.interface import Present
from offload.cluster.kubernetes import KubernetesCluster
from offload.errors import AgentRunGoneError, ClusterForbiddenError
from offload.settings import load_settings
from offload.wiring.controlling import controlling
from tests.kube.control_plane import ControlPlane
from tests.kube.site import KubeSite
from tests.programs import until


class Account:
    """A service account of one test, with the controller's rights, whose tokens can be withdrawn."""

    def __init__(self, site: KubeSite, plane: ControlPlane, name: str) -> None:
        self._site, self._plane, self._name = site, plane, name
        self._kubectl, self._namespace = site.kubectl, site.namespace
        self._kubectl("create", "serviceaccount", name)
        binding = f"--serviceaccount={site.namespace}:{name}"
        self._kubectl("create", "rolebinding", name, "--role=offload-controller", binding)
        self.kubeconfig = plane.service_account_kubeconfig(
            site.folder / f"{name}.kubeconfig", site.namespace, name
        )
        self.token_file = self.kubeconfig.with_suffix(".token")

    def withdraw_tokens(self) -> None:
        """End all tokens so far: they name the account's uid."""
        self._kubectl("delete", "serviceaccount", self._name)
        self._kubectl("create", "serviceaccount", self._name)

    def replace_token(self) -> None:
        self._plane.write_token(self.token_file, self._namespace, self._name)


@pytest.fixture
def account(kube_site: KubeSite, control_plane: ControlPlane) -> Account:
    return Account(kube_site, control_plane, "rotated")


def test_a_replaced_token_is_used_without_a_restart(
    kube_site: KubeSite, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WATCH_SECONDS", 2)
    stage = kube_site.stage
    kube_site.serve()
    for name, value in kube_site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OFFLOAD_KUBECONFIG", str(account.kubeconfig))
    with controlling(load_settings()) as controller:
        stage.create_run("demo")
        assert stage.put("demo", "first", b"hello").status_code == 201
        until(lambda: stage.names("demo") == ["first"])
        until(lambda: controller.ready() == [])

        account.withdraw_tokens()
        until(lambda: any("401" in problem and "expired" in problem for problem in controller.ready()))
        assert stage.put("demo", "second", b"hello").status_code == 201
        stage.create_run("later", phase="Running")

        account.replace_token()
        until(lambda: stage.names("demo") == ["first", "second"], seconds=15)
        until(lambda: stage.get(f"namespaces/{stage.namespace}/agentruns/later").json()["phase"] == "Running")
        until(lambda: controller.ready() == [])


def test_a_watch_outlives_the_token_that_it_was_opened_with(kube_site: KubeSite, account: Account) -> None:
    stage, stop, seen = kube_site.stage, threading.Event(), list[str]()
    cluster = KubernetesCluster.from_config(str(account.kubeconfig), [kube_site.namespace])

    def follow() -> None:
        for change in cluster.changes(stop):
            if isinstance(change, Present):
                seen.append(change.run.seen.name)

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    stage.create_run("before")
    until(lambda: "before" in seen)
    account.withdraw_tokens()
    until(lambda: refused(cluster, stage.namespace))
    stage.create_run("during")
    until(lambda: "during" in seen)
    account.replace_token()
    assert cluster.get(stage.namespace, "during").seen.name == "during"
    stop.set()
    reader.join(5)
    cluster.close()


def test_in_a_pod_the_service_accounts_file_is_followed(
    kube_site: KubeSite, account: Account, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account.token_file))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", control_plane.ca_file)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(control_plane.port))
    cluster = KubernetesCluster.from_config(None, [kube_site.namespace])
    for _ in range(2):
        assert cluster.permissions()["patch agentruns/status"]
        account.replace_token()
    cluster.close()
    asked = control_plane.audit(f"system:serviceaccount:{kube_site.namespace}:rotated")
    tokens = [event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0] for event in asked]
    half = len(tokens) // 2
    assert len(set(tokens[:half])) == len(set(tokens[half:])) == 1
    assert tokens[0] != tokens[-1]


def refused(cluster: KubernetesCluster, namespace: str) -> bool:
    try:
        cluster.get(namespace, "before")
    except ClusterForbiddenError as error:
        assert "401" in error.detail  # noqa: PT017 - the other answers are no errors here
        return True
    except AgentRunGoneError:
        pass
    return False
