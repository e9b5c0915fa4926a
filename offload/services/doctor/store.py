"""The object store: what this identity may do there, and what the bucket does on its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from offload.domain.artifact import Location
from offload.domain.keys import probe_key, root
from offload.errors import ObjectMissingError, OffloadError, StoreRefusedError
from offload.index import Index
from offload.objects.inspection import Inspection, LifecycleRule, Versioning
from offload.objects.interface import Objects
from offload.services.doctor.findings import Check, Verdict, broken, ok, warning
from offload.services.orphans import Claim, claim_of, has_artifacts

PART = "store"
_CONTENT = b"offload doctor"
_SKEW_SEEN, _SKEW_REFUSED = timedelta(seconds=60), timedelta(minutes=15)
"""S3 refuses signatures that are older or newer than the second (code RequestTimeTooSkewed)."""

_CLOCKS = "set both hosts' clocks by NTP"
_BUCKET = "see to OFFLOAD_S3_BUCKET, OFFLOAD_S3_ENDPOINT_URL, OFFLOAD_S3_REGION and the credentials (AWS_*)"
_MULTIPART = "s3:PutObject, s3:AbortMultipartUpload, s3:ListBucketMultipartUploads"
_LIFECYCLE = "s3:GetLifecycleConfiguration"
_UNWRITTEN = "allowed, as far as a missing object tells"
_ABORT_RULE = "a lifecycle rule with AbortIncompleteMultipartUpload after some days"


@dataclass(frozen=True, slots=True)
class StorePart:
    """The object store as this identity finds it. What the checks write there is removed again."""

    objects: Callable[[], Objects]
    inspection: Callable[[], Inspection]
    index: Callable[[], Index]
    bucket: str
    prefix: str

    def checks(self) -> Sequence[Check]:
        return [
            Check(PART, "bucket", self._bucket_there, _BUCKET),
            Check(PART, "list", self._list, self._allow("s3:ListBucket")),
            Check(PART, "write", self._write, self._allow("s3:PutObject")),
            Check(PART, "read", self._read, self._allow("s3:GetObject")),
            Check(PART, "delete", self._delete, self._allow("s3:DeleteObject")),
            Check(PART, "multipart", self._multipart, self._allow(_MULTIPART)),
            Check(PART, "abort rule", self._abort_rule, _BUCKET),
            Check(PART, "lifecycle", self._lifecycle, _BUCKET),
            Check(PART, "versioning", self._versioning, _BUCKET),
            Check(PART, "clock", self._clock, _BUCKET),
            Check(PART, "prefix", self._claim, "mend the store or the index first"),
        ]

    def _bucket_there(self) -> Iterator[Verdict]:
        self.objects().check()
        yield ok(f"{self.bucket!r} is there")

    def _list(self) -> Iterator[Verdict]:
        next(self.objects().list(root(self.prefix)), None)
        yield ok("allowed")

    def _write(self) -> Iterator[Verdict]:
        objects, location = self._present(), self._probe()
        objects.write(location.key, _CONTENT)
        _remove(objects, location)
        yield ok("allowed")

    def _read(self) -> Iterator[Verdict]:
        objects = self._present()
        with _written(objects, self._probe()) as (location, written):
            try:
                content = objects.read(location.key)
            except ObjectMissingError:
                content = b""
        if not written:
            yield ok(_UNWRITTEN)
        elif content == _CONTENT:
            yield ok("allowed")
        else:
            yield broken("what was just written is not what is read", "a store that reads what was written")

    def _delete(self) -> Iterator[Verdict]:
        objects = self._present()
        with _written(objects, self._probe()) as (location, written):
            gone = objects.delete([_versioned(objects, location)])
            there = written and _is_there(objects, location)
        if not gone:
            yield broken("the store does not delete", self._allow("s3:DeleteObject"))
        elif there:
            yield broken("what was just deleted is still there", "a store that deletes what it says")
        else:
            yield ok("allowed" if written else _UNWRITTEN)

    def _multipart(self) -> Iterator[Verdict]:
        key = self._probe().key
        objects = self._present()
        self.inspection().try_multipart(key)
        next(objects.open_uploads(key), None)
        yield ok("opened, aborted, and open ones listed")

    def _abort_rule(self) -> Iterator[Verdict]:
        try:
            rules = self._rules_for_all()
        except StoreRefusedError as error:
            yield warning(f"not known: {error}", f"{self._allow(_LIFECYCLE)}; see to {_ABORT_RULE}")
            return
        if any(rule.ends_uploads for rule in rules):
            yield ok("the bucket aborts uploads that were left open")
        else:
            yield warning("only the orphan cleaner aborts uploads that were left open", _ABORT_RULE)

    def _lifecycle(self) -> Iterator[Verdict]:
        try:
            rules = self.inspection().lifecycle()
        except StoreRefusedError as error:
            yield warning(f"not known: {error}", self._allow(_LIFECYCLE))
            return
        taking = [rule.name for rule in rules if rule.ends_objects and self._overlaps(rule)]
        if taking:
            yield warning(
                f"rules delete artifacts behind the index's back: {', '.join(taking)}",
                "leave the prefix out of them; OFFLOAD_RETENTION_FILE says how long artifacts are kept",
            )
        else:
            yield ok("no rule deletes what is under the prefix")

    def _versioning(self) -> Iterator[Verdict]:
        try:
            state = self.inspection().versioning()
            ended = state is not Versioning.OFF and any(rule.ends_versions for rule in self._rules_for_all())
        except StoreRefusedError as error:
            yield warning(f"not known: {error}", self._allow("s3:GetBucketVersioning"))
            return
        if state is Versioning.OFF:
            yield ok("off: what is deleted is gone")
        elif ended:
            yield ok(f"{state}; a lifecycle rule ends versions that are no longer the newest")
        else:
            yield warning(
                f"{state}: artifacts are deleted with their version, orphans leave theirs behind for good",
                "a lifecycle rule with NoncurrentVersionExpiration; allow s3:DeleteObjectVersion",
            )

    def _clock(self) -> Iterator[Verdict]:
        yield judge_clock(self.inspection().clock_ahead(), refused_from=_SKEW_REFUSED)

    def _claim(self) -> Iterator[Verdict]:
        index, objects = self.index(), self.objects()
        claim, in_use = claim_of(index, objects, prefix=self.prefix)
        emptied = not in_use and has_artifacts(index, objects, prefix=self.prefix)
        yield _judge_claim(claim, self.prefix, in_use=in_use, emptied=emptied)

    def _present(self) -> Objects:
        """The store, where the bucket is not missing: some stores make a bucket that is written to."""
        objects = self.objects()
        try:
            objects.check()
        except StoreRefusedError as error:
            if isinstance(error.__cause__, ObjectMissingError):
                raise
        return objects

    def _probe(self) -> Location:
        return Location(self.bucket, probe_key(self.prefix, uuid4()))

    def _allow(self, action: str) -> str:
        return f"allow these credentials {action} on {self.bucket}/{root(self.prefix)}*"

    def _rules_for_all(self) -> Sequence[LifecycleRule]:
        """Those that are about everything under the prefix."""
        under = root(self.prefix)
        rules = self.inspection().lifecycle()
        return [rule for rule in rules if under.startswith(rule.prefix) and not rule.narrowed]

    def _overlaps(self, rule: LifecycleRule) -> bool:
        under = root(self.prefix)
        return under.startswith(rule.prefix) or rule.prefix.startswith(under)


def judge_clock(ahead: timedelta, *, refused_from: timedelta | None = None) -> Verdict:
    """What another clock means that is so far `ahead` of this host's."""
    seconds = ahead.total_seconds()
    found = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this host's"
    if refused_from and abs(ahead) >= refused_from:
        return broken(f"{found}: requests are refused", _CLOCKS)
    if abs(ahead) >= _SKEW_SEEN:
        return warning(found, _CLOCKS)
    return ok("the same as this host's" if abs(seconds) < 2 else found)  # noqa: PLR2004 - it tells whole seconds


@contextmanager
def _written(objects: Objects, location: Location) -> Iterator[tuple[Location, bool]]:
    """Where a probe is, and whether it could be written; it is removed again, if that is possible."""
    try:
        objects.write(location.key, _CONTENT)
    except StoreRefusedError:
        yield location, False
        return
    try:
        yield location, True
    finally:
        _remove(objects, location)


def _remove(objects: Objects, location: Location) -> None:
    with suppress(OffloadError):  # the check that deletes says why; what is left is the orphan cleaner's
        objects.delete([_versioned(objects, location)])


def _versioned(objects: Objects, location: Location) -> Location:
    """The same with its version, so that deleting it leaves nothing in a bucket that keeps versions."""
    try:
        return objects.head(location).location
    except (ObjectMissingError, StoreRefusedError):
        return location


def _is_there(objects: Objects, location: Location) -> bool:
    try:
        objects.head(location)
    except (ObjectMissingError, StoreRefusedError):
        return False
    return True


def _judge_claim(claim: Claim, prefix: str, *, in_use: bool, emptied: bool) -> Verdict:
    if claim is Claim.OURS:
        return ok(f"{prefix!r} is this index's own")
    if claim is Claim.FOREIGN:
        return broken(
            f"{prefix!r} belongs to another index; orphans are not removed",
            "another OFFLOAD_S3_PREFIX; or, if that index is no more: offload orphans --claim. "
            "What it stored is then in doubt, and stays until somebody says offload orphans --beyond-guard",
        )
    if emptied:
        return broken(
            f"{prefix!r} is empty, and the index has artifacts there; reads of them are told to come back",
            f"{_BUCKET}, or bring the objects back, marker included; if they are gone for good: "
            "offload orphans --claim, and each is lost once it is read",
        )
    if not in_use:
        return ok(f"{prefix!r} is unused; `offload serve` marks it as its own")
    return warning(
        f"{prefix!r} has objects and no marker; orphans are not removed",
        "if they are this index's, and all that it has: offload orphans --claim. "
        "What is missing is lost then, once it is read",
    )
