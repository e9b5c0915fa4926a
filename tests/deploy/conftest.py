import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of this virtual environment in the repository's root."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name(name)
        return subprocess.run(
            [program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture(scope="session")
def render(tool: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], list[dict[str, Any]]]:
    """The objects that `kubectl kustomize FOLDER` prints."""

    @functools.cache
    def rendered(folder: str) -> list[dict[str, Any]]:
        done = tool("kubectl", "kustomize", folder)
        assert done.returncode == 0, done.stderr
        assert not done.stderr  # a deprecated field is a warning there
        return list(yaml.safe_load_all(done.stdout))

    return rendered
