"""Until when an artifact is kept, and by which rule: one plan for preview and sweep, pure.

The first rule that matches an artifact decides; the sender's own expiry only shortens what that rule gives.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from uuid import UUID

from offload.domain.artifact import Artifact, State
from offload.domain.quantities import format_duration, parse_duration
from offload.domain.run import Run
from offload.domain.times import format_time, parse_time
from offload.errors import InvalidExpiryError

DEFAULT = "default"
"""The name of the rule for what no rule matches."""

OWN_EXPIRY = "own-expiry"
"""Named as the rule where the sender's own expiry ended an artifact."""

GUARD_PERCENT = 20
GUARD_COUNT = 100
"""A plan beyond both of these waits for someone to confirm it."""


class Version(StrEnum):
    """Which versions of a name a rule is for."""

    ANY = "any"
    CURRENT = "current"
    SUPERSEDED = "superseded"


class Since(StrEnum):
    """When a duration begins."""

    CREATED = "created"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class KeepFor:
    """Keep for `duration` since the artifact was created, or since its run finished.

    A run that was deleted before it finished counts as finished by its deletion.
    """

    duration: timedelta
    since: Since = Since.CREATED

    def __str__(self) -> str:
        event = "it was created" if self.since is Since.CREATED else "its run finished"
        return f"for {format_duration(self.duration)} since {event}"


@dataclass(frozen=True, slots=True)
class KeepLast:
    """Keep the newest `versions` stored versions of each name in a run."""

    versions: int

    def __str__(self) -> str:
        return f"the last {self.versions} version{'' if self.versions == 1 else 's'} of its name"


@dataclass(frozen=True, slots=True)
class KeepForever:
    """Never delete."""

    def __str__(self) -> str:
        return "for ever"


Keep = KeepFor | KeepLast | KeepForever


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule is for: every condition must hold. In globs `*` also stands for slashes."""

    namespace: str = "*"
    type: str | None = None
    name: str = "*"
    version: Version = Version.ANY


@dataclass(frozen=True, slots=True)
class Rule:
    """What to keep, and how long."""

    name: str
    match: Match
    keep: Keep


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order, the first that matches wins, and what is done where none does."""

    rules: tuple[Rule, ...]
    default: Keep

    def rule_for(self, namespace: str, artifact_type: str, name: str, *, current: bool) -> Rule:
        """The rule in force."""
        for rule in self.rules:
            match = rule.match
            if (
                match.version in {Version.ANY, Version.CURRENT if current else Version.SUPERSEDED}
                and match.type in {None, artifact_type}
                and fnmatchcase(namespace, match.namespace)
                and fnmatchcase(name, match.name)
            ):
                return rule
        return Rule(DEFAULT, Match(), self.default)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of what the policy says: equal for equal policies, in every process and release."""
        canonical = {
            "rules": [[rule.name, asdict(rule.match), _canonical(rule.keep)] for rule in self.rules],
            "default": _canonical(self.default),
        }
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


KEEP_FOREVER = Policy((), KeepForever())
"""The policy where no rules are given."""


def expiry(artifact: Artifact, run: Run, policy: Policy) -> datetime | None:
    """When the stored `artifact` of `run` ends by rule or by its sender's wish, whichever is earlier.

    None while that is not known (the run has not finished, or the rule counts versions), or for ever.
    """
    end, _ = _ending(artifact, run, _rule_of(artifact, policy))
    return end


def check_requested_expiry(  # noqa: PLR0913 - what decides the rule: the artifact's words, its run and the time
    requested: datetime, *, artifact_type: str, name: str, run: Run, policy: Policy, now: datetime
) -> datetime:
    """Answer `requested` if it shortens what the rules give to an artifact that is created now.

    Raises:
        InvalidExpiryError: it is later than the end that the rule in force gives, as far as that is known.
    """
    rule = policy.rule_for(run.namespace, artifact_type, name, current=True)
    end = _rule_end(rule.keep, now, run)
    if end is not None and requested > end:
        raise InvalidExpiryError(
            "expires",
            f"must not be later than the retention rule {rule.name!r} allows, {format_time(end)}",
            format_time(requested),
        )
    return requested


def parse_expires(text: str, now: datetime) -> datetime:
    """Read an upload's `expires`: a duration from `now` such as 7d, or an RFC 3339 time.

    Raises:
        InvalidExpiryError: it is neither, or not in the future.
    """
    try:
        end = now + parse_duration(text) if "-" not in text else parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InvalidExpiryError(
            "expires",
            "must be a duration such as 7d, or a time with its offset such as 2030-01-31T12:00:00Z"
            " (in a URL, write '+' as %2B)",
            text,
        ) from error
    if end <= now:
        raise InvalidExpiryError("expires", "must be in the future", text)
    return end


@dataclass(frozen=True, slots=True)
class Deletion:
    """One artifact that a plan would end, by which rule and why, in a person's words."""

    artifact: Artifact
    rule: str
    reason: str

    @property
    def by(self) -> str:
        """What the tombstone names."""
        return f"rule:{self.rule}"


def plan_run(
    run: Run, artifacts: Iterable[Artifact], policy: Policy, *, now: datetime
) -> tuple[Deletion, ...]:
    """What ends of one run's stored artifacts, in their order.

    `artifacts` must be all that are stored, or of some names, which have no say in each other's, all; or of
    these as many of the newest as a rule keeps, and those that are asked about.
    """
    stored = [artifact for artifact in artifacts if artifact.state is State.STORED]
    places = _places(stored)
    deletions = (_deletion(artifact, run, policy, places[artifact.id], now) for artifact in stored)
    return tuple(deletion for deletion in deletions if deletion)


@dataclass(frozen=True, slots=True)
class Total:
    """So many artifacts and bytes."""

    count: int = 0
    bytes: int = 0

    def plus(self, artifacts: Iterable[Artifact]) -> "Total":
        count, size = self.count, self.bytes
        for artifact in artifacts:
            count += 1
            size += artifact.size_bytes
        return Total(count, size)


@dataclass(frozen=True, slots=True)
class Plan:
    """What ends at `at` under one policy, in sums; `stored` is what is stored where the plan looked."""

    at: datetime
    policy_digest: str
    stored: Total = Total()
    ends: Total = Total()
    by_rule: Mapping[str, Total] = field(default_factory=lambda: MappingProxyType({}))

    def including(self, deletions: Iterable[Deletion], *, stored: Total = Total()) -> "Plan":
        """This plan and `deletions`, out of `stored` more."""
        by_rule = dict(self.by_rule)
        ends = self.ends
        for deletion in deletions:
            by_rule[deletion.rule] = by_rule.get(deletion.rule, Total()).plus([deletion.artifact])
            ends = ends.plus([deletion.artifact])
        seen = Total(self.stored.count + stored.count, self.stored.bytes + stored.bytes)
        return replace(self, stored=seen, ends=ends, by_rule=MappingProxyType(by_rule))

    def exceeds_guard(self) -> bool:
        """Whether it ends more than 100 artifacts, and more than 20 % of what is stored or of its bytes."""
        return self.ends.count > GUARD_COUNT and (
            100 * self.ends.count > GUARD_PERCENT * self.stored.count
            or 100 * self.ends.bytes > GUARD_PERCENT * self.stored.bytes
        )

    def exceeds(self, confirmed: Total) -> bool:
        """Whether it ends more than what was confirmed."""
        return self.ends.count > confirmed.count or self.ends.bytes > confirmed.bytes


def _deletion(artifact: Artifact, run: Run, policy: Policy, place: int, now: datetime) -> Deletion | None:
    rule = _rule_of(artifact, policy)
    end, own = _ending(artifact, run, rule)
    if end is not None and end <= now:
        if own:
            return Deletion(artifact, OWN_EXPIRY, f"its sender wanted it kept until {format_time(end)}")
        return Deletion(artifact, rule.name, f"kept {rule.keep}, which was until {format_time(end)}")
    if isinstance(rule.keep, KeepLast) and place > rule.keep.versions:
        return Deletion(artifact, rule.name, f"keeps {rule.keep}; this is number {place} from the newest")
    return None


def _ending(artifact: Artifact, run: Run, rule: Rule) -> tuple[datetime | None, bool]:
    """When it ends, and whether that is by its sender's wish."""
    by_rule = _rule_end(rule.keep, artifact.created_at, run)
    own = artifact.expires_at
    if own is not None and (by_rule is None or own < by_rule):
        return own, True
    return by_rule, False


def _rule_of(artifact: Artifact, policy: Policy) -> Rule:
    return policy.rule_for(artifact.namespace, artifact.type, artifact.name, current=artifact.current)


def _rule_end(keep: Keep, created_at: datetime, run: Run) -> datetime | None:
    if not isinstance(keep, KeepFor):
        return None
    start = created_at if keep.since is Since.CREATED else run.ended_at
    try:
        return None if start is None else start + keep.duration
    except OverflowError:  # past the calendar's last year: for ever
        return None


def _places(stored: Iterable[Artifact]) -> dict[UUID, int]:
    """Each artifact's place among the versions of its name, 1 for the newest."""
    places: dict[UUID, int] = {}
    seen: dict[str, int] = {}
    for artifact in sorted(stored, key=lambda artifact: artifact.seq, reverse=True):
        places[artifact.id] = seen[artifact.name] = seen.get(artifact.name, 0) + 1
    return places


def _canonical(keep: Keep) -> list[object]:
    match keep:
        case KeepFor(duration, since):
            return ["for", duration.total_seconds(), since.value]
        case KeepLast(versions):
            return ["last", versions]
        case KeepForever():
            return ["forever"]
