"""The publishing rooms on a real API server, PostgreSQL and objects in memory."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from offload.index import Index
from offload.index.recorder import Recorder
from tests.kube.control_plane import ControlPlane
from tests.publishing import Room, Streams, eventually


@dataclass(frozen=True)
class _Server:
    kubeconfig: str
    url: str


class KubeRoom(Room):
    def __init__(self, plane: ControlPlane, index: Index, folder: Path) -> None:
        self.kubeconfig = plane.kubeconfig(folder / "kubeconfig")
        recorder = Recorder(index, grace=timedelta(hours=24))
        super().__init__(index, _Server(str(self.kubeconfig), plane.url), recorder, Streams())
        self.api.close()
        trusted = ssl.create_default_context(cafile=plane.ca_file)
        trusted.load_cert_chain(*plane.admin_certificate)
        self.api = httpx.Client(base_url=plane.url, verify=trusted)

    def read_schema(self) -> None:
        """Read what is served now; another CRD's document is first answered by a redirection."""

        def is_read() -> bool:
            self.schema.refresh()
            return self.schema.problem is None

        eventually(is_read)

    def close(self) -> None:
        self.recorder.close()
        self.streams.close()
        self.api.close()
        self.cluster.close()


@contextmanager
def opening_room(plane: ControlPlane, database_url: str, folder: Path) -> Iterator[KubeRoom]:
    """A room with a database of its own; runs are in a namespace that rooms share."""
    index = Index.connect(database_url)
    room = KubeRoom(plane, index, folder)
    try:
        yield room
    finally:
        room.close()
        index.close()
