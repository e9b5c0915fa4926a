"""Object keys: made by the server, and predictable for an operator with a bucket browser."""

import re
from uuid import UUID

MARKER = ".offload-index"
"""The object, right under the prefix, that says which index the prefix belongs to."""

PROBES = ".offload-doctor"
"""The folder under the prefix in which `offload doctor` tries what it may; no namespace is called so."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9._/-]")
_ID_SEGMENT = 3


def object_key(  # noqa: PLR0913, PLR0917 - these are the key's six parts, in its order
    prefix: str, namespace: str, run: str, uid: str, artifact_id: UUID, name: str
) -> str:
    """`{prefix}/{namespace}/{run}/{uid}/{artifact id}/{name}`, the name's bytes outside A-Za-z0-9._-/ as `_`.

    The name must have passed `check_name`. The key stays under S3's 1,024 bytes (S3 documentation,
    "Naming Amazon S3 objects").
    """
    safe_name = _UNSAFE.sub(b"_", name.encode()).decode("ascii")
    return f"{root(prefix)}{namespace}/{run}/{uid}/{artifact_id}/{safe_name}"


def marker_key(prefix: str) -> str:
    """The key of the prefix's marker object."""
    return root(prefix) + MARKER


def probe_key(prefix: str, probe_id: UUID) -> str:
    """A key to try the store with; like an artifact's, so that the orphan cleaner removes what is left."""
    return object_key(prefix, PROBES, "probe", "probe", probe_id, "probe")


def is_probe(key: str, prefix: str) -> bool:
    """Whether `key` is one that `probe_key` makes."""
    return key.startswith(f"{root(prefix)}{PROBES}/")


def root(prefix: str) -> str:
    """What every key under `prefix` starts with: the prefix and a slash, or nothing."""
    return f"{prefix}/" if prefix else ""


def artifact_id_of(key: str, prefix: str) -> UUID | None:
    """The artifact id inside `key`, or None where the key is not one that `object_key` makes."""
    if not key.startswith(root(prefix)):
        return None
    segments = key[len(root(prefix)) :].split("/")
    if len(segments) <= _ID_SEGMENT + 1:
        return None
    try:
        return UUID(segments[_ID_SEGMENT])
    except ValueError:
        return None
