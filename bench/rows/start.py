"""How long the commands take to start."""

import subprocess
import time
from collections.abc import Iterator

import httpx

from bench.effort import Effort
from bench.measure import Figure, alone
from bench.servers import Servers
from tests.programs import OFFLOAD
from tests.site import Site

_TIMES = 10


def start(servers: Servers, effort: Effort) -> Iterator[Figure]:
    site = servers.site(servers.seaweedfs(), servers.database())
    times = [_until_ready(site) for _ in range(effort.pairs + 1)]
    yield alone("start", times[1:])
    yield alone("start/help", [_help(site) for _ in range(_TIMES + 1)][1:])


def _until_ready(site: Site) -> float:
    began = time.perf_counter()
    program = site.start("serve")
    while not _is_ready(site):
        time.sleep(0.005)
    took = time.perf_counter() - began
    program.end()
    return took


def _is_ready(site: Site) -> bool:
    try:
        return httpx.get(f"{site.stage.url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def _help(site: Site) -> float:
    began = time.perf_counter()
    subprocess.run([*OFFLOAD, "--help"], env=site.environment, capture_output=True, check=True)
    return time.perf_counter() - began
