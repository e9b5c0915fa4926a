"""The CRD files of deploy/: ours, and the patch for installed ones.

- kustomize renders the CRD; the wheel's and the checkout's file are one
- ours takes all fields of both dialects, with limits; only `name` is required; patterns are RE2
- the patch adds the four native fields and nothing else, by kubectl and kustomize; it may be applied again
- it fails as a whole where the first version is another
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from offload.cluster.standin import StandIn, crd_file
from offload.cluster.standin.resources import load_crd

ROOT = Path(__file__).parents[2]
CRDS = Path(__file__).with_name("crds")
PATCH = ROOT / "deploy" / "crd-patch"
NATIVE, LEGACY = {"type", "uri", "contentType", "sizeBytes"}, {"key", "url", "path"}


@pytest.fixture
def offline(kubectl_path: Path) -> Callable[..., str]:
    def run(*words: str | Path, fails: bool = False) -> str:
        done = subprocess.run([kubectl_path, *words], capture_output=True, text=True, timeout=60, check=False)
        assert bool(done.returncode) is fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def entry(crd: dict[str, Any]) -> dict[str, Any]:
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return status["properties"]["artifacts"]["items"]


def test_kustomize_renders_ours(offline: Any) -> None:
    assert yaml.safe_load(offline("kustomize", ROOT / "deploy" / "crd")) == yaml.safe_load(
        crd_file().read_text()
    )


def test_a_checkout_serves_the_file_of_deploy() -> None:
    assert crd_file() == ROOT / "deploy" / "crd" / "agentruns.yaml"


def test_ours_takes_both_dialects_within_limits() -> None:
    crd = yaml.safe_load(crd_file().read_text())
    fields = entry(crd)["properties"]
    assert fields.keys() == {"name"} | NATIVE | LEGACY
    assert entry(crd)["required"] == ["name"]
    assert all(field["maxLength"] == 2048 for field in fields.values() if field["type"] == "string")
    ours = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert ours["status"]["properties"]["artifacts"]["maxItems"] == 500
    opened = (ours["spec"], ours["status"], entry(crd))
    assert all(part["x-kubernetes-preserve-unknown-fields"] for part in opened)


@pytest.mark.parametrize(
    ("uri", "fits"),
    [
        ("s3://bucket/key", True),
        ("https://x/y", True),
        ("urn:x", True),
        ("bucket/key", False),
        ("://x", False),
        (" s3://x", False),
        ("s3:", False),
    ],
)
def test_a_uri_needs_a_scheme(uri: str, fits: bool) -> None:
    pattern = entry(yaml.safe_load(crd_file().read_text()))["properties"]["uri"]["pattern"]
    assert "(?" not in pattern  # RE2 has no look-ahead
    assert bool(re.search(pattern, uri)) is fits


def test_data_uris_are_refused_by_cel() -> None:
    fields = entry(yaml.safe_load(crd_file().read_text()))["properties"]
    rules = {
        name: field["x-kubernetes-validations"][0]["rule"]
        for name, field in fields.items()
        if "x-kubernetes-validations" in field
    }
    assert rules == {
        "uri": "!self.matches('(?i)^data:')",
        "url": r"!self.matches('(?i)^[\\s\\v]*data:')",
    }


@pytest.mark.parametrize("installed", ["legacy", "early"])
def test_the_patch_adds_four_fields_and_nothing_else(offline: Any, installed: str, tmp_path: Path) -> None:
    before = yaml.safe_load((CRDS / f"{installed}.yaml").read_text())
    path = tmp_path / "installed.yaml"
    shutil.copy(CRDS / f"{installed}.yaml", path)
    patch = ("--local", "--type=json", "--patch-file", PATCH / "agentruns-patch.yaml", "-o", "yaml")
    patched = offline("patch", "-f", path, *patch)
    path.write_text(patched)
    assert yaml.safe_load(offline("patch", "-f", path, *patch)) == yaml.safe_load(patched)

    after = yaml.safe_load(patched)
    added = {name: entry(after)["properties"].pop(name) for name in NATIVE}
    assert after == before
    assert {name: field["type"] for name, field in added.items()} == {
        "type": "string",
        "uri": "string",
        "contentType": "string",
        "sizeBytes": "integer",
    }


def test_kustomize_patches_as_kubectl_does(offline: Any, tmp_path: Path) -> None:
    shutil.copy(CRDS / "legacy.yaml", tmp_path)
    shutil.copytree(PATCH, tmp_path / "patch")
    (tmp_path / "kustomization.yaml").write_text("resources: [legacy.yaml]\ncomponents: [patch]\n")
    patch = ("--local", "--type=json", "--patch-file", PATCH / "agentruns-patch.yaml", "-o", "yaml")
    rendered = yaml.safe_load(offline("kustomize", tmp_path))
    assert rendered == yaml.safe_load(offline("patch", "-f", CRDS / "legacy.yaml", *patch))


def test_a_patched_crd_keeps_native_pointers(offline: Any, tmp_path: Path) -> None:
    patch = ("--local", "--type=json", "--patch-file", PATCH / "agentruns-patch.yaml", "-o", "yaml")
    path = tmp_path / "patched.yaml"
    path.write_text(offline("patch", "-f", CRDS / "legacy.yaml", *patch))
    with StandIn(path).running() as standin:
        assert standin.url
    status = load_crd(path).schema["properties"]["status"]
    assert set(status["properties"]["artifacts"]["items"]["properties"]) == {"name"} | NATIVE | LEGACY


def test_the_patch_stops_at_another_version(offline: Any, tmp_path: Path) -> None:
    crd = yaml.safe_load((CRDS / "legacy.yaml").read_text())
    crd["spec"]["versions"][0]["name"] = "v1beta1"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(crd))
    patch = ("--local", "--type=json", "--patch-file", PATCH / "agentruns-patch.yaml", "-o", "yaml")
    assert "test" in offline("patch", "-f", tmp_path / "other.yaml", *patch, fails=True)
