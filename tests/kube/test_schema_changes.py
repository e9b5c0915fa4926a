"""The CRD changes under the service, on a real API server.

- no pointers are kept: `/readyz`, log and metric say so, uploads go on; mended, publishing starts by itself
- a CRD without the status subresource leaves runs waiting, and has none count as deleted
- the CRD is deleted, and its runs with it; created again, new runs are published and old history stays
- deploy/crd-patch, by kubectl and by kustomize, makes legacy pointers native by themselves
- a patch that is reverted again and again, and for good, is not fought
"""

import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import httpx
import pytest

from tests.kube import audit
from tests.kube.audit import OURS
from tests.kube.schemas import CRDS, PATCH, UNUSABLE, Crd, patched, read
from tests.kube.site import KubeSite
from tests.programs import Program, free_port, metrics, until

BY_ITSELF = 15.0
"""Most seconds from another CRD to what follows from it. Measured, on a busy machine: 1.3 to 2.9."""
CRD = "agentruns.agents.proompteng.ai"
NATIVE, LEGACY = {"name", "type", "uri", "contentType", "sizeBytes"}, {"name", "key", "url"}


@pytest.fixture
def site(kube_site: KubeSite, served: Callable[[Crd], None]) -> KubeSite:
    """One whose API server serves the CRD of the widely installed chart."""
    kube_site.environment["OFFLOAD_METRICS_PORT"] = str(free_port())
    served(read("legacy"))
    kube_site.serve(OFFLOAD_METRICS_PORT="0")
    return kube_site


def problems(controller: Program) -> tuple[int, list[str]]:
    answer = httpx.get(controller.said("metrics=").replace("/metrics", "/readyz"), timeout=10)
    return answer.status_code, answer.text.splitlines()


def usable(controller: Program) -> float:
    port = int(controller.said("metrics=").removesuffix("/metrics").rpartition(":")[2])
    return metrics(port)["offload_schema_usable"]


def fields(site: KubeSite, run: str) -> list[set[str]]:
    return [set(entry) for entry in site.stage.status(run).get("artifacts", [])]


def patches(site: KubeSite, run: str) -> int:
    return len(audit.patches(site.plane, OURS, site.namespace, run))


def test_a_schema_without_pointers_is_told_and_mended_without_a_restart(site: KubeSite) -> None:
    stage, plane = site.stage, site.plane
    plane.install_crd(UNUSABLE["no-address"])
    controller = site.controller()
    stage.create_run("demo")
    assert stage.put("demo", "log", b"hello").status_code == 201
    until(lambda: problems(controller)[0] == 503)
    until(lambda: "keeps no pointers" in str(problems(controller)[1]))
    assert usable(controller) == 0
    assert "schema.unusable" in controller.output + controller.errors
    assert stage.put("demo", "report", b"still").status_code == 201
    assert stage.status("demo").get("artifacts", []) == []

    plane.install_crd(read("legacy"))
    until(lambda: stage.names("demo") == ["log", "report"], BY_ITSELF)
    until(lambda: problems(controller)[0] == 200)
    assert usable(controller) == 1

    # A usable one becomes unusable, and usable again.
    plane.install_crd(UNUSABLE["required-of-others"])
    until(lambda: problems(controller)[0] == 503, BY_ITSELF)
    assert stage.put("demo", "later", b"still").status_code == 201
    plane.install_crd(read("legacy"))
    until(lambda: stage.names("demo") == ["log", "report", "later"], BY_ITSELF)


def test_a_crd_without_the_status_subresource_has_no_run_count_as_deleted(site: KubeSite) -> None:
    stage, plane = site.stage, site.plane
    controller = site.controller()
    stage.create_run("demo")
    closed = read("legacy")
    del closed["spec"]["versions"][0]["subresources"]
    plane.install_crd(closed)
    until(lambda: "NotFound" in site.kubectl("get", "agentrun", "demo", "--subresource=status", fails=None))
    assert stage.put("demo", "log", b"hello").status_code == 201
    until(lambda: "does its CRD have the status subresource?" in controller.errors)

    plane.install_crd(read("legacy"))
    until(lambda: stage.names("demo") == ["log"])
    assert stage.get(f"namespaces/{site.namespace}/agentruns/demo").json()["deletedAt"] is None


@pytest.mark.parametrize("pause", [0, 4])
def test_a_crd_that_was_deleted_and_created_again(site: KubeSite, pause: float) -> None:
    stage, plane = site.stage, site.plane
    controller = site.controller()
    old = stage.create_run("demo")
    assert stage.put("demo", "log", b"hello").status_code == 201
    until(lambda: stage.names("demo") == ["log"])

    site.kubectl("delete", "crd", CRD)
    if pause:
        until(lambda: "is the CRD installed" in str(problems(controller)[1]))
        time.sleep(pause)  # several looks find nothing
    plane.install_crd(read("legacy"))
    new = until(lambda: created(site, "demo"))
    assert new != old
    until(lambda: stage.put("demo", "log", b"again", uid=new).status_code == 201)
    until(lambda: stage.names("demo") == ["log"], BY_ITSELF)
    until(lambda: problems(controller)[0] == 200)
    runs = f"namespaces/{site.namespace}/agentruns"
    until(lambda: stage.get(f"{runs}/demo", uid=old).json()["deletedAt"])
    assert stage.get(f"{runs}/demo", uid=new).json()["deletedAt"] is None
    [kept] = stage.get(f"{runs}/demo/artifacts", uid=old).json()["items"]
    assert stage.get(f"artifacts/{kept['id']}/content").content == b"hello"


def created(site: KubeSite, name: str) -> str | None:
    """The uid of a new run; None while the API server is not ready to take one."""
    try:
        return site.stage.create_run(name)
    except AssertionError:
        return None


def patch_by_kubectl(site: KubeSite) -> None:
    site.kubectl("patch", "crd", CRD, "--type=json", "--patch-file", str(PATCH))


def patch_by_kustomize(site: KubeSite, folder: Path, base: str) -> None:
    copytree(PATCH.parent, folder / "patch")
    (folder / "crd.yaml").write_text((CRDS / f"{base}.yaml").read_text())
    (folder / "kustomization.yaml").write_text("resources: [crd.yaml]\ncomponents: [patch]\n")
    site.kubectl("replace", "-f", "-", stdin=site.kubectl("kustomize", str(folder)))


@pytest.mark.parametrize(("base", "how"), [("legacy", "kubectl"), ("early", "kustomize")])
def test_legacy_pointers_become_native_once_the_crd_is_patched(
    site: KubeSite, tmp_path_factory: pytest.TempPathFactory, base: str, how: str
) -> None:
    stage = site.stage
    site.plane.install_crd(read(base))
    site.controller()
    for run in ("one", "two"):
        stage.create_run(run, phase="Running", startedAt="2026-01-01T00:00:00Z")
        assert stage.put(run, "log", b"hello", type="log").status_code == 201
        until(lambda run=run: fields(site, run) == [LEGACY])
    if how == "kubectl":
        patch_by_kubectl(site)
    else:
        patch_by_kustomize(site, tmp_path_factory.mktemp("kustomize"), base)
    for run in ("one", "two"):
        until(lambda run=run: fields(site, run) == [NATIVE | LEGACY], BY_ITSELF)
        assert patches(site, run) == 2
        status = stage.status(run)
        assert (status["phase"], status["startedAt"]) == ("Running", "2026-01-01T00:00:00Z")
        [entry] = status["artifacts"]
        assert entry["uri"] == entry["url"]
        assert (entry["type"], entry["sizeBytes"]) == ("log", 5)


def test_a_patch_that_is_reverted_is_not_fought(site: KubeSite) -> None:
    stage, plane = site.stage, site.plane
    site.controller()
    stage.create_run("demo", phase="Running", startedAt="2026-01-01T00:00:00Z")
    assert stage.put("demo", "log-0", b"hello").status_code == 201
    until(lambda: fields(site, "demo") == [LEGACY])
    before, uploads = patches(site, "demo"), 1
    changes: list[Crd] = [patched(read("legacy")), read("legacy")] * 3
    for crd in changes:
        plane.install_crd(crd)
        time.sleep(1.5)  # as a GitOps controller that syncs every few seconds
        assert stage.put("demo", f"log-{uploads}", b"hello").status_code == 201
        uploads += 1
        time.sleep(0.5)
    until(lambda: stage.names("demo") == [f"log-{number}" for number in range(uploads)], 20)
    until(lambda: fields(site, "demo") == [LEGACY] * uploads)
    until(lambda: stage.is_current("demo"))
    status = stage.status("demo")
    assert (status["phase"], status["startedAt"]) == ("Running", "2026-01-01T00:00:00Z")
    settled = patches(site, "demo")
    # One for what is new, one for another dialect, one that a stale schema has refused.
    assert settled - before <= 3 * len(changes)
    version = stage.read("demo")["metadata"]["resourceVersion"]
    time.sleep(5)  # left alone, nothing is written any more
    assert patches(site, "demo") == settled
    assert stage.read("demo")["metadata"]["resourceVersion"] == version
