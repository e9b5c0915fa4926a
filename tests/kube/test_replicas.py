"""Several controllers on one PostgreSQL and one API server.

- three share the work: each publishes a fair part, and each change costs one patch, whoever makes it
- a publish that takes longer than a claim's life stays with who is at it
- a controller that is killed in the middle of a publish delays its run by less than 5 s
- one that was frozen past its claim and comes back overwrites nothing, and goes on
- all of them replaced, one by one, while artifacts arrive: nothing is lost, and nothing is written twice

That a second controller on SQLite refuses to start is in tests/story/test_lifecycle.py.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from threading import Event
from typing import Any

import psycopg
import pytest

from offload.controller.dispatch import LEASE
from tests.kube import audit
from tests.kube.audit import OURS
from tests.kube.faults import Faults
from tests.kube.site import SYSTEM, KubeSite
from tests.programs import Program, until

DELAY_SECONDS = 5.0


@pytest.fixture
def site(kube_site: KubeSite) -> KubeSite:
    kube_site.serve()
    return kube_site


def test_three_controllers_share_the_work_and_double_none(site: KubeSite) -> None:
    controllers = [site.controller() for _ in range(3)]
    names = [f"run-{number}" for number in range(24)]
    create_runs(site, names)
    rounds = 4
    for number in range(1, rounds + 1):
        put_to_all(site, names, f"{number}.log")
        until(lambda number=number: listed(site) == dict.fromkeys(names, number))  # type: ignore[misc]
    until(lambda: all(site.stage.is_current(name) for name in names))

    # One change of a run after the other: one controller alone would patch once for each.
    assert patches(site) == {(name, HTTPStatus.OK): rounds for name in names}
    written = [len(logged(controller, "publish.written")) for controller in controllers]
    assert sum(written) == rounds * len(names)
    assert min(written) >= sum(written) / 3 / 4, written


def test_a_publish_longer_than_a_claims_life_stays_with_who_is_at_it(site: KubeSite) -> None:
    other = paused_controller(site)
    with held_up_controller(site, "slow") as (slow, passes):
        other.resume()
        first = claimed_until(site, "slow")
        until(lambda: claimed_until(site, "slow") - first > LEASE)
        assert holder(site, "slow") == slow.process.pid
        passes.set()
        until(lambda: site.stage.names("slow") == ["first.log", "held-up.log"])
        until(lambda: site.stage.is_current("slow"))
    assert patches(site) == {("slow", HTTPStatus.OK): 2}
    assert logged(other, "publish.written") == []


def test_a_controller_killed_in_the_middle_of_a_publish_delays_its_run_by_less_than_5_s(
    site: KubeSite,
) -> None:
    other = paused_controller(site)
    with held_up_controller(site, "orphaned") as (killed, _):
        other.resume()
        assert site.stage.names("orphaned") == ["first.log"]
        killed.kill()
        until(lambda: site.stage.names("orphaned") == ["first.log", "held-up.log"], DELAY_SECONDS)
    until(lambda: site.stage.is_current("orphaned"))
    assert patches(site) == {("orphaned", HTTPStatus.OK): 2}


def test_a_controller_that_was_frozen_past_its_claim_overwrites_nothing(site: KubeSite) -> None:
    other = paused_controller(site)
    with held_up_controller(site, "shared") as (frozen, passes):
        frozen.pause()
        other.resume()
        assert site.stage.put("shared", "newer.log", b"newer").status_code == 201
        until(lambda: site.stage.names("shared") == ["first.log", "held-up.log", "newer.log"])
        until(lambda: site.stage.is_current("shared"))
        version = site.stage.read("shared")["metadata"]["resourceVersion"]
        # What it sent before it froze arrives now, and then it comes back.
        passes.set()
        until(lambda: patches(site)["shared", HTTPStatus.CONFLICT])
        frozen.resume()
        other.kill()
        publish(site, "another")
        assert site.stage.is_current("shared")
    assert site.stage.read("shared")["metadata"]["resourceVersion"] == version
    assert len(logged(frozen, "publish.written")) == 2


def test_rolling_the_controllers_loses_nothing_and_writes_nothing_twice(site: KubeSite) -> None:
    old = [site.controller(), site.controller()]
    names = [f"run-{number}" for number in range(8)]
    create_runs(site, names)
    ended = Event()

    def send(name: str) -> int:
        sent = 0
        while not ended.is_set():
            sent += 1
            assert site.stage.put(name, f"{sent}.log", b"%d" % sent).status_code == 201
            ended.wait(0.2)
        return sent

    began = time.monotonic()
    with ThreadPoolExecutor(len(names)) as threads:
        sending = [threads.submit(send, name) for name in names]
        try:
            until(lambda: all(logged(one, "publish.written") for one in old))
            new = []
            for one in old:
                new.append(site.controller())
                assert one.end() == 0
            until(lambda: all(logged(one, "publish.written") for one in new))
        finally:
            ended.set()
        sent = {name: future.result() for name, future in zip(names, sending, strict=True)}
    until(lambda: listed(site) == {name: min(50, count) for name, count in sent.items()})
    until(lambda: all(site.stage.is_current(name) for name in names))
    seconds = time.monotonic() - began
    of_each = Counter(name for (name, code), n in patches(site).items() for _ in range(n) if code == 200)
    assert max(of_each.values()) <= seconds + 2, "one a second and run, however many controllers there are"


def paused_controller(site: KubeSite) -> Program:
    """One that is ready, and stands still before it does anything."""
    controller = site.controller()
    controller.pause()
    return controller


@contextmanager
def held_up_controller(site: KubeSite, run: str) -> Iterator[tuple[Program, Event]]:
    """A controller in the middle of a publish of `run`: its patch goes on once the event is set."""
    passes = Event()

    async def hold_up(_: asyncio.StreamWriter) -> bool:
        while not passes.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.05)
        return True

    with Faults(site.plane) as faults:
        path = site.folder / "held-up.kubeconfig"
        account = "offload-controller"
        config = site.plane.service_account_kubeconfig(path, SYSTEM, account, url=faults.url)
        controller = site.controller(OFFLOAD_KUBECONFIG=str(config))
        publish(site, run, "first.log")
        began = time.monotonic()
        with faults.failing(hold_up, method="PATCH"):
            assert site.stage.put(run, "held-up.log", b"held up").status_code == 201
            until(lambda: faults.since(began, method="PATCH"))
            yield controller, passes


def publish(site: KubeSite, run: str, name: str = "a.log") -> None:
    """Create a run with one artifact, and see it in status."""
    site.stage.create_run(run)
    assert site.stage.put(run, name, b"a").status_code == 201
    until(lambda: site.stage.names(run) == [name])
    until(lambda: site.stage.is_current(run))


def create_runs(site: KubeSite, names: Sequence[str]) -> None:
    items = [
        {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name},
            "spec": {"agentRef": {"name": "coder"}, "runtime": {"type": "job"}},
        }
        for name in names
    ]
    site.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})


def put_to_all(site: KubeSite, names: Sequence[str], artifact: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda name: site.stage.put(name, artifact, artifact.encode()), names)
        assert {answer.status_code for answer in answers} == {201}


def listed(site: KubeSite) -> dict[str, int]:
    """Entries in the status of each run."""
    items = site.kubectl.json("get", "agentruns")["items"]
    return {one["metadata"]["name"]: len(one.get("status", {}).get("artifacts", [])) for one in items}


def patches(site: KubeSite) -> Counter[tuple[str, int]]:
    """Writes of the controllers in the site's namespace, by run and answer, as the API server logged them."""
    return Counter(
        (event["objectRef"]["name"], event["responseStatus"]["code"])
        for event in audit.patches(site.plane, OURS, site.namespace)
    )


def logged(program: Program, event: str) -> list[dict[str, Any]]:
    found = (json.loads(line) for line in program.errors.splitlines() if line.startswith("{"))
    return [one for one in found if one["event"] == event]


def holder(site: KubeSite, run: str) -> int | None:
    """The process that has claimed the run."""
    claimed_by, _ = claim(site, run)
    # A holder is called HOST-PID-RANDOM.
    return int(claimed_by.split("-")[-2]) if claimed_by else None


def claimed_until(site: KubeSite, run: str) -> datetime:
    _, until = claim(site, run)
    assert until, "nobody has claimed it"
    return until


def claim(site: KubeSite, run: str) -> tuple[str | None, datetime | None]:
    with psycopg.connect(site.database_url) as connection:
        found = connection.execute("SELECT claimed_by, claimed_until FROM runs WHERE name = %s", [run])
        claimed_by, until = found.fetchone() or (None, None)
        return claimed_by, until
