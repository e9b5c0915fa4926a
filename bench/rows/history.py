"""Pages of history, from an index that holds a million rows."""

import json
import subprocess
import sys
from collections.abc import Iterator

from bench import load
from bench.effort import Effort
from bench.filling import fill
from bench.measure import Figure, alone, compared, in_turn
from bench.servers import Servers
from tests.programs import NAMESPACE, ROOT
from tests.site import Site

ROWS, ROWS_OF_A_RUN = 1_000_000, 1000
PAGE = 100


def history(servers: Servers, effort: Effort) -> Iterator[Figure]:
    rows = effort.count(ROWS)
    site = servers.site(servers.sink(), servers.empty_database())
    runs = fill(site.database_url, rows, ROWS_OF_A_RUN)
    site.serve()
    rates = in_turn(
        {
            "ours": lambda _: pages(site, runs, 32, effort.seconds).rate,
            "peer": lambda _: _raw(site, runs, 32, effort.seconds),
        },
        effort.pairs,
    )
    config = {"rows": rows, "rows_of_a_run": ROWS_OF_A_RUN, "page": PAGE}
    yield compared(
        "history", rates["ours"], rates["peer"], "raw psycopg, the same query", connections=32, **config
    )
    p99 = [pages(site, runs, 4, effort.seconds).p99 for _ in range(effort.pairs)]
    yield alone("history/p99", p99, connections=4, **config)


def pages(site: Site, runs: int, connections: int, seconds: float, query: str = "") -> load.Load:
    """First pages of the runs in turn."""
    path = f"/v1/namespaces/{NAMESPACE}/agentruns/run-RUN/artifacts?limit={PAGE}{query}"
    return load.requests(site.stage.url, path, connections=connections, seconds=seconds, runs=runs)


def _raw(site: Site, runs: int, connections: int, seconds: float) -> float:
    told = [site.database_url, str(runs), str(connections), str(seconds), str(PAGE + 1)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.raw_history", *told],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=load.PATIENCE,
    )  # fmt: skip
    rate: float = json.loads(done.stdout)
    return rate
