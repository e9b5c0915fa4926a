"""Everything that can go wrong, as one tree.

A class's `type` is stable and public: it ends the problem's `type` URI (RFC 9457, section 3.1.1) and is
listed in docs/errors.md. Its docstring is the message where none is given. Status numbers are not known
here; `offload.http.problems` maps classes to them.
"""

from typing import ClassVar


class OffloadError(Exception):
    """The request could not be carried out."""

    type: ClassVar[str] = "error"

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.sentence()
        super().__init__(self.detail)

    @classmethod
    def sentence(cls) -> str:
        """What the class says by itself: the first line of its docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @property
    def told(self) -> str:
        """The detail as clients may read it."""
        return self.detail


class ConfigError(OffloadError):
    """The configuration is not usable."""

    type = "config"


# What a caller sent and can mend.


class InvalidInputError(OffloadError):
    """A part of the request is not valid."""

    type = "invalid-input"

    def __init__(self, field: str, rule: str, got: object) -> None:
        """Name the `field`, the `rule` it breaks and what came."""
        self.field, self.rule, self.got = field, rule, shorten(got)
        super().__init__(f"{field}: {rule}; got {self.got}")


class InvalidNameError(InvalidInputError):
    """An artifact's name breaks a rule."""

    type = "invalid-name"


class InvalidTypeError(InvalidInputError):
    """An artifact's type is not a DNS label."""

    type = "invalid-type"


class InvalidContentTypeError(InvalidInputError):
    """A content type is not a media type."""

    type = "invalid-content-type"


class InvalidDigestError(InvalidInputError):
    """A digest header cannot be read (RFC 9530)."""

    type = "invalid-digest"


class InvalidExpiryError(InvalidInputError):
    """An expiry is not a duration or time in the future, or is later than the retention rule's."""

    type = "invalid-expiry"


class InvalidQueryError(InvalidInputError):
    """A query parameter is not valid."""

    type = "invalid-query"


class InvalidCursorError(InvalidInputError):
    """A cursor was not made by this service for this list."""

    type = "invalid-cursor"


class InvalidHeaderError(InvalidInputError):
    """A request header asks for what this endpoint does not do."""

    type = "invalid-header"


class InvalidMultipartError(OffloadError):
    """The multipart/form-data body cannot be read."""

    type = "invalid-multipart"


class UnsupportedMediaTypeError(OffloadError):
    """The body's content type is not one this endpoint takes."""

    type = "unsupported-media-type"


class DigestMismatchError(OffloadError):
    """The bytes do not have the digest that the request names."""

    type = "digest-mismatch"


class LengthMismatchError(OffloadError):
    """The body is not as long as Content-Length says."""

    type = "length-mismatch"


class UploadInterruptedError(OffloadError):
    """The connection ended before the body did."""

    type = "upload-interrupted"


class UploadTimedOutError(OffloadError):
    """The sender stalled for longer than the server waits."""

    type = "upload-timed-out"


class UploadTooLargeError(OffloadError):
    """The body is larger than the server takes."""

    type = "upload-too-large"


class NameExistsError(OffloadError):
    """The name has a current version, and the request was for a new name only."""

    type = "name-exists"


class PreconditionFailedError(OffloadError):
    """The request is for other bytes than the artifact has."""

    type = "precondition-failed"


class RangeNotSatisfiableError(OffloadError):
    """No byte of the requested range exists."""

    type = "range-not-satisfiable"

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"the content has {size} bytes and none is in the requested range")


# Who asks, and for what.


class UnauthenticatedError(OffloadError):
    """No valid token came with the request."""

    type = "unauthenticated"


class NotFoundError(OffloadError):
    """There is no such thing, or the token does not reach it."""

    type = "not-found"


class MethodNotAllowedError(OffloadError):
    """The resource does not have this method."""

    type = "method-not-allowed"


class InternalError(OffloadError):
    """Something unexpected went wrong in the server; its log has the request id."""

    type = "internal"


class RunNotFoundError(NotFoundError):
    """There is no such AgentRun, or the token does not reach it."""

    type = "run-not-found"


class ArtifactNotFoundError(NotFoundError):
    """There is no such artifact, or the token does not reach it."""

    type = "artifact-not-found"


class PlanNotFoundError(NotFoundError):
    """There is no parked sweep plan with this id."""

    type = "plan-not-found"


class RunDeletedError(OffloadError):
    """The AgentRun was deleted longer ago than uploads are taken for."""

    type = "run-deleted"


class RunUidMismatchError(OffloadError):
    """The uid never belonged to an AgentRun of this name."""

    type = "run-uid-mismatch"


class ArtifactGoneError(OffloadError):
    """The artifact's bytes are gone; its history stays."""

    type = "artifact-gone"


class ArtifactExpiredError(ArtifactGoneError):
    """A retention rule ended the artifact."""

    type = "artifact-expired"


class ArtifactDeletedError(ArtifactGoneError):
    """The artifact was erased by request."""

    type = "artifact-deleted"


class ArtifactLostError(ArtifactGoneError):
    """The object store no longer has the artifact's bytes."""

    type = "artifact-lost"


# What will pass; the same request may succeed later.


class UnavailableError(OffloadError):
    """A part that the request needs is out of reach."""

    type = "unavailable"

    def __init__(self, detail: str | None = None, *, retry_after: float = 5) -> None:
        """`retry_after` is in seconds."""
        self.retry_after = retry_after
        super().__init__(detail)


class StoreUnavailableError(UnavailableError):
    """The object store did not do what was asked."""

    type = "store-unavailable"


class IndexUnavailableError(UnavailableError):
    """The retention index is out of reach."""

    type = "index-unavailable"

    @property
    def told(self) -> str:
        """Without what the database or its driver said: that names addresses and tables."""
        return self.sentence()


class ClusterUnavailableError(UnavailableError):
    """The Kubernetes API server is out of reach."""

    type = "cluster-unavailable"

    @property
    def told(self) -> str:
        """Without what the API server or the way to it said: that names addresses and identities."""
        return self.sentence()


class RunChangedError(UnavailableError):
    """The AgentRun was deleted or created again while the upload ran."""

    type = "run-changed"


class UploadOutlivedError(UnavailableError):
    """The bytes waited so long for their row that the orphan cleaner may take them."""

    type = "upload-outlived"


class TooManyUploadsError(UnavailableError):
    """As many uploads run as the server takes at once."""

    type = "too-many-uploads"


class TooManyDownloadsError(UnavailableError):
    """As many downloads run as the server gives at once."""

    type = "too-many-downloads"


class NotReadyError(UnavailableError):
    """A part that the service needs is out of reach."""

    type = "not-ready"


class ShuttingDownError(UnavailableError):
    """The server is shutting down."""

    type = "shutting-down"


# Between adapters and services; never an answer.


class ObjectMissingError(OffloadError):
    """The object store has no such object."""

    type = "object-missing"


class StoreRefusedError(StoreUnavailableError):
    """The object store refuses these credentials or this request; trying again does not help."""

    type = "store-refused"


class StatusConflictError(OffloadError):
    """The AgentRun changed since it was read."""

    type = "status-conflict"


class AgentRunGoneError(OffloadError):
    """The AgentRun is not in the cluster, or not in this incarnation."""

    type = "agentrun-gone"


class StatusRefusedError(OffloadError):
    """The API server does not accept what was written."""

    type = "status-refused"


class PointersNotKeptError(OffloadError):
    """The served AgentRun schema keeps no pointers: it needs `name` and `uri`, or `name` and `url`."""

    type = "pointers-not-kept"


class StatusNotKeptError(OffloadError):
    """The API server accepted a status and answered without all of it."""

    type = "status-not-kept"


class ClusterForbiddenError(ClusterUnavailableError):
    """The API server refuses this identity."""

    type = "cluster-forbidden"


def shorten(value: object, limit: int = 200) -> str:
    """`value` as a Python literal of at most about `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
