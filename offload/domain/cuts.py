"""Cuts: what another writer with a lower cap leaves of our list, and when its length is adopted.

Three cuts to one length adopt it. It holds until the run changes: until the run has another phase, or has
more artifacts and was not cut for `HOLD_SECONDS`. Then the whole list is written again, and one cut to the
same length adopts it again. A cut to another length begins the count anew.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from offload.domain.pointers import Entry

Names = Sequence[int]

CUTS = 3
HOLD_SECONDS = 30.0
"""So that a run whose artifacts come every second does not have its list grow and shrink as often."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What makes a run another one to a writer with a cap."""

    phase: str
    artifacts: int
    """Ever acknowledged."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Cuts in a row of one run's list to one length."""

    length: int
    count: int
    last: Situation
    at: float
    """When the last one was seen, in seconds of a clock that only goes forward."""

    def and_then(self, length: int, situation: Situation, now: float) -> "Cuts":
        """With one more cut."""
        return Cuts(length, self.count + 1 if length == self.length else 1, situation, now)

    def adopted(self, situation: Situation, now: float) -> int | None:
        """The length that the list is to have, or None where the list is not to be shortened."""
        if self.count < CUTS or situation.phase != self.last.phase:
            return None
        if situation.artifacts != self.last.artifacts and now - self.at >= HOLD_SECONDS:
            return None
        return self.length


def cut_to(ours: Names, theirs: Names, *, says_so: bool) -> int | None:
    """The length to which `theirs` cuts `ours`; None where it is no cut.

    A cap leaves the newest entries. The oldest ones are what an older view of the list has, too: they count
    only where the writer `says_so`. Entries are compared by name, since other writers drop fields.
    """
    length = len(theirs)
    if not 0 < length < len(ours):
        return None
    if theirs == ours[-length:] or (says_so and theirs == ours[:length]):
        return length
    return None


def names_of(entries: Sequence[Entry]) -> Names:
    """The names of a list's entries, 8 bytes each: of many runs it must be known what they were."""
    return array("q", (hash(str(entry.get("name")).strip()) for entry in entries))
