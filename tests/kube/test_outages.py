"""The API server is away, slow, or refuses: uploads go on, requests stay few, pointers are there soon after.

Cases: it is killed and started again; etcd hangs for 30 s; it asks to wait (429); it fails (500); every patch
conflicts, and every second; an admission webhook is dead, and slow; one namespace's webhook holds up no other
namespace; under a low rate, new and ended runs come before others, and the list and the watch do not wait.
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from offload.dev.stores import StoreAddress
from offload.index import runs
from tests.kube.audit import OURS, asked
from tests.kube.control_plane import ControlPlane
from tests.kube.faults import Asked, Faults, answer
from tests.kube.site import SYSTEM, Kubectl, KubeSite
from tests.programs import Stage, free_port, until

SOON = 10.0
"""Seconds after an outage within which every pointer is there."""
AGENTRUNS = "/apis/agents.proompteng.ai/v1alpha1/namespaces/{}/agentruns"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_numbers = itertools.count(1)


class TwoNamespaces(KubeSite):
    """A site that follows another namespace too, through faults."""

    def __init__(self, *parts: Any, faults: Faults) -> None:
        super().__init__(*parts)
        self.other = f"{self.namespace}-b"
        self.kubectl("create", "namespace", self.other)
        self._stack.callback(self.kubectl, "delete", "namespace", self.other, "--wait=false")
        role = self.kubectl("kustomize", "deploy/base/rbac-namespaced")
        Kubectl(self.kubeconfig, self.other)("apply", "-f", "-", stdin=role)
        self.environment["OFFLOAD_NAMESPACES"] = f"{self.namespace},{self.other}"
        self.accounts = {
            role: self.plane.service_account_kubeconfig(
                self.folder / f"{role}.kubeconfig", SYSTEM, f"offload-{role}", url=faults.url
            )
            for role in self.accounts
        }


class Outage:
    """A service that reaches the API server through faults, with runs that it knows."""

    def __init__(self, site: TwoNamespaces, faults: Faults) -> None:
        self.site, self.stage, self.faults, self.plane = site, site.stage, faults, site.plane

    def known(self, count: int = 3) -> dict[str, list[str]]:
        """New runs that have published, and what each is to list."""
        names = [f"run-{next(_numbers)}" for _ in range(count)]
        for name in names:
            create_run(self.plane, self.stage.namespace, name)
            assert self.stage.put(name, "before", b"before").status_code == 201
        until(lambda: all(self.lists(name) == ["before"] for name in names))
        return {name: ["before"] for name in names}

    def upload(self, runs: dict[str, list[str]], seconds: float, every: float = 1.0) -> None:
        """Send to each run for some time; all is taken."""
        until_ = time.monotonic() + seconds
        while time.monotonic() < until_:
            for run, listed in runs.items():
                name = f"during-{len(listed)}"
                assert self.stage.put(run, name, name.encode()).status_code == 201
                listed.append(name)
            time.sleep(every)

    def in_the_other_namespace(self) -> "Outage":
        """The same, with runs elsewhere."""
        found = Outage(self.site, self.faults)
        found.stage = Stage(self.stage.url, self.stage.environment, self.stage.home, self.site.other)
        return found

    def published(self, runs: dict[str, list[str]], seconds: float = SOON) -> None:
        """Every pointer is there in time, and then nothing more is written."""
        until(lambda: all(self.lists(run) == listed for run, listed in runs.items()), seconds)
        until(lambda: all(self.stage.is_current(run) for run in runs))

    def lists(self, run: str) -> list[str]:
        found = self.plane.request("GET", f"{AGENTRUNS.format(self.stage.namespace)}/{run}")
        return [entry["name"] for entry in found.get("status", {}).get("artifacts", [])]

    def knows(self, run: str) -> bool:
        """Whether the watch has told of a run that nobody asked for."""
        with self.site.index.read() as tx:
            return runs.find(tx, self.stage.namespace, run) is not None

    def patches(self, since: float, passed: bool | None = None) -> list[Asked]:
        asked = self.faults.since(since, method="PATCH")
        return [one for one in asked if passed is None or one.passed is passed]


def create_run(plane: ControlPlane, namespace: str, name: str) -> None:
    run = {
        "apiVersion": "agents.proompteng.ai/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": name},
        "spec": {"agentRef": {"name": "coder"}},
    }
    plane.request("POST", AGENTRUNS.format(namespace), run)


@pytest.fixture(scope="module")
def outage(
    control_plane: ControlPlane,
    kubectl: Kubectl,  # noqa: ARG001 - has our service accounts made
    create_database: Callable[[], str],
    seaweedfs: StoreAddress,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Outage]:
    with ExitStack() as stack:
        faults = stack.enter_context(Faults(control_plane))
        folder = tmp_path_factory.mktemp("outages")
        site = TwoNamespaces(folder, create_database(), seaweedfs, stack, control_plane, faults=faults)
        site.all()
        yield Outage(site, faults)


def test_the_api_server_is_killed_and_started_again(outage: Outage) -> None:
    runs, began = outage.known(), time.monotonic()
    outage.plane.kill("kube-apiserver")
    outage.upload(runs, 4)
    outage.plane.start_api_server()
    up = time.monotonic()
    seconds = up - began
    create_run(outage.plane, outage.stage.namespace, "created-after")
    outage.published(runs)
    # The watch is well again too: what it had seen last may be too old for the new server.
    until(lambda: outage.knows("created-after"), SOON)
    lists = [one for one in outage.faults.since(began) if one.passed and "limit" in one.query]
    assert len(lists) <= 4
    assert len(outage.faults.since(began)) < 40 + 4 * seconds
    # One for each run at least, and a second a run for what came last.
    assert len(outage.patches(began, passed=True)) <= 4 * len(runs)


def test_etcd_hangs_for_half_a_minute(outage: Outage) -> None:
    runs, began = outage.known(), time.monotonic()
    outage.plane.freeze("etcd")
    try:
        outage.upload(runs, 30, every=5)
    finally:
        outage.plane.thaw("etcd")
    outage.published(runs)
    assert len(outage.faults.since(began)) < 40 + 2 * 30
    patched = [one.path for one in outage.patches(began)]
    assert len(patched) < 30


def test_a_server_that_asks_to_wait_is_asked_no_more_until_then(outage: Outage) -> None:
    runs, began = outage.known(), time.monotonic()
    with outage.faults.failing(answer(429, retry_after=2), user="controller"):
        outage.upload(runs, 5)
    ended = time.monotonic()
    outage.published(runs)
    refused = [one.at for one in outage.faults.since(began) if not one.passed and one.at < ended]
    # A process asks, is told to wait for 2 s, and asks again: what was under way at the time comes on top.
    assert 1 <= len(refused) < 20
    later = sorted(at for at in refused if at > refused[0] + 1)
    assert all(at > refused[0] + 1.9 for at in later)


def test_a_server_that_fails_is_asked_ever_less(outage: Outage) -> None:
    runs, began = outage.known(), time.monotonic()
    with outage.faults.failing(answer(500), user="controller"):
        outage.upload(runs, 5)
        refused = len(outage.faults.since(began))
    outage.published(runs)
    assert 1 <= refused < 30
    assert len(outage.patches(began, passed=True)) <= 3 * len(runs)


def test_a_storm_of_conflicts_is_no_hot_loop(outage: Outage) -> None:
    runs, began = outage.known(1), time.monotonic()
    with outage.faults.failing(answer(409), method="PATCH", path="/status"):
        outage.upload(runs, 5)
        conflicts = len(outage.patches(began))
    outage.published(runs)
    assert 5 <= conflicts < 30


def test_a_half_of_all_patches_conflict(outage: Outage) -> None:
    runs, began = outage.known(3), time.monotonic()
    with outage.faults.failing(answer(409), method="PATCH", path="/status", share=0.5):
        outage.upload(runs, 2, every=0.5)
        outage.published(runs)
        seconds = time.monotonic() - began
    assert len(outage.patches(began, passed=True)) <= len(runs) * (seconds + 1)


@contextmanager
def webhook(plane: ControlPlane, namespace: str, *, port: int, seconds: int) -> Iterator[None]:
    """Status patches in a namespace ask a server on a port before they are taken."""
    name = f"guard-{next(_numbers)}.example.com"
    rule = {
        "apiGroups": ["agents.proompteng.ai"], "apiVersions": ["*"], "operations": ["UPDATE"],
        "resources": ["agentruns/status"],
    }  # fmt: skip
    plane.request("POST", WEBHOOKS, {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": name, "rules": [rule], "failurePolicy": "Fail", "sideEffects": "None",
            "timeoutSeconds": seconds, "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": f"https://127.0.0.1:{port}/validate"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        }],
    })  # fmt: skip
    try:
        yield
    finally:
        plane.request("DELETE", f"{WEBHOOKS}/{name}")


@pytest.mark.parametrize("how", ["dead", "slow"])
def test_a_webhook_that_does_not_answer(outage: Outage, how: str) -> None:
    runs = outage.known()
    # One that nobody accepts from takes a connection, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if how == "slow" else free_port()
        with webhook(outage.plane, outage.site.namespace, port=port, seconds=2):
            began = time.monotonic()
            outage.upload(runs, 4)
            refused = len(outage.patches(began))
    began = time.monotonic()
    outage.published(runs)
    assert 1 <= refused < 25
    assert len(outage.patches(began)) <= 4 * len(runs)


def test_one_namespaces_webhook_holds_up_no_other(outage: Outage) -> None:
    struck = outage.known(12)
    well = outage.in_the_other_namespace()
    runs = well.known(3)
    with webhook(outage.plane, outage.site.namespace, port=free_port(), seconds=1):
        outage.upload(struck, 1)
        began = time.monotonic()
        well.upload(runs, 4, every=2)
        well.published(runs)
        refused = len(outage.patches(began))
    outage.published(struck)
    assert 1 <= refused < 100


def test_under_a_low_rate_urgent_runs_come_first_and_the_list_does_not_wait(kube_site: KubeSite) -> None:
    site, stage = kube_site, kube_site.stage
    site.serve()
    fast = site.controller()
    calm = [f"calm-{n}" for n in range(20)]
    for name in [*calm, "ended"]:
        create_run(site.plane, site.namespace, name)
        assert stage.put(name, "first", b"first").status_code == 201
    until(lambda: all(stage.is_current(name) for name in [*calm, "ended"]))
    fast.end()
    for name in calm:
        assert stage.put(name, "second", b"second").status_code == 201
    create_run(site.plane, site.namespace, "new")
    assert stage.put("new", "first", b"first").status_code == 201
    stage.patch_status("ended", phase="Succeeded", finishedAt="2026-01-01T00:00:00Z")
    assert stage.put("ended", "last", b"last").status_code == 201

    before = len(own(site))
    site.controller(OFFLOAD_KUBERNETES_RATE="5")
    until(lambda: all(stage.is_current(name) for name in [*calm, "new", "ended"]))
    assert (stage.names("new"), stage.names("ended")) == (["first"], ["first", "last"])
    until(lambda: [one for one in own(site)[before:] if one["verb"] == "watch"], 20)
    done = own(site)[before:]
    patched = [one["objectRef"]["name"] for one in done if one["verb"] == "patch"]
    # The eight that were claimed first were claimed before the watch told that a run had ended.
    assert patched.index("new") < 8
    assert patched.index("ended") < 16
    assert set(patched) == {*calm, "new", "ended"}
    assert [one["verb"] for one in done].index("list") < 16


def own(site: KubeSite) -> list[dict[str, Any]]:
    """The controller's requests in the site's namespace, as the API server logged them."""
    return asked(site.plane, OURS, site.namespace)
