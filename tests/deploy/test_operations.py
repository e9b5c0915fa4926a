"""What docs/operations.md says of `deploy/`.

- the memory limit of serve, in a Pod as in the compose file, holds what its settings admit at once
- the commands for a namespace of another name leave none of ours where it was
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from offload.domain.quantities import format_size, parse_size
from offload.services.pieces import SMALL
from offload.settings import Settings

PAGE = "docs/operations.md"
MIB = 2**20
AT_REST = 150 * MIB
"""What `idle` of docs/performance.md may be at most."""
A_DOWNLOAD = 3 * MIB
"""What a download to a slow reader holds."""

Render = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def most_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], int]:
    """How many bytes `offload serve` with this environment may hold."""

    def most(environment: Mapping[str, str]) -> int:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        uploads = settings.upload_memory + settings.upload_max_concurrent * SMALL
        downloads = settings.download_max_concurrent * A_DOWNLOAD
        return settings.workers * (AT_REST + uploads + downloads)

    return most


@pytest.mark.parametrize("folder", ["deploy/base", "deploy/overlays/example"])
def test_a_pod_may_hold_what_its_settings_admit(folder: str, render: Render, most_memory: Any) -> None:
    objects = {(one["kind"], one["metadata"]["name"]): one for one in render(folder)}
    [container] = objects["Deployment", "offload-serve"]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    for source in container["envFrom"]:
        environment |= objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    assert parse_size(container["resources"]["limits"]["memory"] + "B") >= most_memory(environment)


def test_a_container_may_hold_what_its_settings_admit(root: Path, most_memory: Any) -> None:
    serve = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]["serve"]
    limit = re.sub("[mg]$", lambda unit: f"{unit[0].upper()}iB", serve["mem_limit"])
    assert parse_size(limit) >= most_memory(serve["environment"])


def test_the_sum_is_told(root: Path, most_memory: Any) -> None:
    assert f"By default that is {format_size(most_memory({}))} for each" in (root / PAGE).read_text()


def test_the_service_may_be_in_a_namespace_of_another_name(
    root: Path, render: Render, tmp_path: Path
) -> None:
    [commands] = re.findall(
        r"a namespace that is not called `offload`.*?```sh\n(.*?)```", (root / PAGE).read_text(), re.DOTALL
    )
    assert all(line.startswith("sed ") for line in commands.splitlines())
    deploy = tmp_path / "deploy"
    shutil.copytree(root / "deploy", deploy)
    (deploy / "overlays/example").rename(deploy / "overlays/YOURS")
    subprocess.run(["sh", "-ec", commands.replace("NAME", "elsewhere")], cwd=tmp_path, check=True)

    objects = [
        one for folder in ("overlays/YOURS", "base/rbac-cluster") for one in render(str(deploy / folder))
    ]
    [namespace] = [one for one in objects if one["kind"] == "Namespace"]
    assert namespace["metadata"]["name"] == "elsewhere"
    subjects = [subject for one in objects for subject in one.get("subjects", [])]
    assert {subject["namespace"] for subject in subjects} == {"elsewhere"}
    assert {one["metadata"].get("namespace", "elsewhere") for one in objects} == {"elsewhere", "agents"}
