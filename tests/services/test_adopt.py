"""Taking over what other writers put into status, on the AgentRun stand-in.

Cases: inline data becomes an artifact and a pointer; over-long URIs; a store that is away loses nothing;
adopting twice stores once; entries that point elsewhere are listed in their order, counted, and stay removed
or left out, and what is foreseen of them; an entry that stands for ours; hostile names, names of any shape,
and those of uploads; what a data: URI holds; what strict mode makes of it, and of what was there before it
was turned on.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from offload.cluster.standin.server import StandIn
from offload.domain.artifact import Artifact, State
from offload.domain.external import External
from offload.domain.pointers import fingerprint
from offload.domain.projection import Caps
from offload.errors import StoreUnavailableError
from offload.index import artifacts, externals, sweeping
from offload.services.adopt import needs_adopting
from offload.services.preview import preview
from offload.services.publish import Outcome
from tests.publishing import Room, open_schema, publishing_room

CRDS = Path(__file__).parents[1] / "cluster" / "crds"
ELSEWHERE = {"name": "theirs", "url": "https://example.org/theirs"}


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    # The schema of the early chart: no pattern and no limit keeps inline data out.
    with StandIn(CRDS / "early.yaml").running() as standin:
        yield standin


@pytest.fixture
def room(standin: StandIn, tmp_path: Path) -> Iterator[Room]:
    with publishing_room(standin, tmp_path) as room:
        yield room


def history(room: Room, run: Any) -> list[Artifact]:
    with room.index.read() as tx:
        return artifacts.history(tx, run.seen.uid, limit=100)


def states(room: Room, run: Any) -> dict[str, str]:
    with room.index.read() as tx:
        return {str(one.entry["name"]): one.state for one in externals.of_run(tx, run.seen.uid)}


def end(room: Room, artifact: Artifact) -> None:
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [artifact.id], state=State.DELETED, by="token:test")


def foreseen(room: Room, run: Any, **values: Any) -> dict[str, Any]:
    """What a publish would write, before anything is stored."""
    status, schema = room.status(run), room.schema.current()
    values = {"schema": schema, "caps": Caps(), "strict": False, "public_url": None, **values}
    with room.index.read() as tx:
        return preview(tx, run.seen.uid, status, **values).patch_for(status)


@pytest.mark.parametrize(
    ("value", "content_type", "data"),
    [
        ("data:text/x-diff;base64,aGVsbG8=", "text/x-diff", b"hello"),
        ("DATA:,a%20b", "text/plain;charset=US-ASCII", b"a b"),
        ("data:not/a/type;base64,aGVsbG8=", "application/octet-stream", b"hello"),
        ("data:;base64,!!", "text/plain; charset=utf-8", b"data:;base64,!!"),
        ("data:nothing", "text/plain; charset=utf-8", b"data:nothing"),
        ("https://e.org/" + "x" * 2048, "text/uri-list", b"https://e.org/" + b"x" * 2048 + b"\r\n"),
    ],
)
def test_content_becomes_an_artifact_before_it_leaves_status(
    room: Room, value: str, content_type: str, data: bytes
) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [{"name": "report", "url": value}]})
    assert room.look_again(run) is Outcome.WRITTEN
    [artifact] = history(room, run)
    assert (artifact.name, artifact.content_type, artifact.origin) == ("report", content_type, "status:url")
    assert artifact.sha256 == hashlib.sha256(data).digest()
    assert room.objects.read(artifact.location.key) == data
    assert room.status(run)["artifacts"] == [
        {"name": "report", "key": artifact.location.key, "url": artifact.location.uri}
    ]
    assert room.run(run).dirty_since is None


def test_nothing_leaves_status_while_the_store_is_away(room: Room) -> None:
    run = room.create()
    entry = {"name": "report", "url": "data:,x"}
    room.write(run.seen.name, {"artifacts": [entry]})

    def away(*_: str) -> None:
        raise StoreUnavailableError

    room.objects.before = away
    assert room.look_again(run) is Outcome.FAILED
    assert room.status(run)["artifacts"] == [entry]
    assert history(room, run) == []
    room.objects.before = lambda *_: None
    assert room.publish(run) is Outcome.WRITTEN
    assert len(history(room, run)) == 1


def test_adopting_twice_stores_once(room: Room) -> None:
    run = room.create()
    inline = {"artifacts": [{"name": "report", "url": "data:,x"}]}
    for _ in range(2):
        room.write(run.seen.name, inline)
        room.look_again(run)
    assert len(history(room, run)) == 1
    assert len(list(room.objects.list("offload/"))) == 1
    room.upload(run, "report", b"newer")
    room.write(run.seen.name, inline)
    room.look_again(run)
    assert len(history(room, run)) == 2
    assert room.status(run)["artifacts"][0]["url"] == history(room, run)[0].location.uri


def test_what_was_erased_does_not_come_back_with_a_stale_writer(room: Room) -> None:
    run = room.create()
    inline = {"artifacts": [{"name": "report", "url": "data:,x"}]}
    room.write(run.seen.name, inline)
    room.look_again(run)
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [history(room, run)[0].id], state=State.DELETED, by="token:test")
    room.write(run.seen.name, inline)
    room.look_again(run)
    assert len(history(room, run)) == 1
    assert room.status(run)["artifacts"] == []


def test_an_entry_that_points_elsewhere_is_listed_where_it_was_first_seen(room: Room) -> None:
    run = room.create()
    room.upload(run, "first")
    room.publish(run)
    room.write(run.seen.name, {"artifacts": [*room.status(run)["artifacts"], ELSEWHERE]})
    room.look_again(run)
    room.upload(run, "last")
    room.publish(run)
    assert room.names(run) == ["first", "theirs", "last"]
    assert room.status(run)["artifacts"][1] == ELSEWHERE
    assert states(room, run) == {"theirs": "listed"}


def test_one_that_its_writer_removes_stays_removed_until_it_is_written_again(room: Room) -> None:
    run = room.create()
    room.upload(run, "ours")
    room.write(run.seen.name, {"artifacts": [ELSEWHERE]})
    room.publish(run)
    assert room.names(run) == ["ours", "theirs"]
    room.write(run.seen.name, {"artifacts": room.status(run)["artifacts"][:1]})
    room.look_again(run)
    assert room.names(run) == ["ours"]
    assert states(room, run) == {"theirs": "removed"}
    room.write(run.seen.name, {"artifacts": [*room.status(run)["artifacts"], ELSEWHERE]})
    room.look_again(run)
    assert room.names(run) == ["ours", "theirs"]


@pytest.mark.parametrize(("name", "count"), [("log", 50), ("other", 2)])
def test_one_that_is_removed_while_the_newest_of_ours_ends_stays_removed(
    room: Room, name: str, count: int
) -> None:
    """What is the newest then was not listed: it was superseded, or had no place."""
    run, caps = room.create(), Caps(count=count)
    room.upload(run, "log")
    room.publish(run, caps=caps)
    room.write(run.seen.name, {"artifacts": [*room.status(run)["artifacts"], ELSEWHERE]})
    room.look_again(run, caps=caps)
    newer = room.upload(run, name, b"newer")
    room.publish(run, caps=caps)
    assert room.names(run) == ["theirs", name]
    end(room, newer)
    room.write(run.seen.name, {"artifacts": room.status(run)["artifacts"][1:]})
    room.look_again(run, caps=caps)
    assert room.names(run) == ["log"]
    assert states(room, run) == {"theirs": "removed"}


def test_an_older_view_that_points_at_what_ended_removes_nothing(room: Room) -> None:
    run = room.create()
    _, newer = (room.upload(run, "log", data) for data in (b"1", b"2"))
    room.publish(run)
    older_view = room.status(run)["artifacts"]
    room.write(run.seen.name, {"artifacts": [*older_view, ELSEWHERE]})
    room.look_again(run)
    end(room, newer)
    room.look_again(run)
    room.write(run.seen.name, {"artifacts": older_view})
    room.look_again(run)
    assert sorted(room.names(run)) == ["log", "theirs"]


def test_what_a_publish_makes_of_others_is_foreseen(room: Room) -> None:
    run = room.create()
    room.upload(run, "ours")
    room.write(run.seen.name, {"artifacts": [ELSEWHERE, {**ELSEWHERE, "name": "gone"}]})
    room.publish(run)
    ours, theirs, _ = room.status(run)["artifacts"]
    new = {**ELSEWHERE, "name": "new"}
    for written in ([ours, theirs, new], [theirs], [ours, {"name": "theirs"}]):
        room.write(run.seen.name, {"artifacts": written})
        patch = foreseen(room, run)
        room.look_again(run)
        assert patch.get("artifacts", written) == room.status(run)["artifacts"]


def test_one_that_a_cap_trimmed_is_known_as_left_out_and_counted(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [ELSEWHERE]})
    room.look_again(run, caps=Caps(count=2))
    room.upload_logs(run, 2)
    room.publish(run, caps=Caps(count=2))
    assert room.names(run) == ["log-0", "log-1"]
    assert states(room, run) == {"theirs": "left-out"}
    assert room.status(run)["conditions"][0]["message"].startswith("2 of 3 ")
    assert foreseen(room, run, caps=Caps(count=2)) == {}
    room.look_again(run, caps=Caps(count=3))
    assert room.names(run) == ["theirs", "log-0", "log-1"]
    assert states(room, run) == {"theirs": "listed"}


def test_an_entry_without_address_that_names_one_of_ours_is_replaced(room: Room) -> None:
    run = room.create()
    artifact = room.upload(run, "log")
    room.write(run.seen.name, {"artifacts": [{"name": "log"}, {"name": "other"}]})
    room.publish(run)
    assert sorted(room.names(run)) == ["log", "other"]
    assert {"name": "log", "key": artifact.location.key, "url": artifact.location.uri} in room.status(run)[
        "artifacts"
    ]


def test_content_beside_a_pointer_leaves_the_pointer(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [{**ELSEWHERE, "path": "data:,x"}]})
    room.look_again(run)
    assert [artifact.name for artifact in history(room, run)] == ["theirs.path"]
    assert ELSEWHERE in room.status(run)["artifacts"]
    assert sorted(room.names(run)) == ["theirs", "theirs.path"]


@pytest.mark.parametrize("name", ["../etc", "a\nb", "x" * 600, "data:,n"])
def test_a_name_that_may_not_be_one_is_replaced(room: Room, name: str) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [{"name": name, "path": "data:,x"}]})
    room.look_again(run)
    assert all(artifact.name.startswith("adopted-") for artifact in history(room, run))
    assert history(room, run)


@pytest.mark.parametrize("name", [{"a": 1}, ["a"], 5, None], ids=str)
def test_a_name_of_any_shape_is_looked_at(name: Any) -> None:
    addressed = {"name": name, "url": "https://elsewhere.example/log"}
    known = [External(1, fingerprint(addressed), addressed, "listed")]
    assert needs_adopting([{"name": name, "odd": 1}], known, open_schema(), whole=True)
    assert not needs_adopting([{"name": name}], known, open_schema(), whole=True)


def test_content_does_not_take_the_name_of_an_upload(room: Room) -> None:
    run = room.create()
    uploaded = room.upload(run, "log", b"of the runner")
    for _ in range(2):
        room.write(run.seen.name, {"artifacts": [{"name": "log", "url": "data:,theirs"}]})
        room.look_again(run)
    assert room.names(run) == ["log", "log.url"]
    assert room.status(run)["artifacts"][0]["url"] == uploaded.location.uri
    room.upload(run, "log.url", b"of the runner as well")
    room.write(run.seen.name, {"artifacts": [{"name": "log", "url": "data:,others"}]})
    room.look_again(run)
    assert len(room.names(run)) == 3
    assert room.names(run)[2].startswith("adopted-")
    with room.index.begin() as tx:
        sweeping.tombstone(tx, [one.id for one in history(room, run)], state=State.DELETED, by="token:test")
    known = len(history(room, run))
    room.write(run.seen.name, {"artifacts": [{"name": "log", "url": "data:,theirs"}]})
    room.look_again(run)
    assert (len(history(room, run)), room.names(run)) == (known, [])


def test_content_does_not_take_the_name_of_an_upload_that_comes_while_it_is_stored(room: Room) -> None:
    run = room.create()
    uploaded: list[Artifact] = []

    def meanwhile(operation: str, _: str) -> None:
        if operation == "put" and not uploaded:
            uploaded.append(room.upload(run, "report", b"of the runner"))

    room.objects.before = meanwhile
    room.write(run.seen.name, {"artifacts": [{"name": "report", "url": "data:,theirs"}]})
    assert room.look_again(run) is Outcome.WRITTEN
    assert room.names(run) == ["report", "report.url"]
    assert room.status(run)["artifacts"][0]["url"] == uploaded[0].location.uri
    assert all(artifact.current for artifact in history(room, run))


def test_an_older_view_of_names_that_were_uploaded_again_removes_nothing(room: Room) -> None:
    run = room.create()
    room.upload(run, "log", b"1")
    room.publish(run)
    room.write(run.seen.name, {"artifacts": [*room.status(run)["artifacts"], ELSEWHERE]})
    room.look_again(run)
    room.write(run.seen.name, {"artifacts": []})
    room.upload(run, "log", b"2")
    room.look_again(run)
    assert sorted(room.names(run)) == ["log", "theirs"]


def test_what_was_put_right_before_strict_mode_fails_no_run(room: Room) -> None:
    run = room.create()
    inline = {"artifacts": [{"name": "a", "url": "data:,x"}]}
    room.write(run.seen.name, {"phase": "Running", **inline})
    room.look_again(run)
    room.judge_from(datetime.now(UTC))
    assert room.look_again(run, strict=True) is Outcome.UNCHANGED
    assert room.status(run)["phase"] == "Running"
    room.write(run.seen.name, {"artifacts": [{"name": "b", "url": "data:,x"}]})
    room.look_again(run, strict=True)
    assert room.status(run)["phase"] == "Failed"


def test_strict_mode_counts_what_was_adopted(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"phase": "Running", "artifacts": [{"name": "a", "url": "data:,x"}]})
    room.look_again(run, strict=True)
    assert room.status(run)["phase"] == "Failed"
    assert room.names(run) == ["a"]


def test_observing_stores_nothing_and_would_leave_inline_data_out(room: Room) -> None:
    run = room.create()
    room.write(run.seen.name, {"artifacts": [{"name": "a", "url": "data:,x"}, ELSEWHERE]})
    before = room.status(run)
    assert room.look_again(run, mode="observe") is Outcome.OBSERVED
    assert room.status(run) == before
    assert history(room, run) == []
    assert states(room, run) == {}
