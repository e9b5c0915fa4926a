"""Uploads at a steady rate, and when each pointer is seen in status."""

import http.client
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path

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
    """Watch the AgentRuns of a namespace, as any other client of the API server would.

    In a process of its own: what it sees must not wait for the senders' turn at Python's lock.
    """
    watch, processes = Watch(), multiprocessing.get_context("spawn")
    reading, writing = processes.Pipe(duplex=False)
    process = processes.Process(target=_follow, args=(str(kubeconfig), namespace, writing), daemon=True)
    process.start()
    writing.close()

    def read() -> None:
        with suppress(EOFError):
            while True:
                run, name, at = reading.recv()
                watch.runs.add(run)
                if name:
                    watch.seen[run, name] = at

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        process.terminate()
        process.join()
        thread.join()
        reading.close()


def _follow(kubeconfig: str, namespace: str, out: Connection) -> None:
    """Tell of each run, and of each artifact, when it is seen first."""
    told: set[tuple[str, str]] = set()
    for change in KubernetesCluster.from_config(kubeconfig, [namespace]).changes(threading.Event()):
        now = time.monotonic()
        if isinstance(change, Present):
            run = change.run.seen.name
            names = ("", *(entry["name"] for entry in change.run.status.get("artifacts") or ()))
            for name in names:
                if (run, name) not in told:
                    told.add((run, name))
                    out.send((run, name, now))


def send(
    url: str, namespace: str, runs: Sequence[str], *, rate: float, count: int
) -> dict[tuple[str, str], float]:
    """Upload `count` artifacts, `rate` a second, to the runs in turn; when each was acknowledged."""
    acknowledged: dict[tuple[str, str], float] = {}
    began, kept = time.monotonic(), threading.local()

    def one(number: int, run: str) -> None:
        name = f"{int(began)}-{number}.log"
        # By the standard library's client, since httpx would take as much CPU as the service.
        if not hasattr(kept, "connection"):
            kept.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        path = f"/v1/namespaces/{namespace}/agentruns/{run}/artifacts/{name}"
        kept.connection.request("PUT", path, f"{name} of {run}".encode())
        answer = kept.connection.getresponse()
        answer.read()
        if answer.status != HTTPStatus.CREATED:
            raise RuntimeError(f"PUT {path}: {answer.status}")
        acknowledged[run, name] = time.monotonic()

    with ThreadPoolExecutor(SENDERS) as threads:
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
