"""Transactions on PostgreSQL that want the locks of several runs, in orders of their own.

- two batches of the watch in opposite orders: of new runs, of known ones, of names taken again, of deletions
- a batch of the watch and one of the recorder
- failed runs that are to be tried again, and a transaction that has some of their rows
- an artifact for a run whose row another transaction has
- two sweeps that saw the same bytes deleted

None of them waits for another in a circle, which PostgreSQL would end after a second; and what has waited is
dated after what it waited for.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from offload.domain.artifact import Artifact, State
from offload.domain.run import SeenRun
from offload.index import Index, clock, dirty, publishing, runs, sweeping
from offload.index import schema as tables
from offload.index.recording import record_all

pytestmark = pytest.mark.parametrize("url", ["postgresql"], indirect=True)

PAUSE = 0.3
"""Seconds in which another transaction comes to where it waits."""


class Batch:
    """A batch of the watch that is half through while another transaction begins."""

    def __init__(self, index: Index) -> None:
        self._index, self.half = index, threading.Event()

    def observe(self, seen: Sequence[SeenRun], gone: Sequence[str] = ()) -> None:
        with self._index.begin() as tx:
            runs.lock(tx, seen, gone)
            for number, one in enumerate(seen):
                runs.observe(tx, one)
                if number == len(seen) // 2 - 1:
                    self.half.set()
                    threading.Event().wait(PAUSE)
            for uid in gone:
                runs.mark_deleted(tx, uid)


def test_a_batch_may_hold_deletions_alone(given: Any) -> None:
    gone = [given.run(name).uid for name in ("a", "b")]
    with given.index.begin() as tx:
        runs.lock(tx, [], gone)
        for uid in gone:
            runs.mark_deleted(tx, uid)
    with given.index.read() as tx:
        assert all(runs.get(tx, uid).deleted_at for uid in gone)


def test_what_observing_would_not_change_is_answered(given: Any) -> None:
    same, newer, taken, gone = (given.seen(uid=letter, name=letter) for letter in "abcd")
    with given.index.begin() as tx:
        known = {one.uid: runs.observe(tx, one) for one in (same, newer, taken, gone)}
    echo = replace(same, resource_version="900")
    changed = replace(newer, resource_version="900", phase="Running")
    again = given.seen(uid="e", name="c", created_at=taken.created_at + timedelta(seconds=1))
    with given.index.begin() as tx:
        seen = [echo, newer, changed, taken, again, gone]
        assert runs.lock(tx, seen, ["d"]) == {"a": known["a"]}
        assert runs.observe(tx, echo) == known["a"]


def test_an_artifact_that_waited_for_its_run_is_dated_after_what_it_waited_for(given: Any) -> None:
    runs_of_both = [given.run(uid=uid).uid for uid in ("a", "z")]
    half, let_go, batch = threading.Event(), list[datetime](), list[Artifact]()

    def have_the_last_one() -> None:
        with given.index.begin() as tx:
            dirty.lock(tx, ["z"], (tables.runs.c.uid,))
            half.set()
            threading.Event().wait(PAUSE)
            let_go.append(clock.now(tx))

    def record() -> None:
        half.wait()
        batch.extend(given.artifacts([given.new(uid, "log") for uid in runs_of_both]))

    at_once(have_the_last_one, record)
    assert all(artifact.created_at > let_go[0] for artifact in batch)


def at_once(*actions: Callable[[], object]) -> None:
    """Do them in threads, and raise what any raises."""
    with ThreadPoolExecutor(len(actions)) as threads:
        for done in [threads.submit(action) for action in actions]:
            done.result()


@pytest.mark.parametrize("known", [False, True])
def test_batches_in_opposite_orders_are_kept_one_after_the_other(given: Any, known: bool) -> None:
    seen = [given.seen(uid=f"{letter}-{number}") for letter in "ab" for number in range(5)]
    if known:
        with given.index.begin() as tx:
            for one in seen:
                runs.observe(tx, one)
    news = [replace(one, phase="Running", resource_version="1000") for one in seen]
    at_once(
        lambda: Batch(given.index).observe(news),
        lambda: Batch(given.index).observe(news[::-1]),
    )
    assert {given.get_run(one.uid).phase for one in seen} == {"Running"}


def test_names_that_were_taken_again_are_kept_in_any_order(given: Any) -> None:
    before = [given.run(name, uid=f"{uid}-before").uid for name, uid in (("x", "1"), ("y", "0"))]
    again = [given.seen(name, uid=f"{name}-again") for name in ("x", "y")]
    at_once(
        lambda: Batch(given.index).observe(again, before[::-1]),
        lambda: Batch(given.index).observe(again[::-1], before),
    )
    assert all(given.get_run(uid).deleted_at for uid in before)
    assert not any(given.get_run(one.uid).deleted_at for one in again)


def test_a_batch_of_the_watch_and_one_of_the_recorder_are_kept(given: Any) -> None:
    first, last = given.seen(uid="a"), given.seen(uid="z")
    for one in (first, last):
        given.run(one.name, uid=one.uid, created_at=one.created_at)
    news = [replace(one, phase="Running", resource_version="1000") for one in (last, first)]
    batch = Batch(given.index)

    def record() -> None:
        batch.half.wait()
        with given.index.begin() as tx:
            record_all(
                tx, [given.new("a", "log"), given.new("z", "log")], grace=timedelta(hours=1), again=False
            )

    at_once(lambda: batch.observe(news), record)
    for one in news:
        run = given.get_run(one.uid)
        assert (run.phase, run.total_count) == ("Running", 1)


def test_failed_runs_are_tried_again_whoever_has_some_of_them(given: Any) -> None:
    for uid in ("z", "a"):
        given.run(uid=uid)
        given.artifact(uid, "log")
    with given.index.begin() as tx:
        for run in publishing.claim(tx, holder="h", limit=2, lease=timedelta(minutes=1)):
            publishing.failed(tx, run.uid, holder="h", error="why", retry_in=timedelta(minutes=1))
    half = threading.Event()

    def lock_both() -> None:
        with given.index.begin() as tx:
            for uid in ("a", "z"):
                dirty.lock(tx, [uid], (tables.runs.c.uid,))
                half.set()
                threading.Event().wait(PAUSE)

    def try_again() -> None:
        half.wait()
        with given.index.begin() as tx:
            publishing.try_again(tx, None)

    at_once(lock_both, try_again)
    with given.index.begin() as tx:
        assert len(publishing.claim(tx, holder="h", limit=2, lease=timedelta(minutes=1))) == 2


def test_two_sweeps_say_of_the_same_artifacts_that_they_are_erased(given: Any) -> None:
    first, last = ids = [UUID(int=number) for number in (1, 2)]
    run = given.run()
    for one in (last, first):
        given.artifact(run.uid, str(one), id=one)
    with given.index.begin() as tx:
        sweeping.tombstone(tx, ids, state=State.EXPIRED, by="rule:r")
    half = threading.Event()

    def one_after_the_other() -> None:
        with given.index.begin() as tx:
            for one in ids:
                sweeping.erased(tx, [one])
                half.set()
                threading.Event().wait(PAUSE)

    def both() -> None:
        half.wait()
        with given.index.begin() as tx:
            sweeping.erased(tx, ids)

    at_once(one_after_the_other, both)
    with given.index.read() as tx:
        assert sweeping.unerased_count(tx) == 0
