"""The service beside the controller that a widely installed chart brings, on its own schema.

Cases: its older views under uploads; its own lower cap, by either end of the list; a view that never moves on
is no cap; strict mode against a writer that says Running or Succeeded.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.kube.audit import OURS, least_pause, writes
from tests.kube.schemas import Crd, read
from tests.kube.site import KubeSite
from tests.kube.writers import Installed
from tests.programs import until

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Theirs",
    "message": "stays",
    "lastTransitionTime": "2030-01-31T00:00:00Z",
}
REPAIRED_WITHIN = 5.0


@pytest.fixture
def site(kube_site: KubeSite, served: Callable[[Crd], None]) -> KubeSite:
    served(read("legacy"))
    return kube_site


def upload(site: KubeSite, run: str, *names: str) -> None:
    for name in names:
        assert site.stage.put(run, name, name.encode()).status_code == 201


def named(count: int, first: int = 0) -> list[str]:
    return [f"log-{n:03}" for n in range(first, first + count)]


def at_work(site: KubeSite, run: str, installed: Installed, count: int) -> None:
    """Wait until it wrote so often."""
    until(lambda: len(writes(site.plane, installed.user, site.namespace, run)) >= count)


def test_status_is_ours_again_soon_after_another_writer_falls_silent(site: KubeSite) -> None:
    cap = 20
    site.all(JANGAR_AGENTRUN_ARTIFACTS_MAX=str(cap))
    stage = site.stage
    stage.create_run("busy", phase="Running", conditions=[READY])
    installed = Installed(site, stale=1, every=0.15, entry="their-report")
    at_work(site, "busy", installed, 1)
    names = named(30)
    for name in names:
        upload(site, "busy", name)
        time.sleep(0.1)
    installed.silence()
    silent = datetime.now(UTC)

    until(lambda: stage.names("busy") == names[-cap:], REPAIRED_WITHIN)
    status = stage.status("busy")
    assert stage.condition("busy", "ArtifactsTruncated")["message"].startswith("20 of 31 ")  # type: ignore[index]
    assert stage.condition("busy", "Ready") == READY
    assert stage.condition("busy", "ArtifactsLimited")
    assert status["phase"] == "Running"
    theirs = [one for one in writes(site.plane, installed.user, site.namespace, "busy") if one < silent]
    assert status["observedGeneration"] >= len(theirs)
    explained = stage.get(f"namespaces/{site.namespace}/agentruns/busy/explanation").json()
    assert [(one["name"], one["state"]) for one in explained["externals"]] == [("their-report", "left-out")]
    assert explained["pending"] == []
    ours = writes(site.plane, OURS, site.namespace, "busy")
    assert len([one for one in ours if one < silent]) <= len(theirs)
    assert least_pause(ours) >= 1


def test_a_lower_cap_of_its_own_is_adopted_until_the_run_changes(site: KubeSite) -> None:
    controller = site.serve(), site.controller()
    stage, names = site.stage, named(8)
    stage.create_run("capped", phase="Running")
    upload(site, "capped", *names)
    until(lambda: stage.names("capped") == names)
    installed = Installed(site, max=5)
    until(lambda: "publish.length_adopted" in controller[1].errors)
    until(lambda: stage.names("capped") == names[-5:])
    until(lambda: is_told(site, "capped", "5 of 8 "))
    ours, theirs = (
        len(writes(site.plane, user, site.namespace, "capped")) for user in (OURS, installed.user)
    )
    at_work(site, "capped", installed, theirs + 12)
    assert len(writes(site.plane, OURS, site.namespace, "capped")) == ours
    assert stage.names("capped") == names[-5:]
    upload(site, "capped", "log-008")
    until(lambda: stage.names("capped") == [*names[-4:], "log-008"])
    until(lambda: is_told(site, "capped", "5 of 9 "))
    assert "cut the list to 5 entries" in stage.offload("explain", f"{site.namespace}/capped")
    installed.silence()
    stage.patch_status("capped", phase="Succeeded")
    upload(site, "capped", "log-009")
    until(lambda: stage.names("capped") == [*names, "log-008", "log-009"], REPAIRED_WITHIN)
    assert stage.condition("capped", "ArtifactsTruncated")["reason"] == "AllListed"  # type: ignore[index]
    assert least_pause(writes(site.plane, OURS, site.namespace, "capped")) >= 1

    stage.create_run("by-the-other-end", phase="Running")
    upload(site, "by-the-other-end", *names)
    until(lambda: stage.names("by-the-other-end") == names)
    Installed(site, max=5, keeps="oldest")
    until(lambda: is_told(site, "by-the-other-end", "5 of 8 "))
    until(lambda: stage.names("by-the-other-end") == names[-5:])


def test_a_view_that_never_moves_on_is_no_cap(site: KubeSite) -> None:
    site.serve()
    controller = site.controller()
    stage, names = site.stage, named(8)
    stage.create_run("stuck")
    upload(site, "stuck", *names[:3])
    until(lambda: stage.names("stuck") == names[:3])
    installed = Installed(site, stale="first")
    at_work(site, "stuck", installed, 1)
    upload(site, "stuck", *names[3:])
    until(lambda: len(writes(site.plane, OURS, site.namespace, "stuck")) >= 6)
    installed.silence()
    until(lambda: stage.names("stuck") == names, REPAIRED_WITHIN)
    assert "length_adopted" not in controller.errors
    ours, theirs = (len(writes(site.plane, user, site.namespace, "stuck")) for user in (OURS, installed.user))
    assert ours <= theirs


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_run_that_strict_mode_failed_stays_failed(site: KubeSite, phase: str) -> None:
    strict = {"JANGAR_AGENTRUN_ARTIFACTS_MAX": "3", "JANGAR_AGENTRUN_ARTIFACTS_STRICT": "true"}
    site.all(**strict)
    stage = site.stage
    stage.create_run("over", phase="Running")
    upload(site, "over", *named(3))
    until(lambda: stage.names("over") == named(3))
    installed = Installed(site, stale="first", phase=phase)
    at_work(site, "over", installed, 1)
    upload(site, "over", "log-003")
    until(lambda: len(writes(site.plane, OURS, site.namespace, "over")) >= 5)
    installed.silence()

    def has_failed() -> bool:
        status = stage.status("over")
        verdict = (status["phase"], status.get("reason"), bool(status.get("finishedAt")))
        return verdict == ("Failed", "ArtifactsOverLimit", True)

    until(has_failed, REPAIRED_WITHIN)
    assert stage.condition("over", "ArtifactsOverLimit")["status"] == "True"  # type: ignore[index]
    assert stage.names("over") == named(3, first=1)
    until(lambda: stage.is_current("over"))
    before = stage.read("over")["metadata"]["resourceVersion"]
    # A writer of no more than the phase, and one that is late.
    stage.patch_status("over", phase=phase)
    until(has_failed, REPAIRED_WITHIN)
    upload(site, "over", "log-004")
    until(lambda: stage.names("over") == named(3, first=2))
    assert has_failed()
    assert stage.read("over")["metadata"]["resourceVersion"] != before


def is_told(site: KubeSite, run: str, start: str) -> bool:
    condition = site.stage.condition(run, "ArtifactsTruncated")
    return bool(condition) and condition["message"].startswith(start)
