"""Namespaces that come, go and are closed to us, in namespaced mode on a real API server.

- one without our Role holds up no other: it is told in /readyz and by a metric, no sweep runs meanwhile, and
  its runs are published once the Role is there
- one whose Role is withdrawn is told of as soon as its watch ends, and what was uploaded meanwhile is
  published once the Role is back
- one that is deleted: its runs become deleted, their history stays readable by uid, and what is created under
  the same names begins anew
"""

import httpx
import pytest

from offload.cluster import feed
from offload.services.sweep import why_watch_is_stale
from offload.settings import load_settings
from offload.wiring.controlling import controlling
from tests.kube.site import KubeSite
from tests.programs import Stage, free_port, metrics, until

FOLDER = "deploy/base/rbac-namespaced"


def grant(site: KubeSite, stage: Stage) -> None:
    stage.kubectl("apply", "-f", "-", stdin=site.kubectl("kustomize", FOLDER))


def withdraw(stage: Stage) -> None:
    stage.kubectl("delete", "rolebinding", "--all")


def test_a_namespace_without_our_role_holds_up_no_other(kube_site: KubeSite) -> None:
    open_, closed = kube_site.stage, kube_site.another("closed")
    namespaces = [open_.namespace, closed.namespace]
    kube_site.environment["OFFLOAD_NAMESPACES"] = ",".join(namespaces)
    port = free_port()
    kube_site.serve()
    kube_site.controller(OFFLOAD_METRICS_PORT=str(port))
    for stage in (open_, closed):
        stage.create_run("demo")

    assert open_.put("demo", "log", b"hello").status_code == 201
    until(lambda: open_.names("demo") == ["log"])
    refused = closed.put("demo", "log", b"hello")
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "cluster-forbidden")
    refusal = f"AgentRuns of {closed.namespace} are not followed"
    until(lambda: refusal in httpx.get(f"http://127.0.0.1:{port}/readyz").text)
    problems = httpx.get(f"http://127.0.0.1:{port}/readyz")
    assert problems.status_code == 503
    assert "forbidden" in problems.text
    assert open_.namespace + " " not in problems.text
    assert metrics(port)["offload_watch_refused_namespaces"] == 1
    assert why_watch_is_stale(kube_site.index, namespaces)

    grant(kube_site, closed)
    until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").text == "ok\n")
    assert metrics(port)["offload_watch_refused_namespaces"] == 0
    assert closed.put("demo", "log", b"hello").status_code == 201
    until(lambda: closed.names("demo") == ["log"])
    until(lambda: why_watch_is_stale(kube_site.index, namespaces) is None)


def test_a_role_that_is_withdrawn_and_given_again(
    kube_site: KubeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WATCH_SECONDS", 2)
    open_, closed = kube_site.stage, kube_site.another("closed")
    grant(kube_site, closed)
    kube_site.environment["OFFLOAD_NAMESPACES"] = f"{open_.namespace},{closed.namespace}"
    kube_site.serve()
    for name, value in kube_site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OFFLOAD_KUBECONFIG", str(kube_site.accounts["controller"]))
    with controlling(load_settings()) as controller:
        for stage in (open_, closed):
            stage.create_run("demo")
            assert stage.put("demo", "first", b"hello").status_code == 201
            until(lambda stage=stage: stage.names("demo") == ["first"])
        until(lambda: controller.ready() == [])

        withdraw(closed)
        until(lambda: any(closed.namespace in problem for problem in controller.ready()))
        for stage in (open_, closed):
            # Known runs go on: who uploads needs no right of ours in the cluster.
            assert stage.put("demo", "second", b"hello").status_code == 201
        until(lambda: open_.names("demo") == ["first", "second"])
        assert closed.names("demo") == ["first"]

        grant(kube_site, closed)
        until(lambda: closed.names("demo") == ["first", "second"], seconds=15)
        until(lambda: controller.ready() == [])


def test_a_namespace_that_is_deleted_and_created_again(kube_site: KubeSite) -> None:
    stage = kube_site.another("passing")
    grant(kube_site, stage)
    kube_site.environment["OFFLOAD_NAMESPACES"] = f"{kube_site.namespace},{stage.namespace}"
    kube_site.all()
    old = stage.create_run("demo")
    assert stage.put("demo", "log", b"old").status_code == 201
    until(lambda: stage.names("demo") == ["log"])

    kube_site.kubectl("delete", "namespace", stage.namespace, "--wait=true")
    run = f"namespaces/{stage.namespace}/agentruns/demo"
    until(lambda: stage.get(run, uid=old).json()["deletedAt"])
    kube_site.kubectl("create", "namespace", stage.namespace)
    grant(kube_site, stage)
    new = stage.create_run("demo")

    until(lambda: stage.put("demo", "diff", b"new").status_code == 201)
    until(lambda: stage.names("demo") == ["diff"])
    assert [one["name"] for one in stage.history("demo")] == ["diff"]
    [kept] = stage.history("demo", uid=old)
    assert (kept["name"], kept["state"]) == ("log", "stored")
    assert stage.get(f"artifacts/{kept['id']}/content").content == b"old"
    assert stage.get(run).json()["uid"] == new != old
    # The namespace beside it was followed all the time.
    kube_site.stage.create_run("other")
    assert kube_site.stage.put("other", "log", b"x").status_code == 201
    until(lambda: kube_site.stage.names("other") == ["log"])
