"""How the service grows: with processes, with rows, with live runs.

    python -m bench.growth [PART …] [--quick]

measures the named parts, or all, and writes bench/results/growth.json and its table in docs/performance.md.
Parts that were not named keep their last figures. 10 M rows need some 12 GiB of disk.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from bench import load, report
from bench.effort import MIB, QUICK, Effort
from bench.filling import fill, grow
from bench.load import Load
from bench.measure import in_turn
from bench.partitioning import partition
from bench.rows.small import put
from bench.servers import Databases, Servers, create_runs
from tests.programs import NAMESPACE, Program, until
from tests.site import Site

ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
ROWS_OF_A_RUN = 1000
GROWN_ROWS = 500_000
ASKED_RUNS = 200
_EMPTY_FOR_EACH = 9
"""Runs without rows for each one that has, so that the namespace's pages are full at 100 k rows too."""
FOUR = 4
LIVE_RUNS = (200, 10_000)
Json = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.growth", description="how the service grows")
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    options.add_argument("--quick", action="store_true", help="only show that it works; write nothing")
    chosen = options.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        options.error(f"there is no {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    effort = QUICK if chosen.quick else Effort()
    rows: list[Json] = []
    with ExitStack() as of_all:
        databases = Databases(of_all)
        for part in chosen.parts or PARTS:
            with ExitStack() as of_row:
                for row in PARTS[part](Servers(databases, of_row), effort):
                    print(json.dumps(row), flush=True)
                    rows.append({"part": part, **row})
    if not chosen.quick:
        report.write_growth(rows, list(PARTS))


def processes(servers: Servers, effort: Effort) -> Iterator[Json]:
    """Bodies of 4 KiB over 32 connections into the sink, by the number of worker processes, in turn."""
    store, serving = servers.sink(), dict[str, tuple[Site, Program]]()
    for workers in ("1", "2"):
        site = servers.site(store, servers.database())
        serving[workers] = site, site.serve("--workers", workers)
        create_runs(site, 32)

    def sending(site: Site) -> Callable[[str], Load]:
        return lambda word: put(site, word, 32, effort.seconds)

    rounds = in_turn({workers: sending(site) for workers, (site, _) in serving.items()}, effort.pairs)
    for workers, (_, serve) in serving.items():
        middle = sorted(rounds[workers], key=lambda one: one.rate)[len(rounds[workers]) // 2]
        yield _row("processes", workers, "requests/s", middle.rate)
        yield _row("processes", workers, "p99 ms", middle.p99)
        yield _row("processes", workers, "resident MiB", load.resident(serve.family()) / MIB)


def sizes(servers: Servers, effort: Effort) -> Iterator[Json]:
    """What a row takes on disk, in indices that grew row by row."""
    url, rows = servers.empty_database(), effort.count(GROWN_ROWS)
    grow(url, rows, ROWS_OF_A_RUN)
    yield from _sizes(url, rows)


def history(servers: Servers, effort: Effort) -> Iterator[Json]:
    """Pages of 100 over 4 connections, by the number of rows; and partitions, at the most rows."""
    store, sites = servers.sink(), {}
    for rows in map(effort.count, ROWS):
        site = sites[rows] = servers.site(store, servers.empty_database())
        began = time.monotonic()
        fill(site.database_url, rows, ROWS_OF_A_RUN, empty=_EMPTY_FOR_EACH * rows // ROWS_OF_A_RUN)
        yield _row("filling", f"{rows:,} rows", "s", time.monotonic() - began)
        site.serve()
    yield from _pages(servers, sites, effort)
    most = max(sites)
    for what, seconds in partition(sites[most].database_url):
        yield _row("partitioning by time", f"{most:,} rows: {what}", "s", seconds)
    yield from _pages(servers, {most: sites[most]}, effort, ", partitioned")
    create_runs(sites[most], 1)
    taken = put(sites[most], "partitioned", FOUR, effort.seconds, runs=1)
    yield _row("bodies of 4 KiB, 4 connections", f"{most:,} rows, partitioned", "requests/s", taken.rate)


def publishing(servers: Servers, effort: Effort) -> Iterator[Json]:
    """What the controller takes for 100 uploads a second over 200 runs, by the number of live runs."""
    for runs in map(effort.count, LIVE_RUNS):
        site = servers.site(servers.sink(), servers.database())
        site.serve()
        controller = site.controller().family()
        names = create_runs(site, runs)[:200]
        _send_steadily(site, "first", names, len(names))
        _wait_until_published(site, names)
        with load.cpu_seconds(controller) as cpu:
            sent = effort.count(2000)
            rate = _send_steadily(site, "steady", names, sent)
            _wait_until_published(site, names)
        yield _row("publishing", f"{runs:,} live runs", "uploads/s", rate)
        yield _row("publishing", f"{runs:,} live runs", "controller CPU ms an upload", 1000 * cpu[0] / sent)
        yield _row("publishing", f"{runs:,} live runs", "controller MiB", load.resident(controller) / MIB)


def _questions(site: Site, runs: int) -> dict[str, list[str]]:
    """Paths that ask for a page of 100, by what kind of page it is."""
    step = max(1, runs // ASKED_RUNS)
    base = f"/v1/namespaces/{NAMESPACE}/agentruns"
    of_run = [f"{base}/run-{number}/artifacts?limit=100" for number in range(0, runs, step)]
    return {
        "of a run": of_run,
        "of a run, by type": [f"{path}&type=report" for path in of_run],
        "of a run, by name": [f"{path}&name=logs/step-5*" for path in of_run],
        "of a run, page 9": [_deep(site, path, pages=1, limit=800) for path in of_run[:20]],
        "of the namespace": [f"{base}?limit=100"],
        "of the namespace, by agent": [f"{base}?limit=100&agent=agent-3"],
        "of the namespace, by phase": [f"{base}?limit=100&phase=Failed"],
        "of the namespace, 80 % deep": [
            _deep(
                site,
                f"{base}?limit=100",
                pages=max(1, runs * 8 // 1000),
                limit=min(1000, runs * 8),
            )
        ],
    }


def _deep(site: Site, path: str, *, pages: int, limit: int) -> str:
    """The path of the page of 100 that comes after so many larger pages; the last one there is if fewer."""
    url: str = f"{site.stage.url}{path.replace('limit=100', f'limit={limit}')}"
    for _ in range(pages):
        url = httpx.get(url, timeout=60).raise_for_status().json()["next"] or url
    return url.removeprefix(site.stage.url).replace(f"limit={limit}", "limit=100")


def _pages(servers: Servers, sites: Mapping[int, Site], effort: Effort, how: str = "") -> Iterator[Json]:
    """Each question to all indices in turn, so that what disturbs the machine disturbs all of them."""
    questions = {rows: _questions(site, max(1, rows // ROWS_OF_A_RUN)) for rows, site in sites.items()}
    for name in questions[max(sites)]:
        asking = {
            f"{rows:,} rows{how}": _asking(servers, site, questions[rows][name], effort)
            for rows, site in sites.items()
        }
        found = in_turn(asking, effort.pairs)
        for at, loads in found.items():
            yield _row(f"pages {name}", at, "p50 ms", median(one.p50 for one in loads))
            yield _row(f"pages {name}", at, "p99 ms", median(one.p99 for one in loads))
        if len(found) > 1:
            *_, small, _, large = found.values()
            ratios = [ours.p99 / base.p99 for ours, base in zip(large, small, strict=True)]
            yield _row(f"pages {name}", "the most rows", report.TIMES, median(ratios))


def _asking(servers: Servers, site: Site, paths: Sequence[str], effort: Effort) -> Callable[[str], load.Load]:
    listed = servers.folder / f"{uuid4()}.paths"
    listed.write_text("\n".join(paths))
    return lambda _: load.requests(site.stage.url, f"@{listed}", connections=FOUR, seconds=effort.seconds / 2)


def _sizes(url: str, rows: int) -> Iterator[Json]:
    with psycopg.connect(url) as connection:
        asked = "SELECT pg_table_size('artifacts'), pg_indexes_size('artifacts')"
        found = connection.execute(asked).fetchone()
        assert found
        for what, size in zip(("table", "indices"), found, strict=True):
            yield _row("size", what, "bytes a row", size / rows)
            yield _row("size", what, "GB at 1e9 rows", size / rows)
        each = "SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes "
        for name, size in connection.execute(f"{each} WHERE relname = 'artifacts'".encode()).fetchall():
            yield _row("size", f"index {name}", "bytes a row", size / rows)


def _send_steadily(site: Site, word: str, names: Sequence[str], count: int) -> float:
    """Upload so many to the runs in turn, 100 a second; how many a second it were."""
    began = time.monotonic()
    with httpx.Client(timeout=30) as sender:
        for number in range(count):
            time.sleep(max(0.0, began + number / 100 - time.monotonic()))
            run = names[number % len(names)]
            url = f"{site.stage.url}/v1/namespaces/{NAMESPACE}/agentruns/{run}/artifacts/{word}-{number}"
            sender.put(url, content=b"x").raise_for_status()
    return count / (time.monotonic() - began)


def _wait_until_published(site: Site, names: Sequence[str]) -> None:
    for name in names:
        until(lambda name=name: site.stage.is_current(name), 120)  # type: ignore[misc] # a lambda's default


PARTS = {"processes": processes, "sizes": sizes, "history": history, "publishing": publishing}


def _row(what: str, at: str, unit: str, value: float) -> Json:
    return {"what": what, "at": at, "unit": unit, "value": float(f"{value:.4g}")}


if __name__ == "__main__":
    main()
