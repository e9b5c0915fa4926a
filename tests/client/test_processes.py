"""The client's commands as processes: their standard streams and their end.

Cases: standard input is sent; streams that are closed, and readers that have gone; a path that is no UTF-8,
as JSON; Ctrl-C ends put at once and leaves no file, also while it waits for standard input.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def started(
    server: Any, folder: Path, *arguments: str, through: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """The command as a process of its own, which runs `through` another one where that is given."""
    environment = {**os.environ, "OFFLOAD_URL": server.url, "OFFLOAD_RUN": "agents/one"}
    return subprocess.Popen(
        [*through, sys.executable, "-m", "offload.cli.main", *arguments],
        env={**environment, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_put_reads_standard_input(server: Any, tmp_path: Path) -> None:
    with started(server, tmp_path, "put", "-", "--name", "logs/all.txt") as process:
        process.communicate(b"piped\0", timeout=10)
    assert process.returncode == 0
    assert server.current == {"logs/all.txt": b"piped\0"}


def test_put_says_that_standard_input_is_closed(server: Any, tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", '"$@" <&-', "sh"]
    with started(server, tmp_path, "put", "-", "--name", "a", through=command) as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert errors.startswith(b"offload: a: standard input is closed\n")


def test_ctrl_c_ends_put_while_it_waits_for_standard_input(server: Any, tmp_path: Path) -> None:
    with started(server, tmp_path, "put", "-", "--name", "a") as process:
        assert process.stdin
        process.stdin.write(b"some, and no more for now")
        process.stdin.flush()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read() if process.stderr else b""
        process.wait(10)
    assert errors == b"offload: interrupted\n"
    assert process.returncode == 130
    assert server.seen == []


def test_ctrl_c_ends_put_at_once_and_leaves_no_file(server: Any, tmp_path: Path) -> None:
    files, temporary = tmp_path / "files", tmp_path / "tmp"
    files.mkdir()
    temporary.mkdir()
    for number in range(6):
        (files / str(number)).write_bytes(bytes(30_000_000))
    server.pace = lambda: time.sleep(0.05)
    process = started(server, temporary, "put", str(files))
    while not any(seen.body_bytes for seen in list(server.seen)):
        assert process.poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert errors == b"offload: interrupted\n"
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert list(temporary.iterdir()) == []
    assert len(list(files.iterdir())) == 6
    assert server.artifacts == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_put_sends_where_nothing_can_be_said(server: Any, tmp_path: Path, closed: str) -> None:
    (tmp_path / "a").write_text("x")
    through = ["/bin/sh", "-c", f'"$@" {closed}', "sh"]
    with started(server, tmp_path, "put", "a", through=through) as process:
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert server.current == {"a": b"x"}


def test_get_says_that_standard_output_is_closed(server: Any, tmp_path: Path) -> None:
    through = ["/bin/sh", "-c", '"$@" >&-', "sh"]
    with started(server, tmp_path, "get", "agents/one/a", "-o", "-", through=through) as process:
        _, errors = process.communicate(timeout=10)
    assert errors == b"offload: standard output is closed\n"
    assert process.returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"], ["--best-effort"]])
def test_put_sends_all_though_nobody_reads_what_it_says(
    server: Any, tmp_path: Path, options: list[str]
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(20):
        (files / str(number)).write_text(str(number))
    through = ["/bin/sh", "-c", '"$@" | true', "sh"]
    with started(server, tmp_path, "put", "files", "--jobs", "1", *options, through=through) as process:
        process.communicate(timeout=20)
    assert server.current == {f"files/{number}": str(number).encode() for number in range(20)}


def test_put_goes_on_though_nobody_reads_why_it_tries_again(
    server: Any, tmp_path: Path, trouble: Any
) -> None:
    (tmp_path / "a").write_text("x")
    server.troubles = [trouble(503)]
    through = ["/bin/sh", "-c", '{ "$@"; echo $? >code; } 2>&1 >/dev/null | true', "sh"]
    with started(server, tmp_path, "put", "a", through=through) as process:
        process.communicate(timeout=20)
    assert ((tmp_path / "code").read_text(), server.current) == ("0\n", {"a": b"x"})


def test_put_says_by_its_exit_code_what_nobody_reads(server: Any, tmp_path: Path, trouble: Any) -> None:
    (tmp_path / "a").write_text("x")
    server.troubles = [trouble(404)]
    through = ["/bin/sh", "-c", '{ "$@"; echo $? >code; } 2>&1 >/dev/null | true', "sh"]
    with started(server, tmp_path, "put", "a", through=through) as process:
        process.communicate(timeout=20)
    assert (tmp_path / "code").read_text() == "4\n"


def test_put_tells_a_path_that_is_no_utf_8_as_json(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    folder = tmp_path / os.fsdecode(b"caf\xe9") / "out"
    folder.mkdir(parents=True)
    (folder / "a").write_text("x")
    with started(server, tmp_path, "put", str(folder), "--json") as process:
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, server.current) == (0, {"out/a": b"x"}), errors
    assert os.fsencode(json.loads(output)["path"]) == os.fsencode(folder / "a")
