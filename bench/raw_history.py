"""The peer of `history`: psycopg alone, running the query that the service's index runs, and nothing else.

    python -m bench.raw_history URL RUNS CONNECTIONS SECONDS LIMIT

prints pages a second. The statement is taken from the index itself, so that it is the same by construction.
"""

import json
import sys
import threading
import time
from typing import Any

import psycopg
import sqlalchemy as sa

from bench.filling import uid_of
from offload.index import Index, artifacts


def main(url: str, runs: int, connections: int, seconds: float, limit: int) -> None:
    statement, parameters = _statement(url, limit)
    [the_run] = [name for name, value in parameters.items() if value == uid_of(0)]
    uids = [uid_of(number) for number in range(runs)]
    counts = [0] * connections
    ready = threading.Barrier(connections + 1)
    stop = threading.Event()

    def read(mine: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            ready.wait()
            number = mine
            while not stop.is_set():
                asked = parameters | {the_run: uids[number % runs]}
                rows = connection.execute(statement, asked).fetchall()
                assert rows, asked
                counts[mine] += 1
                number += connections

    threads = [threading.Thread(target=read, args=(mine,)) for mine in range(connections)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    took = time.perf_counter() - began
    done = sum(counts)
    for thread in threads:
        thread.join()
    print(json.dumps(done / took))


def _statement(url: str, limit: int) -> tuple[str, dict[str, Any]]:
    """What the index sends for a first page, with its parameters by name."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        sent.append((statement, dict(parameters)))

    index = Index.connect(url)
    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    with index.read() as tx:
        artifacts.history(tx, uid_of(0), limit=limit)
    sa.event.remove(sa.Engine, "before_cursor_execute", listen)
    index.close()
    return sent[-1]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
