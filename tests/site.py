"""The service as its parts: processes on PostgreSQL, SeaweedFS and an API server."""

import os
from contextlib import ExitStack
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import httpx
import pytest

from offload.dev.stores import StoreAddress
from offload.index import Index
from offload.objects.s3 import S3Objects
from tests.programs import KUBECTL, Program, Stage, Wire, free_port, surroundings, until


class Site:
    """The service as its parts: a database, a prefix and a stand-in of its own, and processes on demand."""

    def __init__(self, folder: Path, database_url: str, store: StoreAddress, stack: ExitStack) -> None:
        self.folder, self.store, self._stack = folder, store, stack
        self.database_url, self.direct_database_url = database_url, database_url
        self.prefix = f"site-{folder.name}"
        self.kube_port, self.port = free_port(), free_port()
        self.kubeconfig = folder / "kubeconfig"
        self.environment = surroundings(
            folder,
            OFFLOAD_URL=f"http://127.0.0.1:{self.port}",
            OFFLOAD_PORT=str(self.port),
            KUBECONFIG=str(self.kubeconfig),
            OFFLOAD_KUBECONFIG=str(self.kubeconfig),
            OFFLOAD_DATABASE_URL=database_url,
            OFFLOAD_S3_BUCKET=store.bucket,
            OFFLOAD_S3_PREFIX=self.prefix,
            OFFLOAD_S3_ENDPOINT_URL=store.endpoint_url,
            OFFLOAD_S3_ADDRESSING="path",
            AWS_ACCESS_KEY_ID=store.access_key,
            AWS_SECRET_ACCESS_KEY=store.secret_key,
            AWS_REGION=store.region,
            OFFLOAD_AUTH="none",
            OFFLOAD_METRICS_PORT="0",
            OFFLOAD_SHUTDOWN_GRACE="5s",
        )
        self.stage = Stage(self.environment["OFFLOAD_URL"], self.environment, folder)

    def start(self, *arguments: str, **settings: str) -> Program:
        program = Program(arguments, {**self.environment, **settings}, self.folder)
        self._stack.callback(program.clear_away)
        return program

    def standin(self, *options: str) -> Program:
        program = self.start(
            "standin", "--port", str(self.kube_port), "--data", str(self.folder / "agentruns"),
            "--kubeconfig", str(self.kubeconfig), *options,
        )  # fmt: skip
        program.said("kubeconfig=")
        return program

    def serve(self, *options: str, **settings: str) -> Program:
        program = self.start("serve", *options, **settings)
        program.said("url=")
        # Several workers are told of before they serve.
        until(lambda: _answers(self.stage), 60)
        return program

    def controller(self, **settings: str) -> Program:
        program = self.start("controller", **settings)
        program.said("metrics=")
        return program

    def all(self, *options: str, **settings: str) -> None:
        self.standin()
        self.serve(*options, **settings)
        self.controller(**settings)

    def wire_to_store(self) -> Wire:
        """From now on the service reaches the store through this."""
        wire = self._wire(urlsplit(self.store.endpoint_url).port)
        self.environment["OFFLOAD_S3_ENDPOINT_URL"] = f"http://127.0.0.1:{wire.port}"
        return wire

    def wire_to_database(self) -> Wire:
        """From now on the service reaches the database through this."""
        port = urlsplit(self.database_url).port
        wire = self._wire(port)
        self.environment["OFFLOAD_DATABASE_URL"] = self.database_url.replace(f":{port}/", f":{wire.port}/")
        return wire

    @cached_property
    def objects(self) -> S3Objects:
        objects = S3Objects(self.store.connection(), threads=1)
        self._stack.callback(objects.close)
        return objects

    @cached_property
    def index(self) -> Index:
        index = Index.connect(self.database_url)
        self._stack.callback(index.close)
        return index

    def object_keys(self) -> list[str]:
        """The keys of all objects under the prefix, save our marker."""
        found = [info.location.key for info in self.objects.list(self.prefix + "/")]
        return [key for key in found if not key.endswith(".offload-index")]

    def _wire(self, port: int | None) -> Wire:
        assert port
        wire = Wire(port)
        self._stack.callback(wire.cut)
        return wire


def require(*packages: str) -> None:
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            missing(f"{package} is not installed")


def require_kubectl() -> None:
    if not KUBECTL.exists():
        missing("kubectl is not installed")


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def _answers(stage: Stage) -> bool:
    try:
        return httpx.get(f"{stage.url}/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
