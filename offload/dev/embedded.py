"""`offload dev`: the whole service in one process, with a store and an AgentRun stand-in beside it."""

import fcntl
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from offload.cluster.standin import StandIn
from offload.dev.stores import Moto, SeaweedFS, StoreAddress
from offload.errors import ConfigError
from offload.index import Index, artifacts, sweeping

_STOP_SECONDS = 8.5
_FORGOTTEN_BUCKET = "offload-moto"  # not SeaweedFS's, whose objects are there after the next start
_RUNS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands in for the systems outside."""

    store: StoreAddress
    standin: StandIn
    kubeconfig: Path
    database_url: str


@contextmanager
def surroundings(
    data: Path, *, kube_port: int, store: Literal["seaweedfs", "moto"]
) -> Iterator[Surroundings]:
    """Start the store and the stand-in, keeping everything under `data`; stopped when left.

    Raises:
        ConfigError: `data` cannot be written or is in use, a port is taken, or a package is missing.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "agentruns").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot keep data in {data}: {error.strerror}") from error
    with _sole(data):
        standin = StandIn(data=data / "agentruns")
        standin.start(port=kube_port)
        running = SeaweedFS(data / "store") if store == "seaweedfs" else Moto(bucket=_FORGOTTEN_BUCKET)
        try:
            address = running.start()
        except BaseException:
            standin.stop()
            raise
        try:
            kubeconfig = data / "kubeconfig"
            standin.write_kubeconfig(kubeconfig)
            yield Surroundings(address, standin, kubeconfig, f"sqlite:///{(data / 'index.db').resolve()}")
        finally:
            # Together: each may take seconds, and the whole must be gone in ten.
            stopping = [threading.Thread(target=stop) for stop in (running.stop, standin.stop)]
            for thread in stopping:
                thread.start()
            for thread in stopping:
                thread.join(_STOP_SECONDS)


def mark_forgotten(index: Index) -> None:
    """Say of what earlier starts stored in moto that it is lost; call it before the first upload."""
    with index.read() as tx:
        forgotten = artifacts.are_stored_under(tx, _FORGOTTEN_BUCKET, "")
    after = None
    while forgotten:
        with index.begin() as tx:
            found = sweeping.runs_with_stored(tx, after=after, limit=_RUNS_AT_ONCE)
            for run in found:
                for artifact in sweeping.stored_of(tx, run.uid):
                    if artifact.location.bucket == _FORGOTTEN_BUCKET:
                        artifacts.mark_lost(tx, artifact.id)
        if not found:
            return
        after = found[-1].uid


@contextmanager
def _sole(data: Path) -> Iterator[None]:
    with (data / "dev.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another `offload dev` uses the folder {data}; give this one its own by --data"
            ) from error
        yield


def store_environment(store: StoreAddress) -> Mapping[str, str]:
    """What S3 clients read."""
    return {
        "AWS_ENDPOINT_URL": store.endpoint_url,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_REGION": store.region,
        "AWS_DEFAULT_REGION": store.region,
    }


def write_environment(file: Path, around: Surroundings, url: str, retention_file: Path | None) -> None:
    """Write a file to be sourced: with it kubectl, curl, aws and every `offload` command work."""
    values = {
        "OFFLOAD_URL": url,
        "KUBECONFIG": str(around.kubeconfig.resolve()),
        "OFFLOAD_BUCKET": around.store.bucket,
        **store_environment(around.store),
        "OFFLOAD_DATABASE_URL": around.database_url,
        "OFFLOAD_S3_BUCKET": around.store.bucket,
        "OFFLOAD_S3_ENDPOINT_URL": around.store.endpoint_url,
        "OFFLOAD_S3_ADDRESSING": "path",
        "OFFLOAD_AUTH": "none",
    }
    if retention_file:
        values["OFFLOAD_RETENTION_FILE"] = str(retention_file.resolve())
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    partial = file.with_name(f".{file.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write("\n".join(lines) + "\n")
    partial.replace(file)
