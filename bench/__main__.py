"""The benchmark of docs/performance.md.

    python -m bench [NAME …] [--quick] [--pairs N]

measures the named rows, or all, on servers of its own, and writes bench/results/latest.json and the table in
docs/performance.md. Rows that were not named keep their last figures. `--quick` shows in a few minutes that
everything works; its figures are none, so it writes nothing.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import psutil

from bench import report
from bench.effort import QUICK, Effort
from bench.goals import ROWS
from bench.measure import Figure
from bench.rows import big, cluster, history, memory, restart, small, start
from bench.servers import Databases, Servers

LEAST_PAIRS = 5
_LOOK_SECONDS = 2.0

Row = Callable[[Servers, Effort], Iterator[Figure]]

MEASURES: dict[str, Row] = {
    "big-one": big.big_one,
    "big-many": big.big_many,
    "big-sink": big.big_sink,
    "small": small.small,
    "small-sink": small.small_sink,
    "small-sqlite": small.small_sqlite,
    "batch": small.batch,
    "read-big": big.read_big,
    "read-small": small.read_small,
    "history": history.history,
    "visible": cluster.visible,
    "mem-one": memory.mem_one,
    "mem-many": memory.mem_many,
    "mem-slow": memory.mem_slow,
    "idle": memory.idle,
    "start": start.start,
    "restart": restart.restart,
    "requests": cluster.requests,
    "etcd": cluster.etcd,
}


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench", description="the benchmark")
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROWS)}; default: all")
    options.add_argument("--quick", action="store_true", help="only show that it works; write nothing")
    options.add_argument("--pairs", type=int, default=5, help="pairs after the warm-up")
    chosen = options.parse_args()
    unknown = set(chosen.names) - set(MEASURES)
    if unknown:
        options.error(f"there is no {', '.join(sorted(unknown))}")
    if chosen.pairs < LEAST_PAIRS:
        options.error(f"a figure is of {LEAST_PAIRS} pairs at least; --quick shows that it works")
    if not shutil.which("curl"):
        options.error("there is no curl on PATH")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # the servers are ended in order too
    effort = QUICK if chosen.quick else Effort(pairs=chosen.pairs)
    names = chosen.names or list(MEASURES)
    command = None if chosen.quick else " ".join(["python -m bench", *sys.argv[1:]])
    failed = _measure(names, effort, command)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def _measure(names: list[str], effort: Effort, command: str | None) -> list[str]:
    """Measure these rows and, where there is a command to name, write each down once it is there.

    One that fails does not end the others, and keeps its last figures; the answer is which did.
    """
    failed: list[str] = []
    with ExitStack() as of_all:
        databases = Databases(of_all)
        for name in names:
            before = psutil.cpu_percent(_LOOK_SECONDS)
            began = time.monotonic()
            print(f"{name}: the machine was {before} % busy before", flush=True)
            figures: list[Figure] = []
            try:
                with ExitStack() as of_row:
                    for figure in MEASURES[name](Servers(databases, of_row), effort):
                        figures.append(figure)
                        print(f"  {report.line(figure)}", flush=True)
            except Exception as error:  # noqa: BLE001 - told, and the others go on
                print(f"  failed: {error!r}", flush=True)
                failed.append(name)
            took = round(time.monotonic() - began)
            print(f"  after {took} s", flush=True)
            if command and name not in failed:
                said = {
                    "busy_before": before, "took_s": took, "measured": datetime.now(UTC).date().isoformat(),
                    "command": command,
                }  # fmt: skip
                report.write([figure.with_config(**said) for figure in figures])
    return failed


if __name__ == "__main__":
    main()
