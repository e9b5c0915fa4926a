"""Taking over what other writers put into status, on a real API server, with schemas that let it in.

Cases: inline data in any field, case and depth, long fields, unknown fields, entries that are no objects and
text with a NUL become artifacts with their origin; over-long URIs; nothing leaves status while the store is
away; a crash before the row and before the patch, and two controllers at once, store once; a stale writer;
entries that point elsewhere: order, cap, removal, older views, lost addresses; a note beside an upload; ours
by address also from an old bucket; 1 MiB of content; 500 entries.
"""

import base64
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from offload.cluster.interface import AgentRun
from offload.domain.artifact import Artifact, Location
from offload.domain.projection import Caps
from offload.errors import ClusterUnavailableError, IndexUnavailableError, StoreUnavailableError
from offload.index import artifacts, externals
from offload.services.publish import Outcome
from tests.kube.room import KubeRoom
from tests.kube.schemas import KEEPING, Crd, read

LONG = "https://e.org/" + "x" * 2048
ELSEWHERE = {"name": "theirs", "url": "https://e.org/theirs"}


@pytest.fixture(scope="module", params=["early", "preserving"])
def schema(request: pytest.FixtureRequest, served: Callable[[Crd], None]) -> Crd:
    crd = KEEPING.get(request.param) or read(request.param)
    served(crd)
    return crd


@pytest.fixture
def room(schema: Crd, kube_room: KubeRoom) -> KubeRoom:
    kube_room.serve(schema)
    return kube_room


only_open = pytest.mark.parametrize("schema", ["preserving"], indirect=True)


def history(room: KubeRoom, run: AgentRun, limit: int = 1000) -> list[Artifact]:
    """Oldest first."""
    with room.index.read() as tx:
        return artifacts.history(tx, run.seen.uid, order="oldest", limit=limit)


def contents(room: KubeRoom, run: AgentRun) -> dict[str, tuple[str | None, bytes]]:
    """Origin and bytes by name."""
    return {one.name: (one.origin, room.objects.read(one.location.key)) for one in history(room, run)}


def states(room: KubeRoom, run: AgentRun) -> dict[str, str]:
    with room.index.read() as tx:
        return {str(one.entry["name"]): one.state for one in externals.of_run(tx, run.seen.uid)}


def assert_only_pointers(room: KubeRoom, run: AgentRun) -> None:
    by_name = {one.name: one.location.uri for one in history(room, run) if one.current}
    found = room.status(run)["artifacts"]
    assert {
        entry["name"]: entry["url" if room.schema.current().legacy else "uri"] for entry in found
    } == by_name


def test_content_in_any_field_becomes_an_artifact_with_its_origin(room: KubeRoom) -> None:
    run = room.create()
    entries = [
        {"name": "plain", "url": "data:,a%20b"},
        {"name": "loud", "key": "DaTa:text/x-diff;base64," + base64.b64encode(b"+line").decode()},
        {"name": "late", "path": " \n\tdata:,late"},
        {"name": "long", "path": "y" * 2049},
        {"name": "address", "url": LONG},
        {"name": "nul", "path": "a\0b"},
        {"name": "data:,name"},
    ]
    room.write(run.seen.name, {"artifacts": entries, "phase": "Running"})
    assert room.look_again(run) is Outcome.WRITTEN
    found = contents(room, run)
    named = next(name for name in found if name.startswith("adopted-"))
    assert found == {
        "plain": ("status:url", b"a b"),
        "loud": ("status:key", b"+line"),
        "late": ("status:path", b"late"),
        "long": ("status:path", b"y" * 2049),
        "address": ("status:url", LONG.encode() + b"\r\n"),
        "nul": ("status:path", b"a\0b"),
        named: ("status:name", b"name"),
    }
    types = {one.name: one.content_type for one in history(room, run)}
    assert (types["loud"], types["address"]) == ("text/x-diff", "text/uri-list")
    assert_only_pointers(room, run)
    assert room.status(run)["phase"] == "Running"
    version = room.read(run).resource_version
    assert room.look_again(run) is Outcome.UNCHANGED
    assert room.read(run).resource_version == version


@only_open
def test_what_only_an_open_schema_lets_in_is_kept_too(room: KubeRoom) -> None:
    run = room.create()
    entries: list[Any] = [
        {"name": "unknown", "content": "some text"},
        {"name": "deep", "body": {"parts": [{"data": "data:,x"}]}},
        {"name": "native", "uri": LONG},
        {"name": "nul-field", "a\0b": 1},
        {"name": "beside", "uri": "https://e.org/beside", "preview": "data:,p", "note": "stays"},
        "just text",
        None,
    ]
    room.write(run.seen.name, {"artifacts": entries})
    room.look_again(run)
    found = contents(room, run)
    text = next(name for name in found if name.startswith("adopted-"))
    assert found == {
        "unknown": ("status:content", b"some text"),
        "deep": ("status:body", b'{"parts":[{"data":"data:,x"}]}'),
        "native": ("status:uri", LONG.encode() + b"\r\n"),
        "nul-field": ("status:ab", b"1"),
        "beside.preview": ("status:preview", b"p"),
        text: ("status:value", b"just text"),
    }
    assert {"name": "beside", "uri": "https://e.org/beside", "note": "stays"} in room.status(run)["artifacts"]


@only_open
def test_a_list_that_is_none_is_kept_too(room: KubeRoom) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": {"log": "data:,x"}})
    room.look_again(run)
    assert list(contents(room, run).values()) == [("status:log", b"x")]
    assert_only_pointers(room, run)


def test_nothing_leaves_status_while_the_store_is_away(room: KubeRoom) -> None:
    run = room.create()
    room.upload(run, "ours")
    room.write(run.seen.name, {"artifacts": [{"name": f"r-{n}", "url": f"data:,{n}"} for n in range(3)]})
    before = room.read(run)

    def away(_: str, key: str) -> None:
        if key.endswith("r-1"):
            raise StoreUnavailableError

    room.objects.before = away
    assert room.look_again(run) is Outcome.FAILED
    assert room.read(run).resource_version == before.resource_version
    room.objects.before = lambda *_: None
    assert room.publish(run) is Outcome.WRITTEN
    assert sorted(room.names(run)) == ["ours", "r-0", "r-1", "r-2"]
    assert len(list(room.objects.list("offload/"))) == 3


def test_a_crash_before_the_row_or_before_the_patch_stores_once(
    room: KubeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [{"name": "report", "url": "data:,x"}]})

    def lost(*_: object) -> Any:
        raise IndexUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(room.recorder, "record", lost)
        assert room.look_again(run) is Outcome.UNAVAILABLE
    assert history(room, run) == []
    [orphan] = room.objects.list("offload/")

    def unsent(*_: object) -> Any:
        raise ClusterUnavailableError("away", retry_after=0.1)

    with monkeypatch.context() as patch:
        patch.setattr(room.cluster, "patch_status", unsent)
        assert room.publish(run) is Outcome.UNAVAILABLE
    [artifact] = history(room, run)
    assert room.status(run)["artifacts"] == [{"name": "report", "url": "data:,x"}]
    assert room.publish(run) is Outcome.WRITTEN
    assert history(room, run) == [artifact]
    kept = {info.location.key for info in room.objects.list("offload/")}
    assert kept == {orphan.location.key, artifact.location.key}  # the first is the orphan cleaner's
    assert_only_pointers(room, run)


def test_two_controllers_at_once_store_once(room: KubeRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    run = room.create()
    names = [f"r-{n}" for n in range(40)]
    room.write(run.seen.name, {"artifacts": [{"name": name, "url": f"data:,{name}"} for name in names]})
    room.touch(run)
    claimed = room.claim(run)
    both = threading.Barrier(2)

    store = room.streams.run

    def meet(coroutine: Any) -> Any:
        both.wait(10)  # neither has stored anything when both have looked for what is stored
        return store(coroutine)

    monkeypatch.setattr(room.streams, "run", meet)
    publishers = [room.publisher(holder=holder) for holder in ("test", "other")]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda publisher: publisher.publish(claimed), publishers))
    assert Outcome.FAILED not in outcomes
    assert [one.name for one in history(room, run)] == names
    assert len(list(room.objects.list("offload/"))) == len(names)
    assert_only_pointers(room, run)


def test_a_writer_that_brings_content_back_is_answered_without_storing_it_again(room: KubeRoom) -> None:
    run = room.create()
    inline = {"artifacts": [{"name": "report", "url": "data:,x"}]}
    for _ in range(3):
        room.write(run.seen.name, inline)
        assert room.look_again(run) is Outcome.WRITTEN
    room.upload(run, "report", b"newer")
    room.write(run.seen.name, inline)
    room.look_again(run)
    assert [one.size_bytes for one in history(room, run)] == [1, 5]
    assert_only_pointers(room, run)


def test_entries_that_point_elsewhere_are_listed_in_order_and_counted(room: KubeRoom) -> None:
    run = room.create()
    caps = Caps(count=3)
    room.write(run.seen.name, {"artifacts": [ELSEWHERE]})
    room.look_again(run, caps=caps)
    room.upload(run, "a")
    room.publish(run, caps=caps)
    later = {"name": "later", "url": "https://e.org/later"}
    room.write(run.seen.name, {"artifacts": [*room.status(run)["artifacts"], later]})
    room.look_again(run, caps=caps)
    assert room.names(run) == ["theirs", "a", "later"]
    room.upload(run, "b")
    room.publish(run, caps=caps)
    assert room.names(run) == ["a", "later", "b"]
    assert states(room, run) == {"theirs": "left-out", "later": "listed"}
    assert list(room.objects.list("offload/")) == []
    entries = [entry for entry in room.status(run)["artifacts"] if entry["name"] != "later"]
    room.write(run.seen.name, {"artifacts": entries})
    room.look_again(run, caps=caps)
    assert room.names(run) == ["theirs", "a", "b"]
    assert states(room, run) == {"theirs": "listed", "later": "removed"}


@only_open
@pytest.mark.parametrize("left", [[], [0], [1], [2], [0, 1]])
def test_an_older_view_removes_no_entry_of_another_writer(room: KubeRoom, left: list[int]) -> None:
    run = room.create()
    for name in ("a", "b"):
        room.upload(run, name)
        room.publish(run)
    full = [*room.status(run)["artifacts"], ELSEWHERE]
    room.write(run.seen.name, {"artifacts": full})
    room.look_again(run)
    room.upload(run, "c")
    room.publish(run)
    room.write(run.seen.name, {"artifacts": [full[n] for n in left]})
    room.look_again(run)
    assert room.names(run) == ["a", "b", "theirs", "c"]
    assert states(room, run) == {"theirs": "listed"}


@only_open
def test_an_older_view_of_names_that_were_uploaded_again_removes_none_either(room: KubeRoom) -> None:
    run = room.create()
    room.upload(run, "log", b"1")
    room.publish(run)
    room.write(run.seen.name, {"artifacts": [*room.status(run)["artifacts"], ELSEWHERE]})
    room.look_again(run)
    room.write(run.seen.name, {"artifacts": []})
    room.upload(run, "log", b"2")
    room.look_again(run)
    assert sorted(room.names(run)) == ["log", "theirs"]
    assert states(room, run) == {"theirs": "listed"}


@pytest.mark.parametrize("schema", ["early", "preserving", "defaults"], indirect=True)
def test_an_entry_that_lost_its_address_on_the_way_is_the_one_of_its_name(room: KubeRoom) -> None:
    run = room.create()
    artifact = room.upload(run, "log")
    room.write(run.seen.name, {"artifacts": [ELSEWHERE]})
    room.look_again(run)
    before = room.status(run)["artifacts"]
    room.write(run.seen.name, {"artifacts": [{"name": "log", "url": ""}, {"name": "theirs"}]})
    assert room.look_again(run) is Outcome.WRITTEN
    assert room.status(run)["artifacts"] == before
    assert {"log", "theirs"} == set(room.names(run))
    assert history(room, run) == [artifact]
    assert states(room, run) == {"theirs": "listed"}


@only_open
def test_a_note_on_an_upload_does_not_take_its_name(room: KubeRoom) -> None:
    run = room.create()
    uploaded = room.upload(run, "log", b"of the runner")
    room.publish(run)
    before = room.status(run)["artifacts"]
    note = {"name": "log", "digest": "sha256:ab"}
    for _ in range(2):
        room.write(run.seen.name, {"artifacts": [note]})
        room.look_again(run)
        assert [one.name for one in history(room, run)] == ["log", "log.digest"]
        assert room.status(run)["artifacts"][0] == before[0]
        with room.index.read() as tx:
            assert artifacts.current(tx, run.seen.uid, "log") == uploaded
    adopted = history(room, run)[1]
    assert adopted.origin == "status:digest"
    assert room.objects.read(adopted.location.key) == b"sha256:ab"


def test_an_address_from_an_old_bucket_is_ours_and_another_runs_is_not(room: KubeRoom) -> None:
    run, other = room.create(), room.create()
    id_ = uuid4()
    old = Location("old-bucket", f"old/prefix/{run.seen.namespace}/{run.seen.name}/{run.seen.uid}/{id_}/kept")
    room.upload(run, "kept", id=id_, location=old)
    theirs = room.upload(other, "of-another-run")
    entries = [
        {"name": "of-another-run", "url": theirs.location.uri},
        {"name": "renamed", "url": old.uri},
        {"name": "key alone", "key": old.key},
    ]
    room.write(run.seen.name, {"artifacts": entries})
    room.look_again(run)
    assert states(room, run) == {"of-another-run": "listed"}
    assert sorted(room.names(run)) == ["kept", "of-another-run"]


def test_one_entry_with_a_mebibyte_of_content(room: KubeRoom) -> None:
    run = room.create()
    data = bytes(range(256)) * 3072
    encoded = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    assert len(encoded) > 2**20
    room.write(run.seen.name, {"artifacts": [{"name": "core", "url": encoded}]})
    assert room.look_again(run) is Outcome.WRITTEN
    assert contents(room, run) == {"core": ("status:url", data)}
    assert_only_pointers(room, run)


def test_five_hundred_entries_of_two_kilobytes(room: KubeRoom) -> None:
    run = room.create()
    entries = [{"name": f"r-{n:03}", "url": f"data:,{n}-" + "z" * 2000} for n in range(500)]
    room.write(run.seen.name, {"artifacts": entries})
    assert room.look_again(run) is Outcome.WRITTEN
    found = history(room, run)
    assert [one.name for one in found] == [entry["name"] for entry in entries]
    assert all(earlier.seq < later.seq for earlier, later in pairwise(found))
    assert room.names(run) == [entry["name"] for entry in entries[-50:]]
    assert room.status(run)["conditions"][0]["message"].startswith("50 of 500 ")


def test_five_hundred_entries_that_point_elsewhere(room: KubeRoom) -> None:
    run = room.create()
    entries = [{"name": f"r-{n:03}", "url": f"https://e.org/{n}-" + "z" * 2000} for n in range(500)]
    room.write(run.seen.name, {"artifacts": entries})
    assert room.look_again(run) is Outcome.WRITTEN
    assert room.status(run)["artifacts"] == entries[-len(room.names(run)) :]
    assert list(states(room, run).values()).count("left-out") == 500 - len(room.names(run))
    assert room.status(run)["conditions"][0]["reason"] == "ByteLimit"
    assert history(room, run) == []
