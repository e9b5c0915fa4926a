"""Bytes: by id and by name.

Cases: whole, by both ways, with every header; ranges (206; first, last, suffix, past the end, none satisfied
416, several, other units and bad ones ignored); If-Range with the right and a wrong tag; If-None-Match (304:
exact, weak, list, *); If-Match (412, before either); HEAD of all of them; Content-Disposition with Unicode,
quotes and line ends; what could run is sandboxed; an empty artifact; version= and uid=; a name that was never
there, an ended one (410 for expired, deleted and lost, with by whom and when), a newer version that ended
brings the older one back; lost bytes are 410 only where the marker proves it, and the row says so; what the
sweep ends while it is read is not lost; a stored stream that breaks ends the connection; a store that is away
is 503; a presigned redirect where the store has a public address; the shortcut answers as the framework does;
readers at the same time share a look into the index, and its failure; readers of unknown runs hold up no
others while the API server hangs.
"""

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from offload.domain.artifact import State
from offload.domain.digests import format_digest
from offload.errors import IndexUnavailableError, RunNotFoundError, StoreUnavailableError
from offload.index import artifacts, sweeping
from offload.objects.memory import MemoryObjects
from offload.services.incarnations import Incarnations
from offload.services.lookups import Lookups

NAMESPACE = "agents"
MIB = 2**20
DATA = bytes(range(256)) * 4
HEAD_TOO = pytest.mark.parametrize("method", ["GET", "HEAD"])


@pytest.fixture
def stored(run: Any) -> Any:
    return run.stored("dir/data.bin", DATA, headers={"Content-Type": "application/x-thing"})


@pytest.fixture(params=["id", "name"])
def url(request: pytest.FixtureRequest, run: Any, stored: Any) -> str:
    return f"/v1/artifacts/{stored['id']}/content" if request.param == "id" else run.at("dir/data.bin")


@HEAD_TOO
def test_the_whole_is_given_with_its_words(service: Any, url: str, stored: Any, method: str) -> None:
    answer = service.http.request(method, url)
    assert answer.status_code == 200
    assert answer.content == (DATA if method == "GET" else b"")
    expected = {
        "Content-Type": "application/x-thing",
        "Content-Length": str(len(DATA)),
        "ETag": f'"{hashlib.sha256(DATA).hexdigest()}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment; filename=\"data.bin\"; filename*=UTF-8''data.bin",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Artifact-Id": stored["id"],
    }
    assert {name: answer.headers[name] for name in expected} == expected
    assert answer.headers["Repr-Digest"].startswith("sha-256=:")
    assert answer.headers.get("Content-Range") is None


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=1000-", 1000, 1023),
        ("bytes=1000-99999", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-5000", 0, 1023),
        ("Bytes=5-6", 5, 6),
    ],
)
def test_a_range_is_given(service: Any, url: str, wanted: str, first: int, last: int) -> None:
    answer = service.http.get(url, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, DATA[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/1024"
    assert answer.headers["Content-Length"] == str(last - first + 1)
    whole = service.http.head(url, headers={"Range": wanted})
    assert (whole.status_code, whole.headers["Content-Length"]) == (200, "1024")  # RFC 9110: only for GET


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_of_no_byte_is_416(service: Any, url: str, wanted: str) -> None:
    answer = service.http.get(url, headers={"Range": wanted})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */1024")
    assert answer.json()["type"] == "urn:offload:problem:range-not-satisfiable"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "lines=0-1", "bytes=9-3", "bytes=a-b", "bytes", "bytes=-"]
)
def test_a_range_that_may_be_ignored_is(service: Any, url: str, wanted: str) -> None:
    answer = service.http.get(url, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, DATA)


def test_if_range_guards_against_other_bytes(service: Any, url: str, stored: Any) -> None:
    right = service.http.get(url, headers={"Range": "bytes=0-0", "If-Range": f'"{stored["sha256"]}"'})
    assert right.status_code == 206
    for other in ('"other"', f'W/"{stored["sha256"]}"', "Mon, 01 Jan 2024 00:00:00 GMT"):
        answer = service.http.get(url, headers={"Range": "bytes=5000-", "If-Range": other})
        assert (answer.status_code, answer.content) == (200, DATA)


@HEAD_TOO
@pytest.mark.parametrize("tags", ['"{0}"', 'W/"{0}"', '"x", "{0}"', "*"])
def test_bytes_that_the_client_has_are_304(
    service: Any, url: str, stored: Any, method: str, tags: str
) -> None:
    answer = service.http.request(method, url, headers={"If-None-Match": tags.format(stored["sha256"])})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == f'"{stored["sha256"]}"'
    assert service.http.request(method, url, headers={"If-None-Match": '"other"'}).status_code == 200


@HEAD_TOO
@pytest.mark.parametrize("tags", ['"other"', 'W/"{}"', ""])
def test_a_reader_of_other_bytes_is_refused(service: Any, run: Any, method: str, tags: str) -> None:
    stored = run.stored("x", DATA)
    headers = {"If-Match": tags.format(stored["sha256"]), "If-None-Match": "*", "Range": "bytes=9999-"}
    for url in (run.at("x"), f"/v1/artifacts/{stored['id']}/content"):
        answer = service.http.request(method, url, headers=headers)
        assert answer.status_code == 412
        if method == "GET":
            assert answer.json()["type"] == "urn:offload:problem:precondition-failed"


@HEAD_TOO
@pytest.mark.parametrize("tags", ['"{}"', 'W/"a", "{}"', "*"])
def test_a_reader_of_these_bytes_gets_them(service: Any, run: Any, method: str, tags: str) -> None:
    headers = {"If-Match": tags.format(run.stored("x", DATA)["sha256"]), "Range": "bytes=1-2"}
    assert service.http.request(method, run.at("x"), headers=headers).status_code in {206, 200}


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("ü.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%BC.txt"),
        ('a/q"uo\\te', "attachment; filename=\"q_uo_te\"; filename*=UTF-8''q%22uo%5Cte"),
        ("50%;x", "attachment; filename=\"50_;x\"; filename*=UTF-8''50%25%3Bx"),
    ],
)
def test_bytes_are_saved_under_their_last_segment(run: Any, name: str, disposition: str) -> None:
    run.stored(name)
    assert run.http.get(run.at(name)).headers["Content-Disposition"] == disposition


def test_a_page_is_never_one_of_our_origin(run: Any) -> None:
    run.stored("index.html", b"<script>alert(1)</script>")
    answer = run.http.get(run.at("index.html"))
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@HEAD_TOO
def test_an_empty_artifact_is_given(run: Any, method: str) -> None:
    run.stored("empty", b"")
    answer = run.http.request(method, run.at("empty"))
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")


def test_a_version_is_chosen_by_its_id(service: Any, run: Any) -> None:
    old, new = run.stored("x", b"old"), run.stored("x", b"new")
    assert run.http.get(run.at("x"), params={"version": old["id"]}).content == b"old"
    assert run.http.get(run.at("x"), params={"version": new["id"]}).content == b"new"
    other = service.run().stored("x", b"other")
    for wrong in (other["id"], str(uuid4())):
        assert run.http.get(run.at("x"), params={"version": wrong}).status_code == 404
    assert run.http.get(run.at("x"), params={"version": "new"}).status_code == 400


def test_an_incarnation_is_chosen_by_its_uid(service: Any, run: Any) -> None:
    run.stored("x", b"first")
    again = service.create_again(run)
    again.stored("x", b"second")
    assert run.http.get(run.at("x")).content == b"second"
    assert run.http.get(run.at("x"), params={"uid": run.uid}).content == b"first"
    assert run.http.get(run.at("x"), params={"uid": "other"}).status_code == 409


def test_what_was_never_there_is_404(service: Any, run: Any) -> None:
    run.stored("x")
    for url in (run.at("y"), f"/v1/artifacts/{uuid4()}/content"):
        answer = service.http.get(url)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:offload:problem:artifact-not-found")
    assert service.http.get("/v1/artifacts/none/content").status_code == 400


def test_readers_who_wait_at_the_same_time_share_a_look_into_the_index(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {name: run.stored(name)["id"] for name in ("a", "b", "c")}
    looks = []

    def look(tx: Any, names: Any) -> Any:
        looks.append(sorted(name for *_, name in names))
        return currents(tx, names)

    async def read() -> list[Any]:
        lookups = service.parts.lookups
        readers = [lookups.current(NAMESPACE, run.name, name) for name in (*ids, "a", "never")]
        leaving = asyncio.create_task(lookups.current(NAMESPACE, run.name, "a"))
        asyncio.get_running_loop().call_soon(leaving.cancel)
        found = await asyncio.gather(*readers)
        assert leaving.cancelled()
        return found

    currents = artifacts.currents
    monkeypatch.setattr(artifacts, "currents", look)
    *found, never = asyncio.run(read())
    assert [str(artifact.id) for artifact in found] == [*ids.values(), ids["a"]]
    assert never is None
    assert looks == [["a", "b", "c", "never"]]


class _Held(Executor):
    """Does nothing before it is let go, then all at once."""

    def __init__(self) -> None:
        self._held: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._free = False

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Any:
        done: Future[Any] = Future()
        self._held.append((done, function, arguments))
        if self._free:
            self.let_go()
        return done

    def let_go(self) -> None:
        self._free = True
        held, self._held = self._held, []
        for done, function, arguments in held:
            done.set_result(function(*arguments))


@pytest.mark.parametrize("turns", range(6))
def test_a_reader_who_comes_as_the_looks_end_is_answered(service: Any, run: Any, turns: int) -> None:
    """In whichever turn of the loop that is."""
    names = ("a", "b", "c")
    for name in names:
        run.stored(name)

    async def read() -> list[Any]:
        lookups, held = Lookups(service.index, service.parts.lookups._incarnations), _Held()
        lookups._threads = held  # type: ignore[assignment] # only asked to run things
        readers = []
        for name in names[:2]:
            readers.append(asyncio.create_task(lookups.current(NAMESPACE, run.name, name)))
            await asyncio.sleep(0.01)
        held.let_go()
        for _ in range(turns):
            await asyncio.sleep(0)
        readers.append(asyncio.create_task(lookups.current(NAMESPACE, run.name, names[2])))
        return await asyncio.wait_for(asyncio.gather(*readers), 5)

    assert [artifact.name for artifact in asyncio.run(read())] == list(names)


def test_readers_of_unknown_runs_hold_up_no_others_while_the_api_server_hangs(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.stored("known")
    asked, answers = threading.Semaphore(0), threading.Event()

    def hang(*_: Any) -> Any:
        asked.release()
        answers.wait(20)
        raise RunNotFoundError

    def read(number: int) -> int:
        url = f"/v1/namespaces/agents/agentruns/unknown-{number}/artifacts/x"
        status: int = service.http.get(url).status_code
        return status

    monkeypatch.setattr(Incarnations, "ask", hang)
    with ThreadPoolExecutor(12) as threads:
        unknown = [threads.submit(read, number) for number in range(12)]
        try:
            assert all(asked.acquire(timeout=5) for _ in unknown)
            assert run.http.get(run.at("known"), timeout=5).status_code == 200
        finally:
            answers.set()
        assert {one.result() for one in unknown} == {404}


def test_an_index_that_is_away_is_told_to_all_who_wait_together(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise IndexUnavailableError

    async def read() -> list[Any]:
        readers = [service.parts.lookups.current(NAMESPACE, run.name, name) for name in "ab"]
        return await asyncio.gather(*readers, return_exceptions=True)

    monkeypatch.setattr(artifacts, "currents", fail)
    assert [type(outcome) for outcome in asyncio.run(read())] == [IndexUnavailableError] * 2
    assert service.http.get(run.at("a")).json()["type"] == "urn:offload:problem:index-unavailable"


@HEAD_TOO
@pytest.mark.parametrize("state", [State.EXPIRED, State.DELETED])
def test_an_ended_artifact_is_410_with_by_what_and_when(
    service: Any, run: Any, url: str, stored: Any, state: State, method: str
) -> None:
    by = {State.EXPIRED: "rule:logs", State.DELETED: "token:someone"}[state]
    from uuid import UUID  # noqa: PLC0415 - one use

    with service.index.begin() as tx:
        sweeping.tombstone(tx, [UUID(stored["id"])], state=state, by=by)
    answer = service.http.request(method, url)
    assert answer.status_code == 410
    if method == "GET":
        problem = answer.json()
        assert problem["type"] == f"urn:offload:problem:artifact-{state}"
        assert by in problem["detail"]
        assert run.history()[0]["endedAt"].partition("T")[0] in problem["detail"]
    (row,) = run.history()
    assert (row["state"], row["endedBy"], row["current"]) == (state, by, False)
    assert row["endedAt"]


def test_the_older_version_is_current_again_where_the_newer_one_ends(service: Any, run: Any) -> None:
    run.stored("x", b"old")
    new = run.stored("x", b"new")
    assert service.http.delete(f"/v1/artifacts/{new['id']}").status_code == 200
    assert run.http.get(run.at("x")).content == b"old"
    answer = run.http.get(run.at("x"), params={"version": new["id"]})
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:offload:problem:artifact-deleted")


def test_missing_bytes_are_lost_where_the_marker_proves_the_store(
    serve: Any, eventually: Callable[..., None]
) -> None:
    service = serve(s3_prefix="own")
    run = service.run()
    stored = run.stored("x", DATA)
    eventually(lambda: ("memory", "own/.offload-index") in service.objects._objects)
    marker = service.objects._objects.pop(("memory", "own/.offload-index"))
    kept = {key: value for key, value in service.objects._objects.items() if key[1].endswith("/x")}
    for key in kept:
        del service.objects._objects[key]

    unproven = run.http.get(run.at("x"))
    assert (unproven.status_code, unproven.headers["Retry-After"]) == (503, "5")
    assert run.history()[0]["state"] == "stored"

    service.objects._objects["memory", "own/.offload-index"] = marker
    lost = run.http.get(run.at("x"))
    assert (lost.status_code, lost.json()["type"]) == (410, "urn:offload:problem:artifact-lost")
    assert (run.history()[0]["state"], run.history()[0]["endedBy"]) == ("lost", "store")
    again = run.http.get(f"/v1/artifacts/{stored['id']}/content")
    assert again.json()["type"] == "urn:offload:problem:artifact-lost"


def test_an_artifact_that_ends_while_it_is_read_is_not_lost(serve: Any) -> None:
    """The row was read, then the sweep took the bytes: the answer is the sweep's."""
    objects = MemoryObjects()
    service = serve(objects=objects)
    run = service.run()
    stored = run.stored("x")

    def sweep_now(operation: str, key: str) -> None:
        from uuid import UUID  # noqa: PLC0415 - one use

        if operation == "get" and objects._objects.pop(("memory", key), None):
            with service.index.begin() as tx:
                sweeping.tombstone(tx, [UUID(stored["id"])], state=State.EXPIRED, by="rule:short")

    objects.before = sweep_now
    answer = run.http.get(run.at("x"))
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:offload:problem:artifact-expired")
    assert run.history()[0]["endedBy"] == "rule:short"


class Breaks(MemoryObjects):
    """A stream that ends after half of the bytes."""

    @asynccontextmanager
    async def get(self, location: Any, **arguments: Any) -> Any:
        async with super().get(location, **arguments) as stream:

            async def half() -> Any:
                async for piece in stream:
                    yield piece[: len(piece) // 2]
                    raise StoreUnavailableError("reading an object: no answer from the store")

            yield half()


def test_a_stream_that_breaks_is_never_taken_for_the_whole(
    serve: Any, read_answer: Callable[..., Any]
) -> None:
    import http.client  # noqa: PLC0415 - one use

    service = serve(objects=Breaks())
    run = service.run()
    run.stored("x", b"x" * MIB)
    run.stored("short", b"x" * 1000)
    told = run.http.get(run.at("short"))  # read before it is answered
    assert (told.status_code, told.json()["type"]) == (503, "urn:offload:problem:store-unavailable")
    with service.connect() as connection:
        connection.sendall(service.request("GET", run.at("x")))
        answer = read_answer(connection, "GET")
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(MIB))
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_a_store_that_is_away_is_503(serve: Any) -> None:
    objects = MemoryObjects()
    service = serve(objects=objects)
    run = service.run()
    run.stored("x")

    def fail(operation: str, _key: str) -> None:
        if operation == "get":
            raise StoreUnavailableError("reading an object: the store answered 500 InternalError")

    objects.before = fail
    answer = run.http.get(run.at("x"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["type"] == "urn:offload:problem:store-unavailable"


class Public(MemoryObjects):
    """A store with an address of its own."""

    def presign(self, location: Any, *, content_type: str, content_disposition: str, **_rest: Any) -> str:
        return f"https://store.example/{location.key}?as={content_type}&{content_disposition[:10]}"


def test_a_public_store_serves_the_bytes_itself(serve: Any) -> None:
    service = serve(objects=Public(), s3_public_endpoint_url="https://store.example")
    run = service.run()
    run.stored("a.png", DATA)
    run.stored("a.html", DATA)
    image, page = run.http.get(run.at("a.png")), run.http.get(run.at("a.html"))
    assert (image.status_code, page.status_code) == (307, 307)
    assert image.headers["Repr-Digest"] == format_digest(hashlib.sha256(DATA).digest())
    assert "as=image/png&attachment" in image.headers["Location"]
    assert "as=application/octet-stream&attachment" in page.headers["Location"]
    assert run.http.head(run.at("a.png")).status_code == 200


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("x", {}),
        ("x", {"Range": "bytes=2-5"}),
        ("x", {"Range": "bytes=9999-"}),
        ("x", {"If-None-Match": "*"}),
        ("x", {"Authorization": "Bearer wrong"}),
        ("x?version=not-one", {}),
        ("x?version=01a20e2c-542b-74ad-a6b3-608e2cf1eed9", {}),
        ("x?uid=another", {}),
        ("x?unknown=1", {}),
        ("missing", {}),
        ("large", {}),
    ],
)
def test_the_shortcut_answers_as_the_framework_does(
    serve: Any, take_the_long_way: Callable[[], None], path: str, headers: dict[str, str]
) -> None:
    """The same request both ways; only its own id and time differ."""
    service = serve()
    run = service.run()
    run.stored("x", b"0123456789")
    run.stored("large", b"0123456789" * 10_000)

    def answer() -> tuple[Any, ...]:
        answered = run.http.get(f"{run.artifacts}/{path}", headers=headers)
        told = re.sub(rb"[0-9a-f]{16}\b", b"-", answered.content)
        differ = {"date", "x-request-id"}
        return answered.status_code, told, {k: v for k, v in answered.headers.items() if k not in differ}

    short = answer()
    take_the_long_way()
    assert short == answer()
