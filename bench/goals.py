"""Every figure of the benchmark: what is measured, in which unit, and what it should be.

Where a figure has a peer, the goal is that of the ratio, ours over the peer's; otherwise that of our value.
A figure's name begins with its row's, up to the first slash. docs/performance.md shows these texts.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is of, and the least or the most that it should be."""

    what: str
    unit: str
    bound: Literal["at least", "at most"]
    number: float

    def holds(self, value: float) -> bool:
        """Whether `value` is good enough."""
        return value >= self.number if self.bound == "at least" else value <= self.number


RATE, REQUESTS, FILES = "MiB/s", "requests/s", "files/s"
CPU, MEMORY, PERCENT = "CPU-seconds/GiB", "MiB", "% of a core"
SECONDS, MILLISECONDS = "s", "ms"
REQUESTS_EACH, BYTES, UPLOADS = "requests/artifact", "bytes", "uploads"

GOALS = {
    "big-one": Goal(
        "one body of 1 GiB by `curl -T` into SeaweedFS, against `curl -T` straight into SeaweedFS",
        *(RATE, "at least", 0.85),
    ),
    "big-one/cpu": Goal(
        "user and system time of `offload serve` while it takes those bodies", CPU, "at most", 1.8
    ),
    "big-many": Goal(
        "8 bodies of 128 MiB at once by 8 curl into SeaweedFS, against the same straight into SeaweedFS",
        *(RATE, "at least", 0.85),
    ),
    "big-sink": Goal(
        "one body of 1 GiB by `curl -T` into the sink, against MLflow's artifact proxy into the sink",
        *(RATE, "at least", 3.0),
    ),
    "big-sink/cpu": Goal(
        "user and system time of all server processes for those bodies, ours against MLflow's",
        *(CPU, "at most", 0.4),
    ),
    "big-sink/curl": Goal("the same body, against `curl -T` straight into the sink", RATE, "at least", 0.3),
    "small": Goal(
        "bodies of 4 KiB over 32 connections into SeaweedFS and PostgreSQL, against wrk straight into "
        "SeaweedFS",
        *(REQUESTS, "at least", 0.4),
    ),
    "small-sink": Goal(
        "bodies of 4 KiB over 32 connections into the sink and PostgreSQL, against MLflow's proxy "
        "into the sink",
        *(REQUESTS, "at least", 8.0),
    ),
    "small-sink/p99": Goal("the time that 99 % of those requests took at most", MILLISECONDS, "at most", 0.2),
    "small-sqlite": Goal(
        "bodies of 4 KiB over 8 connections into SeaweedFS and SQLite, against MLflow as it starts by "
        "default",
        *(REQUESTS, "at least", 5.0),
    ),
    "batch": Goal(
        "1,000 files of 4 KiB by one multipart POST into SeaweedFS, against PUTs of ours over 8 connections",
        *(FILES, "at least", 1.6),
    ),
    "batch/sink": Goal("the same into the sink", FILES, "at least", 3.0),
    "read-big": Goal(
        "1 GiB by id, proxied, by curl, against curl reading the same object straight from SeaweedFS",
        *(RATE, "at least", 0.85),
    ),
    "read-small": Goal(
        "4 KiB by name over 32 connections, against wrk straight from SeaweedFS", REQUESTS, "at least", 0.25
    ),
    "history": Goal(
        "the first page of 100 of one run over 32 connections, PostgreSQL with 1 M rows, against raw psycopg "
        "running the same query on 32 connections",
        *(REQUESTS, "at least", 0.3),
    ),
    "history/p99": Goal(
        "the time that 99 % of those pages took at most, over 4 connections", MILLISECONDS, "at most", 20
    ),
    "visible/standin/p50": Goal(
        "from the acknowledgement to the pointer in status, 100 uploads a second over 200 runs in turn, on "
        "the stand-in: half of them",
        *(MILLISECONDS, "at most", 300),
    ),
    "visible/standin/p99": Goal("99 % of them", MILLISECONDS, "at most", 1000),
    "visible/kubernetes/p50": Goal(
        "the same on a real API server: half of them", MILLISECONDS, "at most", 300
    ),
    "visible/kubernetes/p99": Goal("99 % of them", MILLISECONDS, "at most", 1000),
    "visible/full-lists/p50": Goal(
        "the same on a real API server, where each run lists its 50 newest and has more: half of them",
        *(MILLISECONDS, "at most", 300),
    ),
    "visible/full-lists/p99": Goal("99 % of them", MILLISECONDS, "at most", 1000),
    "mem-one": Goal(
        "peak resident memory of `offload serve` above that at rest, one body of 10 GiB into the sink",
        *(MEMORY, "at most", 64),
    ),
    "mem-many": Goal(
        "the same, 64 bodies of 128 MiB at once, less the budget of `OFFLOAD_UPLOAD_MEMORY`",
        *(MEMORY, "at most", 64),
    ),
    "mem-slow": Goal("the same, 500 clients that send 1 KiB/s each for 120 s", MEMORY, "at most", 64),
    "mem-slow/others": Goal(
        "bodies of 4 KiB over 8 connections beside those clients, each past its first 64 KiB, against the "
        "same without them",
        *(REQUESTS, "at least", 0.9),
    ),
    "mem-slow/408": Goal(
        "until a sender that has sent 256 KiB at once and goes on with 1 KiB/s is answered 408 (60 s, and "
        "10 s for noticing it)",
        *(SECONDS, "at most", 70),
    ),
    "idle": Goal(
        "resident memory of `offload serve` at rest, after uploads to 1,000 runs", MEMORY, "at most", 150
    ),
    "idle/cpu": Goal(
        "user and system time of serve and controller at rest, together, with 1,000 finished runs",
        *(PERCENT, "at most", 0.5),
    ),
    "start": Goal("from the start of `offload serve` until `/readyz` answers 200", SECONDS, "at most", 2),
    "start/help": Goal("`offload --help`", SECONDS, "at most", 0.3),
    "restart": Goal(
        "uploads that fail for callers of our own client, or are missing afterwards, in 60 s with one "
        "restart of `offload serve`",
        *(UPLOADS, "at most", 0),
    ),
    "requests/1": Goal(
        "requests to the API server for an artifact, watches aside, with 1 upload a second to one run",
        *(REQUESTS_EACH, "at most", 1.1),
    ),
    "requests/10": Goal("the same with 10 a second", REQUESTS_EACH, "at most", 0.15),
    "requests/100": Goal("the same with 100 a second", REQUESTS_EACH, "at most", 0.02),
    "requests/status": Goal(
        "status of a run that lists its 50 newest of thousands, as compact JSON", BYTES, "at most", 65_536
    ),
    "etcd/spread": Goal(
        "bytes that etcd writes to its log for 5,000 artifacts, 100 a second over 200 runs in turn, against "
        "one patch of status for each artifact",
        *(BYTES, "at most", 1.1),
    ),
    "etcd/one-run": Goal("the same for 100 a second to one run", BYTES, "at most", 0.05),
}

ROWS = list(dict.fromkeys(name.partition("/")[0] for name in GOALS))
