"""Find objects that no row names, and end them: what a crash between blob and row leaves behind.

An object is an orphan once it is older than the grace period, its key is that of a run which this index
knows, and the index has no row for the id in it. A key alone tells too little: under a prefix that is the
beginning of another one, keys of the other can look like ours. A marker under the prefix says which index the
objects belong to, so that another index never takes them for orphans, and what lies beside a marker further
down is left alone.

An index that was restored from a backup does not know what came after it. So what was made before the index
was kept up without a gap is in doubt and stays, and a pass that finds implausibly many removes none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from uuid import UUID

from offload.domain.keys import MARKER, KeyParts, is_probe, marker_key, parts_of, root
from offload.domain.limits import DELETE_BATCH
from offload.errors import ObjectMissingError
from offload.index import Index, Transaction, artifacts, meta, sweeping
from offload.objects.interface import ObjectInfo, Objects
from offload.services.continuity import unbroken_since

GUARD_COUNT = 100
GUARD_SHARE = 0.2
"""A pass removes nothing where it finds more orphans than this count, and more than this share of what is
stored in number or in bytes: the same guard as the sweep's."""

_EVER, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


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
    in_doubt: int = 0
    in_doubt_bytes: int = 0
    """Objects without a row that stay, since they were not made after `unbroken_since`."""
    unbroken_since: datetime | None = None
    """Since when the index has been kept up without a gap; None where it is not."""
    aborted_uploads: int = 0
    stopped_because: str | None = None
    """Why the pass did not remove what it found; None where it did."""
    left_alone: tuple[str, ...] = ()
    """Prefixes further down that have a marker of their own."""


class Claim(StrEnum):
    """To whom the objects under a prefix belong."""

    OURS = "ours"
    FOREIGN = "foreign"
    """The marker names another index."""
    UNMARKED = "unmarked"
    """No marker is there, but objects are, or should be: whose the prefix is cannot be known."""


def claim_prefix(index: Index, objects: Objects, *, prefix: str, anyway: bool = False) -> Claim:
    """Mark an unused prefix as this index's own; call it before the first upload.

    A prefix that is in use stays as it is. So does an empty one where the index has artifacts: it is another
    store's, or its disk was lost, and beside our marker what is missing is lost for good. `anyway` is an
    operator's word that what is there is this index's, and all that is left. The cleaner runs under
    `Claim.OURS` alone.
    """
    claim, in_use = claim_of(index, objects, prefix=prefix)
    if claim is Claim.OURS:
        return claim
    if not anyway:
        if in_use or has_artifacts(index, objects, prefix=prefix):
            return claim
        # That can take long, and what another index has marked meanwhile is its own.
        claim = claim_on(index, objects, prefix)
        if claim is not Claim.UNMARKED:
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


def has_artifacts(index: Index, objects: Objects, *, prefix: str) -> bool:
    """Whether the index has stored artifacts whose bytes should be under the prefix."""
    with index.read() as tx:
        return artifacts.are_stored_under(tx, objects.bucket, root(prefix))


def clean_orphans(  # noqa: PLR0913 - two stores, where, since when, and an operator's word
    index: Index,
    objects: Objects,
    *,
    prefix: str,
    grace: timedelta,
    now: datetime | None = None,
    beyond_guard: bool = False,
) -> OrphanReport:
    """Remove orphans, and abort multipart uploads of known runs, older than `grace`, in one listing.

    `beyond_guard` is an operator's word that what has no row is an orphan, however much and however old. A
    pass that is interrupted harms nothing and is simply repeated.
    """
    claim = claim_on(index, objects, prefix)
    if claim is not Claim.OURS:
        return OrphanReport(stopped_because=f"the prefix {prefix!r} is {claim}, not this index's own")
    before = (now or datetime.now(UTC)) - grace
    with index.read() as tx:
        stored = sweeping.stored_totals(tx)
        since = unbroken_since(tx)
    after = _EVER if beyond_guard else since or _NEVER
    report = OrphanReport(unbroken_since=since)
    orphans: list[ObjectInfo] = []
    nested: tuple[str, ...] = ()
    for batch in _batches(objects.list(root(prefix))):
        nested += _nested(index, batch, prefix)
        old = [one for one in batch if one.modified_at < before]
        found, in_doubt = _without_row(index, old, prefix, after)
        orphans += found
        # Only counted, as it may be all of a large bucket. A marker is listed before what it shields.
        in_doubt = [one for one in in_doubt if not _is_below(one.location.key, nested)]
        report = replace(
            report,
            seen=report.seen + len(batch),
            found=report.found + len(found),
            found_bytes=report.found_bytes + _size(found),
            in_doubt=report.in_doubt + len(in_doubt),
            in_doubt_bytes=report.in_doubt_bytes + _size(in_doubt),
            left_alone=nested,
        )
        if not beyond_guard and _is_implausible(report.found, report.found_bytes, stored):
            many = f"{report.found} orphans of {report.found_bytes} bytes"
            why = f"{many} beside {stored[0]} artifacts of {stored[1]} bytes"
            return replace(report, stopped_because=why)
    orphans = [one for one in orphans if not _is_below(one.location.key, nested)]
    removed = [gone for batch in _batches(orphans) for gone in _remove(index, objects, batch, prefix, after)]
    return replace(
        report,
        found=len(orphans),
        found_bytes=_size(orphans),
        removed=len(removed),
        removed_bytes=_size(removed),
        aborted_uploads=_abort_uploads(index, objects, prefix, before, nested),
    )


def _identity(index: Index) -> UUID:
    with index.read() as tx:
        return meta.identity(tx)


def _nested(index: Index, batch: Sequence[ObjectInfo], prefix: str) -> tuple[str, ...]:
    """The prefixes below ours whose markers are in `batch`; an artifact of ours may be called like one."""
    markers = [
        one.location.key
        for one in batch
        if one.location.key.endswith(f"/{MARKER}") and one.location.key != marker_key(prefix)
    ]
    if not markers:
        return ()
    with index.read() as tx:
        ours = _ours(tx, markers, prefix)
    return tuple(key.removesuffix(f"/{MARKER}") for key in markers if key not in ours)


def _is_below(key: str, nested: tuple[str, ...]) -> bool:
    return key.startswith(tuple(root(prefix) for prefix in nested))


def _without_row(
    index: Index, candidates: Sequence[ObjectInfo], prefix: str, after: datetime
) -> tuple[list[ObjectInfo], list[ObjectInfo]]:
    """Those of `candidates` that are orphans, and those in doubt: no row, and not made `after` that time.

    Both have keys of runs of ours; other keys are nobody's orphans. A row that says that the bytes were
    erased leaves no doubt, and the doctor's probes never have one.
    """
    with index.read() as tx:
        ours = _ours(tx, [one.location.key for one in candidates], prefix)
        ids = {parts.artifact_id for parts in ours.values()}
        known = artifacts.known_ids(tx, ids)
        erased = artifacts.erased_ids(tx, ids - known)
    orphans: list[ObjectInfo] = []
    in_doubt: list[ObjectInfo] = []
    for one in candidates:
        key = one.location.key
        if key not in ours or ours[key].artifact_id in known:
            continue
        certain = one.modified_at > after or ours[key].artifact_id in erased or is_probe(key, prefix)
        (orphans if certain else in_doubt).append(one)
    return orphans, in_doubt


def _ours(tx: Transaction, keys: Iterable[str], prefix: str) -> dict[str, KeyParts]:
    """Those of `keys` that are made for runs which this index knows, or to try the store with."""
    named = {key: parts for key in keys if (parts := parts_of(key, prefix))}
    known = sweeping.known_runs(tx, [parts.uid for parts in named.values()])
    return {
        key: parts
        for key, parts in named.items()
        if known.get(parts.uid) == (parts.namespace, parts.run) or is_probe(key, prefix)
    }


def _abort_uploads(
    index: Index, objects: Objects, prefix: str, before: datetime, nested: tuple[str, ...]
) -> int:
    # However old: what is still open was never acknowledged, so no row of it can be lost.
    stale = [upload for upload in objects.open_uploads(root(prefix)) if upload.started_at < before]
    with index.read() as tx:
        ours = _ours(tx, [upload.key for upload in stale], prefix)
    abandoned = [upload for upload in stale if upload.key in ours and not _is_below(upload.key, nested)]
    for upload in abandoned:
        objects.abort_upload(upload)
    return len(abandoned)


def _is_implausible(count: int, size: int, stored: tuple[int, int]) -> bool:
    stored_count, stored_bytes = stored
    large = count > GUARD_SHARE * stored_count or size > GUARD_SHARE * stored_bytes
    return large and count > GUARD_COUNT


def _remove(
    index: Index, objects: Objects, batch: Sequence[ObjectInfo], prefix: str, after: datetime
) -> list[ObjectInfo]:
    """Delete those of `batch` that still have no row, and answer what is gone.

    They are looked up again: S3 dates an object by the start of its multipart upload, so one that took longer
    than the grace period was old when it was listed, and may have got its row since.
    """
    still, _ = _without_row(index, batch, prefix, after)
    orphans = {one.location: one for one in still}
    return [orphans[location] for location in objects.delete(list(orphans))]


def _size(objects: Iterable[ObjectInfo]) -> int:
    return sum(one.size_bytes for one in objects)


def _batches(objects: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    rest = iter(objects)
    while batch := list(islice(rest, DELETE_BATCH)):
        yield batch
