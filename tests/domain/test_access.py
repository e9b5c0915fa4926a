"""Who may do what.

Cases: each permission by itself; namespace and run globs; expiry to the instant; listing a namespace needs
all of its runs; and as a property: a grant allows nothing that it does not name.
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain.access import EVERYTHING, Grant, Permission, permits, permits_namespace

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL = frozenset(Permission)


@pytest.mark.parametrize(
    ("grant", "namespace", "run", "allowed"),
    [
        (Grant("t", ALL, ("agents",)), "agents", "a", True),
        (Grant("t", ALL, ("agents",)), "other", "a", False),
        (Grant("t", ALL, ("team-*",)), "team-a", "a", True),
        (Grant("t", ALL, ("team-*",)), "a-team-b", "a", False),
        (Grant("t", ALL, ("x", "agents")), "agents", "a", True),
        (Grant("t", ALL, ("agents",), ("ci-*",)), "agents", "ci-7", True),
        (Grant("t", ALL, ("agents",), ("ci-*",)), "agents", "dev-7", False),
        (Grant("t", ALL, ("agents",), ()), "agents", "a", False),
        (Grant("t", ALL, ()), "agents", "a", False),
        (Grant("t", frozenset(), ("*",)), "agents", "a", False),
        (Grant("t", ALL, ("Agents",)), "agents", "a", False),
        (EVERYTHING, "agents", "a", True),
    ],
)
def test_globs_say_which_runs(grant: Grant, namespace: str, run: str, allowed: bool) -> None:
    assert permits(grant, Permission.READ, namespace, run, now=NOW) is allowed


@given(st.frozensets(st.sampled_from(Permission)), st.sampled_from(Permission))
def test_a_grant_allows_nothing_that_it_does_not_name(
    granted: frozenset[Permission], asked: Permission
) -> None:
    assert permits(Grant("t", granted, ("*",)), asked, "agents", "a", now=NOW) is (asked in granted)


@pytest.mark.parametrize(("after", "allowed"), [(-1, True), (0, False), (1, False)])
def test_a_grant_ends_at_its_expiry(after: int, allowed: bool) -> None:
    grant = Grant("t", ALL, ("*",), expires_at=NOW)
    assert permits(grant, Permission.READ, "agents", "a", now=NOW + timedelta(seconds=after)) is allowed


@pytest.mark.parametrize(
    ("runs", "allowed"), [(("*",), True), (("ci-*", "*"), True), (("ci-*",), False), ((), False)]
)
def test_a_namespace_is_for_those_who_may_see_all_its_runs(runs: tuple[str, ...], allowed: bool) -> None:
    grant = Grant("t", ALL, ("agents",), runs)
    assert permits_namespace(grant, Permission.READ, "agents", now=NOW) is allowed
    assert not permits_namespace(grant, Permission.READ, "other", now=NOW)
