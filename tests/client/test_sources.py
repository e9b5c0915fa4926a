"""What `Client.put` reads where length or end are not plain.

Cases: a pipe that does not block, by itself and through a buffer, within and past what is kept of a stream;
files of /proc and /sys, whose announced length is not that of their content.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from offload.client import Client
from offload.client.sources import REPLAY_BYTES

RUN = "agents/one"


@pytest.mark.parametrize("kept", [0, REPLAY_BYTES])
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_that_does_not_block_is_read_to_its_end(
    server: Any, client: Client, kept: int, buffering: int
) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    pieces = [bytes(kept), b"one", b"two"]

    def write() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as pipe:
            for piece in pieces:
                time.sleep(0.2)
                while piece:
                    piece = piece[pipe.write(piece) :]  # noqa: PLW2901 - what is left of it

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(ours, "rb", buffering=buffering) as pipe:
        client.put(RUN, "a", pipe)
    writer.join(10)
    assert server.current["a"] == b"".join(pieces)


def test_a_file_that_the_system_makes_up_is_sent_whole(server: Any, client: Client) -> None:
    for path in (Path("/proc/version"), Path("/sys/kernel/mm/transparent_hugepage/enabled")):
        if path.exists():
            assert client.put(RUN, "a", path).size_bytes > 0
            assert server.current["a"] == path.read_bytes()
