"""What one row of the benchmark runs against: stores, databases, the service, and MLflow. All on loopback."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from bench import mlflow
from bench.filling import fill
from offload.dev.stores import SeaweedFS, StoreAddress
from offload.index import migrate
from tests.kube.control_plane import ControlPlane
from tests.kube.site import KubeSite
from tests.postgres import running_postgres
from tests.programs import NAMESPACE, ROOT, Program, free_port, until
from tests.site import Site

_AGENTRUNS = f"/apis/agents.proompteng.ai/v1alpha1/namespaces/{NAMESPACE}/agentruns"

SEEN_BEFORE = 10_000, 100
"""Artifacts, and how many of them are of one run."""


class Databases:
    """One PostgreSQL for all rows, which writes through as in production, and an index in it for each."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._server, self._count = stack, "", 0

    @property
    def server(self) -> str:
        """A superuser's URL; the server is started by the first who asks."""
        self._server = self._server or self._stack.enter_context(running_postgres("fsync=on"))
        return self._server

    def programs(self) -> dict[str, int]:
        """The server's first process, where anybody has asked for it."""
        if not self._server:
            return {}
        with psycopg.connect(self._server) as connection:
            return {"PostgreSQL": psutil.Process(connection.info.backend_pid).ppid()}

    def create(self) -> str:
        """The URL of an empty index."""
        self._count += 1
        name = f"bench{self._count}"
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = self.server.rpartition("/")[0] + f"/{name}"
        migrate.upgrade(url)
        return url


class Servers:
    """The servers of one row; all of them, and what they stored, are gone at its end."""

    def __init__(self, databases: Databases, stack: ExitStack) -> None:
        self._databases, self._stack = databases, stack
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self._stores: dict[str, int] = {}
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="offload-bench-")))

    def seaweedfs(self) -> StoreAddress:
        """A store of its own. It takes requests without a signature too, as curl and wrk send them."""
        data = self.folder / f"seaweedfs-{free_port()}"
        data.mkdir()
        keys = {"accessKey": "offload", "secretKey": "offload-bench"}
        actions = ["Admin", "Read", "Write", "List"]
        identities = [
            {"name": "offload", "credentials": [keys], "actions": actions},
            {"name": "anonymous", "actions": actions},
        ]
        (data / "s3.json").write_text(json.dumps({"identities": identities}))
        store = SeaweedFS(data)
        address = store.start()
        self._stack.callback(store.stop, keep_data=False)
        assert store.pid
        self._stores["SeaweedFS"] = store.pid
        return address

    def sink(self) -> StoreAddress:
        """A store that discards what it gets (bench/sink.py)."""
        process = self.process([sys.executable, "-m", "bench.sink"], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout
        url = process.stdout.readline().decode().strip().removeprefix("url=")
        process.stdout.close()
        self._stores["the sink"] = process.pid
        return StoreAddress(url, "offload", "offload-bench", "us-east-1", "offload")

    def database(self) -> str:
        """The URL of an index on PostgreSQL that has seen its first artifacts.

        The planner knows nothing of an empty one, and reads whole runs where an index would do, until
        autovacuum looks at it after a minute.
        """
        url = self.empty_database()
        fill(url, *SEEN_BEFORE, namespace="before")
        return url

    def empty_database(self) -> str:
        """The URL of an index on PostgreSQL without a row."""
        return self._databases.create()

    def sqlite(self) -> str:
        """The URL of an empty index in a file."""
        url = f"sqlite:///{self.folder}/index-{free_port()}.db"
        migrate.upgrade(url)
        return url

    def site(self, store: StoreAddress, database_url: str) -> Site:
        """The service's parts on these; the stand-in runs, the others are started by the row."""
        folder = self.folder / f"site-{free_port()}"
        folder.mkdir()
        site = Site(folder, database_url, store, self._stack)
        site.standin()
        return site

    def kube_site(self, store: StoreAddress, database_url: str, plane: ControlPlane) -> KubeSite:
        """The service's parts on these and a real API server; the row starts them."""
        folder = self.folder / f"site-{free_port()}"
        folder.mkdir()
        return KubeSite(folder, database_url, store, self._stack, plane)

    def programs(self, serve: Program) -> dict[str, int]:
        """Who takes CPU for an upload, senders aside, and their first processes."""
        return {"`offload serve`": serve.process.pid, **self._stores, **self._databases.programs()}

    @contextmanager
    def apart(self) -> Iterator["Servers"]:
        """Servers of a part of the row, which are gone at its end."""
        with ExitStack() as stack:
            yield Servers(self._databases, stack)

    def mlflow(self, store: StoreAddress | None, *options: str) -> mlflow.Server:
        """MLflow's tracking server as a proxy to `store`, or to its own folder."""
        folder = self.folder / f"mlflow-{free_port()}"
        folder.mkdir()
        server = mlflow.Server(free_port(), folder)
        process = self.process(
            server.command(store, options),
            env=server.environment(store),
            cwd=folder,
            stdout=(folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        server.pid = process.pid
        until(lambda: process.poll() is not None or server.is_up(), 120)
        if process.returncode is not None:
            raise RuntimeError(f"MLflow ended at its start: {(folder / 'log').read_text()[-2000:]}")
        return server

    def process(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        """A program that is ended, with its children, at the end of the row."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self._programs[process.pid] = process
        self._stack.callback(_end, process)
        return process

    def end(self, pid: int) -> None:
        """End one of the programs before the row ends."""
        _end(self._programs.pop(pid))

    def body(self, size: int) -> Path:
        """A file of so many random bytes."""
        path = self.folder / f"{size}.bytes"
        if not path.exists():
            with path.open("wb") as file:
                for start in range(0, size, 2**20):
                    file.write(os.urandom(min(2**20, size - start)))
        return path

    def sparse(self, size: int) -> Path:
        """A file of so many zeros, which takes no room."""
        path = self.folder / f"{size}.zeros"
        with path.open("wb") as file:
            file.truncate(size)
        return path


def create_runs(site: Site, count: int, **status: Any) -> list[str]:
    """The names of so many new AgentRuns, all with this status."""
    names = [f"run-{number}" for number in range(count)]
    with httpx.Client(base_url=f"http://127.0.0.1:{site.kube_port}", timeout=30) as api:
        for name in names:
            manifest = {
                "apiVersion": "agents.proompteng.ai/v1alpha1",
                "kind": "AgentRun",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"agentRef": {"name": "coder"}, "runtime": {"type": "job"}},
            }
            api.post(_AGENTRUNS, json=manifest).raise_for_status()
            if status:
                merge = {"Content-Type": "application/merge-patch+json"}
                body = json.dumps({"status": status})
                api.patch(f"{_AGENTRUNS}/{name}/status", content=body, headers=merge).raise_for_status()
    return names


def artifacts_url(site: Site, run: str) -> str:
    """Where a run's artifacts are sent to."""
    return f"{site.stage.url}/v1/namespaces/{NAMESPACE}/agentruns/{run}/artifacts"


def bucket_url(store: StoreAddress) -> str:
    """Where the peers send to: the same bucket, past the service."""
    return f"{store.endpoint_url}/{store.bucket}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """At once: nothing of it is kept."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
