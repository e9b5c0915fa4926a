"""Opaque keyset cursors: a place in a list, bound to the list it was made for."""

import base64
import binascii
import hashlib
import json

from offload.errors import InvalidCursorError

_BINDING_LENGTH = 8


def encode(list_id: str, place: list[str | int]) -> str:
    """Make a cursor for `place` in the list that `list_id` names (its path and filters)."""
    payload = json.dumps([_binding(list_id), *place], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode("ascii")


def decode(list_id: str, cursor: str, *types: type[str | int]) -> list[str | int]:
    """The place that `encode` was given.

    `types` are the types of its parts, in order.

    Raises:
        InvalidCursorError: the cursor was made for another list, or not by `encode`.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        payload = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidCursorError("cursor", "must be one that this list gave", cursor) from error
    if (
        not isinstance(payload, list)
        or len(payload) != 1 + len(types)
        or payload[0] != _binding(list_id)
        or any(type(part) is not expected for part, expected in zip(payload[1:], types, strict=True))
    ):
        raise InvalidCursorError("cursor", "must be one that this list gave, with the same filters", cursor)
    return payload[1:]


def _binding(list_id: str) -> str:
    return hashlib.sha256(list_id.encode()).hexdigest()[:_BINDING_LENGTH]
