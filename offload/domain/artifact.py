"""What an artifact is, before and after it is recorded."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class State(StrEnum):
    """An artifact's fate. Only `STORED` bytes can be read; every other row is a tombstone."""

    STORED = "stored"
    EXPIRED = "expired"
    DELETED = "deleted"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Location:
    """Where an artifact's bytes are."""

    bucket: str
    key: str
    version_id: str | None = None

    @property
    def uri(self) -> str:
        """`s3://bucket/key`, verbatim: what `aws s3 cp` takes."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """Bytes that are complete in the object store and wait for their row."""

    id: UUID
    run_uid: str
    name: str
    type: str
    content_type: str
    size_bytes: int
    sha256: bytes
    location: Location
    stored_since: datetime
    """The store dates the object no earlier; its row is refused past half the orphan grace after this.

    S3 dates an object by the start of its multipart upload (S3 documentation, "Multipart upload process").
    """
    expires_at: datetime | None = None
    """The sender's own limit, absolute; retention rules may end the artifact earlier."""
    only_new_name: bool = False
    """Refuse (`NameExistsError`) where the name has a current version (`If-None-Match: *`)."""
    beside_uploads: bool = False
    """Refuse (`NameExistsError`) where the name's current version is an upload of other bytes."""
    newest_run_only: bool = True
    """Refuse (`RunChangedError`) unless the run is still the newest, undeleted incarnation of its name."""
    origin: str | None = None
    """Who put it into status before it was adopted, as `field manager:field`; None for an upload."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A recorded artifact. Immutable but for its fate."""

    id: UUID
    run_uid: str
    namespace: str
    run_name: str
    seq: int
    """Place in the run's history: larger is newer. Taken in the committing transaction."""
    name: str
    type: str
    content_type: str
    size_bytes: int
    sha256: bytes
    location: Location
    created_at: datetime
    current: bool
    """The newest stored version of its name."""
    state: State
    expires_at: datetime | None = None
    origin: str | None = None
    ended_at: datetime | None = None
    """When the tombstone was set."""
    ended_by: str | None = None
    """Who or what ended it: `rule:NAME`, `token:NAME`, or `store` for a lost one."""
    erased_at: datetime | None = None
    """When the bytes were seen deleted."""

    def is_over(self, now: datetime) -> bool:
        """Whether its sender's own limit has passed: the next sweep ends it."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def etag(self) -> str:
        """Strong entity tag (RFC 9110, section 8.8.3), quoted."""
        return f'"{self.sha256.hex()}"'
