"""The list and the watch on a real API server, with faults in between.

Cases: lists come in pages, one at a time over all namespaces; a page that fails is asked for again, and none
before it; a watch that ends in order goes on where it was, also after many refusals; a revision that the API
server no longer has, and an expired page token, list that namespace again and no other; replicas that must
list again do so apart; a connection that is silently dead is noticed within 60 s, and a Pod's new token is in
use by then.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from offload.cluster import feed
from offload.cluster.interface import Change, Listed, Present
from offload.cluster.kubernetes import KubernetesCluster
from tests.kube import audit
from tests.kube.audit import OURS
from tests.kube.control_plane import ControlPlane
from tests.kube.faults import Asked, Faults, answer, delay, expired_event
from tests.kube.site import SYSTEM, Kubectl
from tests.programs import until

AGENTRUNS = "/apis/agents.proompteng.ai/v1alpha1/namespaces/{}/agentruns"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def faults(control_plane: ControlPlane) -> Iterator[Faults]:
    with Faults(control_plane) as faults:
        yield faults


class Following:
    """One cluster's changes, as they come."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self.cluster, self.seen, self._stop = cluster, list[Change](), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def names(self, kind: type = Present) -> list[str]:
        return [one.run.seen.name for one in list(self.seen) if isinstance(one, kind)]

    def lists(self) -> list[Listed]:
        return [one for one in list(self.seen) if isinstance(one, Listed)]

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.cluster.close()

    def _run(self) -> None:
        for change in self.cluster.changes(self._stop):
            self.seen.append(change)


class Ground:
    """Namespaces of the test's own, and clusters that follow them as the controller does."""

    def __init__(self, plane: ControlPlane, kubectl: Kubectl, faults: Faults, folder: Path) -> None:
        self.plane, self.kubectl, self.faults, self.folder = plane, kubectl, faults, folder
        self.namespaces: list[str] = []
        self._stack = ExitStack()

    def namespace(self) -> str:
        name = f"watched-{next(_numbers)}"
        self.kubectl("create", "namespace", name)
        self._stack.callback(self.kubectl, "delete", "namespace", name, "--wait=false")
        role = self.kubectl("kustomize", "deploy/base/rbac-namespaced")
        self.kubectl("apply", "-n", name, "-f", "-", stdin=role)
        self.namespaces.append(name)
        return name

    def create(self, namespace: str, *names: str) -> None:
        for name in names:
            run = {
                "apiVersion": "agents.proompteng.ai/v1alpha1",
                "kind": "AgentRun",
                "metadata": {"name": name},
                "spec": {"agentRef": {"name": "coder"}},
            }
            self.plane.request("POST", AGENTRUNS.format(namespace), run)

    def kubeconfig(self) -> Path:
        path = self.folder / f"{next(_numbers)}.kubeconfig"
        return self.plane.service_account_kubeconfig(path, SYSTEM, "offload-controller", url=self.faults.url)

    def as_a_pod(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Have what runs in this process find what the controller's Pod has; where its token is."""
        token = self.folder / "token"
        self.plane.write_token(token, SYSTEM, "offload-controller")
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", self.plane.ca_file)
        host, _, port = self.faults.url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        return token

    def follow(self, *namespaces: str, in_a_pod: bool = False) -> Following:
        path = None if in_a_pod else str(self.kubeconfig())
        following = Following(KubernetesCluster.from_config(path, namespaces))
        self._stack.callback(following.end)
        return following

    def asked(self, began: float, namespace: str, *, watch: bool) -> list[Asked]:
        path = AGENTRUNS.format(namespace)
        return [one for one in self.faults.since(began, path=path) if ("watch" in one.query) is watch]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def ground(control_plane: ControlPlane, kubectl: Kubectl, faults: Faults, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(control_plane, kubectl, faults, tmp_path)
    yield made
    made.close()


class Dead:
    """A Pod whose connections all go silent, that of its watch and one that waits in the pool."""

    def __init__(self, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults = ground.faults
        token = ground.as_a_pod(monkeypatch)
        namespace = ground.namespace()
        self.following = ground.follow(namespace, in_a_pod=True)
        until(self.following.lists)
        self.following.cluster.check()
        ground.create(namespace, "before")
        until(lambda: "before" in self.following.names())
        ground.plane.write_token(token, SYSTEM, "offload-controller", seconds=1800)
        self.new_token = token.read_text()
        self.faults.deaden()
        began = time.monotonic()
        ground.create(namespace, "after")

        def notice() -> float:
            until(lambda: "after" in self.following.names(), 90)
            return time.monotonic() - began

        self._thread = ThreadPoolExecutor(1)
        self.noticed_after = self._thread.submit(notice)

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture(scope="module", autouse=True)
def dead(
    control_plane: ControlPlane, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dead]:
    """Made before any test, so that its minute passes while the others run."""
    with ExitStack() as stack:
        faults = stack.enter_context(Faults(control_plane))
        ground = Ground(control_plane, kubectl, faults, tmp_path_factory.mktemp("dead"))
        stack.callback(ground.close)
        with pytest.MonkeyPatch.context() as monkeypatch:
            made = Dead(ground, monkeypatch)
            stack.callback(made.close)
            yield made


def test_a_watch_that_ends_goes_on_where_it_was(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE", 4)
    monkeypatch.setattr(feed, "WATCH_SECONDS", 2)
    namespace, began = ground.namespace(), time.monotonic()
    ground.create(namespace, *(f"run-{n}" for n in range(10)))
    following = ground.follow(namespace)
    until(following.lists)
    assert len(following.lists()[0].uids) == 10
    assert [one.query.get("limit") for one in ground.asked(began, namespace, watch=False)] == ["4"] * 3
    for watches, name in enumerate(("a", "b", "c"), start=1):
        ground.create(namespace, name)
        until(lambda name=name: name in following.names())  # type: ignore[misc]
        until(lambda more=watches: len(ground.asked(began, namespace, watch=True)) > more)  # type: ignore[misc]
    asked = ground.asked(began, namespace, watch=True)
    revisions = [int(one.query["resourceVersion"]) for one in asked]
    assert revisions == sorted(revisions)
    assert {one.query["allowWatchBookmarks"] for one in asked} == {"true"}
    assert len(following.lists()) == 1
    assert len(following.names()) == 13
    # What was asked is what the API server logged.
    assert [one["verb"] for one in audit.asked(ground.plane, OURS, namespace)].count("list") == 3


@pytest.mark.parametrize("how", ["answer", "event", "page"])
def test_what_expired_lists_that_namespace_again_and_no_other(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(feed, "PAGE", 2)
    monkeypatch.setattr(feed, "WATCH_SECONDS", 2)
    other, struck = ground.namespace(), ground.namespace()
    for namespace in (other, struck):
        ground.create(namespace, "one", "two", "three")
    fault = expired_event() if how == "event" else answer(410)
    path = f"{struck}/.*continue" if how == "page" else f"{struck}/.*watch"
    began = time.monotonic()
    with ground.faults.failing(fault, path=path, count=1):
        following = ground.follow(other, struck)
        first_pages = [None, None]
        until(lambda: ground.asked(began, other, watch=True) and ground.asked(began, struck, watch=True))

        def pages(namespace: str) -> list[str | None]:
            return [one.query.get("continue") for one in ground.asked(began, namespace, watch=False)]

        until(lambda: [page for page in pages(struck) if not page] == first_pages)

    def complete() -> list[int]:
        return [len(one.uids) for one in following.lists() if one.namespace == struck]

    until(lambda: len(complete()) == (1 if how == "page" else 2))
    ground.create(struck, "after")
    until(lambda: "after" in following.names())
    assert [page for page in pages(other) if not page] == [None]
    assert complete() == ([3] if how == "page" else [3, 3])


def test_replicas_that_must_list_again_do_so_apart(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "WATCH_SECONDS", 2)
    namespace = ground.namespace()
    followings = [ground.follow(namespace) for _ in range(8)]
    until(lambda: all(one.lists() for one in followings))
    began = time.monotonic()
    with ground.faults.failing(answer(410), watch=True):
        until(lambda: all(len(one.lists()) > 1 for one in followings))

    def pause(token: str) -> float:
        """Between a replica's first refusal and the list that follows."""
        refused, listed = (
            [one.at for one in ground.asked(began, namespace, watch=watch) if one.token == token]
            for watch in (True, False)
        )
        return listed[0] - refused[0]

    tokens = {one.token for one in ground.asked(began, namespace, watch=True)}
    pauses = sorted(pause(token) for token in tokens)
    assert len(pauses) == 8
    assert pauses[-1] - pauses[0] > 0.05


def test_pages_of_all_namespaces_come_one_at_a_time(ground: Ground) -> None:
    namespaces = [ground.namespace() for _ in range(4)]
    began = time.monotonic()
    with ground.faults.failing(delay(0.5), path="limit"):
        following = ground.follow(*namespaces)
        until(lambda: len(following.lists()) == 4)
    at = sorted(one.at for name in namespaces for one in ground.asked(began, name, watch=False))
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) > 0.4


def test_a_page_that_fails_is_asked_for_again_and_none_before_it(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE", 2)
    namespace, began = ground.namespace(), time.monotonic()
    ground.create(namespace, *"abcdef")
    with ground.faults.failing(answer(500), path="continue", count=3):
        following = ground.follow(namespace)
        until(following.lists)
    pages = [one.query.get("continue") for one in ground.asked(began, namespace, watch=False)]
    assert len(set(pages)) == 3
    assert pages.count(None) == 1
    assert len(following.lists()[0].uids) == 6


def test_a_watch_that_is_refused_for_long_goes_on_where_it_was(ground: Ground) -> None:
    namespace, began = ground.namespace(), time.monotonic()
    with ground.faults.failing(answer(500), watch=True, count=5):
        following = ground.follow(namespace)
        until(lambda: len(ground.asked(began, namespace, watch=True)) > 5)
    ground.create(namespace, "after")
    until(lambda: "after" in following.names())
    assert len(following.lists()) == 1


def test_a_silently_dead_connection_is_noticed_within_a_minute(dead: Dead) -> None:
    assert 40 < dead.noticed_after.result(60) < 60
    assert len(dead.following.lists()) == 1
    # The kubelet had put a new token into the file.
    assert dead.faults.asked[0].token != dead.faults.asked[-1].token == dead.new_token
