"""The commands of docs/operations.md, as they stand there, on an API server of their own.

- install in an empty cluster, change credentials: artifacts reach the status; uninstall: nothing of ours
  stays, and AgentRuns are as they were, but for their status
- roll out beside another controller: observe, adopt, cap, tighten, strict; and back, with the image of the
  release before on the newer index; lists of more bytes than the usual cap come through, and come back
- the schema that is tightened while runs break it: they are mended, and get no worse; from Kubernetes 1.33 on
  they change otherwise
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from offload.dev.stores import StoreAddress
from offload.index import Index, migrate, publishing
from offload.objects.s3 import S3Objects
from tests.kube import binaries
from tests.kube.control_plane import ControlPlane
from tests.kube.node import WORKLOADS, Node, Shell, blocks
from tests.kube.site import SYSTEM, Kubectl
from tests.programs import ROOT, until

PAGE = (ROOT / "docs/operations.md").read_text()
SECRETS, APPLY = blocks(PAGE, "## Install")
CREDENTIALS, TOKENS = blocks(PAGE, "### Change credentials")
OBSERVE, KEEP_NATIVE, COMPARE, ADOPT, CAP, TIGHTEN, STRICT = blocks(
    PAGE, "## Rollout where AgentRuns are there already"
)
[BACK] = blocks(PAGE, "### Back")
[UNINSTALL] = blocks(PAGE, "## Uninstall")

EARLY = ROOT / "tests/cluster/crds/early.yaml"
CRD = "agentruns.agents.proompteng.ai"
KINDS = (
    "all,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets,roles,rolebindings,"
    "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
)
FAR = "https://host/" + "x" * 3000
KEEPS_WHAT_IS_THERE = 33
"""From Kubernetes 1.33 on, what breaks a new schema stays in a status that is updated."""


class Place:
    """A cluster with AgentRuns in the namespace `agents`, and an operator's shell."""

    def __init__(
        self, kubectl: Kubectl, shell: Shell, node: Node, database_url: str, store: StoreAddress
    ) -> None:
        self.kubectl, self.shell, self.node = kubectl, shell, node
        self.database_url, self.store = database_url, store
        self.token = ""

    def install(self, *steps: str) -> None:
        for step in (SECRETS, *steps):
            said = self.shell.run(step)
            if step == SECRETS:
                self.token = next(line for line in said.splitlines() if line.startswith("offload_"))

    @property
    def minor_version(self) -> int:
        version = json.loads(self.kubectl("get", "--raw", "/version"))
        return int(version["minor"])

    def run(self, step: str, found: str) -> None:
        """Run a step whose last command is the doctor, which is asked again until it has `found` this."""
        *commands, doctor = step.splitlines()
        for command in commands:
            self.shell.run(command)
        assert doctor.endswith(" -- offload doctor")
        until(lambda: found in " ".join(self.shell.run(doctor).split()), 60)

    def create(self, name: str, **status: Any) -> None:
        run = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name, "namespace": "agents", "labels": {"of": "somebody"}},
            "spec": {"agentRef": {"name": "coder"}},
        }
        self.kubectl("create", "-f", "-", stdin=run)
        if status:
            self.write(name, **status)

    def write(self, name: str, *options: str, **status: Any) -> None:
        patch = json.dumps({"status": status})
        self.kubectl("patch", "agentrun", name, "--subresource=status", "--type=merge", "-p", patch, *options)

    def refused(self, name: str, **status: Any) -> str:
        """Why an administrator may not write this; empty where it would be taken."""
        try:
            self.write(name, "--dry-run=server", **status)
        except AssertionError as error:
            return str(error)
        return ""

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.json("get", "agentrun", name).get("status", {})
        return found

    def names(self, name: str) -> list[str]:
        return [entry["name"] for entry in self.status(name).get("artifacts", [])]

    def put(self, run: str, count: int) -> None:
        """Upload so many artifacts, as a runner does."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.node.port}/v1/namespaces/agents/agentruns/{run}/artifacts",
            files=[("file", (f"part-{place}", f"{run} {place}".encode())) for place in range(count)],
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text

    def untouched(self) -> dict[str, Any]:
        """Of every run what is not status."""
        runs = self.kubectl.json("get", "agentruns")["items"]
        for run in runs:
            run.pop("status", None)
            for field in ("managedFields", "resourceVersion"):
                run["metadata"].pop(field, None)
        return {run["metadata"]["name"]: run for run in runs}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane) -> Iterator[ControlPlane]:  # noqa: ARG001 - tells where there is none
    """Not the one that other tests share: the service's own namespace is deleted here."""
    plane = ControlPlane(binaries.find(), tmp_path_factory.mktemp("rollout-plane"))
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def place(
    plane: ControlPlane, create_database: Callable[[], str], seaweedfs: StoreAddress, tmp_path: Path
) -> Iterator[Place]:
    kubeconfig = plane.kubeconfig(tmp_path / "kubeconfig")
    kubectl = Kubectl(kubeconfig, "agents")
    kubectl("create", "namespace", "agents")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    overlay = tmp_path / "deploy/overlays/example"
    overlay.rename(overlay.with_name("YOURS"))
    change(
        overlay.with_name("YOURS") / "kustomization.yaml",
        OFFLOAD_S3_BUCKET=seaweedfs.bucket,
        OFFLOAD_S3_PREFIX=tmp_path.name,
        OFFLOAD_S3_ENDPOINT_URL=seaweedfs.endpoint_url,
        OFFLOAD_S3_REGION=seaweedfs.region,
    )
    database_url = create_database()
    meant = {
        "postgresql://USER:PASSWORD@HOST/offload": database_url,
        "secret-access-key=…": f"secret-access-key={seaweedfs.secret_key}",
        "access-key-id=…": f"access-key-id={seaweedfs.access_key}",
        "deployment OTHER": "deployment agents-controllers",
    }
    with ExitStack() as stack:
        node = Node(plane, kubectl, tmp_path, stack)
        yield Place(kubectl, Shell(node, kubeconfig, tmp_path, meant), node, database_url, seaweedfs)
    for kind in ("namespace/agents", f"namespace/{SYSTEM}", f"crd/{CRD}"):
        kubectl("delete", kind, "--ignore-not-found")


def test_install_and_uninstall(place: Place) -> None:
    place.kubectl("apply", "-k", "deploy/crd")
    place.create("demo")
    place.create("other", artifacts=[{"name": "far", "uri": "https://host/far"}])
    before = place.untouched()
    place.install(APPLY)
    place.shell.run(CREDENTIALS)
    assert "secret/offload-tokens replaced" in place.shell.run(TOKENS)
    place.put("demo", 2)
    until(lambda: sorted(place.names("demo")) == ["part-0", "part-1"])
    assert place.untouched() == before
    statuses = {name: place.status(name) for name in before}

    place.shell.run(UNINSTALL)
    place.node.end()
    assert "not found" in place.kubectl("get", "namespace", SYSTEM, fails=True)
    left = place.kubectl("get", KINDS, "-A", "-l", "app.kubernetes.io/name=offload", "-o", "name")
    assert left == ""
    assert place.untouched() == before
    assert {name: place.status(name) for name in before} == statuses
    place.kubectl("delete", "agentruns", "--all", "--timeout=10s")


def test_the_rollout_and_the_way_back(place: Place) -> None:  # noqa: PLR0915 - one story, step by step
    place.kubectl("create", "-f", str(EARLY))
    place.kubectl("create", "-f", "-", stdin=other_controller(ARTIFACTS_MAX="50", ARTIFACTS_STRICT="true"))
    # 50 of them are within 64 KiB, 60 are not.
    entries = [{"name": f"far-{number}", "url": f"https://host/{number:01200}"} for number in range(60)]
    until_served(place)
    place.create("inline", artifacts=[{"name": "log", "url": "data:text/plain,hello"}], phase="Running")
    place.create("long", artifacts=[{"name": "far", "url": FAR}], phase="Running")
    place.create("many", artifacts=entries, phase="Running")
    place.create("plain", artifacts=entries[:1], phase="Succeeded")
    runs = ("inline", "long", "many", "plain")
    first, before = {name: place.status(name) for name in runs}, place.untouched()

    place.install()
    place.run(OBSERVE, "3 violating runs of 4: 1 over 50 entries, 1 with inline data, 1 with over-long")
    place.put("plain", 1)
    until_observed(place)
    assert {name: place.status(name) for name in runs} == first
    place.shell.run(KEEP_NATIVE)
    compared = place.shell.run(COMPARE)
    assert re.search(r"JANGAR_AGENTRUN_ARTIFACTS_MAX +ok +50 in both", compared)
    assert re.search(r"JANGAR_AGENTRUN_ARTIFACTS_STRICT +warning +'true' there, false here", compared)
    assert {name: place.status(name) for name in runs} == first

    place.run(ADOPT, "1 violating runs of 4: 1 over 50 entries, 0 with inline data, 0 with over-long")
    assert stored(place, "inline", "log") == b"hello"
    assert stored(place, "long", "far") == f"{FAR}\r\n".encode()
    assert place.status("many") == first["many"]

    place.run(CAP, "0 violating runs of 4")
    assert place.names("many") == [f"far-{number}" for number in range(10, 60)]

    place.shell.run(TIGHTEN)
    longer = [*place.status("many")["artifacts"], {"name": "one-more", "url": "https://host/more"}]
    until(lambda: "Too many" in place.refused("many", artifacts=longer))
    assert "content does not belong" in place.refused("many", artifacts=[{"name": "x", "path": " DATA:,x"}])
    binding = place.kubectl.json("get", "validatingadmissionpolicybinding", "offload-pointers-only")
    assert binding["spec"]["validationActions"] == ["Deny", "Audit"]
    place.write("many", phase="Succeeded")
    place.put("long", 1)
    until(lambda: place.names("long") == ["far", "part-0"])

    place.shell.run(STRICT)
    place.create("strict", phase="Running")
    place.put("strict", 60)
    until(lambda: place.status("strict").get("phase") == "Failed")
    assert len(place.names("strict")) == 50
    assert [place.status(name)["phase"] for name in runs] == ["Running", "Running", "Succeeded", "Succeeded"]

    as_a_newer_release_left_it(place.database_url)
    set_tag(place, "0.0.9")
    place.shell.run(BACK)
    until(lambda: len(place.names("many")) == 60, 60)
    place.create("back", phase="Running")
    place.put("back", 150)
    until(lambda: len(place.names("back")) == 150)
    assert len(json.dumps(place.status("back")["artifacts"], separators=(",", ":"))) > 64 * 1024
    assert place.status("back")["phase"] == "Running"
    assert place.status("strict")["phase"] == "Failed"
    place.write("back", artifacts=[*place.status("back")["artifacts"], entries[0]])
    for name in WORKLOADS:
        found = place.kubectl.json("get", "deployment", name, "-n", SYSTEM)
        images = {one["image"] for one in found["spec"]["template"]["spec"]["containers"]}
        assert {image.rpartition(":")[2] for image in images} == {"0.0.9"}
    assert {name: one for name, one in place.untouched().items() if name in before} == before


def test_a_schema_tightened_too_early_holds_nobody_up(place: Place) -> None:
    place.kubectl("create", "-f", str(EARLY))
    until_served(place)
    inline = {"name": "log", "url": "data:,x"}
    far = [{"name": f"far-{number}", "url": f"https://host/{number}"} for number in range(60)]
    place.create("inline", artifacts=[inline])
    place.create("many", artifacts=far)
    schema = place.kubectl.json("get", "crd", CRD)["spec"]
    place.shell.run(KEEP_NATIVE)
    patched = place.kubectl.json("get", "crd", CRD)["spec"]
    save, *tighten, _deny = TIGHTEN.splitlines()
    place.shell.run(save)
    for command in tighten:
        place.shell.run(command)
        place.shell.run(command)  # again changes nothing
    until(lambda: "content does not belong" in place.refused("inline", artifacts=[inline, far[0]]))
    assert "Too many" in place.refused("many", artifacts=[*far, inline])
    assert "Too long" in place.refused("many", artifacts=[{"name": "x", "key": "x" * 2049}])
    if place.minor_version >= KEEPS_WHAT_IS_THERE:
        place.write("inline", phase="Running")
        place.write("many", phase="Running")
    else:
        assert "content does not belong" in place.refused("inline", phase="Running")
        assert "Too many" in place.refused("many", phase="Running")
    assert len(place.names("many")) == 60
    place.write("inline", artifacts=[far[0]], phase="Running")
    place.write("many", artifacts=far[-50:], phase="Running")

    _audit, revert, *_ = BACK.splitlines()
    place.shell.run(revert)
    assert place.kubectl.json("get", "crd", CRD)["spec"] == patched != schema
    until(lambda: not place.refused("inline", artifacts=[inline]))


def until_observed(place: Place) -> None:
    """Wait until the controller has looked at what was uploaded last."""
    with closing(Index.connect(place.database_url)) as index:

        def nothing_waits() -> bool:
            with index.read() as tx:
                return publishing.dirty_count(tx) == 0

        until(nothing_waits)


def stored(place: Place, run: str, name: str) -> bytes:
    """What the pointer of an artifact leads to."""
    [entry] = [entry for entry in place.status(run)["artifacts"] if entry["name"] == name]
    address = entry.get("uri") or entry["url"]
    objects = S3Objects(place.store.connection(), threads=1)
    try:
        return objects.read(address.removeprefix(f"s3://{place.store.bucket}/"))
    finally:
        objects.close()


def until_served(place: Place) -> None:
    until(
        lambda: (
            "agentruns" in place.kubectl("api-resources", "--api-group=agents.proompteng.ai", "-o", "name")
        )
    )


def as_a_newer_release_left_it(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE meta SET readable_by = %s", [migrate.head()])


def other_controller(**limits: str) -> dict[str, Any]:
    """The Deployment of the controller that was there before."""
    variables = [{"name": f"JANGAR_AGENTRUN_{name}", "value": value} for name, value in limits.items()]
    labels = {"app": "agents-controllers"}
    container = {"name": "controllers", "image": "controllers", "env": variables}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "agents-controllers"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def change(path: Path, **literals: str) -> None:
    text = path.read_text()
    for name, value in literals.items():
        text, count = re.subn(rf"- {name}=.*", f"- {name}={value}", text)
        assert count == 1, name
    path.write_text(text)


def set_tag(place: Place, tag: str) -> None:
    path = place.shell.folder / "deploy/overlays/YOURS/kustomization.yaml"
    overlay = yaml.safe_load(path.read_text())
    overlay["images"][0]["newTag"] = tag
    path.write_text(yaml.safe_dump(overlay))
