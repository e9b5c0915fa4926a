"""The end of the process, whatever hangs in it.

Cases: uploads that the server cancels clean up in the store before it is closed; an S3 adapter whose store
says nothing is closed at once; a thread that never ends does not keep the process after a signal, and an
end in order is not the last resort's.
"""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from offload.domain.artifact import Location
from offload.errors import OffloadError
from offload.objects.memory import MemoryObjects
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection


class Lingering(MemoryObjects):
    """A store whose uploads never end, and take a moment to be aborted."""

    cleaned: bool | None = None
    cleaned_at_close: bool | None = None

    async def put(self, *_location: Any, **_words: Any) -> Any:
        self.cleaned = False
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)
            self.cleaned = True

    def close(self) -> None:
        self.cleaned_at_close = self.cleaned


def test_cancelled_uploads_clean_up_before_the_store_is_closed(
    serving: Any, eventually: Callable[..., None]
) -> None:
    objects = Lingering()
    with serving(objects=objects) as service:
        run = service.run()
        connection = service.connect()
        with connection as sending:
            sending.sendall(service.request("PUT", run.at("x"), "Content-Length: 1") + b"x")
            eventually(lambda: objects.cleaned is False)
            service.server.should_exit = True
            eventually(lambda: objects.cleaned_at_close is not None)
    assert objects.cleaned_at_close


def test_a_store_that_says_nothing_is_closed_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        objects = S3Objects(
            S3Connection(
                bucket="b",
                endpoint_url=url,
                region="r",
                access_key="a",
                secret_key="s",
                addressing="path",
                read_timeout=3,
                attempts=1,
            )
        )

        async def read() -> None:
            with suppress(OffloadError):
                async with objects.get(Location("b", "k")):
                    pass

        asking = threading.Thread(target=asyncio.run, args=(read(),))
        asking.start()
        connection, _ = listener.accept()
        started = time.monotonic()
        objects.close()
        assert time.monotonic() - started < 1
        connection.close()
        asking.join()


_HANGING = """
import asyncio, signal, sys, threading, time
from offload.http.draining import call_on_terminate

signal.signal(signal.SIGINT, signal.SIG_IGN)

async def main():
    ended = asyncio.Event()
    call_on_terminate(ended.set, after=0.0, killed_after=0.5)
    print("ready", flush=True)
    await ended.wait()

if sys.argv[1] == "hangs":
    threading.Thread(target=time.sleep, args=(60,)).start()
asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "code"), [("hangs", 1), ("ends", 0)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_whatever_hangs_in_it(how: str, code: int, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HANGING, how], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == code
