"""Claims and what comes of them.

- a change makes a run dirty, a publish of that revision makes it clean, one of an older revision does not
- a claim is exclusive, also among many at once, and lapses with its lease
- urgent first: ended or never published, then the longest dirty; or by age, by turn, apart from namespaces
- a renewed claim lives on; one that was lost does not come back
- a claim keeps to its namespaces, to the next attempt's time, and off deleted runs
- who lost a claim changes nothing
- failures are kept and counted until a publish succeeds
- a namespace that is open again has its failed runs tried at once
- touching marks for another look
"""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from offload.domain.run import Run
from offload.index import Index, publishing, runs

MINUTE = timedelta(minutes=1)
NOW = timedelta(0)


def claim(
    index: Index, holder: str = "h", limit: int = 10, lease: timedelta = MINUTE, **more: Any
) -> list[Run]:
    with index.begin() as tx:
        return publishing.claim(tx, holder=holder, limit=limit, lease=lease, **more)


def renew(index: Index, uids: list[str], holder: str, lease: timedelta = MINUTE) -> None:
    with index.begin() as tx:
        publishing.renew(tx, uids, holder=holder, lease=lease)


def publish(index: Index, run: Run, holder: str = "h", not_before: timedelta = NOW, listed: int = 1) -> bool:
    with index.begin() as tx:
        return publishing.published(
            tx, run.uid, holder=holder, revision=run.revision, listed_count=listed, not_before=not_before
        )


def fail(index: Index, run: Run, holder: str = "h", retry_in: timedelta = NOW) -> bool:
    with index.begin() as tx:
        return publishing.failed(tx, run.uid, holder=holder, error="why", retry_in=retry_in)


def test_a_change_makes_a_run_dirty_and_its_publish_clean(given: Any) -> None:
    run = given.run()
    assert claim(given.index) == []
    artifact = given.artifact(run.uid, "a")
    [claimed] = claim(given.index)
    assert claimed.revision == artifact.seq == 1
    assert claimed.dirty_since == artifact.created_at
    assert publish(given.index, claimed, listed=1) is True
    after = given.get_run(run.uid)
    assert (after.published_revision, after.listed_count, after.dirty_since) == (1, 1, None)
    assert after.published_at is not None
    assert claim(given.index) == []


def test_a_change_during_a_publish_leaves_the_run_dirty(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    [claimed] = claim(given.index)
    given.artifact(run.uid, "b")
    publish(given.index, claimed)
    after = given.get_run(run.uid)
    assert (after.revision, after.published_revision) == (2, 1)
    assert after.dirty_since is not None
    [again] = claim(given.index)
    assert again.revision == 2


def test_no_run_is_claimed_twice_at_once(given: Any) -> None:
    uids = [given.run().uid for _ in range(60)]
    for uid in uids:
        given.artifact(uid, "a")

    def take_all(holder: str) -> list[str]:
        mine: list[str] = []
        while got := claim(given.index, holder, limit=3):
            mine += [run.uid for run in got]
        return mine

    with ThreadPoolExecutor(4) as threads:
        taken = [uid for mine in threads.map(take_all, "wxyz") for uid in mine]
    assert sorted(taken) == uids


def test_a_claim_lapses_with_its_lease(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    [dead] = claim(given.index, "dead")
    assert claim(given.index, "alive") == []
    assert claim(given.index, "dead") == []
    renew(given.index, [run.uid], "dead", lease=timedelta(milliseconds=300))
    until = time.monotonic() + 10
    while not (taken := claim(given.index, "alive")):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert [run.uid for run in taken] == [run.uid]
    assert publish(given.index, dead, "dead") is False
    assert fail(given.index, dead, "dead") is False
    assert given.get_run(run.uid).published_revision == 0
    assert publish(given.index, taken[0], "alive") is True


def test_a_renewed_claim_lives_on_and_a_lost_one_stays_lost(given: Any) -> None:
    renewed, other = given.run(), given.run()
    for run in (renewed, other):
        given.artifact(run.uid, "a")
    assert len(claim(given.index, "first", lease=-MINUTE)) == 2
    renew(given.index, [renewed.uid], "first")
    assert [run.uid for run in claim(given.index, "second")] == [other.uid]
    renew(given.index, [renewed.uid, other.uid], "first", lease=-MINUTE)
    assert [run.uid for run in claim(given.index, "third")] == [renewed.uid]


def test_a_lapsed_claim_that_nobody_took_still_counts(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    [claimed] = claim(given.index, lease=-MINUTE)
    assert publish(given.index, claimed) is True


def test_urgent_runs_come_first_then_the_longest_dirty(given: Any) -> None:
    calm = [given.run(phase="Running") for _ in range(3)]
    for run in calm:
        given.artifact(run.uid, "a")
    for run in claim(given.index):
        publish(given.index, run)
    order = [calm[2], calm[0], calm[1]]
    for run in order:
        given.artifact(run.uid, "b")
    new = given.run(phase="Running")
    given.artifact(new.uid, "a")
    given.run(calm[1].name, uid=calm[1].uid, phase="Failed", resource_version="100")
    given.run(calm[0].name, uid=calm[0].uid, finished_at=calm[0].created_at, resource_version="100")
    claimed = [claim(given.index, limit=1)[0].uid for _ in range(4)]
    assert claimed == [calm[0].uid, calm[1].uid, new.uid, calm[2].uid]


def test_a_claim_keeps_to_its_namespaces(given: Any) -> None:
    here, there = given.run(namespace="here"), given.run(namespace="there")
    given.artifact(here.uid, "a")
    given.artifact(there.uid, "a")
    assert [run.uid for run in claim(given.index, namespaces=["there", "nowhere"])] == [there.uid]
    assert [run.uid for run in claim(given.index)] == [here.uid]


def test_the_next_publish_waits_for_its_time(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    [claimed] = claim(given.index)
    began = time.monotonic()
    publish(given.index, claimed, not_before=timedelta(milliseconds=300))
    given.artifact(run.uid, "b")
    while not claim(given.index):
        assert time.monotonic() - began < 10
        time.sleep(0.02)
    assert time.monotonic() - began >= 0.3


def test_failures_are_counted_until_a_publish_succeeds(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    for count in (1, 2):
        [claimed] = claim(given.index)
        assert fail(given.index, claimed) is True
        after = given.get_run(run.uid)
        assert (after.publish_error, after.publish_failures, after.published_revision) == ("why", count, 0)
    [claimed] = claim(given.index)
    publish(given.index, claimed)
    after = given.get_run(run.uid)
    assert (after.publish_error, after.publish_failures) == (None, 0)
    given.artifact(run.uid, "b")
    [claimed] = claim(given.index)
    fail(given.index, claimed, retry_in=MINUTE)
    assert claim(given.index) == []


def test_a_namespace_that_is_open_again_has_its_failed_runs_tried_at_once(given: Any) -> None:
    closed, other = given.run(namespace="closed"), given.run(namespace="other")
    for run in (closed, other):
        given.artifact(run.uid, "a")
    for run in claim(given.index):
        assert fail(given.index, run, retry_in=MINUTE)
    assert claim(given.index) == []
    with given.index.begin() as tx:
        publishing.try_again(tx, "closed")
    assert [run.uid for run in claim(given.index)] == [closed.uid]
    with given.index.begin() as tx:
        publishing.try_again(tx, None)
    assert [run.uid for run in claim(given.index)] == [other.uid]


def test_touching_marks_for_another_look(given: Any) -> None:
    run = given.run()
    with given.index.begin() as tx:
        publishing.touch(tx, run.uid)
        publishing.touch(tx, "unknown")
        assert publishing.dirty_count(tx) == 1
        first = publishing.oldest_dirty(tx)
        publishing.touch(tx, run.uid)
        assert publishing.oldest_dirty(tx) == first
    [claimed] = claim(given.index)
    assert (claimed.revision, claimed.dirty_since) == (2, first)


def test_who_waits_is_told_of_the_namespaces_that_are_asked_for(given: Any) -> None:
    here, elsewhere = given.run(namespace="here"), given.run(namespace="elsewhere")
    for run in (elsewhere, here):
        given.artifact(run.uid, "a")
    with given.index.read() as tx:
        since = [given.get_run(run.uid).dirty_since for run in (here, elsewhere)]
        asked = ("here",), ("elsewhere",), ("here", "elsewhere"), (), ("nowhere",)
        oldest = [publishing.oldest_dirty(tx, namespaces) for namespaces in asked]
        assert oldest == [*since, since[1], since[1], None]
        assert [publishing.dirty_count(tx, namespaces) for namespaces in asked] == [1, 1, 2, 2, 0]


def test_a_deleted_run_is_not_claimed(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    with given.index.begin() as tx:
        runs.mark_deleted(tx, run.uid)
    assert claim(given.index) == []


@pytest.mark.parametrize("error", ["a\0b", "x" * 5000])
def test_any_error_text_can_be_kept(given: Any, error: str) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    claim(given.index)
    with given.index.begin() as tx:
        publishing.failed(tx, run.uid, holder="h", error=error, retry_in=NOW)
    kept = given.get_run(run.uid).publish_error
    assert kept == error.replace("\0", "")[: publishing.ERROR_LENGTH]


def test_a_claim_may_go_by_age_or_by_turn_and_leave_namespaces_out(given: Any) -> None:
    old, urgent, other = given.run(phase="Running"), given.run(), given.run(namespace="other")
    given.artifact(old.uid, "a")
    [run] = claim(given.index)
    publish(given.index, run)
    for run in (old, urgent, other):
        given.artifact(run.uid, "b")
    lease = timedelta(0)

    def first(**more: Any) -> str:
        return claim(given.index, limit=1, lease=lease, **more)[0].uid

    assert first() == urgent.uid
    assert first(order="age") == old.uid
    assert first(apart_from=["other"]) == urgent.uid
    assert {run.uid for run in claim(given.index, lease=lease, apart_from=["other"])} == {urgent.uid, old.uid}
    # What was tried last has its turn last.
    for _ in range(2):
        [run] = claim(given.index, limit=1, lease=MINUTE, order="turn")
        fail(given.index, run)
        assert run.uid != other.uid
    assert first(order="turn") == other.uid


def test_a_failure_that_does_not_count_makes_no_later_pause_longer(given: Any) -> None:
    run = given.run()
    given.artifact(run.uid, "a")
    [claimed] = claim(given.index)
    with given.index.begin() as tx:
        publishing.failed(tx, claimed.uid, holder="h", error="away", retry_in=NOW, counts=False)
    after = given.get_run(run.uid)
    assert (after.publish_error, after.publish_failures) == ("away", 0)
