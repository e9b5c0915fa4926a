"""The sweep beside others that share the index, on SQLite and PostgreSQL.

Cases: what changes between the plan and the tombstone: the version that superseded another is erased, a rule
for what is current takes over.
"""

from collections.abc import Callable

import pytest

from offload.domain.artifact import State
from offload.domain.retention import KeepFor, KeepForever, KeepLast, Match, Policy, Rule, Total, Version
from offload.services.sweep import Outcome, erase_artifact
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
