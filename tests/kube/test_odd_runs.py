"""Runs that whoever may write a status made odd, on a real API server, beside others.

Cases: a phase and an agent's name with NUL and of great length; finish times at the ends of the calendar and
beyond; what is nested as deep as a parser reads, and deeper. They are there when following begins, and are
written while it goes on.
"""

import json
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from offload.cluster.interface import AgentRun
from offload.cluster.kubernetes import KubernetesCluster
from offload.controller.controller import Controller
from offload.domain.run import Run
from offload.index import runs
from offload.services.follow import Follower
from tests.kube.room import KubeRoom
from tests.kube.schemas import read
from tests.programs import until
from tests.publishing import AGENTRUNS, HOLDER, NAMESPACE

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
LONG = "".join(Random(1).choices(string.ascii_letters + string.digits, k=8000))


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


STATUS = {
    "nul-phase": json.dumps({"phase": "Run\0ning"}),
    "long-phase": json.dumps({"phase": LONG}),
    "beyond-the-last": json.dumps({"finishedAt": "9999-12-31T23:59:59-12:00"}),
    "the-last": json.dumps({"finishedAt": "9999-12-31T23:59:59Z"}),
    "before-the-first": json.dumps({"finishedAt": "0001-01-01T00:00:00+01:00"}),
    "zero-time": json.dumps({"finishedAt": "0001-01-01T00:00:00Z"}),
    "deep": f'{{"x":{nested(500)}}}',
    "too-deep": f'{{"x":{nested(1500)}}}',
}
AGENTS = {"nul-agent": "co\0der", "long-agent": LONG}


@pytest.fixture
def room(kube_room: KubeRoom) -> Iterator[KubeRoom]:
    kube_room.serve(read("ours"))
    yield kube_room
    kube_room.api.delete(AGENTRUNS).raise_for_status()


def create(room: KubeRoom, name: str, agent: str = "coder") -> AgentRun:
    body = {
        "apiVersion": "agents.proompteng.ai/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": name},
        "spec": {"agentRef": {"name": agent}},
    }
    room.api.post(AGENTRUNS, json=body).raise_for_status()
    return room.cluster.get(NAMESPACE, name)


def create_odd(room: KubeRoom, prefix: str) -> list[AgentRun]:
    odd = [create(room, f"{prefix}-{name}", agent) for name, agent in AGENTS.items()]
    for name, status in STATUS.items():
        odd.append(create(room, f"{prefix}-{name}"))
        path = f"{AGENTRUNS}/{prefix}-{name}/status"
        room.api.patch(path, content=f'{{"status":{status}}}', headers=MERGE_PATCH).raise_for_status()
    return odd


@contextmanager
def controlling(room: KubeRoom, folder: Path) -> Iterator[Controller]:
    cluster = KubernetesCluster.from_config(str(folder / "kubeconfig"), [NAMESPACE])
    publisher = room.publisher(cluster=cluster)
    follower = Follower(room.index, cluster, room.echoes, room.schema, publisher=publisher)
    controller = Controller(room.index, room.schema, follower, publisher, holder=HOLDER)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()
        cluster.close()


def test_runs_however_odd_hold_up_no_other_and_are_followed_themselves(
    room: KubeRoom, tmp_path: Path
) -> None:
    def known(run: AgentRun) -> Run | None:
        with room.index.read() as tx:
            return runs.get(tx, run.seen.uid)

    def is_published(run: AgentRun) -> None:
        until(lambda: known(run))
        room.upload(run, "log")
        until(lambda: room.names(run) == ["log"])

    odd = create_odd(room, "listed")
    with controlling(room, tmp_path) as controller:
        is_published(create(room, "after-the-list"))
        odd += create_odd(room, "watched")
        last = create(room, "after-them")
        is_published(last)
        for run in odd:
            until(lambda run=run: known(run))
        for run in odd:
            is_published(run)
        until(lambda: not controller.ready())
        room.delete("after-them")
        until(lambda: (found := known(last)) and found.deleted_at)
