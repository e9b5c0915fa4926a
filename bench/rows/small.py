"""Many small bodies, up and down."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from bench import load
from bench.effort import Effort
from bench.load import Load
from bench.measure import Figure, compared, in_turn
from bench.mlflow import Server
from bench.servers import Servers, artifacts_url, bucket_url, create_runs
from offload.dev.stores import StoreAddress
from tests.programs import NAMESPACE, until
from tests.site import Site

SIZE = 4096
RUNS = 32
MLFLOW_SECONDS = 8.0
"""A round of MLflow at least: at 32 connections its answers take seconds on a slow machine."""
FILES = 1000
BOUNDARY = "offload-bench"
PATH = f"/v1/namespaces/{NAMESPACE}/agentruns/run-RUN/artifacts"
# MLflow chooses neither by itself; each is tried once and the fastest is the peer.
MLFLOW_FORMS = (("--workers", "4"), ("--workers", "2"), ("--workers", "1"))

Sides = Mapping[str, Callable[[str], Load]]


def small(servers: Servers, effort: Effort) -> Iterator[Figure]:
    store = servers.seaweedfs()
    site = servers.site(store, servers.database())
    programs = servers.programs(site.serve())
    create_runs(site, RUNS)
    sides: Sides = {
        "ours": lambda word: put(site, word, 32, effort.seconds),
        "peer": lambda word: put_straight(store, word, 32, effort.seconds),
    }
    loads = in_turn(sides, effort.pairs)
    cpu = _cpu(programs, sides, effort)
    yield _rates("small", loads, "wrk straight into SeaweedFS", connections=32, runs=RUNS, cpu=cpu)


def small_sink(servers: Servers, effort: Effort) -> Iterator[Figure]:
    sink = servers.sink()
    site = servers.site(sink, servers.database())
    programs = servers.programs(site.serve())
    create_runs(site, RUNS)
    form = best_form(servers, sink, 32, effort)
    peer = servers.mlflow(sink, *form)
    _warm_up(peer, 32)
    sides: Sides = {
        "ours": lambda word: put(site, word, 32, effort.seconds),
        "peer": lambda word: _put_mlflow(peer, word, 32, effort.seconds),
    }
    loads = in_turn(sides, effort.pairs)
    name = f"MLflow {' '.join(form)} into the sink"
    cpu = _cpu(programs | {"MLflow": peer.pid}, sides, effort)
    yield _rates("small-sink", loads, name, connections=32, runs=RUNS, cpu=cpu)
    p99 = {side: [one.p99 for one in values] for side, values in loads.items()}
    yield compared("small-sink/p99", p99["ours"], p99["peer"], name, bytes=SIZE, connections=32, runs=RUNS)


def small_sqlite(servers: Servers, effort: Effort) -> Iterator[Figure]:
    site = servers.site(servers.seaweedfs(), servers.sqlite())
    programs = servers.programs(site.serve())
    create_runs(site, RUNS)
    peer = servers.mlflow(None)
    _warm_up(peer, 8)
    sides: Sides = {
        "ours": lambda word: put(site, word, 8, effort.seconds),
        "peer": lambda word: _put_mlflow(peer, word, 8, effort.seconds),
    }
    loads = in_turn(sides, effort.pairs)
    cpu = _cpu(programs | {"MLflow": peer.pid}, sides, effort)
    yield _rates(
        "small-sqlite", loads, "MLflow by default, into its folder", connections=8, runs=RUNS, cpu=cpu
    )


def batch(servers: Servers, effort: Effort) -> Iterator[Figure]:
    yield _batch("batch", servers, servers.seaweedfs(), effort)
    yield _batch("batch/sink", servers, servers.sink(), effort)


def _batch(name: str, servers: Servers, store: StoreAddress, effort: Effort) -> Figure:
    site = servers.site(store, servers.database())
    site.serve()
    create_runs(site, 1)
    form = servers.folder / "form"
    rates = in_turn(
        {
            "ours": lambda word: _post(site, word, form),
            "peer": lambda word: put(site, word, 8, effort.seconds, runs=1).rate,
        },
        effort.pairs,
    )
    return compared(
        name, rates["ours"], rates["peer"], "PUTs of ours over 8 connections", bytes=SIZE, files=FILES
    )


def read_small(servers: Servers, effort: Effort) -> Iterator[Figure]:
    store = servers.seaweedfs()
    site = servers.site(store, servers.database())
    programs = servers.programs(site.serve())
    create_runs(site, 1)
    _post(site, "read", servers.folder / "form")
    _fill_straight(store)
    path = f"{bucket_url(store).removeprefix(store.endpoint_url)}/straight/read/FILE"
    sides: Sides = {
        "ours": lambda _: load.requests(
            site.stage.url, f"{PATH}/read/FILE", connections=32, seconds=effort.seconds, runs=1, files=FILES
        ),
        "peer": lambda _: load.requests(
            store.endpoint_url, path, connections=32, seconds=effort.seconds, files=FILES
        ),
    }
    loads = in_turn(sides, effort.pairs)
    cpu = _cpu(programs, sides, effort)
    yield _rates("read-small", loads, "wrk straight from SeaweedFS", connections=32, files=FILES, cpu=cpu)


def put(site: Site, word: str, connections: int, seconds: float, *, runs: int = RUNS) -> Load:
    """Send to the runs in turn, each body under a name of its own."""
    return load.requests(
        site.stage.url, f"{PATH}/{word}/FILE", method="PUT", size=SIZE,
        connections=connections, seconds=seconds, runs=runs,
    )  # fmt: skip


def put_straight(store: StoreAddress, word: str, connections: int, seconds: float) -> Load:
    """The same, past the service."""
    return load.requests(
        store.endpoint_url, f"/{store.bucket}/straight/{word}/FILE", method="PUT", size=SIZE,
        connections=connections, seconds=seconds,
    )  # fmt: skip


def _fill_straight(store: StoreAddress) -> None:
    with httpx.Client() as sender:
        for number in range(FILES):
            sender.put(f"{bucket_url(store)}/straight/read/{number}", content=bytes(SIZE)).raise_for_status()


def best_form(servers: Servers, store: StoreAddress, connections: int, effort: Effort) -> Sequence[str]:
    """The options with which MLflow takes the most requests a second, by one trial of each."""
    rates = {}
    for form in MLFLOW_FORMS:
        server = servers.mlflow(store, *form)
        _warm_up(server, connections)
        try:
            rates[form] = _put_mlflow(server, "trial", connections, effort.seconds).rate
        except load.NothingDoneError:
            rates[form] = 0.0
        servers.end(server.pid)
    return max(rates, key=lambda form: rates[form])


def _warm_up(peer: Server, connections: int) -> None:
    """Its workers import what they need at their first artifact, which takes seconds."""

    def try_once() -> bool:
        try:
            _put_mlflow(peer, "warm-up", connections, MLFLOW_SECONDS)
        except load.NothingDoneError:
            return False
        return True

    until(try_once, 120)


def _put_mlflow(peer: Server, word: str, connections: int, seconds: float) -> Load:
    base, _, path = peer.url.partition("/api/")
    return load.requests(
        base, f"/api/{path}/{word}/FILE", method="PUT", size=SIZE, connections=connections,
        seconds=max(seconds, MLFLOW_SECONDS),
    )  # fmt: skip


def _post(site: Site, word: str, form: Path) -> float:
    """Files a second of one POST of them all; the form is written anew, since names must be new."""
    with form.open("wb") as file:
        for number in range(FILES):
            name = f'Content-Disposition: form-data; name="file"; filename="{word}/{number}"'
            head = f"--{BOUNDARY}\r\n{name}\r\nContent-Type: application/octet-stream\r\n\r\n"
            file.write(head.encode() + bytes(SIZE) + b"\r\n")
        file.write(f"--{BOUNDARY}--\r\n".encode())
    return FILES / load.post(artifacts_url(site, "run-0"), form, BOUNDARY)


def _cpu(programs: dict[str, int], sides: Sides, effort: Effort) -> dict[str, Any]:
    def sending(send: Callable[[str], Load]) -> Callable[[], float]:
        return lambda: send("cpu").rate * effort.seconds / 1000

    return load.cpu_each("ms a request", programs, {side: sending(send) for side, send in sides.items()})


def _rates(name: str, loads: dict[str, list[Load]], peer_name: str, **config: Any) -> Figure:
    rates = {side: [one.rate for one in values] for side, values in loads.items()}
    return compared(name, rates["ours"], rates["peer"], peer_name, bytes=SIZE, **config)
