"""The service under load.

Cases: 10,000 artifacts on one run, through every part of the real path: status stays bounded while they come,
and is patched about once a second; serve is restarted under load, and no caller of the client sees a failure.
"""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from offload.client import Client
from tests.programs import until
from tests.site import Site

ARTIFACTS, A_REQUEST, SENDERS = 10_000, 50, 8
STATUS_BYTES = 64 * 2**10
RUN_PATH = "/apis/agents.proompteng.ai/v1alpha1/namespaces/agents/agentruns"


class Watcher(threading.Thread):
    """Every version of one AgentRun's status, as a watch tells it."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{site.kube_port}{RUN_PATH}"
        self._name = name
        self.writes: list[float] = []
        self.most_entries, self.most_bytes = 0, 0
        self.start()

    def run(self) -> None:
        seen = 0
        for line in self._lines():
            event = json.loads(line)
            if event["type"] != "MODIFIED" or event["object"]["metadata"]["name"] != self._name:
                continue
            version = int(event["object"]["metadata"]["resourceVersion"])
            if version > seen:
                seen = version
                entries = event["object"].get("status", {}).get("artifacts", [])
                self.writes.append(time.monotonic())
                self.most_entries = max(self.most_entries, len(entries))
                text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
                self.most_bytes = max(self.most_bytes, len(text.encode()))

    def _lines(self) -> Iterator[str]:
        with httpx.stream("GET", self._url, params={"watch": "1"}, timeout=None) as answer:
            yield from answer.iter_lines()


@pytest.mark.timeout(600)
def test_ten_thousand_artifacts_on_one_run(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.all("--workers", "2")
    stage = site.stage
    stage.create_run("huge")
    watcher = Watcher(site, "huge")
    path = f"{stage.url}/v1/namespaces/agents/agentruns/huge/artifacts"

    def send(numbers: tuple[int, ...]) -> int:
        files = [("file", (f"step-{number:05}.log", b"step %d\n" % number)) for number in numbers]
        answer = httpx.post(path, files=files, timeout=120)
        assert answer.status_code == 201, answer.text
        return len(answer.json()["results"])

    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        sent = sum(pool.map(send, batched(range(ARTIFACTS), A_REQUEST)))
    sending = time.monotonic() - began
    until(lambda: stage.is_current("huge"))
    followed = time.monotonic() - began - sending

    assert sent == ARTIFACTS
    history = stage.history("huge")
    assert len(history) == len({one["id"] for one in history}) == ARTIFACTS
    assert stage.names("huge") == [one["name"] for one in reversed(history[:50])]
    condition = stage.condition("huge", "ArtifactsTruncated")
    assert condition
    assert f"50 of {ARTIFACTS}" in condition["message"]
    (event,) = until(lambda: stage.events("huge"))
    assert event["type"] == "Warning"
    patches = len(watcher.writes)
    with capsys.disabled():
        print(  # noqa: T201 - the figures are asked for
            f"\n{ARTIFACTS} artifacts on one run in {sending:.1f} s ({ARTIFACTS / sending:.0f}/s), status"
            f" current {followed:.1f} s later; {patches} patches ({patches / (sending + followed):.2f}/s),"
            f" at most {watcher.most_entries} entries and {watcher.most_bytes} bytes in status"
        )
    assert watcher.most_entries <= 50
    assert watcher.most_bytes <= STATUS_BYTES
    assert 2 <= patches <= (sending + followed) / 1.0 + 3
    assert followed < 10


@pytest.mark.timeout(600)
def test_serve_restarted_under_load_fails_no_caller(site: Site) -> None:
    site.standin()
    serve = site.serve("--workers", "2")
    site.controller()
    site.stage.create_run("rolling")
    stop = threading.Event()
    acknowledged: dict[str, str] = {}
    notices: list[str] = []
    failures: list[Exception] = []

    def send(client: Client, sender: int) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            name = f"{sender}/{number}.log"
            body = name.encode() * (200_000 if number % 10 == 0 else 1)
            try:
                acknowledged[name] = str(client.put("agents/rolling", name, body).id)
            except Exception as error:  # noqa: BLE001 - the test is about whatever a caller sees
                failures.append(error)

    with site.stage.client(notice=notices.append) as client:
        senders = [threading.Thread(target=send, args=(client, sender)) for sender in range(6)]
        for one in senders:
            one.start()
        until(lambda: len(acknowledged) > 50)
        for _ in range(2):
            serve.end()
            before = len(acknowledged)
            serve = site.serve("--workers", "2")
            until(lambda before=before: len(acknowledged) > before + 50)
        stop.set()
        for one in senders:
            one.join()
    assert not failures
    assert notices  # something was tried again: the restarts were felt
    history = {one["name"]: one["id"] for one in site.stage.history("rolling")}
    assert history == acknowledged
    until(lambda: site.stage.is_current("rolling"))


def batched(numbers: range, size: int) -> Iterator[tuple[int, ...]]:
    for first in range(0, len(numbers), size):
        yield tuple(numbers[first : first + size])
