"""deploy/crd on a real API server.

- content is refused in `uri` and `url`, in any case and behind white space; `uri` needs a scheme
- fields that it does not know are kept, in spec, status and entries
- 500 entries of 2 KB pass, with their rules evaluated; 501 do not
- kubectl's columns show phase, whether artifacts are left out, and the reason
"""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube.control_plane import ControlPlane
from tests.kube.schemas import read
from tests.kube.site import Kubectl

NAMESPACE = "crd"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    control_plane.install_crd(read("ours"))
    found = Kubectl(control_plane.kubeconfig(tmp_path_factory.mktemp("crd") / "kubeconfig"), NAMESPACE)
    found("create", "namespace", NAMESPACE)
    yield found
    found("delete", "namespace", NAMESPACE, "--wait=false")


class Run:
    """An AgentRun whose whole status is replaced by whoever writes it."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl, self.name = kubectl, f"run-{next(_numbers)}"
        manifest = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": self.name},
            "spec": {"agentRef": {"name": "coder", "tone": "dry"}, "mood": "calm"},
        }
        kubectl("create", "-f", "-", stdin=manifest)

    def read(self) -> dict[str, Any]:
        return self._kubectl.json("get", "agentrun", self.name)

    def write(self, *, fails: bool = False, **status: Any) -> str:
        """What kubectl said."""
        changed = {**self.read(), "status": status}
        return self._kubectl("replace", "--subresource=status", "-f", "-", stdin=changed, fails=fails)


@pytest.fixture
def run(kubectl: Kubectl) -> Run:
    return Run(kubectl)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uri", "data:text/plain,x"),
        ("uri", "DaTa:,x"),
        ("uri", " data:,x"),
        ("uri", "bucket/key"),
        ("uri", "x" * 2049),
        ("url", "data:text/plain;base64,eA=="),
        ("url", "DATA:,x"),
        ("url", " \t\n\r\f\vdata:,x"),
    ],
)
def test_content_is_no_address(run: Run, field: str, value: str) -> None:
    said = run.write(artifacts=[{"name": "log", field: value}], fails=True)
    assert f"artifacts[0].{field}" in said  # 1.30 leaves `status.` out
    if "data:" in value.lower() and not value.startswith(" data"):
        assert "upload it and list a pointer" in said


def test_unknown_fields_are_kept(run: Run) -> None:
    entry = {"name": "log", "url": "database:x", "digest": "sha256:0", "content": {"deep": ["data:,x"]}}
    run.write(artifacts=[entry], theirs={"kept": True})
    found = run.read()
    assert found["status"] == {"artifacts": [entry], "theirs": {"kept": True}}
    assert found["spec"] == {"agentRef": {"name": "coder", "tone": "dry"}, "mood": "calm"}


def test_as_many_entries_as_there_may_be(run: Run) -> None:
    entries = [{"name": f"log-{n}", "uri": f"s3://bucket/{n}/".ljust(2000, "k")} for n in range(501)]
    run.write(artifacts=entries[:500])
    assert len(run.read()["status"]["artifacts"]) == 500
    assert "must have at most 500 items" in run.write(artifacts=entries, fails=True)


def test_columns(kubectl: Kubectl, run: Run) -> None:
    run.write(
        phase="Failed",
        reason="ArtifactsOverLimit",
        conditions=[{"type": "ArtifactsTruncated", "status": "True"}],
    )
    heading, row = kubectl("get", "arun", run.name, "-o", "wide").splitlines()
    assert heading.split() == ["NAME", "AGENT", "PHASE", "TRUNCATED", "REASON", "AGE"]
    assert row.split()[:5] == [run.name, "coder", "Failed", "True", "ArtifactsOverLimit"]
