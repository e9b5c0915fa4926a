"""What can be asked of a bucket beside storing in it: how it is set up, and whose clock it has.

For diagnosis only; nothing on the way of an artifact depends on it. Errors are those of `interface.Objects`;
`StoreRefusedError` also where a store does not know the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol


class Versioning(StrEnum):
    """Whether an overwritten or deleted object stays as an older version."""

    OFF = "off"
    ON = "on"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """A rule in force by which the store itself ends things."""

    name: str
    prefix: str
    """Keys that it is about start with this."""
    narrowed: bool
    """It is about some of those keys only: by tag or by size."""
    ends_uploads: bool
    """It aborts multipart uploads that are not completed."""
    ends_objects: bool
    """It deletes objects."""
    ends_versions: bool
    """It deletes versions that are no longer the newest."""


class Inspection(Protocol):
    """One bucket, looked at. All calls block, and none tries again."""

    def clock_ahead(self) -> timedelta:
        """How far the store's clock is ahead of this host's; its answers tell to the second.

        Told by refusals as well.
        """
        ...

    def versioning(self) -> Versioning:
        """Whether the bucket keeps versions."""
        ...

    def lifecycle(self) -> Sequence[LifecycleRule]:
        """The bucket's rules in force; none where it has none."""
        ...

    def try_multipart(self, key: str) -> None:
        """Open a multipart upload and abort it."""
        ...

    def close(self) -> None:
        """End connections."""
        ...
