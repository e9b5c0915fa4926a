"""Find objects that no row names, and end them: what a crash between blob and row leaves behind.

An object is an orphan once it is older than the grace period and the index has no row for the id in its key.
A marker under the prefix says which index the objects belong to, so that another index never takes them for
orphans; and a pass that finds implausibly many removes none, since an index that was restored from a backup
does not know what came after it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from uuid import UUID

from offload.domain.keys import artifact_id_of, is_probe, marker_key, root
from offload.domain.limits import DELETE_BATCH
from offload.errors import ObjectMissingError
from offload.index import Index, artifacts, meta, sweeping
from offload.objects.interface import ObjectInfo, Objects

GUARD_COUNT = 100
GUARD_SHARE = 0.2
"""A pass removes nothing where it finds more orphans than this count, and more than this share of what is
stored in number or in bytes: the same guard as the sweep's."""


@dataclass(frozen=True, slots=True)
class OrphanReport:
    """What one pass saw and did."""

    seen: int = 0
    """Objects under the prefix, orphans or not; short of all where the guard ended the pass."""
    found: int = 0
    found_bytes: int = 0
    """Orphans, removed or not."""
    removed: int = 0
    removed_bytes: int = 0
    aborted_uploads: int = 0
    stopped_because: str | None = None
    """Why the pass did not remove what it found; None where it did."""


class Claim(StrEnum):
    """To whom the objects under a prefix belong."""

    OURS = "ours"
    FOREIGN = "foreign"
    """The marker names another index."""
    UNMARKED = "unmarked"
    """Objects are there and no marker: whose they are cannot be known."""


def claim_prefix(index: Index, objects: Objects, *, prefix: str, anyway: bool = False) -> Claim:
    """Mark an unused prefix as this index's own; call it before the first upload.

    A prefix that is in use stays as it is, unless `anyway`: an operator's word that its objects are this
    index's. The cleaner runs under `Claim.OURS` alone.
    """
    claim, in_use = claim_of(index, objects, prefix=prefix)
    if claim is Claim.OURS or (in_use and not anyway):
        return claim
    objects.write(marker_key(prefix), str(_identity(index)).encode())
    return Claim.OURS


def claim_of(index: Index, objects: Objects, *, prefix: str) -> tuple[Claim, bool]:
    """To whom the prefix belongs, and whether anything is under it."""
    there = (one for one in objects.list(root(prefix)) if not is_probe(one.location.key, prefix))
    in_use = next(there, None) is not None
    # The marker comes second: what another process of ours has marked meanwhile is not a stranger's.
    return claim_on(index, objects, prefix), in_use


def claim_on(index: Index, objects: Objects, prefix: str) -> Claim:
    """Whose objects the prefix has, by its marker alone."""
    try:
        marker = objects.read(marker_key(prefix))
    except ObjectMissingError:
        return Claim.UNMARKED
    return Claim.OURS if marker.strip() == str(_identity(index)).encode() else Claim.FOREIGN


def clean_orphans(  # noqa: PLR0913 - two stores, where, since when, and an operator's word
    index: Index,
    objects: Objects,
    *,
    prefix: str,
    grace: timedelta,
    now: datetime | None = None,
    beyond_guard: bool = False,
) -> OrphanReport:
    """Remove orphans and abort multipart uploads older than `grace`, in one listing of the prefix.

    `beyond_guard` is an operator's word that so many orphans are right. A pass that is interrupted harms
    nothing and is simply repeated.
    """
    claim = claim_on(index, objects, prefix)
    if claim is not Claim.OURS:
        return OrphanReport(stopped_because=f"the prefix {prefix!r} is {claim}, not this index's own")
    before = (now or datetime.now(UTC)) - grace
    aborted = _abort_uploads(objects, prefix, before)
    with index.read() as tx:
        stored = sweeping.stored_totals(tx)
    seen, size = 0, 0
    orphans: list[ObjectInfo] = []
    for batch in _batches(objects.list(root(prefix))):
        seen += len(batch)
        found = _unknown(index, [one for one in batch if one.modified_at < before], prefix)
        orphans += found
        size += sum(one.size_bytes for one in found)
        if not beyond_guard and _is_implausible(len(orphans), size, stored):
            why = f"{len(orphans)} orphans of {size} bytes beside {stored[0]} artifacts of {stored[1]} bytes"
            return OrphanReport(seen, len(orphans), size, aborted_uploads=aborted, stopped_because=why)
    removed = [gone for batch in _batches(orphans) for gone in _remove(index, objects, batch, prefix)]
    removed_bytes = sum(one.size_bytes for one in removed)
    return OrphanReport(seen, len(orphans), size, len(removed), removed_bytes, aborted)


def _identity(index: Index) -> UUID:
    with index.read() as tx:
        return meta.identity(tx)


def _abort_uploads(objects: Objects, prefix: str, before: datetime) -> int:
    stale = [
        upload
        for upload in objects.open_uploads(root(prefix))
        if upload.started_at < before and artifact_id_of(upload.key, prefix) is not None
    ]
    for upload in stale:
        objects.abort_upload(upload)
    return len(stale)


def _unknown(index: Index, candidates: Sequence[ObjectInfo], prefix: str) -> list[ObjectInfo]:
    """Those of `candidates` that have one of our keys and no row. Other keys are nobody's orphans."""
    named = [(artifact_id_of(one.location.key, prefix), one) for one in candidates]
    with index.read() as tx:
        known = artifacts.known_ids(tx, {named_id for named_id, _ in named if named_id})
    return [one for named_id, one in named if named_id and named_id not in known]


def _is_implausible(count: int, size: int, stored: tuple[int, int]) -> bool:
    stored_count, stored_bytes = stored
    large = count > GUARD_SHARE * stored_count or size > GUARD_SHARE * stored_bytes
    return large and count > GUARD_COUNT


def _remove(index: Index, objects: Objects, batch: Sequence[ObjectInfo], prefix: str) -> list[ObjectInfo]:
    """Delete those of `batch` that still have no row, and answer what is gone.

    They are looked up again: S3 dates an object by the start of its multipart upload, so one that took longer
    than the grace period was old when it was listed, and may have got its row since.
    """
    orphans = {one.location: one for one in _unknown(index, batch, prefix)}
    return [orphans[location] for location in objects.delete(list(orphans))]


def _batches(objects: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    rest = iter(objects)
    while batch := list(islice(rest, DELETE_BATCH)):
        yield batch
