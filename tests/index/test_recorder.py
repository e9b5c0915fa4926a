"""The recorder.

- an answer means committed; callers that wait together are committed together, at most so many, and linger
- same name and bytes: one artifact, also among many at once, while its time is not over; a new name only: one
  of many at once
- refused: an unknown run, a deleted one (unless it will do), an older incarnation, bytes too old
- a row that fails, fails alone, whatever its failure
- a commit whose reply was lost is not recorded twice
- an index that is away fails every caller in time, and the recorder works on when it is back
- several recorders on the same runs leave one sequence and one current version
- a cancelled caller does not take its row along; the event loop's default executor is not used
- closing records what waits and refuses what comes
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from offload.domain.artifact import NewArtifact
from offload.errors import (
    IndexUnavailableError,
    NameExistsError,
    OffloadError,
    RunChangedError,
    ShuttingDownError,
    UploadOutlivedError,
)
from offload.index import Index, artifacts, recorder, runs
from offload.index.recorder import Recorded, Recorder

HOUR = timedelta(hours=1)


@pytest.fixture
def start(index: Index) -> Iterator[Callable[..., Recorder]]:
    started = []

    def start(index: Index = index, **options: Any) -> Recorder:
        started.append(Recorder(index, **{"grace": HOUR, **options}))
        return started[-1]

    yield start
    for each in started:
        each.close()


def record_all(recorder: Recorder, batch: list[NewArtifact]) -> list[Recorded | BaseException]:
    async def record() -> list[Recorded | BaseException]:
        return await asyncio.gather(*map(recorder.record, batch), return_exceptions=True)

    return asyncio.run(record())


def history(index: Index, uid: str) -> list[Any]:
    with index.read() as tx:
        return artifacts.history(tx, uid, order="oldest", limit=1000)


@contextmanager
def held_up(index: Index, uid: str) -> Iterator[None]:
    """Nobody else changes the run meanwhile."""
    with index.begin() as tx:
        tx.execute(sa.text("UPDATE runs SET revision = revision WHERE uid = :uid"), {"uid": uid})
        yield


def test_an_answer_means_committed(given: Any, start: Any) -> None:
    run = given.run()
    recorded = start().record_blocking(given.new(run.uid, "a", b"1"))
    assert recorded.created is True
    assert history(given.index, run.uid) == [recorded.artifact]
    after = given.get_run(run.uid)
    assert (after.stored_count, after.stored_bytes, after.total_count, after.current_count) == (1, 1, 1, 1)
    assert (after.revision, after.dirty_since) == (1, recorded.artifact.created_at)


def test_what_waits_together_is_committed_together(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start()
    with ThreadPoolExecutor(50) as threads:
        with held_up(given.index, run.uid):
            answers = [
                threads.submit(recorder.record_blocking, given.new(run.uid, f"{n}")) for n in range(50)
            ]
            time.sleep(1)
        assert all(answer.result().created for answer in answers)
    found = history(given.index, run.uid)
    assert [artifact.seq for artifact in found] == list(range(1, 51))
    assert len({artifact.created_at for artifact in found}) <= 3


def test_a_batch_has_a_largest_size(given: Any, start: Any) -> None:
    run = given.run()
    outcomes = record_all(
        start(largest_batch=10, linger=1.0), [given.new(run.uid, f"{n}") for n in range(40)]
    )
    assert len(outcomes) == 40
    batches = [artifact.created_at for artifact in history(given.index, run.uid)]
    assert {batches.count(moment) for moment in batches} == {10}


def test_a_batch_lingers_for_what_comes(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start(linger=10.0, largest_batch=2)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(recorder.record_blocking, given.new(run.uid, "a"))
        time.sleep(0.05)
        second = threads.submit(recorder.record_blocking, given.new(run.uid, "b"))
        assert first.result().artifact.created_at == second.result().artifact.created_at


def test_the_current_bytes_again_are_the_same_artifact(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start()
    first = recorder.record_blocking(given.new(run.uid, "a", b"A"))
    again = recorder.record_blocking(given.new(run.uid, "a", b"A"))
    assert (again.created, again.artifact) == (False, first.artifact)
    recorder.record_blocking(given.new(run.uid, "a", b"B"))
    third = recorder.record_blocking(given.new(run.uid, "a", b"A"))
    assert third.created is True
    assert [artifact.current for artifact in history(given.index, run.uid)] == [False, False, True]
    assert given.get_run(run.uid).current_count == 1


def test_bytes_whose_time_is_over_are_recorded_anew(given: Any, start: Any) -> None:
    """The next sweep ends the version that they have, and who sent them again was told that they are kept."""
    run = given.run()
    recorder = start()
    over, ahead = datetime.now(UTC) - HOUR, datetime.now(UTC) + HOUR
    first = recorder.record_blocking(given.new(run.uid, "a", b"A", expires_at=over))
    second = recorder.record_blocking(given.new(run.uid, "a", b"A", expires_at=ahead))
    assert (second.created, second.artifact.expires_at) == (True, ahead)
    third = recorder.record_blocking(given.new(run.uid, "a", b"A"))
    assert (third.created, third.artifact) == (False, second.artifact)
    assert [one.current for one in history(given.index, run.uid) if one.id != first.artifact.id] == [True]
    assert given.get_run(run.uid).current_count == 1


def test_the_same_bytes_at_once_are_one_artifact(given: Any, start: Any) -> None:
    run = given.run()
    outcomes = record_all(start(linger=0.05), [given.new(run.uid, "a", b"A") for _ in range(20)])
    assert sum(outcome.created for outcome in outcomes) == 1
    assert len({outcome.artifact.id for outcome in outcomes}) == 1
    assert len(history(given.index, run.uid)) == 1


def test_versions_at_once_leave_one_current(given: Any, start: Any) -> None:
    run = given.run()
    record_all(start(linger=0.05), [given.new(run.uid, "a", bytes([number])) for number in range(20)])
    found = history(given.index, run.uid)
    assert [artifact.current for artifact in found] == [False] * 19 + [True]
    assert found[-1].sha256 == given.new(run.uid, "a", bytes([19])).sha256


def test_a_new_name_only_is_given_to_one_of_many(given: Any, start: Any) -> None:
    run = given.run()
    batch = [given.new(run.uid, "a", b"A", only_new_name=True) for _ in range(10)]
    outcomes = record_all(start(), batch)
    assert sum(isinstance(outcome, NameExistsError) for outcome in outcomes) == 9
    assert len(history(given.index, run.uid)) == 1


def test_a_name_beside_uploads_is_none_of_theirs(given: Any, start: Any) -> None:
    run, recorder = given.run(), start()
    beside = {"beside_uploads": True, "origin": "status:url"}
    recorder.record_blocking(given.new(run.uid, "a", b"A"))
    assert recorder.record_blocking(given.new(run.uid, "a", b"A", **beside)).created is False
    with pytest.raises(NameExistsError):
        recorder.record_blocking(given.new(run.uid, "a", b"B", **beside))
    for data in (b"A", b"B"):
        assert recorder.record_blocking(given.new(run.uid, "b", data, **beside)).created is True
    assert [artifact.current for artifact in history(given.index, run.uid)] == [True, False, True]


def test_runs_that_changed_are_refused(given: Any, start: Any) -> None:
    older, newer, deleted = given.run("r"), given.run("r"), given.run("d")
    with given.index.begin() as tx:
        runs.mark_deleted(tx, deleted.uid)
    recorder = start()
    for uid in (older.uid, deleted.uid, "unknown"):
        with pytest.raises(RunChangedError):
            recorder.record_blocking(given.new(uid, "a"))
    with pytest.raises(RunChangedError):
        recorder.record_blocking(given.new("unknown", "a", newest_run_only=False))
    assert recorder.record_blocking(given.new(deleted.uid, "last", newest_run_only=False)).created is True
    assert recorder.record_blocking(given.new(newer.uid, "a")).created is True
    assert history(given.index, older.uid) == []


def test_bytes_that_waited_past_half_the_grace_are_refused(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start(grace=HOUR)
    late = datetime.now(UTC) - timedelta(minutes=31)
    with pytest.raises(UploadOutlivedError):
        recorder.record_blocking(given.new(run.uid, "a", stored_since=late))
    recorder.record_blocking(given.new(run.uid, "b", stored_since=late + timedelta(minutes=2)))
    recorder.record_blocking(given.new(run.uid, "c", stored_since=datetime.now(UTC) + timedelta(minutes=2)))
    assert [artifact.name for artifact in history(given.index, run.uid)] == ["b", "c"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"sha256": b"short"}, IndexUnavailableError),  # the database refuses it
        ({"content_type": "\ud800"}, UnicodeEncodeError),  # the driver cannot send it
        ({"stored_since": datetime(2026, 1, 1)}, TypeError),  # noqa: DTZ001 - our own code trips over it
        ({"run_uid": "unknown"}, RunChangedError),  # the rules refuse it
    ],
)
def test_a_row_that_fails_fails_alone(given: Any, start: Any, fields: Any, error: type[Exception]) -> None:
    run = given.run()
    batch = [given.new(run.uid, f"{number}") for number in range(9)]
    batch.insert(4, given.new(**{"run_uid": run.uid, "name": "bad", **fields}))
    outcomes = record_all(start(linger=0.05), batch)
    assert isinstance(outcomes.pop(4), error)
    assert all(outcome.created for outcome in outcomes)
    assert [artifact.seq for artifact in history(given.index, run.uid)] == list(range(1, 10))


class Faulty:
    """The index, whose next transactions fail before or after they are committed."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.fail_before = self.fail_after = 0

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        if self.fail_before:
            self.fail_before -= 1
            raise IndexUnavailableError
        with self._index.begin() as tx:
            yield tx
        if self.fail_after:
            self.fail_after -= 1
            raise IndexUnavailableError


def test_a_commit_whose_reply_was_lost_is_not_recorded_twice(given: Any, start: Any) -> None:
    run = given.run()
    before = given.artifact(run.uid, "same", b"S")
    faulty = Faulty(given.index)
    faulty.fail_after = 1
    batch = [given.new(run.uid, "a", b"1"), given.new(run.uid, "a", b"2"), given.new(run.uid, "same", b"S")]
    outcomes = record_all(start(faulty, linger=0.1), batch)
    assert [(outcome.artifact.id, outcome.created) for outcome in outcomes] == [
        (batch[0].id, True),
        (batch[1].id, True),
        (before.id, False),
    ]
    assert [artifact.id for artifact in history(given.index, run.uid)] == [
        before.id,
        batch[0].id,
        batch[1].id,
    ]
    assert given.get_run(run.uid).total_count == 3


def test_an_index_that_is_away_fails_callers_until_it_is_back(given: Any, start: Any) -> None:
    run = given.run()
    faulty = Faulty(given.index)
    faulty.fail_before = 10**6
    recorder = start(faulty)
    outcomes = record_all(recorder, [given.new(run.uid, f"{number}") for number in range(20)])
    assert all(isinstance(outcome, IndexUnavailableError) for outcome in outcomes)
    assert history(given.index, run.uid) == []
    faulty.fail_before = 0
    assert recorder.record_blocking(given.new(run.uid, "a")).created is True


def test_an_outage_is_not_replayed_row_by_row_for_ever(
    given: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "REPLAY_SECONDS", -1.0)
    run = given.run()
    faulty = Faulty(given.index)
    faulty.fail_before = 1
    outcomes = record_all(start(faulty, linger=0.1), [given.new(run.uid, f"{number}") for number in range(5)])
    assert all(isinstance(outcome, IndexUnavailableError) for outcome in outcomes)


def test_several_recorders_leave_one_sequence_and_one_current_version(
    given: Any, start: Any, url: str
) -> None:
    uids = [given.run().uid for _ in range(3)]
    indices = [Index.connect(url) for _ in range(3)]
    recorders = [start(index) for index in indices]

    def send(number: int) -> Any:
        new = given.new(uids[number % 3], f"{number % 4}", bytes([number]))
        return recorders[number % 2 + number % 3 // 2].record_blocking(new)

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(send, range(120)))
    for each in recorders:
        each.close()
    for index in indices:
        index.close()
    assert all(outcome.created for outcome in outcomes)
    for uid in uids:
        found = history(given.index, uid)
        assert [artifact.seq for artifact in found] == list(range(1, 41))
        newest = {artifact.name: artifact.id for artifact in found}
        assert {artifact.name: artifact.id for artifact in found if artifact.current} == newest
        assert given.get_run(uid).current_count == len(newest)


def test_a_cancelled_caller_does_not_take_its_row_along(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start()

    async def cancel() -> None:
        # The transaction lives in a thread of its own: the loop must be free to cancel meanwhile.
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with held_up(given.index, run.uid):
                entered.set()
                leave.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        entered.wait(10)
        task = asyncio.create_task(recorder.record(given.new(run.uid, "a")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leave.set()
        assert (await recorder.record(given.new(run.uid, "b"))).created is True
        holder.join()
        assert asyncio.get_running_loop()._default_executor is None  # type: ignore[attr-defined]

    asyncio.run(cancel())
    assert [artifact.name for artifact in history(given.index, run.uid)] == ["a", "b"]


def test_a_caller_whose_loop_has_ended_harms_nobody(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start(linger=0.3)
    loop = asyncio.new_event_loop()
    task = loop.create_task(recorder.record(given.new(run.uid, "a")))
    loop.run_until_complete(asyncio.sleep(0.05))
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert recorder.record_blocking(given.new(run.uid, "b")).created is True
    assert len(history(given.index, run.uid)) == 2


def test_closing_records_what_waits_and_refuses_what_comes(given: Any, start: Any) -> None:
    run = given.run()
    recorder = start(largest_batch=7)
    with ThreadPoolExecutor(30) as threads:
        with held_up(given.index, run.uid):
            answers = [
                threads.submit(recorder.record_blocking, given.new(run.uid, f"{n}")) for n in range(30)
            ]
            time.sleep(1)
            closing = threading.Thread(target=recorder.close)
            closing.start()
        closing.join()
        assert all(answer.result().created for answer in answers)
    assert len(history(given.index, run.uid)) == 30
    with pytest.raises(ShuttingDownError):
        recorder.record_blocking(given.new(run.uid, "late"))
    assert issubclass(ShuttingDownError, OffloadError)
    recorder.close()
