"""What `offload put` shows on a terminal and elsewhere.

Cases: a bar with size, rate and remaining time on a terminal, gone at the end; lines now and then where there
is none; a long upload's line names how far it is.
"""

import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from offload.cli import progress

ROOT = Path(__file__).parents[2]


def test_a_terminal_shows_a_bar_with_rate_and_remaining_time(server: Any, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(20_000_000))
    (tmp_path / "small.bin").write_bytes(b"x")
    server.pace = lambda: time.sleep(0.01)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OFFLOAD_URL": server.url, "OFFLOAD_RUN": "agents/one", "TERM": "xterm"}
    environment |= {"COLUMNS": "120"}
    command = [
        sys.executable,
        "-m",
        "offload.cli.main",
        "put",
        str(tmp_path / "big.bin"),
        str(tmp_path / "small.bin"),
    ]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = bytearray()
    reader = threading.Thread(target=_read_all, args=(ours, shown))
    reader.start()
    output, _ = process.communicate(timeout=30)
    reader.join(10)
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "big.bin" in text
    assert "2 files" in text
    assert re.search(r"\d/s", text) or "MB/s" in text
    assert re.search(r"\d:\d\d:\d\d", text)
    assert sorted(line.split()[1] for line in output.decode().splitlines()) == ["big.bin", "small.bin"]


def test_elsewhere_a_long_transfer_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.Transfers() as transfers:
        transfers.begin("big.bin", None).move(1024, 4096)
    assert re.fullmatch(r"offload: big\.bin: 1 KiB of 4 KiB, 25 %, .*/s\n", capsys.readouterr().err)


def _read_all(terminal: int, shown: bytearray) -> None:
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux ends a terminal whose other side is closed like this
            return
        if not piece:
            return
        shown += piece
