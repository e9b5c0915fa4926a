"""The end of the service where the store hangs.

Cases: SIGTERM while uploads wait for a store that takes connections and says nothing: the process ends by
itself within its grace and ten seconds more, and nothing was acknowledged that is not there; uploads that are
under way at SIGTERM, and go on, are finished within the grace; several workers are told of once they answer.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.programs import free_port, metrics, until
from tests.site import Site

GRACE = 1


def test_the_service_ends_though_its_store_hangs(site: Site) -> None:
    wire = site.wire_to_store()
    site.standin()
    service = site.serve(OFFLOAD_SHUTDOWN_GRACE=f"{GRACE}s")
    stage = site.stage
    stage.create_run("steady")
    assert stage.put("steady", "0.log", b"0").status_code == 201
    wire.hold_up()

    def put(size: int) -> int | None:
        try:
            return stage.put("steady", f"{size}.log", b"x" * size).status_code
        except httpx.TransportError:
            return None  # the connection ended without an answer

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(put, size) for size in (1000, 20 * 2**20)]
        time.sleep(1)  # the uploads have come to the store by then
        began = time.monotonic()
        service.end(within=GRACE + 10 + 5)
        print(f"ended {time.monotonic() - began:.1f} s after SIGTERM, store hanging")  # noqa: T201 - a figure
        assert not {answer.result() for answer in answers} & {200, 201}

    wire.mend()
    site.serve()
    assert [one["name"] for one in stage.history("steady")] == ["0.log"]
    until(lambda: stage.put("steady", "1.log", b"1").status_code == 201)


def test_uploads_that_are_under_way_are_finished(site: Site) -> None:
    site.standin()
    port, go_on = free_port(), threading.Event()
    service = site.serve(OFFLOAD_SHUTDOWN_GRACE="15s", OFFLOAD_METRICS_PORT=str(port))
    stage = site.stage
    stage.create_run("steady")

    def body(size: int) -> Iterator[bytes]:
        yield b"x" * (size // 2)
        go_on.wait(20)
        yield b"x" * (size - size // 2)

    sizes = (1000, 20 * 2**20)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(stage.put, "steady", f"{size}.log", body(size)) for size in sizes]
        until(lambda: metrics(port)["offload_uploads_running"] == len(sizes), 15)
        service.process.terminate()
        time.sleep(1)
        assert service.process.poll() is None
        go_on.set()
        assert [answer.result().status_code for answer in answers] == [201, 201]
    assert service.process.wait(15) == 0

    site.serve()
    assert {one["name"] for one in stage.history("steady")} == {f"{size}.log" for size in sizes}


def test_several_workers_are_told_of_once_they_answer(site: Site) -> None:
    site.standin()
    service = site.start("serve", "--workers", "2")
    url = service.said("url=")
    assert httpx.get(f"{url}/livez", timeout=0.5).text == "ok"
    assert service.end() == 0
