"""Uploads by our own client while the service is restarted."""

import threading
import time
from collections.abc import Iterator
from itertools import count

from bench.effort import Effort
from bench.measure import Figure, alone
from bench.servers import Servers, create_runs
from offload.client import Client
from tests.programs import NAMESPACE

SECONDS = 60
SENDERS = 6


def restart(servers: Servers, effort: Effort) -> Iterator[Figure]:
    site = servers.site(servers.seaweedfs(), servers.database())
    serve = site.serve()
    [run] = create_runs(site, 1)
    stop, sent, failures, notices, longest = threading.Event(), set[str](), list[str](), list[str](), [0.0]

    def send(client: Client, sender: int) -> None:
        for number in count():
            if stop.is_set():
                return
            name, began = f"{sender}/{number}.log", time.monotonic()
            try:
                client.put(f"{NAMESPACE}/{run}", name, name.encode())
                sent.add(name)
            except Exception as error:  # noqa: BLE001 - whatever its caller sees is a failure
                failures.append(repr(error))
            longest[0] = max(longest[0], time.monotonic() - began)

    seconds = effort.time(SECONDS)
    with site.stage.client(notice=notices.append) as client:
        senders = [threading.Thread(target=send, args=(client, sender)) for sender in range(SENDERS)]
        for one in senders:
            one.start()
        time.sleep(seconds / 2)
        serve.end()
        site.serve()
        time.sleep(seconds / 2)
        stop.set()
        for one in senders:
            one.join()
    if not sent:
        raise RuntimeError("nothing was uploaded")
    missing = len(sent - {one["name"] for one in site.stage.history(run)})
    yield alone(
        "restart",
        [len(failures) + missing],
        seconds=seconds,
        senders=SENDERS,
        uploads=len(sent),
        tried_again=len(notices),
        longest_wait_s=round(longest[0], 1),
    )
