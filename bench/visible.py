"""Uploads at a steady rate, and when each pointer is seen in status."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from offload.cluster.interface import Present
from offload.cluster.kubernetes import KubernetesCluster

SENDERS = 32
SEEN_SECONDS = 60.0


@dataclass(slots=True)
class Watch:
    """When each artifact was first seen in a run's status, by run and name."""

    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)


@contextmanager
def watching(kubeconfig: Path, namespace: str) -> Iterator[Watch]:
    """Watch the AgentRuns of a namespace, as any other client of the API server would."""
    watch, stop = Watch(), threading.Event()
    cluster = KubernetesCluster.from_config(str(kubeconfig), [namespace])

    def follow() -> None:
        for change in cluster.changes(stop):
            now = time.monotonic()
            if isinstance(change, Present):
                name = change.run.seen.name
                watch.runs.add(name)
                for entry in change.run.status.get("artifacts") or ():
                    watch.seen.setdefault((name, entry["name"]), now)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join(10)
        cluster.close()


def send(
    url: str, namespace: str, runs: Sequence[str], *, rate: float, count: int
) -> dict[tuple[str, str], float]:
    """Upload `count` artifacts, `rate` a second, to the runs in turn; when each was acknowledged."""
    acknowledged: dict[tuple[str, str], float] = {}
    began = time.monotonic()
    limits = httpx.Limits(max_connections=SENDERS, max_keepalive_connections=SENDERS)

    with (
        httpx.Client(base_url=url, timeout=60, limits=limits) as client,
        ThreadPoolExecutor(SENDERS) as threads,
    ):

        def one(number: int, run: str) -> None:
            name = f"{int(began)}-{number}.log"
            path = f"/v1/namespaces/{namespace}/agentruns/{run}/artifacts/{name}"
            client.put(path, content=f"{name} of {run}".encode()).raise_for_status()
            acknowledged[run, name] = time.monotonic()

        sent = []
        for number, run in zip(range(count), itertools.cycle(runs)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            sent.append(threads.submit(one, number, run))
        for future in sent:
            future.result()
    return acknowledged


def delays(acknowledged: dict[tuple[str, str], float], watch: Watch) -> list[float]:
    """Seconds from each acknowledgement to its pointer, sorted; waits until all were seen."""
    wait_for(lambda: acknowledged.keys() <= watch.seen.keys(), SEEN_SECONDS)
    return sorted(max(0.0, watch.seen[key] - at) for key, at in acknowledged.items())


def wait_for(fact: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > until:
            raise TimeoutError("it did not come true in time")
        time.sleep(0.05)
