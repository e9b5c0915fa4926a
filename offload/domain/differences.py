"""What a publish would change in a status, told piece by piece for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from offload.domain.pointers import addresses, compact

LONGEST_TEXT = 300
"""Characters that are told of a value: others' entries can hold content."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry, condition or field; None where it is not there before, or not there after."""

    of: Literal["entry", "condition", "field"]
    name: str
    before: str | None
    after: str | None


def differences(status: Mapping[str, Any], patch: Mapping[str, Any]) -> list[Difference]:
    """What merging `patch` into `status` changes, but for the order of a list."""
    found: list[Difference] = []
    for field, after in patch.items():
        before = status.get(field)
        match field:
            case "artifacts":
                found += _of_lists("entry", before, after)
            case "conditions":
                found += _of_lists("condition", before, after)
            case _:
                found.append(Difference("field", field, _text(before), _text(after)))
    return found


def _of_lists(of: Literal["entry", "condition"], before: Any, after: Sequence[Any]) -> Iterator[Difference]:
    """What left a list and what came; one difference where the same name or type did both."""
    was: Sequence[Any] = before if isinstance(before, list) else []
    gone = [item for item in was if item not in after]
    new = [item for item in after if item not in was]
    for item in gone:
        changed = next((other for other in new if _name(other) == _name(item)), None)
        if changed is not None:
            new.remove(changed)
        yield _difference(of, item, changed)
    yield from (_difference(of, None, item) for item in new)


def _difference(of: Literal["entry", "condition"], before: Any, after: Any) -> Difference:
    tell = _condition if of == "condition" else _address
    told = tell(before), tell(after)
    if told[0] == told[1]:  # then another of its fields changes
        told = _text(before), _text(after)
    return Difference(of, _name(before or after), *told)


def _name(item: Any) -> str:
    named = item if isinstance(item, Mapping) else {}
    return _cut(str(named.get("name") or named.get("type") or ""))


def _address(entry: Any) -> str | None:
    return _text(next(iter(addresses(entry)), entry))


def _condition(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return _text(item)
    return _cut(f"{item.get('status')} {item.get('reason')}: {item.get('message')}")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return _cut(value if isinstance(value, str) else compact(value).decode(errors="replace"))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
