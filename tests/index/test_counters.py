"""A run's counters and marks are what its rows say.

- after any sequence of operations (property)
- after many operations at once, none of which waits for another in a circle

Operations: record (new, same, only new names), end some, lose one, publish, fail, touch, save externals,
erase, delete the run.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offload.domain.artifact import State
from offload.domain.external import External
from offload.domain.run import Run
from offload.errors import OffloadError
from offload.index import Index, artifacts, externals, publishing, runs, sweeping
from offload.index.recorder import Recorder
from offload.index.recording import record_all

NOW = timedelta(0)
UPLOADS = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from([b"", b"1", b"22"]), st.booleans()
    ),
    min_size=1,
    max_size=5,
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), UPLOADS),
        st.tuples(st.just("record"), UPLOADS),
        st.tuples(st.just("end"), st.sets(st.integers(0, 15), max_size=6)),
        st.tuples(st.just("lose"), st.integers(0, 15)),
        st.tuples(st.sampled_from(["publish", "fail", "touch", "externals", "erase", "delete"]), st.none()),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_counters_and_marks_are_what_the_rows_say(given: Any, operations: list[tuple[str, Any]]) -> None:
    pair = {letter: given.run(f"{letter}") for letter in "ab"}
    for operation, argument in operations:
        apply(given, pair, operation, argument)
        for run in pair.values():
            check(given.index, given.get_run(run.uid))


def apply(  # noqa: C901 - one line an operation
    given: Any, pair: dict[str, Run], operation: str, argument: Any
) -> None:
    uid = pair["a"].uid
    with given.index.begin() as tx:
        ids = [artifact.id for run in pair.values() for artifact in artifacts.history(tx, run.uid, limit=100)]
        match operation:
            case "record":
                batch = [
                    given.new(pair[letter].uid, name, data, only_new_name=only, newest_run_only=only)
                    for letter, name, data, only in argument
                ]
                outcomes = record_all(tx, batch, grace=timedelta(hours=1), again=False)
                assert len(outcomes) == len(batch)
                assert all(isinstance(outcome, OffloadError) or outcome.artifact for outcome in outcomes)
            case "end":
                chosen = [ids[number] for number in argument if number < len(ids)]
                sweeping.tombstone(tx, chosen, state=State.EXPIRED, by="rule:r")
            case "lose":
                for artifact_id in ids[argument : argument + 1]:
                    artifacts.mark_lost(tx, artifact_id)
            case "publish" | "fail":
                for run in publishing.claim(tx, holder="h", limit=10, lease=timedelta(minutes=1)):
                    if operation == "fail":
                        publishing.failed(tx, run.uid, holder="h", error="e", retry_in=NOW)
                    else:
                        publishing.published(
                            tx,
                            run.uid,
                            holder="h",
                            revision=run.revision,
                            listed_count=0,
                            not_before=NOW,
                        )
            case "touch":
                publishing.touch(tx, uid)
            case "externals":
                externals.save(tx, uid, [External(0, "x", {})])
            case "erase":
                sweeping.erased(tx, [artifact.id for artifact in sweeping.erasable(tx, 100)])
            case "delete":
                runs.mark_deleted(tx, uid)


def check(index: Index, run: Run) -> None:
    with index.read() as tx:
        rows = artifacts.history(tx, run.uid, order="oldest", limit=1000)
        ended = tx.scalars(
            sa.text("SELECT ended_revision FROM artifacts WHERE run_uid = :uid"), {"uid": run.uid}
        ).all()
    stored = [row for row in rows if row.state is State.STORED]
    assert run.total_count == len(rows)
    assert run.stored_count == len(stored)
    assert run.stored_bytes == sum(row.size_bytes for row in stored)
    newest = {row.name: row.id for row in stored}
    assert {row.name: row.id for row in rows if row.current} == newest
    assert run.current_count == len(newest)
    assert all(row.seq <= run.revision for row in rows)
    assert all((revision or 0) <= run.revision for revision in ended)
    assert (run.dirty_since is not None) == (run.revision > run.published_revision and run.deleted_at is None)


def test_operations_at_once_neither_fail_nor_miscount(given: Any, url: str) -> None:
    uids = [given.run().uid for _ in range(6)]
    index, other = given.index, Index.connect(url)
    recorders = [Recorder(each, grace=timedelta(hours=1)) for each in (index, other)]

    def record(number: int) -> None:
        new = given.new(uids[number * 5 % 6], f"{number % 4}", bytes([number % 3]))
        recorders[number % 2].record_blocking(new)

    def end(number: int) -> None:
        with other.begin() as tx:
            found = [a.id for uid in uids for a in sweeping.stored_of(tx, uid) if a.seq % 5 == number % 5]
            sweeping.tombstone(tx, found, state=State.DELETED, by="token:t")
        with index.begin() as tx:
            sweeping.erased(tx, [artifact.id for artifact in sweeping.erasable(tx, 100)])

    def publish(number: int) -> None:
        with index.begin() as tx:
            claimed = publishing.claim(tx, holder=f"h{number}", limit=3, lease=timedelta(minutes=1))
        for run in claimed:
            with other.begin() as tx:
                publishing.published(
                    tx, run.uid, holder=f"h{number}", revision=run.revision, listed_count=0, not_before=NOW
                )

    def observe(number: int) -> None:
        with other.begin() as tx:
            runs.observe(
                tx, given.seen(uid=uids[number % 6], phase=f"{number}", resource_version=f"{number}")
            )
            publishing.touch(tx, uids[number % 6])

    with ThreadPoolExecutor(12) as threads:
        work = [
            threads.submit(operation, number)
            for number in range(40)
            for operation in (record, record, end, publish, observe)
        ]
        for each in work:
            each.result()
    for recorder in recorders:
        recorder.close()
    other.close()
    for uid in uids:
        check(index, given.get_run(uid))
