"""Runs in the index.

- observed: added once, updated, read back as it was seen; an older resourceVersion changes nothing
- incarnations: an older one becomes deleted, a late view of an older one starts deleted, a deleted one stays
  so and makes none deleted that comes after it; which is older, by clocks that differ and after a restore
- found by name: the newest; by name and uid: that one, or none where the uid never had the name
- two incarnations observed at once leave one that lives
- lists: runs that are missing from one become deleted, those of other namespaces and later ones do not
- pages: newest first, by each filter, through equal creation times, without gaps or repeats
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from offload.index import Index, artifacts, clock, publishing, runs


def test_a_run_reads_back_as_it_was_seen(given: Any) -> None:
    seen = given.seen(
        labels={"app": "a", "ünï": "✓"}, agent="coder", phase="Running", finished_at=given.seen().created_at
    )
    with given.index.begin() as tx:
        runs.observe(tx, seen)
    run = given.get_run(seen.uid)
    for field in ("uid", "namespace", "name", "created_at", "labels", "agent", "phase", "finished_at"):
        assert getattr(run, field) == getattr(seen, field)
    assert run.deleted_at is None
    assert (run.revision, run.dirty_since, run.total_count) == (0, None, 0)


def test_a_later_view_updates_and_an_earlier_one_does_not(given: Any) -> None:
    given.run("r", uid="u", phase="Pending", resource_version="10")
    assert (
        given.run("r", uid="u", phase="Succeeded", resource_version="12", labels={"a": "b"}).phase
        == "Succeeded"
    )
    late = given.run("r", uid="u", phase="Running", resource_version="11")
    assert (late.phase, late.labels) == ("Succeeded", {"a": "b"})
    assert given.run("r", uid="u", phase="Cancelled", resource_version="not a number").phase == "Succeeded"


def test_what_is_not_seen_any_more_is_forgotten(given: Any) -> None:
    given.run("r", uid="u", phase="Running", agent="coder", labels={"a": "b"}, resource_version="1")
    run = given.run("r", uid="u", resource_version="2")
    assert (run.phase, run.agent, run.labels) == (None, None, {})


def test_a_new_incarnation_ends_the_older_one(given: Any) -> None:
    older = given.run("r")
    newer = given.run("r")
    assert given.get_run(older.uid).deleted_at is not None
    assert newer.deleted_at is None
    with given.index.read() as tx:
        assert runs.find(tx, "agents", "r") == newer
        assert runs.find(tx, "agents", "r", older.uid) == given.get_run(older.uid)
        assert runs.find(tx, "agents", "other", older.uid) is None
        assert runs.find(tx, "elsewhere", "r") is None
        assert runs.get(tx, "unknown") is None


def test_incarnations_of_one_second_are_told_apart_by_resource_version(given: Any) -> None:
    second = given.seen().created_at
    newer = given.run("r", created_at=second, resource_version="20")
    older = given.run("r", created_at=second, resource_version="10")
    assert older.deleted_at is not None
    assert given.get_run(newer.uid).deleted_at is None
    with given.index.read() as tx:
        assert runs.find(tx, "agents", "r") == newer


def test_a_run_lives_though_its_deleted_predecessor_was_created_by_a_clock_that_is_ahead(given: Any) -> None:
    second = given.seen().created_at
    before = given.run("r", created_at=second + timedelta(seconds=5))
    with given.index.begin() as tx:
        runs.mark_deleted(tx, before.uid)
    after = given.run("r", created_at=second + timedelta(seconds=4))
    assert after.deleted_at is None
    artifact = given.artifact(after.uid, "log")
    with given.index.read() as tx:
        assert runs.find(tx, "agents", "r").uid == after.uid
        assert artifacts.currents(tx, [("agents", "r", "log")]) == {("agents", "r", "log"): artifact}
    again = given.run("r", created_at=second + timedelta(seconds=3))
    assert again.deleted_at is None
    assert given.get_run(after.uid).deleted_at is not None
    last = given.artifact(again.uid, "log")
    with given.index.begin() as tx:
        runs.mark_deleted(tx, again.uid)
        assert runs.find(tx, "agents", "r").uid == again.uid
        assert artifacts.currents(tx, [("agents", "r", "log")]) == {("agents", "r", "log"): last}


def test_of_two_that_seem_to_live_the_one_of_the_higher_resource_version_came_later(given: Any) -> None:
    """Clocks of API servers are seconds apart, and of the older one's deletion was not heard yet."""
    second = given.seen().created_at
    before = given.run("r", created_at=second + timedelta(seconds=5), resource_version="10")
    unheard = given.seen("r", created_at=second + timedelta(seconds=6), resource_version="11")
    after = given.run("r", created_at=second + timedelta(seconds=4), resource_version="20")
    echo = given.run("r", uid=before.uid, created_at=before.created_at, phase="Failed", resource_version="12")
    assert (echo.deleted_at is not None, echo.phase) == (True, None)
    with given.index.begin() as tx:
        assert runs.observe(tx, unheard).deleted_at is not None
        assert runs.find(tx, "agents", "r").uid == after.uid
    assert given.get_run(after.uid).deleted_at is None


def test_after_a_restore_of_etcd_the_one_that_was_created_later_came_later(given: Any) -> None:
    """Its resourceVersions are counted anew from the backup's."""
    before = given.run("r", resource_version="1000")
    after = given.run("r", created_at=before.created_at + timedelta(minutes=5), resource_version="20")
    assert after.deleted_at is None
    assert given.get_run(before.uid).deleted_at is not None


def test_a_late_view_of_an_older_incarnation_starts_deleted(given: Any) -> None:
    old = given.seen("r")
    newer = given.run("r")
    with given.index.begin() as tx:
        assert runs.observe(tx, old).deleted_at is not None
        assert runs.find(tx, "agents", "r") == newer


def test_a_deleted_run_is_never_revived(given: Any) -> None:
    run = given.run("r", phase="Running")
    with given.index.begin() as tx:
        assert runs.mark_deleted(tx, run.uid) is True
        assert runs.mark_deleted(tx, run.uid) is False
        assert runs.mark_deleted(tx, "unknown") is False
    again = given.run("r", uid=run.uid, phase="Succeeded", created_at=run.created_at)
    assert (again.deleted_at is not None, again.phase) == (True, "Running")


def test_a_deleted_run_is_not_dirty(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    with given.index.begin() as tx:
        publishing.claim(tx, holder="h", limit=1, lease=timedelta(minutes=1))
        runs.mark_deleted(tx, run.uid)
        publishing.touch(tx, run.uid)
        assert publishing.dirty_count(tx) == 0
        assert publishing.oldest_dirty(tx) is None
    given.artifact(run.uid, "last.log", newest_run_only=False)
    assert given.get_run(run.uid).dirty_since is None
    assert given.get_run(run.uid).total_count == 2


def test_incarnations_observed_at_once_leave_one_alive(given: Any) -> None:
    for round_ in range(5):
        incarnations = [given.seen(f"r{round_}") for _ in range(4)]

        def observe(seen: Any) -> None:
            with given.index.begin() as tx:
                runs.observe(tx, seen)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(observe, incarnations * 2))
        alive = [seen.uid for seen in incarnations if given.get_run(seen.uid).deleted_at is None]
        assert alive == [incarnations[-1].uid]


def test_runs_missing_from_a_list_become_deleted(given: Any) -> None:
    kept, gone, elsewhere = given.run(), given.run(), given.run(namespace="other")
    with given.index.begin() as tx:
        began = clock.now(tx)
    later = given.run()
    with given.index.begin() as tx:
        assert runs.mark_deleted_except(tx, "agents", {kept.uid}, before=began) == 1
        assert runs.mark_deleted_except(tx, "agents", {kept.uid}, before=began) == 0
    deleted = {run.uid for run in (kept, gone, elsewhere, later) if given.get_run(run.uid).deleted_at}
    assert deleted == {gone.uid}
    with given.index.begin() as tx:
        assert runs.mark_deleted_except(tx, None, {kept.uid}, before=began) == 1
    assert given.get_run(elsewhere.uid).deleted_at is not None


def test_a_list_of_thousands_is_compared_whole(given: Any) -> None:
    with given.index.begin() as tx:
        uids = [runs.observe(tx, given.seen()).uid for _ in range(1200)]
        assert (
            runs.mark_deleted_except(tx, None, uids[::2], before=clock.now(tx) + timedelta(seconds=1)) == 600
        )
        assert runs.mark_deleted_except(tx, None, [], before=clock.now(tx) + timedelta(seconds=1)) == 600


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"agent": "coder"},
        {"phase": "Failed"},
        {"deleted": True},
        {"deleted": False},
        {"agent": "coder", "phase": "Failed"},
    ],
)
def test_pages_give_every_matching_run_once_newest_first(given: Any, filters: dict[str, Any]) -> None:
    index: Index = given.index
    day = given.seen().created_at
    all_runs = [
        given.run(
            created_at=day + timedelta(seconds=number // 4),
            agent=("coder", "tester")[number % 2],
            phase=("Failed", "Succeeded", None)[number % 3],
        )
        for number in range(24)
    ]
    given.run(namespace="other", agent="coder", phase="Failed")
    with index.begin() as tx:
        for run in all_runs[::5]:
            runs.mark_deleted(tx, run.uid)
        expected = [
            run.uid
            for run in sorted(all_runs, key=lambda run: (run.created_at, run.uid), reverse=True)
            if filters.get("agent") in (None, run.agent)
            and filters.get("phase") in (None, run.phase)
            and filters.get("deleted") in (None, run in all_runs[::5])
        ]
        found: list[str] = []
        after = None
        while page := runs.page(tx, "agents", **filters, after=after, limit=3):
            assert len(page) <= 3
            found += [run.uid for run in page]
            after = (page[-1].created_at, page[-1].uid)
    assert found == expected
