"""Retention: which rule, until when, and what a plan ends.

Cases: each condition of a match, and the first match wins; each way to keep, with its end and its reason; a
run that is not finished, finished, deleted, or says so while it runs or from before its creation; the
sender's own expiry beside a rule; what is not stored is left alone; `expires` as a duration and a time; an
expiry past the rule's; the sums of a plan and its guard at its
limits; a digest that follows the policy. Properties: among the newest N none goes; a plan only grows with
time; the first rule that matches decides; an own expiry only shortens; the plan ends what `expiry` says has
ended; a plan that was carried out leaves nothing to plan.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain.artifact import Artifact, Location, State
from offload.domain.retention import (
    KEEP_FOREVER,
    Deletion,
    Keep,
    KeepFor,
    KeepForever,
    KeepLast,
    Match,
    Plan,
    Policy,
    Rule,
    Since,
    Total,
    Version,
    check_requested_expiry,
    expiry,
    parse_expires,
    plan_run,
)
from offload.domain.run import Run
from offload.errors import InvalidExpiryError

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
GO_ZERO = datetime(1, 1, 1, tzinfo=UTC)


def _run(**fields: Any) -> Run:
    defaults: dict[str, Any] = {
        "uid": "u",
        "namespace": "agents",
        "name": "run",
        "created_at": T0,
        "labels": {},
        "agent": None,
        "phase": None,
        "finished_at": None,
        "deleted_at": None,
        "revision": 1,
        "published_revision": 1,
        "published_at": None,
        "dirty_since": None,
        "stored_count": 0,
        "stored_bytes": 0,
        "total_count": 0,
        "current_count": 0,
        "listed_count": 0,
        "publish_error": None,
    }
    return Run(**{**defaults, **fields})


def _artifact(seq: int = 1, **fields: Any) -> Artifact:
    defaults: dict[str, Any] = {
        "id": UUID(int=seq),
        "run_uid": "u",
        "namespace": "agents",
        "run_name": "run",
        "seq": seq,
        "name": "a.log",
        "type": "log",
        "content_type": "text/plain",
        "size_bytes": 10,
        "sha256": hashlib.sha256(b"").digest(),
        "location": Location("b", f"k{seq}"),
        "created_at": T0,
        "current": True,
        "state": State.STORED,
    }
    return Artifact(**{**defaults, **fields})


def _only(keep: Keep) -> Policy:
    return Policy((), keep)


@pytest.mark.parametrize(
    ("match", "wins"),
    [
        (Match(), True),
        (Match(namespace="agents"), True),
        (Match(namespace="ag*"), True),
        (Match(namespace="other"), False),
        (Match(type="log"), True),
        (Match(type="diff"), False),
        (Match(name="*.log"), True),
        (Match(name="d/*"), True),
        (Match(name="d/?/x.log"), True),
        (Match(name="*.LOG"), False),
        (Match(version=Version.CURRENT), True),
        (Match(version=Version.SUPERSEDED), False),
        (Match(namespace="agents", type="log", name="d/*.log", version=Version.CURRENT), True),
        (Match(namespace="agents", type="diff", name="d/*.log"), False),
    ],
)
def test_a_rule_matches_when_every_condition_holds(match: Match, wins: bool) -> None:
    policy = Policy((Rule("it", match, KeepForever()),), KeepForever())
    assert (policy.rule_for("agents", "log", "d/e/x.log", current=True).name == "it") is wins


def test_a_superseded_version_has_its_own_rule() -> None:
    policy = Policy(
        (
            Rule("old", Match(version=Version.SUPERSEDED), KeepFor(DAY)),
            Rule("all", Match(), KeepFor(9 * DAY)),
        ),
        KeepForever(),
    )
    assert expiry(_artifact(current=False), _run(), policy) == T0 + DAY
    assert expiry(_artifact(current=True), _run(), policy) == T0 + 9 * DAY


@pytest.mark.parametrize(
    ("keep", "run", "end"),
    [
        (KeepFor(DAY), {}, T0 + DAY),
        (KeepFor(DAY), {"finished_at": T0 + 5 * DAY}, T0 + DAY),
        (KeepFor(DAY, Since.FINISHED), {}, None),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0 + 5 * DAY}, T0 + 6 * DAY),
        (KeepFor(DAY, Since.FINISHED), {"deleted_at": T0 + 3 * DAY}, T0 + 4 * DAY),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0, "deleted_at": T0 + 3 * DAY}, T0 + DAY),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0 + 5 * DAY, "phase": "Failed"}, T0 + 6 * DAY),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0 + 5 * DAY, "phase": ""}, T0 + 6 * DAY),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0 + 5 * DAY, "phase": "Running"}, None),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0 - SECOND, "phase": "Succeeded"}, None),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": GO_ZERO}, None),
        (
            KeepFor(DAY, Since.FINISHED),
            {"finished_at": T0, "phase": "Running", "deleted_at": T0 + 3 * DAY},
            T0 + 4 * DAY,
        ),
        (KeepFor(timedelta(days=999_999_999)), {}, None),
        (KeepLast(1), {}, None),
        (KeepForever(), {}, None),
    ],
)
@pytest.mark.parametrize("own", [None, T0 + timedelta(hours=1), T0 + 100 * DAY])
def test_an_artifact_ends_by_rule_or_by_its_own_expiry_whichever_is_earlier(
    keep: Keep, run: dict[str, Any], end: datetime | None, own: datetime | None
) -> None:
    ends = [time for time in (end, own) if time]
    assert expiry(_artifact(expires_at=own), _run(**run), _only(keep)) == min(ends, default=None)


@pytest.mark.parametrize(("seconds", "ends"), [(-1, False), (0, True), (1, True)])
def test_a_duration_ends_to_the_instant(seconds: int, ends: bool) -> None:
    now = T0 + DAY + timedelta(seconds=seconds)
    assert bool(plan_run(_run(), [_artifact()], _only(KeepFor(DAY)), now=now)) is ends


def test_every_deletion_says_which_rule_and_why() -> None:
    policy = Policy(
        (
            Rule("logs", Match(type="log"), KeepFor(DAY, Since.FINISHED)),
            Rule("diffs", Match(type="diff"), KeepLast(2)),
        ),
        KeepFor(3 * DAY),
    )
    artifacts = [
        _artifact(1),
        _artifact(2, type="diff", name="d", current=False),
        _artifact(3, type="diff", name="d", current=False),
        _artifact(4, type="diff", name="d"),
        _artifact(5, type="report", name="r"),
        _artifact(6, type="report", name="s", expires_at=T0 + DAY),
    ]
    planned = plan_run(_run(finished_at=T0 + DAY), artifacts, policy, now=T0 + 9 * DAY)
    assert [(deletion.artifact.seq, deletion.by, deletion.reason) for deletion in planned] == [
        (1, "rule:logs", "kept for 1d since its run finished, which was until 2026-01-03T00:00:00Z"),
        (2, "rule:diffs", "keeps the last 2 versions of its name; this is number 3 from the newest"),
        (5, "rule:default", "kept for 3d since it was created, which was until 2026-01-04T00:00:00Z"),
        (6, "rule:own-expiry", "its sender wanted it kept until 2026-01-02T00:00:00Z"),
    ]


def test_the_last_versions_are_counted_by_name_among_the_stored_ones() -> None:
    artifacts = [
        _artifact(1, name="a", current=False),
        _artifact(2, name="b"),
        _artifact(3, name="a", current=False, state=State.DELETED),
        _artifact(4, name="a"),
    ]
    assert plan_run(_run(), artifacts, _only(KeepLast(2)), now=T0) == ()
    assert [d.artifact.seq for d in plan_run(_run(), artifacts, _only(KeepLast(1)), now=T0)] == [1]


@pytest.mark.parametrize("state", [State.EXPIRED, State.DELETED, State.LOST])
def test_what_has_ended_does_not_end_again(state: State) -> None:
    assert plan_run(_run(), [_artifact(state=state)], _only(KeepFor(DAY)), now=T0 + 9 * DAY) == ()


def test_without_rules_only_an_own_expiry_ends_anything() -> None:
    artifacts = [_artifact(1), _artifact(2, expires_at=T0 + DAY)]
    assert [d.artifact.seq for d in plan_run(_run(), artifacts, KEEP_FOREVER, now=T0 + 9999 * DAY)] == [2]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("7d", T0 + 7 * DAY),
        ("90s", T0 + timedelta(seconds=90)),
        ("2026-01-02T00:00:00Z", T0 + DAY),
        ("2026-01-02T02:00:00+02:00", T0 + DAY),
    ],
)
def test_expires_is_a_duration_or_a_time(text: str, end: datetime) -> None:
    assert parse_expires(text, T0) == end


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be a duration such as 7d, or a time"),
        ("soon", "must be a duration such as 7d, or a time"),
        ("-7d", "must be a duration such as 7d, or a time"),
        ("2026-01-02", "must be a duration such as 7d, or a time"),
        ("2026-01-02T02:00:00 02:00", "%2B"),
        ("999999999d", "must be a duration such as 7d, or a time"),
        ("0s", "must be in the future"),
        ("2025-12-31T00:00:00Z", "must be in the future"),
        ("2026-01-01T00:00:00Z", "must be in the future"),
    ],
)
def test_another_expires_is_refused(text: str, rule: str) -> None:
    with pytest.raises(InvalidExpiryError) as refused:
        parse_expires(text, T0)
    assert refused.value.field == "expires"
    assert rule in str(refused.value)


@pytest.mark.parametrize(
    ("keep", "run", "allowed"),
    [
        (KeepFor(DAY), {}, False),
        (KeepFor(2 * DAY), {}, True),
        (KeepFor(3 * DAY), {}, True),
        (KeepFor(DAY, Since.FINISHED), {}, True),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0}, False),
        (KeepFor(DAY, Since.FINISHED), {"finished_at": T0 + DAY}, True),
        (KeepLast(1), {}, True),
        (KeepForever(), {}, True),
    ],
)
def test_a_requested_expiry_may_only_shorten_what_the_rule_gives(
    keep: Keep, run: dict[str, Any], allowed: bool
) -> None:
    policy = Policy(
        (
            Rule("old", Match(version=Version.SUPERSEDED), KeepFor(timedelta(seconds=1))),
            Rule("logs", Match(type="log", name="a*", namespace="agents"), keep),
        ),
        KeepFor(timedelta(seconds=1)),
    )

    def check() -> datetime:
        return check_requested_expiry(
            T0 + 2 * DAY, artifact_type="log", name="a.log", run=_run(**run), policy=policy, now=T0
        )

    if allowed:
        assert check() == T0 + 2 * DAY
    else:
        with pytest.raises(InvalidExpiryError, match="'logs'"):
            check()


def _planned(count: int, size: int, *, stored_count: int, stored_bytes: int) -> Plan:
    deletions = [Deletion(_artifact(1, size_bytes=size if n == 0 else 0), "r", "") for n in range(count)]
    return Plan(T0, "digest").including(deletions, stored=Total(stored_count, stored_bytes))


@pytest.mark.parametrize(
    ("count", "size", "stored_count", "stored_bytes", "exceeds"),
    [
        (100, 100, 100, 100, False),
        (101, 0, 101, 0, True),
        (101, 20, 505, 100, False),
        (101, 20, 504, 100, True),
        (101, 21, 10_000, 100, True),
        (101, 20, 10_000, 100, False),
        (0, 0, 0, 0, False),
    ],
)
def test_the_guard_stops_more_than_a_fifth_and_more_than_a_hundred(
    count: int, size: int, stored_count: int, stored_bytes: int, exceeds: bool
) -> None:
    plan = _planned(count, size, stored_count=stored_count, stored_bytes=stored_bytes)
    assert plan.exceeds_guard() is exceeds


def test_a_plan_sums_what_ends_by_rule() -> None:
    one, two = Deletion(_artifact(1), "a", ""), Deletion(_artifact(2, size_bytes=5), "b", "")
    plan = Plan(T0, "digest").including([one], stored=Total(2, 20)).including([one, two], stored=Total(3, 30))
    assert plan.ends == Total(3, 25)
    assert plan.stored == Total(5, 50)
    assert dict(plan.by_rule) == {"a": Total(2, 20), "b": Total(1, 5)}


@pytest.mark.parametrize(
    ("confirmed", "exceeds"),
    [(Total(2, 20), False), (Total(3, 30), False), (Total(1, 20), True), (Total(2, 19), True)],
)
def test_a_plan_is_larger_by_count_or_by_bytes(confirmed: Total, exceeds: bool) -> None:
    deletion = Deletion(_artifact(1), "a", "")
    assert Plan(T0, "digest").including([deletion, deletion]).exceeds(confirmed) is exceeds


KEEPS = st.one_of(
    st.builds(KeepFor, st.integers(1, 20).map(timedelta), st.sampled_from(Since)),
    st.builds(KeepLast, st.integers(1, 4)),
    st.just(KeepForever()),
)
MATCHES = st.builds(
    Match,
    namespace=st.sampled_from(["*", "agents", "other", "a*"]),
    type=st.sampled_from([None, "log", "diff"]),
    name=st.sampled_from(["*", "a", "b*"]),
    version=st.sampled_from(Version),
)
POLICIES = st.builds(
    lambda rules, default: Policy(tuple(Rule(f"r{n}", *rule) for n, rule in enumerate(rules)), default),
    st.lists(st.tuples(MATCHES, KEEPS), max_size=4),
    KEEPS,
)
DAYS = st.integers(0, 40).map(lambda days: T0 + days * DAY)
RUNS = st.builds(
    lambda finished, deleted: _run(finished_at=finished, deleted_at=deleted),
    st.none() | DAYS,
    st.none() | DAYS,
)


@st.composite
def histories(draw: st.DrawFn) -> list[Artifact]:
    """A run's artifacts, with the current version of each name marked as the index would."""
    artifacts = [
        _artifact(
            seq,
            name=draw(st.sampled_from(["a", "b", "bb"])),
            type=draw(st.sampled_from(["log", "diff"])),
            state=draw(st.sampled_from([State.STORED, State.STORED, State.STORED, State.EXPIRED])),
            created_at=draw(DAYS),
            expires_at=draw(st.none() | DAYS),
            current=False,
        )
        for seq in range(1, draw(st.integers(0, 10)) + 1)
    ]
    newest = {artifact.name: artifact.seq for artifact in artifacts if artifact.state is State.STORED}
    return [replace(artifact, current=newest.get(artifact.name) == artifact.seq) for artifact in artifacts]


@given(RUNS, histories(), st.integers(1, 5), DAYS)
def test_none_of_the_newest_versions_goes(
    run: Run, history: list[Artifact], versions: int, now: datetime
) -> None:
    history = [replace(artifact, expires_at=None) for artifact in history]
    gone = {d.artifact.id for d in plan_run(run, history, _only(KeepLast(versions)), now=now)}
    stored = [artifact for artifact in history if artifact.state is State.STORED]
    for name in {artifact.name for artifact in stored}:
        newest_first = sorted((a for a in stored if a.name == name), key=lambda a: -a.seq)
        assert not gone & {artifact.id for artifact in newest_first[:versions]}
        assert gone >= {artifact.id for artifact in newest_first[versions:]}


@given(RUNS, histories(), POLICIES, DAYS, DAYS)
def test_a_plan_only_grows_with_time(
    run: Run, history: list[Artifact], policy: Policy, one: datetime, other: datetime
) -> None:
    earlier, later = (
        {d.artifact.id for d in plan_run(run, history, policy, now=now)} for now in sorted((one, other))
    )
    assert earlier <= later


@given(RUNS, histories(), POLICIES, DAYS)
def test_the_first_rule_that_matches_decides(
    run: Run, history: list[Artifact], policy: Policy, now: datetime
) -> None:
    for artifact in history:
        rule = policy.rule_for(artifact.namespace, artifact.type, artifact.name, current=artifact.current)
        alone = [
            Policy((r,), KeepForever()).rule_for(
                artifact.namespace, artifact.type, artifact.name, current=artifact.current
            )
            for r in policy.rules
        ]
        matching = [r for r in alone if r.name != "default"]
        assert rule == (matching[0] if matching else Rule("default", Match(), policy.default))
    for deletion in plan_run(run, history, policy, now=now):
        rule = policy.rule_for(
            deletion.artifact.namespace,
            deletion.artifact.type,
            deletion.artifact.name,
            current=deletion.artifact.current,
        )
        assert deletion.rule in {rule.name, "own-expiry"}


@given(RUNS, histories(), POLICIES, DAYS)
def test_an_own_expiry_only_shortens(
    run: Run, history: list[Artifact], policy: Policy, now: datetime
) -> None:
    bare = [replace(artifact, expires_at=None) for artifact in history]
    without = {d.artifact.id for d in plan_run(run, bare, policy, now=now)}
    with_own = {d.artifact.id for d in plan_run(run, history, policy, now=now)}
    assert without <= with_own
    for plain, wished in zip(bare, history, strict=True):
        ends = expiry(plain, run, policy), expiry(wished, run, policy)
        assert ends[0] is None or (ends[1] is not None and ends[1] <= ends[0])
        assert wished.expires_at is None or (ends[1] is not None and ends[1] <= wished.expires_at)


@given(RUNS, histories(), POLICIES, DAYS)
def test_what_has_a_known_end_is_planned_from_that_end_on(
    run: Run, history: list[Artifact], policy: Policy, now: datetime
) -> None:
    gone = {d.artifact.id for d in plan_run(run, history, policy, now=now)}
    for artifact in history:
        end = expiry(artifact, run, policy)
        rule = policy.rule_for(artifact.namespace, artifact.type, artifact.name, current=artifact.current)
        if artifact.state is not State.STORED:
            assert artifact.id not in gone
        elif end is not None and end <= now:
            assert artifact.id in gone
        elif not isinstance(rule.keep, KeepLast):
            assert artifact.id not in gone


@given(RUNS, histories(), POLICIES, DAYS)
def test_a_plan_that_was_carried_out_leaves_nothing_behind_for_the_same_rules(
    run: Run, history: list[Artifact], policy: Policy, now: datetime
) -> None:
    # Versions aside: a rule for current ones can match what became current by the first plan.
    rules = tuple(replace(rule, match=replace(rule.match, version=Version.ANY)) for rule in policy.rules)
    policy = replace(policy, rules=rules)
    gone = {d.artifact.id for d in plan_run(run, history, policy, now=now)}
    left = [replace(a, state=State.EXPIRED) if a.id in gone else a for a in history]
    assert plan_run(run, left, policy, now=now) == ()


@given(POLICIES, POLICIES)
def test_policies_that_differ_have_different_digests(one: Policy, other: Policy) -> None:
    assert (one.digest == other.digest) is (one == other)


def test_a_digest_is_the_same_in_every_release() -> None:
    policy = Policy(
        (
            Rule("logs", Match(type="log", namespace="a*"), KeepFor(DAY, Since.FINISHED)),
            Rule("old", Match(version=Version.SUPERSEDED), KeepLast(3)),
        ),
        KeepForever(),
    )
    assert policy.digest == "4cf6f5f7c1b8825cf980abeeb71f1e20dc60f24c4c245a28b015d3899a36ab14"
