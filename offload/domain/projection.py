"""The projection: from history, and what others wrote, to what an AgentRun's status should say.

Pure, and idempotent: projecting onto a status that holds the projection changes nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from offload.domain.artifact import Artifact, State
from offload.domain.conditions import ALL_LISTED, OVER_LIMIT, TRUNCATED, Conditions, Transition, rfc3339
from offload.domain.external import External
from offload.domain.limits import STATUS_ENTRIES
from offload.domain.pointers import Reason, StatusSchema, compact, pointer, unfit_fields
from offload.domain.quantities import format_size


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of the list: `count` entries, and `size_bytes` of it as compact UTF-8 JSON."""

    count: int = STATUS_ENTRIES
    size_bytes: int = 64 * 1024
    kept: int | None = None
    """How many entries another writer lets stay, where that is known; no run fails by it."""


@dataclass(frozen=True, slots=True)
class History:
    """What a run has: its newest current artifacts, at least as many as the cap where it has them."""

    artifacts: Sequence[Artifact]
    externals: Sequence[External]
    """Those that are to be listed."""
    current_count: int
    """All current artifacts, loaded here or not."""
    stored_bytes: int
    entries_at_finish: int | None = None
    """How many entries were there when the run finished; None where that does not matter or is not known."""
    strict_since: datetime | None = None
    """What was adopted before is no excess; None: nothing was."""
    hint: str = ""
    """Where the full history is: a URL, or the command that shows it."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What status should say."""

    schema: StatusSchema
    desired: Mapping[str, Any]
    """Fields of `status` as the API server would store them; only those that are ours to decide."""
    listed: frozenset[UUID]
    listed_externals: frozenset[str]
    """Fingerprints of the other writers' entries that are listed."""
    total: int
    """Entries there would be without limits."""
    left_out: Mapping[Reason, int]
    reasons: Mapping[UUID, Reason]
    """Of the artifacts that were given and are left out."""
    older: Reason
    """Why artifacts are left out that were not given."""
    transitions: tuple[Transition, ...]
    at: datetime
    """The time that it was made for."""

    @property
    def artifacts(self) -> Sequence[Mapping[str, Any]]:
        """The list for `status.artifacts`, oldest to newest."""
        entries: Sequence[Mapping[str, Any]] = self.desired["artifacts"]
        return entries

    def patch_for(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """The part of it that `status` lacks: the value of `status` in a merge patch; empty for none.

        What no patch can make different is no difference: an object's null, which a patch would drop.
        """
        return {field: value for field, value in self.desired.items() if self._lacks(status, field, value)}

    def _lacks(self, status: Mapping[str, Any], field: str, value: Any) -> bool:
        found = status.get(field)
        return found != value and (self.schema.stored(field, found) or _NOTHING) != (value or _NOTHING)

    def differs_from(self, status: Mapping[str, Any]) -> bool:
        """Whether `status`, as read from the API server, is not what it should be."""
        return bool(self.patch_for(status))


@dataclass(frozen=True, slots=True)
class Absence:
    """Why an artifact is not in status."""

    reason: str
    message: str


def effective_cap(caps: Caps, schema: StatusSchema) -> int:
    """Entries that status may have: the lower of the setting and the served `maxItems`."""
    return caps.count if schema.max_items is None else min(caps.count, schema.max_items)


def project(  # noqa: PLR0913 - each is one thing that status depends on
    history: History,
    status: Mapping[str, Any],
    *,
    schema: StatusSchema,
    caps: Caps,
    strict: bool,
    now: datetime,
    said: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Projection:
    """What `status` should say of a run's history; `said` are our conditions as last written, by type.

    Entries run oldest to newest and the newest survive a limit. The condition `ArtifactsTruncated` says what
    is left out. In strict mode more entries than the cap, or inline or over-long entries of others, also fail
    the run (`ArtifactsOverLimit`), unless it ended Failed or Cancelled, or Succeeded before there was excess.
    """
    cap = effective_cap(caps, schema)
    choice = _choose(history, schema, cap if caps.kept is None else min(cap, caps.kept), caps.size_bytes)
    total = max(history.current_count, len(history.artifacts)) + len(history.externals)
    left_out = Counter(choice.left_out)
    left_out[choice.older] += total - len(choice.entries) - left_out.total()
    left_out = +left_out

    desired: dict[str, Any] = {}
    conditions = Conditions(status, schema, now, said)
    if left_out:
        reason = next(reason for reason in Reason if left_out[reason])
        conditions.set(TRUNCATED, "True", reason, _summary(len(choice.entries), total, history))
    elif TRUNCATED in conditions:
        conditions.set(TRUNCATED, "False", ALL_LISTED, "every current artifact is listed")
    if strict:
        excess = _excess(history, status, choice, cap=cap, total=total)
        given = conditions.status(OVER_LIMIT) == "True"
        # A verdict says why it was given, not what is the case now.
        if excess and not given:
            conditions.set(OVER_LIMIT, "True", excess, _summary(len(choice.entries), total, history))
        if excess or given:
            # Another writer may take the verdict back, and what it was given for came before it.
            newest = max((artifact.created_at for artifact in history.artifacts), default=now)
            desired |= strict_verdict(status, schema, max(now, newest))
    told = schema.tells and schema.takes("conditions", conditions.items)
    if told and conditions.hold_ours:
        desired["conditions"] = conditions.items

    return Projection(
        schema=schema,
        desired={"artifacts": choice.entries, **desired},
        listed=frozenset(choice.listed),
        listed_externals=frozenset(choice.listed_externals),
        total=total,
        left_out=left_out,
        reasons=choice.reasons,
        older=choice.older,
        transitions=tuple(conditions.transitions) if told else (),
        at=now,
    )


def finished_at(status: Mapping[str, Any]) -> datetime | None:
    """When the run had ended, by its status: a time in whole seconds means until that second was over.

    Go's zero time means "not set".
    """
    text = status.get("finishedAt")
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):  # the latter where it is in no year of the calendar by UTC
        return None
    if time.year == 1:
        return None
    try:
        return time if time.microsecond else time + timedelta(seconds=1)
    except OverflowError:  # nothing follows the calendar's last second
        return time


def strict_verdict(status: Mapping[str, Any], schema: StatusSchema, now: datetime) -> dict[str, Any]:
    """What strict mode writes beside its condition, as far as `schema` keeps and takes it."""
    if status.get("phase") in _ENDED:
        return {}
    finished = status["finishedAt"] if finished_at(status) else rfc3339(now)
    wanted = {"phase": "Failed", "reason": OVER_LIMIT, "finishedAt": finished}
    return {
        field: value for field, value in wanted.items() if schema.keeps(field) and schema.takes(field, value)
    }


def why_absent(artifact: Artifact, projection: Projection) -> Absence | None:
    """Why status does not list `artifact`; None where it does."""
    if artifact.id in projection.listed:
        return None
    if artifact.state is not State.STORED:
        by = f" by {artifact.ended_by}" if artifact.ended_by else ""
        at = f" at {rfc3339(artifact.ended_at)}" if artifact.ended_at else ""
        return Absence(artifact.state.value.capitalize(), f"{artifact.state.value}{by}{at}")
    if not artifact.current:
        return Absence("Superseded", "a newer version of the same name is current")
    reason = projection.reasons.get(artifact.id, projection.older)
    return Absence(reason.value, _EXPLANATIONS[reason].format(listed=len(projection.artifacts)))


_NOTHING: list[Any] = []
_EXPLANATIONS = {
    Reason.COUNT_LIMIT: "older than the newest {listed} entries, which is as many as status may list",
    Reason.BYTE_LIMIT: "older than the newest {listed} entries, which are as many bytes as status may list",
    Reason.URI_TOO_LONG: "its name or address is longer than an entry of status may be",
    Reason.INLINE_DATA: "it holds content in place of a pointer",
}
_UNFIT = frozenset({Reason.URI_TOO_LONG, Reason.INLINE_DATA})
_ENDED = ("Failed", "Cancelled")


_Item = tuple[Artifact | External, dict[str, Any], Reason | None]


@dataclass(frozen=True, slots=True)
class _Choice:
    entries: list[dict[str, Any]]
    listed: list[UUID]
    listed_externals: list[str]
    left_out: Counter[Reason]
    reasons: dict[UUID, Reason]
    external_excess: frozenset[Reason]
    older: Reason


def _choose(history: History, schema: StatusSchema, cap: int, size_bytes: int) -> _Choice:
    """Walk from the newest entry until a limit is met; what is older than that is left out."""
    chosen: list[tuple[dict[str, Any], Artifact | External]] = []
    reasons: dict[UUID, Reason] = {}
    left_out: Counter[Reason] = Counter()
    external_excess = set()
    room = size_bytes - len("[]")
    stopped: Reason | None = None
    for item, entry, unfit in _newest_first(history, schema):
        reason, size = unfit, len(compact(entry))
        if isinstance(item, External) and unfit in _UNFIT:
            external_excess.add(unfit)
        if not reason and size > size_bytes - len("[]"):
            reason = Reason.BYTE_LIMIT
        if not reason:
            if not stopped and len(chosen) >= cap:
                stopped = Reason.COUNT_LIMIT
            elif not stopped and size > room:
                stopped = Reason.BYTE_LIMIT
            reason = stopped
        if reason:
            left_out[reason] += 1
            if isinstance(item, Artifact):
                reasons[item.id] = reason
            continue
        chosen.append((entry, item))
        room -= size + len(",")
    chosen.reverse()
    return _Choice(
        entries=[entry for entry, _ in chosen],
        listed=[item.id for _, item in chosen if isinstance(item, Artifact)],
        listed_externals=[item.fingerprint for _, item in chosen if isinstance(item, External)],
        left_out=left_out,
        reasons=reasons,
        external_excess=frozenset(external_excess),
        older=stopped or Reason.COUNT_LIMIT,
    )


def _newest_first(history: History, schema: StatusSchema) -> list[_Item]:
    """What may be listed, as it would be, or why it can't be."""
    # Artifacts stand behind externals of the same place: an order that every replica sees alike.
    places: list[tuple[int, int, str, Artifact | External]] = [
        *((external.seq, 0, external.fingerprint, external) for external in history.externals),
        *((artifact.seq, 1, str(artifact.id), artifact) for artifact in history.artifacts),
    ]
    places.sort(key=lambda place: place[:3], reverse=True)
    items = [(item, *_entry(item, schema)) for *_, item in places]
    return _one_of_a_key(items, schema)


def _one_of_a_key(items: list[_Item], schema: StatusSchema) -> list[_Item]:
    """Where a schema has one entry of a name: the artifact of that name, else the newest of others."""
    ours = {schema.key(entry) for item, entry, reason in items if isinstance(item, Artifact) and not reason}
    taken: set[object] = set()
    found: list[_Item] = []
    for item, entry, unfit in items:
        key, reason = schema.key(entry), unfit
        if key and not reason:
            if key in taken or (key in ours and isinstance(item, External)):
                reason = Reason.COUNT_LIMIT
            else:
                taken.add(key)
        found.append((item, entry, reason))
    return found


def _entry(item: Artifact | External, schema: StatusSchema) -> tuple[dict[str, Any], Reason | None]:
    """What an item looks like in status, or why it can't be there."""
    if isinstance(item, Artifact):
        entry = pointer(item, schema)
        return schema.stored_entry(entry or {}), None if entry else Reason.URI_TOO_LONG
    unfit = unfit_fields(item.entry, schema)
    entry = schema.stored_entry(item.entry)
    if unfit:
        return entry, min(unfit.values(), key=list(Reason).index)
    return entry, None if schema.takes_entry(entry) else Reason.URI_TOO_LONG


def _summary(shown: int, total: int, history: History) -> str:
    return (
        f"{shown} of {total} artifacts are listed; {format_size(history.stored_bytes)} are stored; "
        f"full history: {history.hint}"
    )


def _excess(
    history: History, status: Mapping[str, Any], choice: _Choice, *, cap: int, total: int
) -> Reason | None:
    """What strict mode fails the run for; None for nothing, or nothing that was there before it succeeded."""
    since = history.strict_since
    adopted = [one for one in history.artifacts if one.origin and not (since and one.created_at < since)]
    if status.get("phase") == "Succeeded":
        finished = finished_at(status)
        if history.entries_at_finish is not None:
            total = history.entries_at_finish
        if finished:
            adopted = [artifact for artifact in adopted if artifact.created_at < finished]
    if total > cap:
        return Reason.COUNT_LIMIT
    if adopted:
        return Reason.INLINE_DATA
    return next((reason for reason in Reason if reason in choice.external_excess), None)
