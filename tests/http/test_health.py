"""Probes and metrics.

Cases: alive; ready, with each part; the store not reached yet or the index without tables (503 that names the
part and why, Retry-After, nothing of addresses); the store away after it was reached (ready, and told), also
where no probe has asked this process yet; a part that never answers does not hold the probe for long, nor a
second one; a metric tells of each part; metrics count requests, uploads, bytes and time by route, and grow no
label from what clients send; the metrics port, on IPv6 too.
"""

import socket
import threading
import time
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from offload.cli import http_server
from offload.errors import ConfigError, StoreUnavailableError
from offload.metrics_server import serving_metrics
from offload.objects.memory import MemoryObjects
from offload.services import readiness
from offload.services.readiness import Readiness


def test_a_service_that_has_everything_is_ready(service: Any) -> None:
    assert httpx.get(f"{service.url}/livez").text == "ok"
    answer = httpx.get(f"{service.url}/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "parts": {"index": "ok", "store": "ok", "cluster": "ok"}}


def test_it_is_not_ready_until_its_store_was_reached_and_ready_without_it_from_then_on(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 0.0)
    objects, refusal = MemoryObjects(), "looking at the bucket: the store answered 403 AccessDenied"
    refused = True

    def fail(operation: str, _key: str) -> None:
        if operation == "check" and refused:
            raise StoreUnavailableError(refusal)

    objects.before = fail
    service = serve(objects=objects)
    answer = httpx.get(f"{service.url}/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["type"] == "urn:offload:problem:not-ready"
    assert answer.json()["detail"] == f"store: {refusal}"
    assert _value("offload_part_usable", part="store") == 0
    assert httpx.get(f"{service.url}/livez").status_code == 200

    refused = False
    assert httpx.get(f"{service.url}/readyz").json()["parts"]["store"] == "ok"
    assert _value("offload_part_usable", part="store") == 1

    refused = True
    answer = httpx.get(f"{service.url}/readyz")
    assert answer.status_code == 200  # history and status are answered, uploads by 503
    assert answer.json()["parts"] == {"index": "ok", "store": refusal, "cluster": "ok"}
    assert _value("offload_part_usable", part="store") == 0
    assert _value("offload_part_usable", part="index") == 1


def test_a_process_that_no_probe_has_asked_knows_that_it_reached_its_store(
    serve: Any, eventually: Any
) -> None:
    objects, away = MemoryObjects(), threading.Event()

    def fail(_operation: str, _key: str) -> None:
        if away.is_set():
            raise StoreUnavailableError

    objects.before = fail
    service = serve(objects=objects)
    eventually(lambda: "take-up" not in {thread.name for thread in threading.enumerate()})
    away.set()
    answer = httpx.get(f"{service.url}/readyz")
    assert (answer.status_code, answer.json()["parts"]["index"]) == (200, "ok")
    assert answer.json()["parts"]["store"] != "ok"


def test_without_its_index_it_is_not_ready_and_says_so(serve: Any, without: Any) -> None:
    service = serve()
    with without(service.database, "alembic_version"):
        answer = httpx.get(f"{service.url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "index: the index has no tables: run `offload migrate`"


def test_a_part_that_never_answers_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 0.0)
    stuck = Readiness({"store": lambda: time.sleep(1), "index": lambda: None})
    started = time.monotonic()
    for _ in range(3):
        assert stuck.look() == {"store": "no answer within 0.1 s", "index": None}
    assert time.monotonic() - started < 0.8
    stuck.close()


def test_an_unexpected_failure_of_a_part_tells_no_internals() -> None:
    broken = Readiness({"index": lambda: 1 / 0})
    assert broken.look() == {"index": "failed in a way that was not expected; the log has it"}
    broken.close()


def test_what_a_part_says_is_kept_for_a_moment() -> None:
    asked: list[int] = []
    parts = Readiness({"index": lambda: asked.append(1)})
    parts.look()
    parts.look()
    assert asked == [1]
    parts.close()


def test_requests_and_uploads_are_counted(run: Any, eventually: Any) -> None:
    route = "/v1/namespaces/{namespace}/agentruns/{run}/artifacts/{name:name}"
    put = {"route": route, "method": "PUT", "status": "201"}

    def figures() -> dict[str, float]:
        return {
            "requests": _value("offload_http_requests_total", **put),
            "seconds": _value("offload_http_request_duration_seconds_count", route=route, method="PUT"),
            "created": _value("offload_ingest_artifacts_total", outcome="created"),
            "same": _value("offload_ingest_artifacts_total", outcome="same"),
            "refused": _value("offload_ingest_artifacts_total", outcome="invalid-name"),
            "bytes": _value("offload_ingest_bytes_total", outcome="created"),
            "puts": _value("offload_store_operation_duration_seconds_count", operation="put"),
            "records": _value("offload_index_operation_duration_seconds_count", operation="record"),
        }

    before = figures()
    run.stored("x", b"12345")
    run.stored("x", b"12345")
    run.put("/bad")
    expected = {
        "requests": 1,
        "seconds": 3,
        "created": 1,
        "same": 1,
        "refused": 1,
        "bytes": 5,
        "puts": 2,
        "records": 2,
    }
    eventually(lambda: {key: value - before[key] for key, value in figures().items()} == expected)
    assert _value("offload_uploads_running") == 0
    assert _value("offload_upload_memory_reserved_bytes") == 0
    assert _value("offload_upload_memory_budget_bytes") > 0


def test_labels_do_not_grow_with_what_clients_send(service: Any, eventually: Any) -> None:
    for method in ("PROPFIND", "MKCOL", "LOCK"):
        service.http.request(method, f"/v1/nothing/{method}")
    eventually(lambda: _value("offload_http_requests_total", route="none", method="other", status="404") >= 3)
    labels = [
        sample.labels
        for metric in REGISTRY.collect()
        if metric.name == "offload_http_requests"
        for sample in metric.samples
    ]
    assert not [
        one for one in labels if one["method"] in {"PROPFIND", "MKCOL", "LOCK"} or "nothing" in one["route"]
    ]


def test_the_metrics_port_serves_metrics_and_probes() -> None:
    problems: list[str] = []
    with serving_metrics("127.0.0.1", 0) as port:
        assert port == 0
    with _free_port() as port, serving_metrics("127.0.0.1", port, ready=lambda: problems) as bound:
        url = f"http://127.0.0.1:{bound}"
        assert "offload_http_requests_total" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/livez").text == "ok\n"
        assert httpx.get(f"{url}/readyz").status_code == 200
        problems.append("the index is away")
        answer = httpx.get(f"{url}/readyz")
        assert (answer.status_code, answer.text) == (503, "the index is away\n")
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/other").status_code == 404
        with (
            pytest.raises(ConfigError, match=f"cannot serve metrics on 127.0.0.1:{bound}"),
            serving_metrics("127.0.0.1", bound),
        ):
            pass


@pytest.mark.parametrize(
    ("host", "reached_at"), [("::1", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"])]
)
def test_ports_are_served_on_ipv6_too(host: str, reached_at: list[str]) -> None:
    if ":" in host:
        _need_ipv6()
    with _free_port() as port, serving_metrics(host, port, ready=list) as bound:
        for reached in reached_at:
            assert httpx.get(f"http://{reached}:{bound}/livez").status_code == 200
    with http_server.listen(host, 0) as listener:
        for reached in reached_at:
            peer = reached.strip("[]"), listener.getsockname()[1]
            socket.create_connection(peer, timeout=5).close()


def _need_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


class _free_port:  # noqa: N801 - used like a function
    def __enter__(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return int(listener.getsockname()[1])

    def __exit__(self, *_exception: object) -> None: ...


def _value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0
