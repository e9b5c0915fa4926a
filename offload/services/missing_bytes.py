"""Why an artifact has no bytes to read: it has ended, they are elsewhere, or they are lost."""

import structlog

from offload.domain.artifact import Artifact, Location, State
from offload.domain.keys import root
from offload.domain.times import format_time
from offload.errors import (
    ArtifactDeletedError,
    ArtifactExpiredError,
    ArtifactGoneError,
    ArtifactLostError,
    ArtifactNotFoundError,
    ObjectMissingError,
    StoreUnavailableError,
)
from offload.index import Index, artifacts
from offload.objects.interface import Objects
from offload.services.orphans import Claim, claim_on

log = structlog.get_logger()

_GONE = {
    State.EXPIRED: ArtifactExpiredError,
    State.DELETED: ArtifactDeletedError,
    State.LOST: ArtifactLostError,
}


def refuse_ended(artifact: Artifact) -> None:
    """Raise what a reader of an ended artifact is told: by whom or which rule, and when."""
    if artifact.state is not State.STORED:
        raise _gone(artifact)


def find_again(index: Index, objects: Objects, artifact: Artifact, *, prefix: str) -> Location:
    """Where the bytes of `artifact` are that are not where its row says; or raise what a reader is told.

    They may have gone by rule or request since the row was read, or be there as another version: a bucket
    that was restored by copying has others. Else they are lost, and the row says so from now on; but only
    a store whose marker names this index is believed, and only of keys in its bucket and `prefix`:
    behind another bucket or an empty disk, everything would look lost. Blocking.

    Raises:
        ArtifactGoneError: the bytes are gone for good.
        StoreUnavailableError: that is not certain.
    """
    refuse_ended(_again(index, artifact))
    if copied := _copy_of(artifact, objects):
        return copied
    location = artifact.location
    marked = location.bucket == objects.bucket and location.key.startswith(root(prefix))
    lost = marked and claim_on(index, objects, prefix) is Claim.OURS
    log.error("bytes.missing", artifact=str(artifact.id), key=location.key, lost=lost)
    if not lost:
        raise StoreUnavailableError("the store does not have these bytes, or is not the one it was")
    with index.begin() as tx:
        artifacts.mark_lost(tx, artifact.id)
    raise _gone(_again(index, artifact))


def _again(index: Index, artifact: Artifact) -> Artifact:
    """The row as it is now."""
    with index.read() as tx:
        found = artifacts.get(tx, artifact.id)
    if found is None:
        raise ArtifactNotFoundError(f"there is no artifact {artifact.id}")
    return found


def _copy_of(artifact: Artifact, objects: Objects) -> Location | None:
    """The newest version of the key, where the row names one. Keys have ids: it can only be a copy."""
    pinned = artifact.location
    if pinned.version_id is None:
        return None
    try:
        newest = objects.head(Location(pinned.bucket, pinned.key))
    except ObjectMissingError:
        return None
    return newest.location if newest.size_bytes == artifact.size_bytes else None


def _gone(artifact: Artifact) -> ArtifactGoneError:
    when = f" at {format_time(artifact.ended_at)}" if artifact.ended_at else ""
    return _GONE[artifact.state](
        f"artifact {artifact.id} is {artifact.state}{when} by {artifact.ended_by}; its history stays"
    )
