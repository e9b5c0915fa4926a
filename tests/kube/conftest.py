"""A real API server with our CRD, our service accounts and a namespace for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from offload.dev.stores import StoreAddress
from tests.kube.control_plane import ControlPlane
from tests.kube.room import KubeRoom, opening_room
from tests.kube.schemas import Crd, read
from tests.kube.site import SYSTEM, Kubectl, KubeSite
from tests.publishing import NAMESPACE


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """An administrator's, in a cluster where deploy/base is applied."""
    found = Kubectl(control_plane.kubeconfig(tmp_path_factory.mktemp("admin") / "kubeconfig"))
    found("apply", "-k", "deploy/base")
    found("get", "serviceaccount", "-n", SYSTEM, "offload-serve", "offload-controller")
    return found


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> Iterator[Callable[[Crd], None]]:
    """Has another AgentRun CRD served; after the module the one of deploy/crd is served again."""
    yield control_plane.install_crd
    control_plane.install_crd(read("ours"))


@pytest.fixture(scope="session")
def agents(
    control_plane: ControlPlane, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> ControlPlane:
    """A cluster with the namespace that rooms share, in which our accounts have their Roles."""
    folder = tmp_path_factory.mktemp("agents")
    inside = Kubectl(control_plane.kubeconfig(folder / "kubeconfig"), NAMESPACE)
    inside("create", "namespace", NAMESPACE)
    inside("apply", "-f", "-", stdin=kubectl("kustomize", "deploy/base/rbac-namespaced"))
    return control_plane


@pytest.fixture
def kube_room(agents: ControlPlane, create_database: Callable[[], str], tmp_path: Path) -> Iterator[KubeRoom]:
    with opening_room(agents, create_database(), tmp_path) as room:
        yield room


@pytest.fixture
def kube_site(
    control_plane: ControlPlane,
    kubectl: Kubectl,  # noqa: ARG001 - has our service accounts made
    create_database: Callable[[], str],
    seaweedfs: StoreAddress,
    tmp_path: Path,
) -> Iterator[KubeSite]:
    with ExitStack() as stack:
        yield KubeSite(tmp_path, create_database(), seaweedfs, stack, control_plane)
