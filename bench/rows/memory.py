"""What `offload serve` holds: at its peak, with slow senders, and at rest."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import psutil

from bench import load
from bench.effort import GIB, MIB, Effort
from bench.measure import Figure, alone, compared, in_turn
from bench.rows.small import put
from bench.servers import Servers, artifacts_url, create_runs
from bench.slow import SlowSenders
from offload.services.pieces import SMALL
from offload.settings import Settings
from tests.programs import until
from tests.site import Site

SLOW_SENDERS, SLOW_SECONDS = 500, 120
FINISHED_RUNS = 1000
REST_SECONDS = 40
_AHEAD = 256 * 1024
"""Past what holds no window, and far below what a minute at the least rate brings."""


def mem_one(servers: Servers, effort: Effort) -> Iterator[Figure]:
    size = effort.size(10 * GIB)
    file = servers.sparse(size)
    site, serve, (run,) = _site(servers, 1)
    peak = _above_rest(site, serve, lambda: load.upload(f"{artifacts_url(site, run)}/one", file))
    yield alone("mem-one", [peak], bytes=size)


def mem_many(servers: Servers, effort: Effort) -> Iterator[Figure]:
    size, senders = effort.size(128 * MIB), 64
    file = servers.sparse(size)
    site, serve, names = _site(servers, senders)
    urls = [f"{artifacts_url(site, run)}/one-of-many" for run in names]
    peak = _above_rest(site, serve, lambda: load.uploads(urls, file))
    budget = Settings.model_fields["upload_memory"].default / MIB
    yield alone("mem-many", [peak - budget], bytes=size, senders=senders, budget_mib=budget)


def mem_slow(servers: Servers, effort: Effort) -> Iterator[Figure]:
    site, serve, names = _site(servers, 32)
    count = effort.count(SLOW_SENDERS)

    def slowly(word: str, seconds: float, *, ahead: int = 0) -> SlowSenders:
        urls = [f"{artifacts_url(site, names[n % len(names)])}/{word}-{n}" for n in range(count)]
        return SlowSenders(urls, seconds, ahead=ahead)

    def beside_them(word: str) -> float:
        # Past what an upload may hold without a window, so that each has one, as late in their two minutes.
        slow = slowly(word, effort.seconds + 1, ahead=SMALL)
        slow.start()
        rate = put(site, word, 8, effort.seconds).rate
        slow.wait()
        _only(slow, "201", count)
        return rate

    slow = slowly("slow", effort.time(SLOW_SECONDS))

    def send() -> None:
        slow.start()
        put(site, "beside", 8, effort.seconds)
        slow.wait()

    peak = _above_rest(site, serve, send)
    config = {"senders": count, "bytes_a_second": 1024, "seconds": effort.time(SLOW_SECONDS)}
    _only(slow, "201", count)
    yield alone("mem-slow", [peak], answers=slow.answers, **config)
    rates = in_turn(
        {"with": beside_them, "without": lambda word: put(site, word, 8, effort.seconds).rate}, effort.pairs
    )
    others = "the same without them"
    yield compared("mem-slow/others", rates["with"], rates["without"], others, senders=count, connections=8)
    holding = SlowSenders(
        [f"{artifacts_url(site, names[0])}/held"], effort.time(120), ahead=_AHEAD, length=GIB
    )
    holding.start()
    holding.wait(until_answered=True)
    if not effort.quick:  # which ends before anybody can tell that it is slow
        _only(holding, "408", 1)
    yield alone("mem-slow/408", [holding.waited], sent_ahead=_AHEAD, answers=holding.answers)


def idle(servers: Servers, effort: Effort) -> Iterator[Figure]:
    count = effort.count(FINISHED_RUNS)
    site = servers.site(servers.sink(), servers.database())
    serve = site.serve().family()
    controller = site.controller().family()
    finished = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    names = create_runs(site, count, phase="Succeeded", finishedAt=finished)
    put(site, "finished", 4, 3 * effort.seconds, runs=count)  # long enough for each of them
    until(lambda: all(site.stage.is_current(run) for run in names[:: max(1, count // 20)]), 120)
    time.sleep(5)  # what follows the last publish is no rest yet
    yield alone("idle", [load.resident(serve) / MIB], runs=count)
    seconds = effort.time(REST_SECONDS)
    shares = []
    for _ in range(3):
        with load.cpu_seconds([*serve, *controller]) as cpu:
            time.sleep(seconds)
        shares.append(100 * cpu[0] / seconds)
    yield alone("idle/cpu", shares, runs=count, seconds=seconds)


def _site(servers: Servers, runs: int) -> tuple[Site, list[psutil.Process], list[str]]:
    site = servers.site(servers.sink(), servers.database())
    return site, site.serve().family(), create_runs(site, runs)


def _only(slow: SlowSenders, status: str, count: int) -> None:
    """Fail where not all were answered so: a figure of those that were not served would say nothing."""
    if slow.answers != {status: count}:
        raise RuntimeError(f"slow senders were answered {slow.answers}")


def _above_rest(site: Site, serve: Sequence[psutil.Process], work: Callable[[], object]) -> float:
    """MiB at the peak of `work` above those before it; one small upload has come before."""
    put(site, "warm-up", 1, 1, runs=1)
    time.sleep(1)
    rest = load.resident(serve)
    with load.peak_memory(serve) as peak:
        work()
    return (peak[0] - rest) / MIB
