"""Artifacts in the index.

- an artifact reads back as it was recorded, by id, by name, in history
- the newest version of a name is current; versions are all of them
- the current versions of many names at once, each in the newest incarnation of its run
- history: each filter, both orders, all pages without gaps or repeats
- known ids: rows whose bytes were not erased; erased ids: those whose bytes were
- whether anything stored has a key that begins so, looked for some rows at a time
- lost: a tombstone whose bytes are never to be erased, and which gives the name to the version before
- every offered filter and order is answered from an index
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from offload.domain.artifact import Location, State
from offload.index import Index, artifacts, publishing, runs, sweeping

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_artifact_reads_back_as_it_was_recorded(given: Any) -> None:
    run = given.run("r")
    new = given.new(
        run.uid,
        "logs/ünï.log",
        b"bytes",
        location=Location("b", "k/ünï", "version"),
        expires_at=given.seen().created_at + timedelta(microseconds=7),
        origin="manager:artifacts",
    )
    [recorded] = given.artifacts([new])
    with given.index.read() as tx:
        assert artifacts.get(tx, new.id) == recorded
        assert artifacts.current(tx, run.uid, new.name) == recorded
        assert artifacts.history(tx, run.uid, limit=10) == [recorded]
        assert artifacts.newest_current(tx, run.uid, 10) == [recorded]
        assert artifacts.get(tx, uuid4()) is None
    for field in ("id", "run_uid", "name", "type", "content_type", "size_bytes", "sha256", "location"):
        assert getattr(recorded, field) == getattr(new, field)
    assert (recorded.expires_at, recorded.origin) == (new.expires_at, new.origin)
    assert (recorded.namespace, recorded.run_name) == ("agents", "r")
    assert (recorded.seq, recorded.current, recorded.state) == (1, True, State.STORED)


def test_the_newest_version_is_current(given: Any) -> None:
    run = given.run()
    first, _, other = given.artifacts([given.new(run.uid, name, name.encode()) for name in ("a", "b", "c")])
    second = given.artifact(run.uid, "a", b"again")
    with given.index.read() as tx:
        assert artifacts.current(tx, run.uid, "a") == second
        versions = artifacts.versions(tx, run.uid, "a")
        assert [artifact.id for artifact in versions] == [second.id, first.id]
        assert [artifact.current for artifact in versions] == [True, False]
        assert [artifact.id for artifact in artifacts.newest_current(tx, run.uid, 2)] == [second.id, other.id]
        assert artifacts.current(tx, run.uid, "A") is None


def test_the_current_versions_of_many_names_in_the_newest_incarnations(given: Any) -> None:
    older = given.run("again")
    given.artifacts([given.new(older.uid, name) for name in ("a", "only before")])
    newer, other = given.run("again"), given.run("again", namespace="elsewhere")
    given.artifacts([given.new(run.uid, "a", b"first") for run in (newer, other)])
    second = given.artifact(newer.uid, "a", b"second")
    ended, kept = given.artifacts([given.new(newer.uid, name) for name in ("ended", "it's [ünï], {a}")])
    wanted = [
        ("agents", "again", "a"),
        ("elsewhere", "again", "a"),
        ("agents", "again", kept.name),
        ("agents", "again", "only before"),
        ("agents", "again", "ended"),
        ("agents", "again", "never"),
        ("agents", "again", "nothing\0"),
        ("agents", "nobody", "a"),
    ]
    with given.index.begin() as tx:
        sweeping.tombstone(tx, [ended.id], state=State.DELETED, by="token:t")
        found = artifacts.currents(tx, wanted)
        assert artifacts.currents(tx, []) == {}
    assert {name: artifact.id for name, artifact in found.items() if name != wanted[1]} == {
        wanted[0]: second.id,
        wanted[2]: kept.id,
    }
    assert found[wanted[1]].run_uid == other.uid


@pytest.fixture
def full(given: Any) -> Any:
    """A run with 40 artifacts of several names and types, some ended; and a neighbour."""
    run = given.run("full")
    neighbour = given.run("neighbour")
    for number in range(40):
        given.artifact(
            run.uid,
            f"{'ab'[number % 2]}/{number % 7}",
            bytes([number]),
            type=("log", "diff", "report")[number % 3],
        )
    given.artifact(neighbour.uid, "a/1", type="log")
    with given.index.begin() as tx:
        everything = artifacts.history(tx, run.uid, limit=100)
        sweeping.tombstone(
            tx, [artifact.id for artifact in everything[::4]], state=State.EXPIRED, by="rule:r"
        )
    return run


FILTERS: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
    ({}, lambda _: True),
    ({"type": "log"}, lambda artifact: artifact.type == "log"),
    ({"state": State.EXPIRED}, lambda artifact: artifact.state is State.EXPIRED),
    ({"state": State.LOST}, lambda _: False),
    ({"name_glob": "a/*"}, lambda artifact: artifact.name.startswith("a/")),
    (
        {"name_glob": "?/[1-3]", "state": State.STORED, "type": "diff"},
        lambda artifact: (
            artifact.name[2] in "123" and artifact.state is State.STORED and artifact.type == "diff"
        ),
    ),
]


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(("filters", "wanted"), FILTERS)
def test_history_gives_every_matching_artifact_once(
    given: Any, full: Any, filters: dict[str, Any], wanted: Callable[[Any], bool], order: Any
) -> None:
    with given.index.read() as tx:
        everything = artifacts.history(tx, full.uid, order=order, limit=1000)
        assert [artifact.seq for artifact in everything] == sorted(
            (artifact.seq for artifact in everything), reverse=order == "newest"
        )
        assert len(everything) == 40
        found = []
        after = None
        while page := artifacts.history(tx, full.uid, **filters, order=order, after=after, limit=7):
            assert len(page) <= 7
            found += page
            after = page[-1].seq
    assert found == [artifact for artifact in everything if wanted(artifact)]


def test_history_between_two_times(given: Any) -> None:
    run = given.run()
    first, second, third = (given.artifact(run.uid, name) for name in "abc")

    def names(since: datetime | None = None, until: datetime | None = None) -> list[str]:
        with given.index.read() as tx:
            return [a.name for a in artifacts.history(tx, run.uid, since=since, until=until, limit=10)]

    assert names(since=second.created_at) == ["c", "b"]
    assert names(until=second.created_at) == ["a"]
    assert names(since=second.created_at, until=third.created_at) == ["b"]
    assert names(since=third.created_at + timedelta(microseconds=1)) == []
    assert names(until=first.created_at) == []


def test_history_stays_when_the_run_is_deleted(given: Any, full: Any) -> None:
    with given.index.begin() as tx:
        runs.mark_deleted(tx, full.uid)
        assert len(artifacts.history(tx, full.uid, limit=100)) == 40


def test_ids_are_known_until_their_bytes_are_erased(given: Any) -> None:
    run = given.run()
    stored, ended, erased, lost = (given.artifact(run.uid, name).id for name in "abcd")
    strangers = [uuid4() for _ in range(1100)]
    with given.index.begin() as tx:
        sweeping.tombstone(tx, [ended, erased], state=State.DELETED, by="token:t")
        sweeping.erased(tx, [erased, stored])
        artifacts.mark_lost(tx, lost)
        sweeping.erased(tx, [lost])
        assert artifacts.known_ids(tx, [*strangers, stored, ended, erased, lost]) == {stored, ended, lost}
        assert artifacts.known_ids(tx, []) == set()
        assert artifacts.erased_ids(tx, [*strangers, stored, ended, erased, lost]) == {erased}


def test_what_is_stored_is_found_by_the_beginning_of_its_key(given: Any) -> None:
    run = given.run()
    ended, stored = (
        given.new(run.uid, name, location=Location("b", f"Team_1/{name}/x")) for name in ("ended", "stored")
    )
    given.artifacts([ended, stored])
    with given.index.begin() as tx:
        sweeping.tombstone(tx, [ended.id], state=State.DELETED, by="token:t")
    with given.index.read() as tx:
        found = [
            (bucket, start)
            for bucket in ("b", "other")
            for start in ("", "Team_1/", "team_1/", "TeamX1/", "Team_1/ended/", "Team_1/stored/x")
            if artifacts.are_stored_under(tx, bucket, start)
        ]
    assert found == [("b", ""), ("b", "Team_1/"), ("b", "Team_1/stored/x")]


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 5])
def test_what_is_stored_is_looked_for_some_rows_at_a_time(
    given: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("offload.index.artifacts._ROWS_AT_ONCE", at_once)
    run = given.run()
    new = [given.new(run.uid, f"{n}", id=UUID(int=n), location=Location("b", f"{n}/x")) for n in range(1, 5)]
    with given.index.read() as tx:
        assert not artifacts.are_stored_under(tx, "b", "")
    given.artifacts(new)
    with given.index.read() as tx:
        assert all(artifacts.are_stored_under(tx, "b", f"{n}/") for n in range(1, 5))
        assert not artifacts.are_stored_under(tx, "b", "5/")


def test_a_lost_artifact_is_a_tombstone_whose_bytes_are_never_erased(given: Any) -> None:
    run = given.run()
    before = given.artifact(run.uid, "a", b"1")
    lost = given.artifact(run.uid, "a", b"2")
    with given.index.begin() as tx:
        artifacts.mark_lost(tx, lost.id)
        tombstone = artifacts.get(tx, lost.id)
        assert tombstone is not None
        assert (tombstone.state, tombstone.ended_by, tombstone.current) == (State.LOST, "store", False)
        assert tombstone.ended_at is not None
        current = artifacts.current(tx, run.uid, "a")
        assert current is not None
        assert current.id == before.id
        runs.mark_deleted(tx, run.uid)
        assert sweeping.erasable(tx, 10) == []
        artifacts.mark_lost(tx, lost.id)
        assert artifacts.get(tx, lost.id) == tombstone


# Name of the index, the query, and whether the index gives the order too.
PLANS: list[tuple[str, Callable[[sa.Connection, str], object], bool]] = [
    ("uq_artifacts_run_uid_seq", lambda tx, uid: artifacts.history(tx, uid, after=5, limit=10), True),
    ("ix_artifacts_type", lambda tx, uid: artifacts.history(tx, uid, type="log", after=5, limit=10), True),
    ("ix_artifacts_state", lambda tx, uid: artifacts.history(tx, uid, state=State.LOST, limit=10), True),
    ("ix_artifacts_name", lambda tx, uid: artifacts.history(tx, uid, name_glob="17*", limit=10), False),
    ("ix_artifacts_name", lambda tx, uid: artifacts.versions(tx, uid, "17"), True),
    ("ix_artifacts_name", lambda tx, uid: artifacts.versions_by_name(tx, uid, ["17", "18"]), False),
    (
        "ix_artifacts_created_at",
        lambda tx, uid: artifacts.history(tx, uid, since=LONG_AGO, until=LONG_AGO, limit=10),
        False,
    ),
    ("uq_artifacts_current", lambda tx, uid: artifacts.current(tx, uid, "17"), True),
    ("uq_artifacts_current", lambda tx, _: artifacts.currents(tx, [("agents", "full", "17")]), False),
    ("ix_runs_name", lambda tx, _: artifacts.currents(tx, [("agents", "full", "17")]), False),
    ("ix_artifacts_current", lambda tx, uid: artifacts.newest_current(tx, uid, 50), True),
    ("ix_artifacts_erasable", lambda tx, _: sweeping.erasable(tx, 10), False),
    ("ix_runs_name", lambda tx, _: runs.find(tx, "agents", "full"), False),
    ("ix_runs_page", lambda tx, _: runs.page(tx, "agents", limit=10), True),
    ("ix_runs_page_agent", lambda tx, _: runs.page(tx, "agents", agent="a", limit=10), True),
    ("ix_runs_page_phase", lambda tx, _: runs.page(tx, "agents", phase="Failed", limit=10), True),
    (
        "ix_runs_page_live",
        lambda tx, _: runs.page(tx, "agents", deleted=False, after=(LONG_AGO, "u"), limit=10),
        True,
    ),
    ("ix_runs_page_deleted", lambda tx, _: runs.page(tx, "agents", deleted=True, limit=10), True),
    ("ix_runs_dirty", lambda tx, _: publishing.oldest_dirty(tx), True),
    ("ix_runs_dirty", lambda tx, _: publishing.claim(tx, holder="h", limit=9, lease=timedelta(0)), False),
]


def test_every_offered_filter_and_order_is_answered_from_an_index(given: Any) -> None:
    index: Index = given.index
    run = given.run("full")
    batch = [
        given.new(run.uid, f"{number % 1000}", bytes([number % 250]), type=f"t{number % 9}")
        for number in range(2000)
    ]
    ended = given.artifacts(batch)[::100]
    with index.begin() as tx:
        for number in range(500):
            runs.observe(tx, given.seen(agent=f"a{number % 9}", phase=f"p{number % 9}"))
        sweeping.tombstone(tx, [artifact.id for artifact in ended], state=State.EXPIRED, by="rule:r")
        tx.exec_driver_sql("ANALYZE")
    for name, query, in_order in PLANS:
        plan = _plan(index, lambda tx, query=query: query(tx, run.uid))
        assert re.search(rf"\b{name}\b", plan), f"{name} is not used:\n{plan}"
        if in_order:
            assert not re.search(r"SCAN (runs|artifacts)(?! USING)|Seq Scan|Sort|TEMP B-TREE", plan), plan


def _plan(index: Index, query: Callable[[sa.Connection], object]) -> str:
    statements = []

    def capture(*execution: Any) -> None:
        _, _, statement, parameters, *_ = execution
        if statement.startswith(("SELECT", "WITH")):
            statements.append((statement, parameters))

    with index.begin() as tx:
        sa.event.listen(tx, "before_cursor_execute", capture)
        query(tx)
        sa.event.remove(tx, "before_cursor_execute", capture)
        explain = "EXPLAIN QUERY PLAN "
        if tx.dialect.name == "postgresql":
            explain = "EXPLAIN "
            # Tables this small are quicker read whole: what matters is that the index could serve.
            tx.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = "\n".join(
            str(row)
            for statement, parameters in statements
            for row in tx.exec_driver_sql(explain + statement, parameters)
        )
    # SQLite shows a constraint's index by number.
    return plan.replace("sqlite_autoindex_artifacts_2", "uq_artifacts_run_uid_seq")
