"""Real kills, at the instants where something could be lost or told twice.

Cases: serve dies between blob and row: nothing was acknowledged, the client's retry gives one artifact, and
the orphan is found and removed after its grace; serve dies once the row is committed: the retry gives the
same artifact, and the pointer is published; the controller dies before it publishes, and in the middle of a
publish; serve dies under load: all that was acknowledged is there; two controllers, one of which dies.
"""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from offload.domain.keys import parts_of
from offload.services.orphans import clean_orphans
from tests.programs import until
from tests.publishing import keep_up
from tests.site import Site

GRACE = timedelta(hours=24)
SMALL, LARGE = b"small" * 100, b"large" * 4 * 2**20


class Sender(threading.Thread):
    """One upload, on its own."""

    def __init__(self, site: Site, run: str, name: str, body: bytes) -> None:
        super().__init__()
        self._send = lambda: site.stage.put(run, name, body)
        self.answer: httpx.Response | None = None
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._send()
        except httpx.TransportError as error:
            self.failure = error


@contextmanager
def commits_held_back(site: Site, run_uid: str) -> Iterator[None]:
    """The run's row is locked: a row of its artifacts cannot be committed meanwhile."""
    with psycopg.connect(site.database_url) as connection:
        found = connection.execute("SELECT 1 FROM runs WHERE uid = %s FOR UPDATE", [run_uid]).fetchall()
        assert found, "the run is not known to the index yet"
        yield
        connection.rollback()


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["one-put", "multipart"])
def test_serve_killed_between_blob_and_row(site: Site, body: bytes) -> None:
    site.standin()
    serve = site.serve()
    controller = site.controller()
    uid = site.stage.create_run("cut")
    first = site.stage.put("cut", "first.log", b"first").json()
    until(lambda: site.stage.names("cut") == ["first.log"])
    assert controller.end() == 0  # so that nothing else wants the row

    with commits_held_back(site, uid):
        sender = Sender(site, "cut", "core.bin", body)
        until(lambda: len(site.object_keys()) == 2)
        time.sleep(0.3)  # its commit waits for the lock by now
        serve.kill()
    sender.join()
    assert sender.answer is None
    (orphan,) = (key for key in site.object_keys() if first["id"] not in key)
    keep_up(site.index, since=datetime.now(UTC) - GRACE)  # the store tells times in whole seconds

    site.serve()
    site.controller()
    assert [one["id"] for one in site.stage.history("cut")] == [first["id"]]
    again = site.stage.put("cut", "core.bin", body)
    assert again.status_code == 201
    assert site.stage.put("cut", "core.bin", body).json()["id"] == again.json()["id"]
    until(lambda: site.stage.names("cut") == ["first.log", "core.bin"])
    assert len(site.stage.history("cut")) == 2

    index, objects = site.index, site.objects
    now = datetime.now(UTC)
    early = clean_orphans(index, objects, prefix=site.prefix, grace=GRACE, now=now + GRACE / 2)
    assert (early.found, early.removed, early.stopped_because) == (0, 0, None)
    assert orphan in site.object_keys()
    late = clean_orphans(
        index, objects, prefix=site.prefix, grace=GRACE, now=now + GRACE + timedelta(minutes=5)
    )
    assert (late.found, late.removed, late.stopped_because) == (1, 1, None)
    ids = {str(parts.artifact_id) for key in site.object_keys() if (parts := parts_of(key, site.prefix))}
    assert ids == {first["id"], again.json()["id"]}
    assert site.stage.get(f"artifacts/{again.json()['id']}/content").content == body


def test_serve_killed_in_the_middle_of_a_multipart_upload_leaves_nothing_past_the_grace(site: Site) -> None:
    site.standin()
    serve = site.serve()
    site.stage.create_run("half")
    arrived = threading.Event()

    def halting() -> Iterator[bytes]:
        yield LARGE
        arrived.set()
        time.sleep(60)

    def send() -> None:
        with pytest.raises(httpx.TransportError):
            httpx.put(
                f"{site.stage.url}/v1/namespaces/agents/agentruns/half/artifacts/core.bin",
                content=halting(),
                timeout=60,
            )

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    objects = site.objects
    until(lambda: list(objects.open_uploads(site.prefix + "/")))
    serve.kill()
    assert not site.object_keys()
    site.serve()
    assert site.stage.put("half", "other.log", b"x").status_code == 201
    late = datetime.now(UTC) + GRACE + timedelta(minutes=5)
    report = clean_orphans(site.index, objects, prefix=site.prefix, grace=GRACE, now=late)
    assert report.aborted_uploads == 1
    assert not list(objects.open_uploads(site.prefix + "/"))
    assert len(site.object_keys()) == 1


def test_serve_killed_once_the_row_is_committed_and_the_reply_is_lost(site: Site) -> None:
    site.standin()
    serve = site.serve()
    uid = site.stage.create_run("unheard")
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    path = f"/v1/namespaces/agents/agentruns/unheard/artifacts/only.log?uid={uid}"
    connection.request("PUT", path, b"only")
    (committed,) = until(lambda: rows(site, "SELECT id FROM artifacts"))
    serve.kill()
    connection.close()  # the reply, if there was one, is never read

    site.serve()
    site.controller()
    again = site.stage.put("unheard", "only.log", b"only")
    assert again.status_code == 200
    assert again.json()["id"] == str(committed[0])
    assert len(site.object_keys()) == 1
    until(lambda: site.stage.names("unheard") == ["only.log"])


def test_serve_killed_between_row_and_publish(site: Site) -> None:
    site.standin()
    serve = site.serve()
    site.stage.create_run("late")
    acknowledged = [site.stage.put("late", f"{n}.log", b"%d" % n).json()["id"] for n in range(3)]
    serve.kill()
    assert "artifacts" not in site.stage.status("late")
    site.serve()
    site.controller()
    until(lambda: site.stage.names("late") == ["0.log", "1.log", "2.log"])
    assert [one["id"] for one in reversed(site.stage.history("late"))] == acknowledged
    assert site.stage.put("late", "0.log", b"0").json()["id"] == acknowledged[0]


def test_a_controller_killed_before_its_publish(site: Site) -> None:
    site.standin()
    site.serve()
    controller = site.controller()
    site.stage.create_run("orphaned")
    site.stage.put("orphaned", "0.log", b"0")
    until(lambda: site.stage.names("orphaned") == ["0.log"])
    controller.kill()
    site.stage.put("orphaned", "1.log", b"1")
    assert site.stage.names("orphaned") == ["0.log"]
    assert not site.stage.is_current("orphaned")
    site.controller()
    until(lambda: site.stage.names("orphaned") == ["0.log", "1.log"])
    until(lambda: site.stage.is_current("orphaned"))


def test_a_controller_killed_in_the_middle_of_a_publish(site: Site) -> None:
    standin = site.standin()
    site.serve()
    controller = site.controller()
    site.stage.create_run("middle")
    site.stage.put("middle", "0.log", b"0")
    until(lambda: site.stage.names("middle") == ["0.log"])
    # Stopped, the stand-in takes the patch from the network and answers nothing.
    standin.pause()
    site.stage.put("middle", "1.log", b"1")
    until(lambda: rows(site, "SELECT 1 FROM runs WHERE claimed_until > clock_timestamp()"))
    time.sleep(0.5)
    controller.kill()
    standin.resume()
    site.controller()
    until(lambda: site.stage.is_current("middle"))
    assert site.stage.names("middle") == ["0.log", "1.log"]
    assert [one["name"] for one in site.stage.history("middle")] == ["1.log", "0.log"]


def test_of_two_controllers_one_dies_and_the_other_goes_on(site: Site) -> None:
    site.standin()
    site.serve()
    dies = site.controller()
    site.controller()
    for run in range(4):
        site.stage.create_run(f"run-{run}")
    for number in range(10):
        for run in range(4):
            assert site.stage.put(f"run-{run}", f"{number}.log", b"%d" % number).status_code == 201
        if number == 4:
            dies.kill()
    names = [f"{number}.log" for number in range(10)]
    for run in range(4):
        until(lambda run=run: site.stage.names(f"run-{run}") == names)


def test_what_was_acknowledged_under_load_survives_a_kill(site: Site) -> None:
    site.standin()
    serve = site.serve("--workers", "2")
    site.controller()
    site.stage.create_run("loaded")
    acknowledged: dict[str, str] = {}
    stop = threading.Event()

    def send(sender: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"{sender}-{number}.log"
            try:
                answer = site.stage.put("loaded", name, name.encode())
            except httpx.TransportError:
                return
            if answer.status_code == 201:
                acknowledged[name] = answer.json()["id"]
            number += 1

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(6)]
    for one in senders:
        one.start()
    until(lambda: len(acknowledged) > 100)
    serve.kill()
    stop.set()
    for one in senders:
        one.join()
    site.serve()
    history = {one["name"]: one for one in site.stage.history("loaded")}
    assert {name: history[name]["id"] for name in acknowledged} == acknowledged
    for name in list(acknowledged)[-20:]:
        assert site.stage.get(f"artifacts/{acknowledged[name]}/content").content == name.encode()
    until(lambda: site.stage.is_current("loaded"))
    newest = [one["name"] for one in site.stage.history("loaded")[:50]]
    assert site.stage.names("loaded") == list(reversed(newest))


def rows(site: Site, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(site.database_url) as connection:
        return connection.execute(query).fetchall()
