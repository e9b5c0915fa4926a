"""The publishing rooms on real parts: SQLite, the AgentRun stand-in, objects in memory."""

import asyncio
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import httpx
import sqlalchemy as sa

from offload.cluster.interface import AgentRun
from offload.cluster.kubernetes import KubernetesCluster
from offload.cluster.standin.server import StandIn
from offload.domain import structural
from offload.domain.artifact import Artifact, Location, NewArtifact
from offload.domain.pointers import StatusSchema, read_schema
from offload.domain.projection import Caps
from offload.domain.run import Run
from offload.index import Index, migrate, publishing, runs
from offload.index.recorder import Recorder
from offload.index.schema import leases
from offload.objects.memory import MemoryObjects
from offload.services.adopt import Adopter
from offload.services.continuity import note_continuity
from offload.services.echoes import Echoes
from offload.services.follow import Follower
from offload.services.publish import Outcome, Publisher
from offload.services.schema import ServedSchema
from offload.services.strictness import note_strictness

NAMESPACE = "agents"
AGENTRUNS = f"/apis/agents.proompteng.ai/v1alpha1/namespaces/{NAMESPACE}/agentruns"
HOLDER = "test"
_names = itertools.count(1)
T = TypeVar("T")


@dataclass
class Streams:
    """An event loop in a thread, as the controller has one for the streams it moves."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Server(Protocol):
    """An API server."""

    @property
    def kubeconfig(self) -> str: ...

    @property
    def url(self) -> str: ...


def keep_up(index: Index, *, since: datetime) -> None:
    """Have the index been kept up without a gap since then."""
    note_continuity(index)
    with index.begin() as tx:
        tx.execute(sa.update(leases).where(leases.c.name == "unbroken-since").values(done_at=since))


class Room:
    """What the tests need, by short names."""

    def __init__(self, index: Index, server: Server, recorder: Recorder, streams: Streams) -> None:
        self.index, self.recorder, self.streams = index, recorder, streams
        self.cluster = KubernetesCluster.from_config(server.kubeconfig, requests_per_second=5000)
        self.api = httpx.Client(base_url=server.url)
        self.objects = MemoryObjects()
        self.echoes = Echoes()
        self.schema = ServedSchema(self.cluster, caps=Caps())
        self.judge_from(datetime(2000, 1, 1, tzinfo=UTC))

    def judge_from(self, since: datetime) -> None:
        """Have strict mode been turned on then."""
        note_strictness(self.index)
        with self.index.begin() as tx:
            tx.execute(sa.update(leases).where(leases.c.name == "strict-since").values(done_at=since))

    def adopter(self) -> Adopter:
        return Adopter(
            self.index,
            self.objects,
            self.recorder,
            prefix="offload",
            run_coroutine=self.streams.run,
            new_id=uuid4,
        )

    def publisher(self, **values: Any) -> Publisher:
        settings: dict[str, Any] = {"holder": HOLDER, "caps": Caps(), "strict": False, "mode": "on"}
        settings["between"] = timedelta(seconds=0.02)
        cluster = values.pop("cluster", self.cluster)
        return Publisher(
            self.index,
            cluster,
            self.schema,
            self.adopter(),
            self.echoes,
            **{**settings, **values},
        )

    def follower(self, **values: Any) -> Follower:
        values = {"publisher": self.publisher(), **values}
        return Follower(self.index, self.cluster, self.echoes, self.schema, **values)

    def create(self, name: str = "", *, observe: bool = True) -> AgentRun:
        name = name or f"run-{next(_names)}"
        body = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name},
            "spec": {"agentRef": {"name": "coder"}},
        }
        self.api.post(AGENTRUNS, json=body).raise_for_status()
        created = self.cluster.get(NAMESPACE, name)
        if observe:
            with self.index.begin() as tx:
                runs.observe(tx, created.seen)
        return created

    def delete(self, name: str) -> None:
        self.api.delete(f"{AGENTRUNS}/{name}").raise_for_status()

    def write(self, name: str, status: Mapping[str, Any]) -> None:
        """Write status as another controller would: a merge patch without a precondition."""
        self.api.patch(
            f"{AGENTRUNS}/{name}/status",
            json={"status": status},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def read(self, run: AgentRun) -> AgentRun:
        return self.cluster.get(run.seen.namespace, run.seen.name)

    def status(self, run: AgentRun) -> dict[str, Any]:
        return dict(self.read(run).status)

    def names(self, run: AgentRun) -> list[str]:
        return [entry["name"] for entry in self.status(run).get("artifacts", ())]

    def events(self, run: AgentRun) -> list[dict[str, Any]]:
        items = self.api.get(f"/api/v1/namespaces/{NAMESPACE}/events").json()["items"]
        return [item for item in items if item["involvedObject"]["uid"] == run.seen.uid]

    def upload(self, run: AgentRun, name: str, data: bytes = b"x", **changes: Any) -> Artifact:
        artifact_id = uuid4()
        seen = run.seen
        fields: dict[str, Any] = {
            "id": artifact_id,
            "run_uid": seen.uid,
            "name": name,
            "type": "log",
            "content_type": "text/plain",
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).digest(),
            "location": Location(
                "bucket", f"offload/{seen.namespace}/{seen.name}/{seen.uid}/{artifact_id}/{name}"
            ),
            "stored_since": datetime.now(UTC),
        }
        return self.recorder.record_blocking(NewArtifact(**{**fields, **changes})).artifact

    def upload_logs(self, run: AgentRun, count: int) -> list[Artifact]:
        """`log-0`, `log-1`, …"""
        return [self.upload(run, f"log-{n}") for n in range(count)]

    def run(self, run: AgentRun) -> Run:
        with self.index.read() as tx:
            found = runs.get(tx, run.seen.uid)
        assert found is not None
        return found

    def claim(self, run: AgentRun, holder: str = HOLDER) -> Run:
        """Claim the run, whatever else is dirty, by making the claims of the others short."""
        claimed: list[Run] = []

        def is_claimed() -> bool:
            with self.index.begin() as tx:
                claimed.extend(publishing.claim(tx, holder=holder, limit=100, lease=timedelta(seconds=0.05)))
            return any(one.uid == run.seen.uid for one in claimed)

        eventually(is_claimed)
        return next(one for one in claimed if one.uid == run.seen.uid)

    def publish(self, run: AgentRun, publisher: Publisher | None = None, **values: Any) -> Outcome:
        return (publisher or self.publisher(**values)).publish(self.claim(run))

    def touch(self, run: AgentRun) -> None:
        with self.index.begin() as tx:
            publishing.touch(tx, run.seen.uid)

    def look_again(self, run: AgentRun, publisher: Publisher | None = None, **values: Any) -> Outcome:
        """Publish though nothing new was uploaded."""
        self.touch(run)
        return self.publish(run, publisher, **values)


def open_schema() -> StatusSchema:
    """A schema that keeps everything."""
    return read_schema(structural.OPEN)


def migrated_index(folder: Path) -> str:
    """The URL of a new index in `folder`."""
    (folder / "index.db").write_bytes(_migrated())
    return f"sqlite:///{folder / 'index.db'}"


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


@contextmanager
def publishing_room(standin: StandIn, folder: Path) -> Iterator[Room]:
    """A room with an index of its own, on a stand-in that may be shared."""
    index, streams = Index.connect(migrated_index(folder)), Streams()
    recorder = Recorder(index, grace=timedelta(hours=24))
    room = Room(index, standin, recorder, streams)
    try:
        yield room
    finally:
        recorder.close()
        streams.close()
        room.api.close()
        room.cluster.close()
        index.close()


def eventually(fact: Callable[[], bool], seconds: float = 10) -> None:
    """Poll until `fact` holds."""
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)
