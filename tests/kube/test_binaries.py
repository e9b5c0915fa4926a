"""Where the control plane's programs come from.

- KUBEBUILDER_ASSETS first, and told where it lacks one
- a release that is named is that release, whatever KUBEBUILDER_ASSETS holds
- else the cache, by release; what is not there is told with the command that builds it
- releases that are too old, or none, are refused
"""

from pathlib import Path

import pytest

from tests.kube import binaries
from tests.kube.binaries import PROGRAMS, RELEASE, ControlPlaneMissingError, find


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("K8S", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for program in PROGRAMS:
        (tmp_path / program).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    return tmp_path


def test_assets_come_first(assets: Path) -> None:
    assert find() == assets


def test_assets_that_lack_a_program_are_told(assets: Path) -> None:
    (assets / "etcd").unlink()
    with pytest.raises(ControlPlaneMissingError, match="has no etcd"):
        find()


@pytest.mark.usefixtures("assets")
def test_a_release_that_is_named_is_that_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "offload" / "kubernetes-1.30.14"
    folder.mkdir(parents=True)
    assert find("1.30.14") == folder
    monkeypatch.setenv("K8S", "1.30.14")
    assert find() == folder


def test_what_is_not_there_is_told_with_what_builds_it() -> None:
    with pytest.raises(ControlPlaneMissingError, match=rf"kubernetes-{RELEASE}.*python -m tests\.kube"):
        find()


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "offload" / f"kubernetes-{RELEASE}"
    folder.mkdir(parents=True)
    told: list[str] = []
    assert binaries.find_or_build(None, told.append) == folder
    assert not told


@pytest.mark.parametrize("release", ["1.29.14", "1.30", "v1.31.0", "../../etc"])
def test_other_releases_are_refused(release: str) -> None:
    with pytest.raises(ControlPlaneMissingError, match="is no release from"):
        binaries.find_or_build(release, lambda _: None)
