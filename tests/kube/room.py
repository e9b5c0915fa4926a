"""The publishing rooms of tests/publishing.py on a real API server, as our service account."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from offload.cluster.interface import AgentRun
from offload.index import Index
from offload.index.recorder import Recorder
from tests.kube.audit import OURS, patches
from tests.kube.control_plane import ControlPlane
from tests.kube.schemas import Crd, status_of
from tests.kube.site import SYSTEM
from tests.publishing import AGENTRUNS, NAMESPACE, Room, Streams, eventually


@dataclass(frozen=True)
class _Server:
    kubeconfig: str
    url: str


class KubeRoom(Room):
    """`api` is an administrator's, `cluster` our controller's account's."""

    def __init__(self, plane: ControlPlane, index: Index, folder: Path) -> None:
        account = plane.service_account_kubeconfig(folder / "kubeconfig", SYSTEM, "offload-controller")
        recorder = Recorder(index, grace=timedelta(hours=24))
        super().__init__(index, _Server(str(account), plane.url), recorder, Streams())
        self.plane = plane
        self.api.close()
        trusted = ssl.create_default_context(cafile=plane.ca_file)
        trusted.load_cert_chain(*plane.admin_certificate)
        self.api = httpx.Client(base_url=plane.url, verify=trusted, timeout=20)
        self._served: Crd | None = None

    def serve(self, crd: Crd) -> None:
        """Have the cluster serve this CRD, and know it."""
        if crd == self._served:
            return
        self.plane.install_crd(crd)
        eventually(lambda: self.api.get(AGENTRUNS).status_code == httpx.codes.OK, 20)
        eventually(lambda: self._reads(crd), 20)
        self.schema.refresh()
        self._served = crd

    def _reads(self, crd: Crd) -> bool:
        return self.cluster.status_schema() == status_of(crd)

    def put(self, run: AgentRun, status: Mapping[str, Any]) -> None:
        """Replace the whole status, as a writer does that has read it."""
        path = f"{AGENTRUNS}/{run.seen.name}"
        body = {**self.api.get(path).json(), "status": status}
        self.api.put(f"{path}/status", json=body).raise_for_status()

    def patches(self, run: AgentRun) -> int:
        """How often our account has patched the run's status, as the API server logged it."""
        return len(patches(self.plane, OURS, NAMESPACE, run.seen.name))

    def close(self) -> None:
        self.recorder.close()
        self.streams.close()
        self.api.close()
        self.cluster.close()


@contextmanager
def opening_room(plane: ControlPlane, database_url: str, folder: Path) -> Iterator[KubeRoom]:
    """A room with an index of its own; runs are in a namespace that rooms share, and our Roles are in it."""
    index = Index.connect(database_url)
    room = KubeRoom(plane, index, folder)
    try:
        yield room
    finally:
        room.close()
        index.close()
