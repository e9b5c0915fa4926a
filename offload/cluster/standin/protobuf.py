"""Bodies that kubectl sends as protobuf: the few core kinds that it has compiled in.

The envelope is `runtime.Unknown` of k8s.io/apimachinery behind four magic bytes; field numbers are those
of the `generated.proto` files of k8s.io/api.
"""

from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"

Shape = Mapping[int, tuple[str, Any]]
"""Field number to name and kind: `str`, `dict` (a map of strings), or the shape of a message."""

_METADATA: Shape = {
    1: ("name", str),
    2: ("generateName", str),
    11: ("labels", dict),
    12: ("annotations", dict),
}
_RESOURCE: Shape = dict(
    enumerate(
        [(key, str) for key in ("namespace", "verb", "group", "version", "resource", "subresource", "name")],
        1,
    )
)
_PATH: Shape = {1: ("path", str), 2: ("verb", str)}
_REVIEW: Shape = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
_KINDS: Mapping[tuple[str, str], Shape] = {
    ("v1", "Namespace"): {1: ("metadata", _METADATA)},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: ("metadata", _METADATA),
        2: ("spec", _REVIEW),
    },
}
_ENVELOPE: Shape = {1: ("type", {1: ("apiVersion", str), 2: ("kind", str)}), 2: ("raw", bytes)}
_ENTRY: Shape = {1: ("key", str), 2: ("value", str)}


def decode(body: bytes) -> dict[str, Any]:
    """The object as JSON would have it. Raises `ValueError`."""
    if not body.startswith(MAGIC):
        raise ValueError("it does not begin as a Kubernetes object does")
    envelope = _message(body[len(MAGIC) :], _ENVELOPE)
    kind = envelope.get("type", {})
    shape = _KINDS.get((kind.get("apiVersion", ""), kind.get("kind", "")))
    if shape is None:
        raise ValueError(f"the stand-in does not read {kind.get('kind')} as protobuf")
    return {**kind, **_message(envelope.get("raw", b""), shape)}


def _message(data: bytes, shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        if number not in shape or isinstance(value, int):
            continue
        name, kind = shape[number]
        if kind is str:
            found[name] = value.decode()
        elif kind is bytes:
            found[name] = value
        elif kind is dict:
            entry = _message(value, _ENTRY)
            found.setdefault(name, {})[entry.get("key", "")] = entry.get("value", "")
        else:
            found[name] = _message(value, kind)
    return {key: value for key, value in found.items() if value != ""}  # an empty string means absent


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:  # noqa: PLR2004 - wire type "length-delimited"
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire, len(data))
        if at + length > len(data):
            raise ValueError("it ends too early")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:  # noqa: PLR2004 - the top bit says that more bytes follow
            return value, at
    raise ValueError("it ends too early")
