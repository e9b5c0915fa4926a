"""The publishing rooms of tests/publishing.py on a real API server, as our service account."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from offload.cluster.interface import AgentRun
from offload.cluster.standin.server import StandIn
from offload.index import Index, publishing
from offload.index.recorder import Recorder
from tests.kube.control_plane import ControlPlane
from tests.kube.schemas import Crd, status_of
from tests.publishing import AGENTRUNS, NAMESPACE, Room, Streams, eventually, migrated_index

ACCOUNT = "system:serviceaccount:offload:offload-controller"


class KubeRoom(Room):
    """`api` is an administrator's, `cluster` our service account's."""

    def __init__(self, plane: ControlPlane, folder: Path, index: Index, streams: Streams) -> None:
        kubeconfig = plane.service_account_kubeconfig(folder / "kubeconfig", "offload", "offload-controller")
        address = cast(StandIn, SimpleNamespace(kubeconfig=str(kubeconfig), url=plane.url))
        super().__init__(index, address, Recorder(index, grace=timedelta(hours=24)), streams)
        self.plane = plane
        self.api.close()
        context = ssl.create_default_context(cafile=plane.ca_file)
        context.load_cert_chain(*plane.admin_certificate)
        self.api = httpx.Client(base_url=plane.url, verify=context, timeout=20)

    def serve(self, crd: Crd) -> None:
        """Have the cluster serve this CRD, and know it."""
        self.plane.install_crd(crd)
        eventually(lambda: self.api.get(AGENTRUNS).status_code == httpx.codes.OK, 20)
        # The index of documents is up to a second behind them.
        eventually(lambda: self.cluster.status_schema() == status_of(crd), 20)
        self.schema.refresh()

    def put(self, run: AgentRun, status: Mapping[str, Any]) -> None:
        """Replace the whole status, as a writer does that has read it."""
        path = f"{AGENTRUNS}/{run.seen.name}"
        body = {**self.api.get(path).json(), "status": status}
        self.api.put(f"{path}/status", json=body).raise_for_status()

    def touch(self, run: AgentRun) -> None:
        with self.index.begin() as tx:
            publishing.touch(tx, run.seen.uid)

    def patches(self, run: AgentRun) -> int:
        """How often our account has patched the run's status, as the API server logged it."""
        path = f"{AGENTRUNS}/{run.seen.name}/status"
        return sum(
            event["verb"] == "patch" and event["requestURI"].partition("?")[0] == path
            for event in self.plane.audit(ACCOUNT)
        )


@contextmanager
def kube_room(plane: ControlPlane, folder: Path) -> Iterator[KubeRoom]:
    """A room with an index of its own. The namespace must be there, with our Roles in it."""
    index, streams = Index.connect(migrated_index(folder)), Streams()
    room = KubeRoom(plane, folder, index, streams)
    try:
        yield room
    finally:
        room.recorder.close()
        streams.close()
        room.api.close()
        room.cluster.close()
        index.close()


__all__ = ["ACCOUNT", "NAMESPACE", "KubeRoom", "kube_room"]
