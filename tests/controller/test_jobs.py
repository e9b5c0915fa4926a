"""Periodic jobs under leases, on SQLite.

- one controller at a time does a job, and every so often; a failure is tried again; shutdown cuts it short
- one that goes on failing is tried ever more seldom, is told of meanwhile, and left to others
- one that cannot do it keeps no other from it: sweeps go on while one controller's watch is broken
- one that can no longer do it as it ends has not done it, and gives its lease back
- controllers of other namespaces have sweeps of their own
- a sweep that parks its plan warns of it by its id, and is counted
- a controller keeps the index up
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from offload.controller import Job
from offload.controller.jobs import JobLoop
from offload.controller.loops import Loop
from offload.controller.upkeep import CONTINUITY_EVERY, Upkeep
from offload.domain.artifact import State
from offload.domain.retention import KEEP_FOREVER
from offload.index import Index, leases
from offload.objects.memory import MemoryObjects
from offload.services.continuity import LAPSE, unbroken_since
from offload.services.sweep import WATCH, why_watch_is_stale
from tests.publishing import eventually, migrated_index
from tests.services.sweep_world import World


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.connect(migrated_index(tmp_path))
    yield index
    index.close()


def do_jobs(index: Index, job: Job, holder: str) -> Loop:
    body = JobLoop(index, job, holder=holder)
    loop = Loop(job.name, body.run, failing=body.failing)
    loop.start()
    return loop


def end(*loops: Loop) -> None:
    for loop in loops:
        loop.ask_to_stop()
    assert all(loop.join(5) for loop in loops)


def job(run: Callable[[threading.Event], None], every: float = 0.2) -> Job:
    return Job("count", timedelta(seconds=every), run)


def test_a_job_is_done_periodically_and_by_one_controller_at_a_time(index: Index) -> None:
    running: list[str] = []
    done: list[float] = []
    overlaps = []

    def count(_: threading.Event) -> None:
        running.append("x")
        overlaps.append(len(running))
        time.sleep(0.05)
        running.pop()
        done.append(time.monotonic())

    loops = [do_jobs(index, job(count), holder) for holder in ("a", "b")]
    eventually(lambda: len(done) >= 4)
    end(*loops)
    assert set(overlaps) == {1}
    assert min(later - earlier for earlier, later in pairwise(done)) >= 0.2


def test_a_job_that_fails_is_not_done_and_is_tried_again(index: Index) -> None:
    attempts = []

    def fail_once(_: threading.Event) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("no")

    loop = do_jobs(index, job(fail_once, every=3600), "a")
    eventually(lambda: len(attempts) == 2)
    end(loop)
    assert len(attempts) == 2


def test_a_job_that_goes_on_failing_is_tried_ever_more_seldom_and_told(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offload.controller.loops.STEADY_SECONDS", 0.05)
    monkeypatch.setattr("offload.controller.jobs.LOOK_SECONDS", 0.1)
    attempts = []

    def fail(_: threading.Event) -> None:
        attempts.append(1)
        time.sleep(0.1)
        raise RuntimeError("no")

    failing = do_jobs(index, job(fail, every=3600), "a")
    time.sleep(2.5)
    assert 1 <= len(attempts) <= 2
    assert failing.problem == "count: no"
    done = threading.Event()
    other = do_jobs(index, job(lambda _: done.set(), every=3600), "b")
    assert done.wait(5)
    eventually(lambda: failing.problem is None)
    began = time.monotonic()
    end(failing, other)
    assert time.monotonic() - began < 1


def test_a_job_is_cut_short_at_shutdown_and_its_lease_given_back(index: Index) -> None:
    started, taken_over = threading.Event(), threading.Event()

    def long(cut_short: threading.Event) -> None:
        started.set()
        assert cut_short.wait(10)

    loop = do_jobs(index, job(long), "a")
    assert started.wait(5)
    end(loop)
    other = do_jobs(index, job(lambda _: taken_over.set()), "b")
    assert taken_over.wait(5)
    end(other)


def test_one_that_is_not_ready_keeps_no_other_from_a_job(index: Index) -> None:
    asked, done_by = threading.Event(), list[str]()

    def not_ready() -> bool:
        asked.set()
        return False

    every = timedelta(hours=1)
    waiting = do_jobs(index, Job("count", every, lambda _: done_by.append("a"), ready=not_ready), "a")
    assert asked.wait(5)
    other = do_jobs(index, Job("count", every, lambda _: done_by.append("b")), "b")
    eventually(lambda: bool(done_by))
    end(waiting, other)
    assert done_by == ["b"]


def test_one_that_is_no_longer_ready_at_the_end_has_not_done_the_job(index: Index) -> None:
    every, answers = timedelta(hours=1), [True]
    run_by = list[str]()

    def ready() -> bool:
        return bool(answers) and answers.pop()

    frozen = do_jobs(index, Job("count", every, lambda _: run_by.append("a"), ready=ready), "a")
    eventually(lambda: bool(run_by))
    end(frozen)
    with index.read() as tx:
        assert leases.due(tx, "count", every=every)
    other = do_jobs(index, Job("count", every, lambda _: run_by.append("b"), ready=lambda: True), "b")
    eventually(lambda: run_by == ["a", "b"])
    end(other)
    with index.read() as tx:
        assert not leases.due(tx, "count", every=every)


def test_a_controller_whose_watch_is_broken_does_not_silence_the_others(index: Index) -> None:
    broken = do_jobs(index, job_named(WATCH, index, age=float("inf")), "broken")
    time.sleep(0.5)
    assert why_watch_is_stale(index)
    well = do_jobs(index, job_named(WATCH, index, age=60.0), "well")
    eventually(lambda: why_watch_is_stale(index) is None)
    end(broken, well)


def test_each_set_of_namespaces_is_swept_though_another_was_just_now(index: Index) -> None:
    world = World(index)
    ended = {"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}
    sent = {name: world.send(world.run(name, name), "log", **ended) for name in ("a", "b")}
    loops = []
    for name in ("a", "b"):
        jobs = [job_named(each, index, namespaces=(name,)) for each in (WATCH, "sweep")]
        loops += [do_jobs(index, job, name) for job in jobs]
        eventually(lambda name=name: world.states(sent[name]) == [State.EXPIRED])  # type: ignore[misc]
    end(*loops)


def test_a_plan_that_waits_is_told_by_its_id_and_counted(index: Index) -> None:
    def parked_sweeps() -> float:
        return REGISTRY.get_sample_value("offload_sweeps_total", {"outcome": "parked"}) or 0

    world = World(index)
    names = (f"log-{number}" for number in range(101))
    world.send(world.run(), *names, expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    with index.begin() as tx:
        leases.done(tx, WATCH)
    before = parked_sweeps()
    with capture_logs() as logged:
        job_named("sweep", index).run(threading.Event())
    [plan] = world.parked()
    [told] = [entry for entry in logged if entry["event"] == "sweep"]
    assert (told["log_level"], told["plan"], told["outcome"]) == ("warning", str(plan.id), "parked")
    assert parked_sweeps() == before + 1


def test_a_controller_keeps_the_index_up(index: Index) -> None:
    def since() -> datetime | None:
        with index.read() as tx:
            return unbroken_since(tx)

    assert since() is None
    loop = do_jobs(index, job_named("continuity", index), "a")
    eventually(lambda: since() is not None)
    end(loop)
    assert CONTINUITY_EVERY * 3 < LAPSE


def job_named(name: str, index: Index, *, age: float = 0.0, namespaces: Sequence[str] = ()) -> Job:
    """A job of a controller whose watch was last heard `age` seconds ago."""
    upkeep = Upkeep(
        index=index,
        objects=MemoryObjects(),
        policy=KEEP_FOREVER,
        namespaces=namespaces,
        prefix="",
        watch_age=lambda: age,
        sweep_every=timedelta(hours=1),
        orphan_grace=timedelta(days=1),
        strict=False,
    )
    return next(job for job in upkeep.jobs() if job.name == name)
