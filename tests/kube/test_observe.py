"""`OFFLOAD_PUBLISH=observe` on a live cluster.

- the controller writes nothing, by the API server's audit log: no status, no Event; what it would write is
  counted, and `offload explain` shows it: entries that come, go and are replaced, and the condition
- observe, on, observe, off, on: each does what it says, and `on` catches up with what came meanwhile
"""

import json
from typing import Any

from tests.kube.audit import OURS, asked
from tests.kube.site import KubeSite
from tests.programs import Program, free_port, metrics, until

ELSEWHERE = {"name": "report", "url": "https://reports.example/7"}
BARE = {"name": "a"}
"""In whose place an artifact of ours of that name would stand."""


def test_what_would_be_written_is_counted_and_explained_and_nothing_is_written(kube_site: KubeSite) -> None:
    site, stage, port = kube_site, kube_site.stage, free_port()
    cap = {"JANGAR_AGENTRUN_ARTIFACTS_MAX": "3"}
    site.serve(OFFLOAD_PUBLISH="observe", **cap)
    stage.create_run("watched", phase="Running", artifacts=[BARE, ELSEWHERE])
    before = stage.read("watched")
    site.controller(OFFLOAD_PUBLISH="observe", OFFLOAD_METRICS_PORT=str(port), **cap)
    for name in ("a", "b", "c"):
        assert stage.put("watched", name, name.encode()).status_code == 201
    until(lambda: stage.is_current("watched"))
    assert metrics(port)["offload_publish_observed_differences_total"] >= 1

    assert stage.read("watched") == before
    assert stage.events("watched") == []
    assert writes(site) == []

    pending = explained(site, "watched")
    assert [(one["of"], one["name"], one["before"]) for one in pending] == [
        ("entry", "a", '{"name":"a"}'),
        ("entry", "b", None),
        ("entry", "c", None),
        ("condition", "ArtifactsTruncated", None),
    ]
    gone, *new, condition = (one["after"] for one in pending)
    assert gone is None
    assert [address.rpartition("/")[2] for address in new] == ["b", "c"]
    assert condition.startswith("True CountLimit: 3 of 4 artifacts are listed")
    assert "A publish would change: 4" in stage.offload("explain", f"{site.namespace}/watched")


def test_switching_between_observe_on_and_off_does_what_each_says(kube_site: KubeSite) -> None:
    site, stage = kube_site, kube_site.stage
    site.serve()
    stage.create_run("switched")
    expected: list[str] = []

    def switched_to(mode: str, name: str) -> Program:
        controller = site.controller(OFFLOAD_PUBLISH=mode)
        assert stage.put("switched", name, name.encode()).status_code == 201
        return controller

    observing = switched_to("observe", "a")
    until(lambda: stage.is_current("switched"))
    assert stage.names("switched") == expected
    assert changes(site) == [("entry", "a")]
    assert observing.end() == 0

    publishing = switched_to("on", "b")
    until(lambda: stage.names("switched") == ["a", "b"])
    until(lambda: stage.is_current("switched"))
    assert changes(site) == []
    assert publishing.end() == 0
    written = len(writes(site))

    observing = switched_to("observe", "c")
    until(lambda: stage.is_current("switched"))
    assert stage.names("switched") == ["a", "b"]
    assert changes(site) == [("entry", "c")]
    assert observing.end() == 0

    silent = switched_to("off", "d")
    stage.patch_status("switched", phase="Running")
    # It follows: once the index knows of the later change, a publish of the earlier one was due.
    until(lambda: stage.get(f"namespaces/{site.namespace}/agentruns/switched").json()["phase"] == "Running")
    assert stage.names("switched") == ["a", "b"]
    assert changes(site) == [("entry", "c"), ("entry", "d")]
    assert silent.end() == 0
    assert len(writes(site)) == written

    switched_to("on", "e")
    until(lambda: stage.names("switched") == ["a", "b", "c", "d", "e"])
    assert stage.status("switched")["phase"] == "Running"
    assert changes(site) == []


def writes(site: KubeSite) -> list[str]:
    """What the controller changed in the site's namespace, as the API server logged it."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in asked(site.plane, OURS, site.namespace)
        if event["verb"] not in {"get", "list", "watch"}
    ]


def explained(site: KubeSite, run: str) -> list[dict[str, Any]]:
    told = site.stage.offload("explain", f"{site.namespace}/{run}", "--json")
    pending: list[dict[str, Any]] = json.loads(told)["pending"]
    return pending


def changes(site: KubeSite) -> list[tuple[str, str]]:
    return [(one["of"], one["name"]) for one in explained(site, "switched")]
