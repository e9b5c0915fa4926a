"""The image and the compose file, as far as they can be judged without an engine.

- hadolint and the compose specification find nothing
- the image has a user of its own, is built from locks with hashes, and its build sees what it copies
- each service of ours is confined; only loopback is published; every health check is for a shell
- what serves and controls may end in the time that it takes
- each command and flag, and each environment variable, is one that there is
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from offload.domain.quantities import parse_duration
from offload.settings import Settings, environment_names

DOCKERFILES = ["Dockerfile", "deploy/compose/seaweedfs.Dockerfile"]
OURS = ["standin", "token", "migrate", "serve", "controller"]
ALL = ["postgres", "seaweedfs", *OURS]
Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def services(root: Path) -> dict[str, Any]:
    compose = yaml.safe_load((root / "docker-compose.yml").read_text())
    return dict(compose["services"])


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile: str, tool: Tool) -> None:
    done = tool("hadolint", dockerfile)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_follows_its_specification(tool: Tool) -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_runs_without_root_from_locks_with_hashes(dockerfile: str, root: Path) -> None:
    text = (root / dockerfile).read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert int(user) > 10_000
    assert "HEALTHCHECK" in text
    assert "latest" not in text
    for install in re.findall(r"pip install (.*)", text):
        assert "--require-hashes" in install or "--no-deps /dist/" in install


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_a_build_sees_every_file_that_it_copies(dockerfile: str, root: Path) -> None:
    seen = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (root / dockerfile).read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert any(Path(source).match(pattern) for pattern in seen), source
        assert (root / source).exists()


@pytest.mark.parametrize("name", ALL)
def test_a_container_is_confined(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert "internal" in service["networks"]
    assert not {"privileged", "cap_add", "devices", "pid", "network_mode"} & set(service)


def test_only_serve_and_the_stand_in_are_published_and_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"serve": ["127.0.0.1:8080:8080"], "standin": ["127.0.0.1:8001:8001"]}


@pytest.mark.parametrize("name", ["serve", "controller"])
def test_an_engine_waits_until_requests_in_flight_have_ended(name: str, services: dict[str, Any]) -> None:
    grace = Settings.model_fields["shutdown_grace"].default
    assert parse_duration(services[name]["stop_grace_period"]) > grace


def test_every_image_has_a_tag(services: dict[str, Any]) -> None:
    assert all(re.fullmatch(r"[a-z-]+:(?!latest)\S+", service["image"]) for service in services.values())


def test_health_checks_are_for_a_shell(services: dict[str, Any]) -> None:
    """An engine that splits the words of an exec-form check on blanks would break them."""
    checks = {
        name: service["healthcheck"]["test"] for name, service in services.items() if "healthcheck" in service
    }
    assert set(checks) == {"postgres", "seaweedfs", "standin", "serve", "controller"}
    assert all(test[0] == "CMD-SHELL" and len(test) == 2 for test in checks.values())


def test_environment_variables_are_settings(services: dict[str, Any]) -> None:
    known = {name for field in Settings.model_fields for name in environment_names(field)}
    for name in OURS:
        given = services[name].get("environment", {})
        assert {variable for variable in given if not variable.startswith("AWS_")} <= known
    assert "OFFLOAD_AUTH" not in services["serve"]["environment"]  # the default: tokens
    assert Settings.model_fields["auth"].default == "tokens"


def test_environment_variables_of_the_image_are_settings(root: Path) -> None:
    known = {name for field in Settings.model_fields for name in environment_names(field)}
    given = set(re.findall(r"\b(OFFLOAD_\w+)=", (root / "Dockerfile").read_text()))
    assert given == {"OFFLOAD_HOST", "OFFLOAD_METRICS_HOST"} <= known


@pytest.mark.parametrize("name", OURS)
def test_commands_and_flags_exist(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    if name == "token":
        (script,) = service["command"]
        (line,) = re.findall(r"offload (.*) >", script)
        arguments = shlex.split(line)
    else:
        arguments = service["command"]
    command = [word for word in arguments[:2] if not word.startswith("-")]
    code = "from offload.cli.main import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"],
        capture_output=True, text=True, timeout=60, check=True, env={"COLUMNS": "200", "NO_COLOR": "1"},
    ).stdout  # fmt: skip
    for flag in (word for word in arguments if word.startswith("--")):
        assert re.search(rf"{flag}\b", shown), f"offload {' '.join(command)} has no {flag}"
