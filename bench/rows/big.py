"""Large bodies, up and down."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil

from bench import load
from bench.effort import GIB, MIB, Effort
from bench.measure import Figure, alone, compared, in_turn
from bench.servers import Servers, artifacts_url, bucket_url, create_runs

CURL_STRAIGHT = "curl straight into SeaweedFS"

Sends = Mapping[str, Callable[[], float]]


def big_one(servers: Servers, effort: Effort) -> Iterator[Figure]:
    size = effort.size(GIB)
    file, store = servers.body(size), servers.seaweedfs()
    site = servers.site(store, servers.database())
    program = site.serve()
    serve = program.family()
    (run,) = create_runs(site, 1)
    ours, peer = f"{artifacts_url(site, run)}/", f"{bucket_url(store)}/straight/"
    seconds = in_turn(
        {
            "ours": lambda word: _with_cpu(serve, lambda: load.upload(ours + word, file)),
            "peer": lambda word: _with_cpu([], lambda: load.upload(peer + word, file)),
        },
        effort.pairs,
    )
    rates = {side: [size / MIB / took for took, _ in values] for side, values in seconds.items()}
    sends: Sends = {
        "ours": lambda: load.upload(f"{ours}cpu", file),
        "peer": lambda: load.upload(f"{peer}cpu", file),
    }
    cpu = _cpu(servers.programs(program), sends, size)
    yield compared("big-one", rates["ours"], rates["peer"], CURL_STRAIGHT, bytes=size, cpu=cpu)
    yield alone("big-one/cpu", [cpu / (size / GIB) for _, cpu in seconds["ours"]], bytes=size)


def big_many(servers: Servers, effort: Effort) -> Iterator[Figure]:
    size, senders = effort.size(128 * MIB), 8
    file, store = servers.body(size), servers.seaweedfs()
    site = servers.site(store, servers.database())
    site.serve()
    names = create_runs(site, senders)
    seconds = in_turn(
        {
            "ours": lambda word: load.uploads([f"{artifacts_url(site, run)}/{word}" for run in names], file),
            "peer": lambda word: load.uploads(
                [f"{bucket_url(store)}/straight/{word}-{run}" for run in names], file
            ),
        },
        effort.pairs,
    )
    rates = {side: [senders * size / MIB / took for took in values] for side, values in seconds.items()}
    yield compared(
        "big-many", rates["ours"], rates["peer"], f"8 {CURL_STRAIGHT}", bytes=size, senders=senders
    )


def big_sink(servers: Servers, effort: Effort) -> Iterator[Figure]:
    size = effort.size(GIB)
    file, sink = servers.body(size), servers.sink()
    site = servers.site(sink, servers.database())
    serve = site.serve().family()
    peer = servers.mlflow(sink)
    (run,) = create_runs(site, 1)
    proxy = load.family(peer.pid)

    def sending(processes: list[psutil.Process], url: str) -> Callable[[str], tuple[float, float]]:
        return lambda word: _with_cpu(processes, lambda: load.upload(f"{url}/{word}", file))

    measured = in_turn(
        {
            "ours": sending(serve, artifacts_url(site, run)),
            "mlflow": sending(proxy, peer.url),
            "curl": sending([], bucket_url(sink)),
        },
        effort.pairs,
    )
    rates = {side: [size / MIB / took for took, _ in values] for side, values in measured.items()}
    cpus = {side: [cpu / (size / GIB) for _, cpu in values] for side, values in measured.items()}
    yield compared("big-sink", rates["ours"], rates["mlflow"], "MLflow into the sink", bytes=size)
    yield compared("big-sink/cpu", cpus["ours"], cpus["mlflow"], "MLflow into the sink", bytes=size)
    yield compared("big-sink/curl", rates["ours"], rates["curl"], "curl into the sink", bytes=size)


def read_big(servers: Servers, effort: Effort) -> Iterator[Figure]:
    size = effort.size(GIB)
    store = servers.seaweedfs()
    site = servers.site(store, servers.database())
    programs = servers.programs(site.serve())
    (run,) = create_runs(site, 1)
    load.upload(f"{artifacts_url(site, run)}/read", servers.body(size))
    (artifact,) = site.stage.history(run)
    key = str(artifact["uri"]).removeprefix(f"s3://{store.bucket}/")
    ours = f"{site.stage.url}/v1/artifacts/{artifact['id']}/content"
    peer = f"{bucket_url(store)}/{key}"
    seconds = in_turn(
        {"ours": lambda _: load.download(ours), "peer": lambda _: load.download(peer)}, effort.pairs
    )
    rates = {side: [size / MIB / took for took in values] for side, values in seconds.items()}
    cpu = _cpu(programs, {"ours": lambda: load.download(ours), "peer": lambda: load.download(peer)}, size)
    name = "curl straight from SeaweedFS"
    yield compared("read-big", rates["ours"], rates["peer"], name, bytes=size, cpu=cpu)


def _cpu(programs: dict[str, int], sends: Sends, size: int) -> dict[str, Any]:
    def sending(send: Callable[[], float]) -> Callable[[], float]:
        def work() -> float:
            send()
            return size / GIB

        return work

    return load.cpu_each("s a GiB", programs, {side: sending(send) for side, send in sends.items()})


def _with_cpu(processes: list[psutil.Process], measure: Callable[[], float]) -> tuple[float, float]:
    with load.cpu_seconds(processes) as cpu:
        took = measure()
    return took, cpu[0]
