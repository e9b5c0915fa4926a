"""A real API server with our CRD, our service accounts and a namespace for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from offload.dev.stores import StoreAddress
from tests.conftest import CRD
from tests.kube.control_plane import ControlPlane
from tests.kube.room import KubeRoom, opening_room
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
def served(control_plane: ControlPlane) -> Iterator[Callable[[Path], None]]:
    """Serves another AgentRun CRD, from a file; after the module the one of deploy/crd is served again."""
    yield lambda path: control_plane.install_crd(yaml.safe_load(path.read_text()))
    control_plane.install_crd(yaml.safe_load(CRD.read_text()))


@pytest.fixture
def kube_room(
    control_plane: ControlPlane, kubectl: Kubectl, create_database: Callable[[], str], tmp_path: Path
) -> Iterator[KubeRoom]:
    kubectl("apply", "-f", "-", stdin=f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}")
    with opening_room(control_plane, create_database(), tmp_path) as room:
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
