"""A service beside a cluster, as it runs in production but for the machine, and what publishing costs there.

Serve and controller as processes, with PostgreSQL and SeaweedFS, on a real API server or on the stand-in.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path
from typing import Any

import yaml

from bench.effort import Effort
from bench.load import cpu_each
from bench.measure import Figure, alone, compared
from bench.servers import Servers
from bench.visible import delays, send, wait_for, watching
from offload.cluster.kubernetes import KubernetesCluster
from offload.domain.limits import STATUS_ENTRIES
from offload.domain.pointers import compact
from tests.kube import binaries
from tests.kube.control_plane import ControlPlane
from tests.kube.site import SYSTEM, Kubectl, KubeSite
from tests.programs import ROOT, metrics
from tests.site import Site

RUNS, RATE = 200, 100.0
STEADY_SECONDS = 20
ETCD_ARTIFACTS = 5_000

_numbers = count(1)


def visible(servers: Servers, effort: Effort) -> Iterator[Figure]:
    """How soon a pointer is visible, on the stand-in and on a real API server."""
    rounds = 1 if effort.quick else 3
    with servers.apart() as own:
        yield from _visible(own, own.site(own.seaweedfs(), own.database()), "visible/standin", rounds)
    with _control_plane() as plane:
        for name, listed in (("visible/kubernetes", 0), ("visible/full-lists", STATUS_ENTRIES)):
            with servers.apart() as own:
                yield from _visible(
                    own, own.kube_site(own.seaweedfs(), own.database(), plane), name, rounds, listed
                )


def requests(servers: Servers, effort: Effort) -> Iterator[Figure]:
    """What one artifact costs in requests to the API server, at several rates on one run."""
    with _control_plane() as plane, _site(servers, plane) as site:
        site.serve()
        site.controller()
        for rate in (1, 10, 100):
            [run] = _create_runs(site, 1)
            before = _asked(site)
            number = int(rate * effort.time(STEADY_SECONDS))
            send(site.stage.url, site.namespace, [run], rate=rate, count=number)
            wait_for(lambda run=run: site.stage.is_current(run), 60)  # type: ignore[misc]
            asked = _asked(site) - before
            yield alone(f"requests/{rate}", [asked.total() / number], artifacts=number, requests=dict(asked))
        status = site.stage.status(run)
        yield alone("requests/status", [len(compact(status))], entries=len(status["artifacts"]))


def etcd(servers: Servers, effort: Effort) -> Iterator[Figure]:
    """What etcd writes for so many artifacts, beside one patch for each of them."""
    artifacts = effort.count(ETCD_ARTIFACTS)
    with _control_plane() as plane, _site(servers, plane) as site:
        site.serve()
        for what, number in (("spread", RUNS), ("one-run", 1)):
            names, others = _create_runs(site, number), _create_runs(site, number)
            controller = site.controller()
            with _etcd_writes(plane) as ours:
                send(site.stage.url, site.namespace, names, rate=RATE, count=artifacts)
                wait_for(lambda names=names: all(map(site.stage.is_current, names)), 120)  # type: ignore[misc]
            controller.end()  # it would look after what the peer writes
            entry = site.stage.status(names[0])["artifacts"][0]
            with _etcd_writes(plane) as peer:
                _patch_for_each(site, others, entry, artifacts)
            # The next controller would mend the peer's lists. One request: kubectl's own take a minute.
            everything = f"/apis/agents.proompteng.ai/v1alpha1/namespaces/{site.namespace}/agentruns"
            site.stage.kubectl("delete", "--raw", everything)
            yield compared(
                f"etcd/{what}", ours, peer, "one patch each", artifacts=artifacts, rate=RATE, runs=number
            )


@contextmanager
def _site(servers: Servers, plane: ControlPlane) -> Iterator[KubeSite]:
    """The service on a real API server; it is gone at the end."""
    with servers.apart() as own:
        yield own.kube_site(own.seaweedfs(), own.database(), plane)


def _visible(own: Servers, site: Site, name: str, rounds: int, listed: int = 0) -> list[Figure]:
    """Acknowledged to visible, in each round on runs of its own that list so many already."""
    programs = own.programs(site.serve()) | {"`offload controller`": site.controller().process.pid}
    if isinstance(site, KubeSite):
        programs |= {"the API server": site.plane.pid("kube-apiserver"), "etcd": site.plane.pid("etcd")}
    uploads = int(RATE * STEADY_SECONDS)
    rates: list[float] = []

    def prepared() -> list[str]:
        runs = _create_runs(site, RUNS)
        wait_for(lambda: watch.runs.issuperset(runs), 30)
        if listed:
            _fill(site, runs, listed)
        return runs

    def sent(runs: Sequence[str]) -> list[float]:
        acknowledged = send(site.stage.url, site.stage.namespace, runs, rate=RATE, count=uploads)
        rates.append(round(uploads / (max(acknowledged.values()) - min(acknowledged.values())), 1))
        return delays(acknowledged, watch)

    with watching(site.kubeconfig, site.stage.namespace) as watch:
        # The first round warms up, and tells what an upload costs.
        first = prepared()
        cpu = cpu_each("ms an upload", programs, {"ours": lambda: len(sent(first)) / 1000})
        found = [sent(prepared()) for _ in range(rounds)]
    config = {
        "runs": RUNS, "rate": RATE, "acknowledged_rates": rates[1:], "seconds": STEADY_SECONDS,
        "listed_before": listed, "cpu": cpu,
    }  # fmt: skip
    return [
        alone(f"{name}/p{percent}", [1000 * one[len(one) * percent // 100] for one in found], **config)
        for percent in (50, 99)
    ]


def _fill(site: Site, runs: Sequence[str], entries: int) -> None:
    for run in runs:
        files = {f"{number}.log": run.encode() for number in range(entries)}
        site.stage.post(run, files).raise_for_status()
    wait_for(lambda: all(map(site.stage.is_current, runs)), 120)


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
def _control_plane() -> Iterator[ControlPlane]:
    with tempfile.TemporaryDirectory(prefix="offload-bench-") as name:
        folder = Path(name)
        plane = ControlPlane(binaries.find(), folder)
        try:
            plane.start()
            plane.install_crd(yaml.safe_load((ROOT / "deploy/crd/agentruns.yaml").read_text()))
            kubectl = Kubectl(plane.kubeconfig(folder / "admin.kubeconfig"))
            kubectl("apply", "-k", "deploy/base")
            yield plane
        finally:
            plane.stop()
