"""Object keys: made by the server, and predictable for an operator with a bucket browser."""

import re
from dataclasses import dataclass
from uuid import UUID

MARKER = ".offload-index"
"""The object, right under the prefix, that says which index the prefix belongs to."""

PROBES = ".offload-doctor"
"""The folder under the prefix in which `offload doctor` tries what it may; no namespace is called so."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9._/-]")
_OURS = re.compile(r"[A-Za-z0-9._/-]+")
_PARTS = 5


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What a key of `object_key` names."""

    namespace: str
    run: str
    uid: str
    artifact_id: UUID


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
    parts = parts_of(key, prefix)
    return parts is not None and key == probe_key(prefix, parts.artifact_id)


def root(prefix: str) -> str:
    """What every key under `prefix` starts with: the prefix and a slash, or nothing."""
    return f"{prefix}/" if prefix else ""


def parts_of(key: str, prefix: str) -> KeyParts | None:
    """What `key` names under `prefix`; None where it is not one that `object_key` makes.

    What it makes for a longer prefix that begins with this one can look the same, with other things in these
    places: whether there is such a run is for the index to say.
    """
    if not key.startswith(root(prefix)) or not _OURS.fullmatch(key):
        return None
    segments = key[len(root(prefix)) :].split("/", _PARTS - 1)
    if len(segments) < _PARTS:
        return None
    namespace, run, uid, artifact_id, _ = segments
    try:
        parts = KeyParts(namespace, run, uid, UUID(artifact_id))
    except ValueError:
        return None
    return parts if str(parts.artifact_id) == artifact_id else None
