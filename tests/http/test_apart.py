"""What hangs or is held by some keeps nobody else waiting.

Cases: an API server that takes connections and never answers, asked about more unknown runs than there are
threads: uploads to known runs, history and readiness go on; many uploads to one unknown run ask once, and
readers are told after a moment; live pipes that hold all the memory for uploads: small bodies pass, large
ones are told to come back, and all is given back; the start of the prefix' claim fails in a way that was not
expected: it is tried again.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from offload.cluster.kubernetes import KubernetesCluster
from offload.domain.keys import MARKER
from offload.errors import TooManyUploadsError
from offload.index import runs
from offload.objects.memory import MemoryObjects
from offload.services import budget, incarnations, readiness
from offload.services.budget import ByteBudget
from offload.wiring import serving as serving_module

MIB = 2**20
SOON = 3.0
"""Seconds. The hanging API server is given up after more than ten."""


class Mute:
    """An API server that takes every connection, notes what it is asked, and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self.asked: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in [self._listener, *self._open]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._note, args=(connection,), daemon=True).start()

    def _note(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self.asked.append(connection.recv(2**16).split(b" ")[1].decode())


@pytest.fixture
def mute() -> Iterator[Mute]:
    server = Mute()
    yield server
    server.close()


@pytest.fixture
def deserted(serving: Any, mute: Mute, standin: Any, tmp_path: Path) -> Iterator[Any]:
    """A service whose API server says nothing."""
    found = yaml.safe_load(Path(standin.kubeconfig).read_text())
    for cluster in found["clusters"]:
        cluster["cluster"]["server"] = f"http://127.0.0.1:{mute.port}"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(found))
    with serving(kubeconfig=tmp_path / "kubeconfig") as service:
        yield service
        mute.close()  # the service ends no sooner than its threads


@pytest.fixture
def known(deserted: Any, standin: Any) -> Any:
    """A run that the deserted service's index has."""
    run = deserted.run()
    cluster = KubernetesCluster.from_config(standin.kubeconfig)
    with deserted.index.begin() as tx:
        runs.observe(tx, cluster.get(run.namespace, run.name).seen)
    cluster.close()
    return run


def test_uploads_to_known_runs_do_not_wait_for_the_api_server(
    deserted: Any, known: Any, mute: Mute, eventually: Callable[..., None]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        for number in range(16):
            pool.submit(_ask, deserted, "PUT", f"unknown-{number}/artifacts/x")
        eventually(lambda: len(mute.asked) >= 4 and _running(deserted) == 16)
        for name, data in (("small", b"x"), ("large", b"x" * MIB)):
            started = time.monotonic()
            known.stored(name, data)
            assert time.monotonic() - started < SOON
        mute.close()
    assert [item["name"] for item in known.history()] == ["large", "small"]


def test_uploads_to_one_unknown_run_ask_once(
    deserted: Any, mute: Mute, eventually: Callable[..., None]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        for number in range(16):
            pool.submit(_ask, deserted, "PUT", f"unknown/artifacts/{number}")
        eventually(lambda: bool(mute.asked) and _running(deserted) == 16)
        time.sleep(0.2)  # whoever asks besides would have by now
        assert len(mute.asked) == 1
        mute.close()


def test_readers_of_known_runs_and_probes_do_not_wait_for_the_api_server(
    deserted: Any, known: Any, mute: Mute, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incarnations, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.2)
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(_ask, deserted, "GET", f"unknown-{number}") for number in range(50)]
        eventually(lambda: len(mute.asked) >= 8)
        started = time.monotonic()
        assert known.history() == []
        assert httpx.get(f"{deserted.url}/readyz", timeout=30).status_code == 200
        assert time.monotonic() - started < SOON
        eventually(lambda: sum(answer.done() for answer in answers) >= 42)
        refused = next(answer.result() for answer in answers if answer.done())
        assert (refused.status_code, refused.json()["type"]) == (
            503,
            "urn:offload:problem:cluster-unavailable",
        )
        mute.close()


def test_who_waits_for_memory_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE_SECONDS", 0.05)

    async def test() -> None:
        held = ByteBudget(10)
        async with held.reserve(8, "a"):
            with pytest.raises(TooManyUploadsError):
                async with asyncio.timeout(5), held.reserve(3, "b"):
                    pass
            async with held.reserve(2, "b"):
                assert held.used == 10
        assert held.used == 0

    asyncio.run(test())


def test_small_bodies_pass_by_pipes_that_hold_all_memory(
    serve: Any, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "PATIENCE_SECONDS", 0.2)
    service = serve(upload_memory=33 * MIB)
    run = service.run()
    with service.connect() as pipe:
        pipe.sendall(service.request("PUT", run.at("pipe"), "Transfer-Encoding: chunked"))
        pipe.sendall(b"11000\r\n" + b"x" * 0x11000 + b"\r\n")
        eventually(lambda: service.parts.ingest._budget.used == 33 * MIB)
        started = time.monotonic()
        assert run.put("small", timeout=SOON).status_code == 201
        large = run.put("large", b"x" * MIB, timeout=SOON)
        assert (large.status_code, large.json()["type"]) == (503, "urn:offload:problem:too-many-uploads")
        assert int(large.headers["Retry-After"]) > 0
        assert time.monotonic() - started < SOON
    eventually(lambda: service.parts.ingest._budget.used == 0)
    assert run.put("large", b"x" * MIB).status_code == 201
    service.assert_nothing_left(run, objects=2, rows=2)


def test_a_claim_that_fails_unexpectedly_is_tried_again(
    serving: Any, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "_TRY_AGAIN_SECONDS", 0.01)
    objects, failures = MemoryObjects(), [RuntimeError("a bug"), ZeroDivisionError()]

    def fail(operation: str, _key: str) -> None:
        if operation == "list" and failures:
            raise failures.pop()

    objects.before = fail
    with serving(objects=objects) as service:
        eventually(lambda: not failures)
        eventually(lambda: MARKER in [info.location.key for info in objects.list("")])
        assert service.run().put("x").status_code == 201


def _ask(service: Any, method: str, path: str) -> httpx.Response:
    return httpx.request(
        method,
        f"{service.url}/v1/namespaces/agents/agentruns/{path}",
        headers={"Authorization": service.http.headers["Authorization"]},
        content=b"x" if method == "PUT" else None,
        timeout=60,
    )


def _running(service: Any) -> int:
    running: int = service.parts.ingest._admission._running
    return running
