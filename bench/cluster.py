"""What publishing costs a cluster, and how soon a pointer is visible: `python -m bench.cluster`.

On a real API server and on the stand-in, as the service runs in production but for the machine: serve and
controller as processes, with PostgreSQL and SeaweedFS.
"""

import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, cycle
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import psycopg
import yaml

from bench.visible import delays, send, wait_for, watching
from offload.cluster.kubernetes import KubernetesCluster
from offload.dev.stores import SeaweedFS
from offload.domain.limits import STATUS_ENTRIES
from offload.domain.pointers import compact
from offload.index import migrate
from tests.kube import binaries
from tests.kube.control_plane import ControlPlane
from tests.kube.site import SYSTEM, Kubectl, KubeSite
from tests.postgres import running_postgres
from tests.programs import ROOT, metrics
from tests.site import Site

RUNS, RATE = 200, 100.0
STEADY_SECONDS = 20
ETCD_ARTIFACTS = 10_000
Row = dict[str, Any]

_numbers = count(1)


def measure(*, etcd_artifacts: int = ETCD_ARTIFACTS, rounds: int = 3) -> Iterator[Row]:
    """All rows, from one run on this machine, each as soon as it is there."""
    yield from visible(rounds)
    with _stage() as (open_site, plane):
        with open_site(plane) as site:
            yield from _requests(site)
        with open_site(plane) as site:
            yield from _etcd(site, etcd_artifacts)


def visible(rounds: int) -> Iterator[Row]:
    """How soon a pointer is visible, on the stand-in and on a real API server."""
    with _stage() as (open_site, plane):
        with open_site(None) as site:
            yield from _visible(site, "standin", rounds)
        with open_site(plane) as site:
            yield from _visible(site, "kubernetes", rounds)


@contextmanager
def _stage() -> Iterator[tuple[Callable[[ControlPlane | None], Any], ControlPlane]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="offload-bench-")))
        open_site = stack.enter_context(_sites(folder))
        yield open_site, stack.enter_context(_control_plane(folder / "plane"))


def _visible(site: Site, where: str, rounds: int) -> list[Row]:
    """Acknowledged to visible, each run in turn."""
    names = _create_runs(site, RUNS)
    site.serve()
    site.controller()
    halves, lasts = [], []
    with watching(site.kubeconfig, site.stage.namespace) as watch:
        wait_for(lambda: len(watch.runs) == len(names), 30)
        for number in range(rounds + 1):
            sent = send(
                site.stage.url,
                site.stage.namespace,
                names,
                rate=RATE,
                count=int(RATE * STEADY_SECONDS),
            )
            found = delays(sent, watch)
            if number:  # the first one warms up
                halves.append(1000 * found[len(found) // 2])
                lasts.append(1000 * found[int(len(found) * 0.99)])
    config = {"runs": RUNS, "rate": RATE, "seconds": STEADY_SECONDS, "times": rounds}
    return [
        _row(f"visible/{where}/p50", halves, "ms", 300, config),
        _row(f"visible/{where}/p99", lasts, "ms", 1000, config),
    ]


def _requests(site: KubeSite) -> list[Row]:
    """What one artifact costs in requests to the API server, at several rates on one run."""
    site.serve()
    site.controller()
    rows = []
    for rate in (1, 10, 100):
        [run] = _create_runs(site, 1)
        before = _asked(site)
        number = rate * STEADY_SECONDS
        send(site.stage.url, site.namespace, [run], rate=rate, count=number)
        wait_for(lambda run=run: site.stage.is_current(run), 60)  # type: ignore[misc]
        asked = _asked(site) - before
        config = {"rate": rate, "artifacts": number, "requests": dict(asked)}
        rows.append(_row(f"api-requests/{rate}", [asked.total() / number], "requests/artifact", None, config))
    status = site.stage.status(run)
    config = {"entries": len(status["artifacts"]), "artifacts": number}
    rows.append(_row("status-bytes", [len(compact(status))], "bytes", 64 * 1024, config))
    return rows


def _etcd(site: KubeSite, artifacts: int) -> list[Row]:
    """What etcd writes for so many artifacts, beside one patch for each of them."""
    site.serve()
    site.controller()
    rows = []
    for what, number in (("spread", RUNS), ("one-run", 1)):
        names, others = _create_runs(site, number), _create_runs(site, number)
        with _etcd_writes(site.plane) as ours:
            send(site.stage.url, site.namespace, names, rate=RATE, count=artifacts)
            wait_for(lambda names=names: all(map(site.stage.is_current, names)), 120)  # type: ignore[misc]
        entry = site.stage.status(names[0])["artifacts"][0]
        with _etcd_writes(site.plane) as peer:
            _patch_for_each(site, others, entry, artifacts)
        config = {"artifacts": artifacts, "rate": RATE, "runs": number}
        rows.append(
            _row(f"etcd-bytes/{what}", ours, "bytes", None, config, peer[0], "one patch for each artifact")
        )
    return rows


def _patch_for_each(site: KubeSite, names: Sequence[str], entry: Mapping[str, Any], artifacts: int) -> None:
    """What a service would write that patches status at each artifact, with lists bounded as ours."""
    cluster = KubernetesCluster.from_config(str(site.kubeconfig), requests_per_second=5000)
    seen = {name: cluster.get(site.namespace, name) for name in names}
    for number, name in zip(range(artifacts), cycle(names)):
        newest = {**entry, "name": f"{number:010}.log"}
        entries = [*seen[name].status.get("artifacts", ()), newest][-STATUS_ENTRIES:]
        seen[name] = cluster.patch_status(seen[name], {"artifacts": entries})
    cluster.close()


@contextmanager
def _etcd_writes(plane: ControlPlane) -> Iterator[list[float]]:
    """Gets the bytes that etcd puts into its log meanwhile, but for what it does at rest."""
    name = "etcd_disk_wal_write_bytes_total"
    at_rest, began = metrics(plane.etcd_metrics_port)[name], time.monotonic()
    time.sleep(10)
    before = metrics(plane.etcd_metrics_port)[name]
    rate_at_rest = (before - at_rest) / (time.monotonic() - began)
    began, written = time.monotonic(), list[float]()
    yield written
    seconds = time.monotonic() - began
    written.append(metrics(plane.etcd_metrics_port)[name] - before - seconds * rate_at_rest)


def _asked(site: KubeSite) -> Counter[str]:
    """Requests of our processes about AgentRuns and Events of the site's namespace, watches aside."""
    asked: Counter[str] = Counter()
    for event in site.plane.audit():
        about = event.get("objectRef") or {}
        ours = event["user"].get("username", "").startswith(f"system:serviceaccount:{SYSTEM}:")
        if ours and about.get("namespace") == site.namespace and event["verb"] not in {"list", "watch"}:
            asked[f"{event['verb']} {about['resource']}"] += 1
    return asked


def _create_runs(site: Site, number: int) -> list[str]:
    names = [f"run-{next(_numbers)}" for _ in range(number)]
    kind = {"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun"}
    items = [{**kind, "metadata": {"name": name}, "spec": {"agentRef": {"name": "coder"}}} for name in names]
    site.stage.kubectl("create", "-f", "-", stdin="\n".join(json.dumps(item) for item in items))
    return names


@contextmanager
def _sites(folder: Path) -> Iterator[Callable[[ControlPlane | None], Any]]:
    """Makes sites: on a control plane, or on a stand-in of their own."""
    folder.chmod(0o755)
    with ExitStack() as stack:
        server = stack.enter_context(running_postgres("fsync=on"))
        store = SeaweedFS(folder / "store")
        stack.callback(store.stop, keep_data=False)
        address = store.start()

        @contextmanager
        def opening(plane: ControlPlane | None) -> Iterator[Site]:
            number = next(_numbers)
            at = folder / f"site-{number}"
            at.mkdir()
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE bench{number}")
            url = f"{server.rpartition('/')[0]}/bench{number}"
            migrate.upgrade(url)
            with ExitStack() as of_site:
                if plane:
                    yield KubeSite(at, url, address, of_site, plane)
                else:
                    site = Site(at, url, address, of_site)
                    site.standin()
                    yield site

        yield opening


@contextmanager
def _control_plane(folder: Path) -> Iterator[ControlPlane]:
    folder.mkdir()
    plane = ControlPlane(binaries.find(), folder)
    try:
        plane.start()
        plane.install_crd(yaml.safe_load((ROOT / "deploy/crd/agentruns.yaml").read_text()))
        kubectl = Kubectl(plane.kubeconfig(folder / "admin.kubeconfig"))
        kubectl("apply", "-k", "deploy/base")
        yield plane
    finally:
        plane.stop()


def _row(  # noqa: PLR0913, PLR0917 - a row's columns
    name: str,
    values: Sequence[float],
    unit: str,
    goal: float | None,
    config: Mapping[str, Any],
    peer: float | None = None,
    peer_name: str | None = None,
) -> Row:
    ours = median(values)
    return {
        "name": name,
        "ours": _rounded(ours),
        "peer": None if peer is None else _rounded(peer),
        "peer_name": peer_name,
        "ratio": None if peer is None else _rounded(ours / peer),
        "goal": goal,
        "met": None if goal is None else ours <= goal,
        "unit": unit,
        "spread": [_rounded(min(values)), _rounded(max(values))] if len(values) > 1 else None,
        "config": dict(config),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    machine = {"cores": psutil.cpu_count(), "kernel": platform.release(), "load": psutil.getloadavg()}
    sys.stderr.write(f"{json.dumps(machine)}\n")
    for row in measure():
        sys.stdout.write(f"{json.dumps(row)}\n")
        sys.stdout.flush()
    sys.stderr.write(f"{json.dumps({'load': psutil.getloadavg()})}\n")
