"""The sweep beside others that share the index, on SQLite and PostgreSQL.

Cases: what changes between the plan and the tombstone: the version that superseded another is erased, a rule
for what is current takes over, the newest go and what was planned takes their place; a name of more versions
than should be read under a lock; a plan that is confirmed while another sweep plans; sweeps of other
namespaces: they leave a plan that waits, are not confirmed by one, and go by a watch of their own or of all.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from offload.domain.artifact import Artifact, State
from offload.domain.retention import KeepFor, KeepForever, KeepLast, Match, Plan, Policy, Rule, Total, Version
from offload.domain.run import Run
from offload.errors import PlanNotFoundError
from offload.index import leases, sweeping
from offload.services import sweep as service
from offload.services.sweep import (
    WATCH,
    Outcome,
    erase_artifact,
    job_of,
    plan,
    scope_of,
    why_watch_is_stale,
)
from tests.services.sweep_world import DAY, World

LAST = Policy((), KeepLast(1))
SUPERSEDED = Policy((Rule("old", Match(version=Version.SUPERSEDED), KeepFor(DAY)),), KeepForever())


def between_plan_and_tombstone(change: Callable[[], object]) -> Callable[[], None]:
    """A `why_stale` that has something happen where it is asked for the second time."""
    asked: list[None] = []

    def why_stale() -> None:
        asked.append(None)
        if len(asked) == 2:
            change()

    return why_stale


@pytest.mark.parametrize("policy", [LAST, SUPERSEDED], ids=["last", "superseded"])
def test_what_the_rules_keep_by_then_does_not_end(world: World, policy: Policy) -> None:
    older, newer = world.send(world.run("changed"), "a", "a")
    gone, kept = world.send(world.run("other"), "a", "a")

    report = world.sweep(
        policy,
        why_stale=between_plan_and_tombstone(lambda: erase_artifact(world.index, newer.id, by="token:kim")),
    )

    assert report.outcome is Outcome.DONE
    assert world.states([older, newer]) == [State.STORED, State.DELETED]
    assert world.artifact(older.id).current
    assert world.states([gone, kept]) == [State.EXPIRED, State.STORED]
    assert report.done is not None
    assert report.done.ends == Total(1, 10)


def test_what_takes_the_place_of_the_newest_by_then_does_not_end(world: World) -> None:
    run = world.run()
    *older, last, newest = world.send(run, *["a"] * 8)
    policy = Policy((Rule("logs", Match(version=Version.CURRENT), KeepLast(3)),), KeepLast(2))

    def end_the_newest() -> None:
        for one in (last, newest):
            erase_artifact(world.index, one.id, by="token:kim")

    assert world.sweep(policy, why_stale=between_plan_and_tombstone(end_the_newest)).outcome is Outcome.DONE
    assert world.states(older) == [State.EXPIRED] * 4 + [State.STORED] * 2


@pytest.mark.parametrize(("policy", "kept"), [(LAST, 1), (SUPERSEDED, 0)], ids=["last", "superseded"])
def test_of_many_versions_only_those_that_end_and_are_kept_are_read_under_the_lock(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: Policy, kept: int
) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 10)
    *older, newest = world.send(world.run(), *["a"] * 51)
    answer = sweeping.versions_to_end
    looked_at: list[int] = []

    def counted(*args: Any, **named: Any) -> list[tuple[Run, list[Artifact]]]:
        found = answer(*args, **named)
        looked_at.extend(len(versions) for _, versions in found)
        return found

    monkeypatch.setattr(sweeping, "versions_to_end", counted)
    assert world.sweep(policy).outcome is Outcome.DONE
    assert (set(world.states(older)), world.states([newest])) == ({State.EXPIRED}, [State.STORED])
    assert looked_at == [10 + kept] * 5


def much(world: World, namespace: str, count: int = 101) -> list[Artifact]:
    return world.send(world.run(namespace, namespace), *(f"n{n}" for n in range(count)))


def test_a_plan_that_is_confirmed_while_another_sweep_plans_stays_confirmed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = much(world, "a")
    parked = world.sweep().parked
    assert parked is not None

    def plan_while_it_is_confirmed(*args: Any, **named: Any) -> Plan:
        with world.index.begin() as tx:
            sweeping.confirm(tx, parked.id)
        return plan(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(service, "plan", plan_while_it_is_confirmed)
        assert world.sweep().outcome is Outcome.PARKED
    [left] = world.parked()
    assert (left.id, left.confirmed_at is None) == (parked.id, False)

    assert world.sweep().outcome is Outcome.DONE
    assert set(world.states(sent)) == {State.EXPIRED}


def test_a_plan_that_waits_is_untouched_by_sweeps_of_other_namespaces(world: World) -> None:
    mine, theirs = much(world, "a"), much(world, "b", 10)
    parked = world.sweep(namespaces=["a"]).parked
    assert parked is not None

    assert world.sweep(namespaces=["b"]).outcome is Outcome.DONE
    more = much(world, "b")
    other = world.sweep(namespaces=["b"]).parked
    assert other is not None
    assert (other.id != parked.id, other.count) == (True, 101)
    for namespaces in (["b"], ["a", "b"], []):
        with pytest.raises(PlanNotFoundError):
            world.sweep(namespaces=namespaces, confirm=parked.id)
    assert set(world.states(mine)) == {State.STORED}

    assert world.sweep(namespaces=["a"], confirm=parked.id).outcome is Outcome.DONE
    assert set(world.states(mine + theirs)) == {State.EXPIRED}
    assert set(world.states(more)) == {State.STORED}
    with world.index.read() as tx:
        assert sweeping.parked(tx, scope_of(["b"])) == [other]


def test_other_rules_void_no_plan_of_other_namespaces(world: World) -> None:
    for namespace in ("a", "b"):
        much(world, namespace)
    parked = world.sweep(namespaces=["a"]).parked
    assert parked is not None
    other = world.sweep(Policy((), KeepFor(timedelta(hours=1))), namespaces=["b"]).parked
    assert other is not None
    assert world.sweep(namespaces=["b"], confirm=other.id).outcome is Outcome.REFUSED
    assert world.sweep(namespaces=["a"], confirm=parked.id).outcome is Outcome.DONE


def test_a_confirmed_plan_that_was_interrupted_is_not_continued_in_other_namespaces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_BATCH", 40)
    mine, theirs = much(world, "a", 300), much(world, "b", 150)
    parked = world.sweep(namespaces=["a"]).parked
    assert parked is not None
    heard = iter([None, None, "the controller is down"])
    interrupted = world.sweep(namespaces=["a"], confirm=parked.id, why_stale=lambda: next(heard))
    assert interrupted.outcome is Outcome.REFUSED

    assert world.sweep(namespaces=["b"]).outcome is Outcome.PARKED
    assert set(world.states(theirs)) == {State.STORED}

    assert world.sweep(namespaces=["a"]).outcome is Outcome.DONE
    assert set(world.states(mine)) == {State.EXPIRED}


def test_a_set_of_namespaces_is_the_same_in_any_order() -> None:
    assert scope_of(["b", "a", "b"]) == scope_of(("a", "b")) != scope_of(["a"])
    assert (job_of("sweep", ()), scope_of([])) == ("sweep", "")
    assert len(job_of("sweep", [f"namespace-{number}" for number in range(1000)])) < 30


def test_a_sweep_goes_by_the_watch_of_its_own_namespaces_or_of_all(world: World) -> None:
    with world.index.begin() as tx:
        leases.done(tx, job_of(WATCH, ["b"]))
    assert why_watch_is_stale(world.index, ["b"]) is None
    assert why_watch_is_stale(world.index, ["a"])
    assert why_watch_is_stale(world.index, ["a", "b"])
    assert why_watch_is_stale(world.index)
    with world.index.begin() as tx:
        leases.done(tx, WATCH)
    assert why_watch_is_stale(world.index, ["a"]) is None
