"""The lock files.

- each pins what pyproject.toml asks for, at a version that it allows, and with hashes
- none names a registry, a link or a path
- what the image and the store get is what was tested
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ["dev", "image", "build", "seaweedfs", "go", "mlflow"]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_the_project_asks_for(lock: str) -> None:
    asked = subprocess.run(
        [sys.executable, "requirements/inputs.py", lock], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert asked
    for line in asked:
        requirement = Requirement(line)
        version = _pins(lock).get(canonicalize_name(requirement.name))
        assert version, f"{line} is not in requirements/{lock}.lock: make lock"
        assert requirement.specifier.contains(version), f"{line}, and not {version}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_nothing_else_is_there(lock: str) -> None:
    requirements = _text(lock).replace("\\\n", " ").splitlines()
    for line in requirements:
        if line.strip() and not line.strip().startswith("#"):
            assert re.fullmatch(r"[a-z0-9-]+==\S+( +--hash=sha256:[0-9a-f]{64})+ *", line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry_and_no_path(lock: str) -> None:
    assert not re.search(r"://|--index|--find-links|--trusted-host|file:/|@ |/(?!dev\.lock)", _text(lock))


@pytest.mark.parametrize("lock", ["image", "build", "seaweedfs"])
def test_what_images_get_is_what_was_tested(lock: str) -> None:
    assert _pins(lock).items() <= _pins("dev").items()


def _text(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text()


@cache
def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", _text(lock), re.MULTILINE))
