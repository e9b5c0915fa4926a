"""Conditions of a status: which are ours, and how ours are set among those of others."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from offload.domain.pointers import StatusSchema

TRUNCATED = "ArtifactsTruncated"
OVER_LIMIT = "ArtifactsOverLimit"
OUR_CONDITIONS = frozenset({TRUNCATED, OVER_LIMIT})
ALL_LISTED = "AllListed"


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that changes its status: one Event."""

    reason: str
    message: str


def listed(status: Mapping[str, Any]) -> list[Any]:
    """The conditions of `status`; none where a schema that takes anything let something else in."""
    found = status.get("conditions")
    return found if isinstance(found, list) else []


def is_ours(item: object) -> bool:
    """Whether one of them is ours, whatever its shape."""
    type_ = item.get("type") if isinstance(item, Mapping) else None
    return isinstance(type_, str) and type_ in OUR_CONDITIONS


def ours(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of `status` that are ours."""
    return [condition for condition in listed(status) if is_ours(condition)]


def is_over_limit(status: Mapping[str, Any]) -> bool:
    """Whether strict mode's verdict stands there."""
    return any(one["type"] == OVER_LIMIT and one.get("status") == "True" for one in ours(status))


def rfc3339(time: datetime) -> str:
    """In UTC, to the second, as Kubernetes writes times."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Conditions:
    """The list of conditions with ours set in place, or behind the others where they were not there."""

    def __init__(
        self,
        status: Mapping[str, Any],
        schema: StatusSchema,
        now: datetime,
        said: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """`said` are ours as last written, by type: one that another writer took out has not changed."""
        # Defaults that status would get beside the fields that are written are there before they are.
        found = listed(schema.whole(status))
        self.transitions: list[Transition] = []
        self._items: list[Any] = []
        self._places: dict[str, int] = {}
        self._schema, self._now, self._said = schema, now, said
        for item in found:
            if is_ours(item):
                type_ = item["type"]
                if type_ in self._places:
                    continue
                self._places[type_] = len(self._items)
            self._items.append(item)

    @property
    def items(self) -> list[Any]:
        """The list as the API server would store it."""
        stored: list[Any] = self._schema.stored("conditions", self._items)
        return stored

    def __contains__(self, type_: str) -> bool:
        return type_ in self._places

    def status(self, type_: str) -> str | None:
        return self._items[self._places[type_]].get("status") if type_ in self else None

    @property
    def hold_ours(self) -> bool:
        return bool(self._places)

    def set(self, type_: str, status: str, reason: str, message: str) -> None:
        before = self._items[self._places[type_]] if type_ in self else self._said.get(type_, {})
        same = before.get("status") == status
        since = before.get("lastTransitionTime") if same else None
        condition = {
            "type": type_,
            "status": status,
            "reason": str(reason),
            "message": message[: self._schema.longest_message],
            "lastTransitionTime": since or rfc3339(self._now),
        }
        if type_ in self:
            self._items[self._places[type_]] = condition
        else:
            self._places[type_] = len(self._items)
            self._items.append(condition)
        if not same:
            self.transitions.append(Transition(type_ if status == "True" else str(reason), message))
