"""Many large AgentRuns on a real API server.

Cases: many runs with specs of 20 KiB: what the controller asks for as it starts is bounded, and so is its
memory, and what follows costs no list.
"""

import json
import os
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path

from offload.domain.run import Run
from offload.index import runs
from tests.kube.audit import OURS
from tests.kube.control_plane import ControlPlane
from tests.kube.site import KubeSite
from tests.programs import Program, until

RUNS = int(os.environ.get("RUNS", "1000"))
"""5000 for the figures in docs/operations.md."""
SPEC_BYTES = 20 * 2**10
AGENTRUNS = "/apis/agents.proompteng.ai/v1alpha1/namespaces/{}/agentruns"


def test_many_large_runs_cost_few_requests_and_little_memory(kube_site: KubeSite) -> None:
    site = kube_site
    idle = site.controller()
    until(lambda: "follow.listed" in idle.errors)
    idle_bytes = most_memory(idle)
    idle.end()
    create(site.plane, site.namespace, range(RUNS))

    began = time.monotonic()
    before = len(asked(site))
    controller = site.controller()
    until(lambda: "follow.listed" in controller.errors, 120)
    listed = time.monotonic() - began
    until(lambda: "watch" in verbs(site, before))
    at_start = verbs(site, before)
    more = most_memory(controller) - idle_bytes
    create(site.plane, site.namespace, range(RUNS, RUNS + 50))
    until(lambda: len(runs_of(site)) == RUNS + 50, 60)
    print(f"{listed:.1f} s, {more / 2**20:.0f} MiB over {idle_bytes / 2**20:.0f}, {at_start}")  # noqa: T201 - figures
    assert at_start.count("list") == RUNS / 250
    assert len(at_start) < RUNS / 250 + 5
    assert more < 32 * 2**20
    assert verbs(site, before).count("list") == RUNS / 250


def create(plane: ControlPlane, namespace: str, numbers: Sequence[int]) -> None:
    """Create runs by several kept connections."""
    writers = 6

    def write(offset: int) -> None:
        context = ssl.create_default_context(cafile=plane.ca_file)
        context.load_cert_chain(*plane.admin_certificate)
        connection = HTTPSConnection("127.0.0.1", plane.port, context=context)
        for number in numbers[offset::writers]:
            run = {
                "apiVersion": "agents.proompteng.ai/v1alpha1",
                "kind": "AgentRun",
                "metadata": {"name": f"run-{number}"},
                "spec": {"agentRef": {"name": "coder"}, "parameters": {"prompt": "x" * SPEC_BYTES}},
            }
            connection.request(
                "POST", AGENTRUNS.format(namespace), json.dumps(run), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 201, text
        connection.close()

    with ThreadPoolExecutor(writers) as threads:
        list(threads.map(write, range(writers)))


def most_memory(program: Program) -> int:
    """The most bytes that a process has had in memory."""
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def runs_of(site: KubeSite) -> list[Run]:
    with site.index.read() as tx:
        return runs.page(tx, site.namespace, limit=2 * RUNS)


def asked(site: KubeSite) -> list[str]:
    return [one["verb"] for one in site.plane.audit(OURS)]


def verbs(site: KubeSite, before: int) -> list[str]:
    return asked(site)[before:]
