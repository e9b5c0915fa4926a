"""Settings that change what is published.

Cases: observe writes nothing and counts; off writes nothing; strict fails the run and loses nothing; a cap of
its own; the cluster's installed CRD, whose entries have other fields and fewer.
"""

from collections.abc import Callable

from tests.programs import ROOT, Program, Stage, free_port, metrics, until
from tests.site import Site

LEGACY = ROOT / "tests/cluster/crds/legacy.yaml"
StartDev = Callable[..., tuple[Program, Stage]]


def test_observe_writes_nothing_and_counts_what_it_would(start_dev: StartDev) -> None:
    port = free_port()
    _, stage = start_dev("--store", "moto", OFFLOAD_PUBLISH="observe", OFFLOAD_METRICS_PORT=str(port))
    stage.create_run("watched", phase="Running")
    assert stage.put("watched", "a.log", b"a").status_code == 201
    until(lambda: metrics(port).get("offload_publish_observed_differences_total"))
    assert stage.status("watched") == {"phase": "Running"}
    assert [one["name"] for one in stage.history("watched")] == ["a.log"]
    assert stage.get("namespaces/agents/agentruns/watched").json()["publish"]["mode"] == "observe"


def test_off_writes_nothing(start_dev: StartDev) -> None:
    _, stage = start_dev("--store", "moto", OFFLOAD_PUBLISH="off")
    stage.create_run("silent", phase="Running")
    assert stage.put("silent", "a.log", b"a").status_code == 201
    stage.patch_status("silent", phase="Succeeded")
    # Following goes on: once the index knows of the later change, a publish of the earlier one was due.
    until(lambda: stage.get("namespaces/agents/agentruns/silent").json()["phase"] == "Succeeded")
    assert stage.status("silent") == {"phase": "Succeeded"}
    assert [one["name"] for one in stage.history("silent")] == ["a.log"]


def test_strict_fails_the_run_and_loses_nothing(start_dev: StartDev) -> None:
    _, stage = start_dev(
        "--store", "moto",
        AGENTS_AGENTRUN_ARTIFACTS_STRICT="true", JANGAR_AGENTRUN_ARTIFACTS_MAX="5",
    )  # fmt: skip
    stage.create_run("modest", phase="Running")
    stage.create_run("greedy", phase="Running")
    assert stage.post("modest", {f"{number}.log": b"x%d" % number for number in range(5)}).status_code == 201
    assert stage.post("greedy", {f"{number}.log": b"x%d" % number for number in range(6)}).status_code == 201
    until(lambda: stage.status("greedy")["phase"] == "Failed")
    status = stage.status("greedy")
    assert status["reason"] == "ArtifactsOverLimit"
    assert status["finishedAt"]
    condition = stage.condition("greedy", "ArtifactsOverLimit")
    assert condition
    assert condition["status"] == "True"
    assert len(status["artifacts"]) == 5
    assert len(stage.history("greedy")) == 6
    until(lambda: len(stage.names("modest")) == 5)
    assert stage.status("modest")["phase"] == "Running"


def test_an_installed_crd_of_the_legacy_dialect_gets_what_it_can_keep(site: Site) -> None:
    site.standin("--crd", str(LEGACY))
    site.serve()
    site.controller()
    stage = site.stage
    stage.create_run("old")
    artifact = stage.put("old", "build.log", b"old").json()
    (entry,) = until(lambda: stage.status("old").get("artifacts"))
    assert entry == {
        "name": "build.log",
        "key": artifact["uri"].removeprefix(f"s3://{site.store.bucket}/"),
        "url": artifact["uri"],
    }
    assert stage.post("old", {f"{number}.log": b"%d" % number for number in range(60)}).status_code == 201
    until(lambda: stage.is_current("old") and len(stage.names("old")) == 50)
    condition = stage.condition("old", "ArtifactsTruncated")
    assert condition
    assert "50 of 61" in condition["message"]


def test_a_crd_that_names_the_fields_of_both_dialects_gets_both(site: Site) -> None:
    site.all()
    site.stage.create_run("both")
    artifact = site.stage.put("both", "a.log", b"a").json()
    (entry,) = until(lambda: site.stage.status("both").get("artifacts"))
    assert entry["uri"] == entry["url"] == artifact["uri"]
    assert artifact["uri"].endswith(entry["key"])
