"""What another writer's entry of `status.artifacts` holds in place of a pointer, as artifacts."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from offload.domain.names import UNKNOWN_CONTENT, check_content_type, check_name, check_type, default_type
from offload.domain.pointers import Entry, Reason, compact, points_elsewhere
from offload.errors import InvalidContentTypeError, InvalidNameError, InvalidTypeError

_PLAIN = "text/plain; charset=utf-8"
_FIELD_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Content:
    """One field's."""

    name: str
    type: str
    content_type: str
    data: bytes
    origin: str
    """Where it was: `status:` and the field."""
    aside: str
    """Its name where an upload has `name`."""

    @property
    def names(self) -> Sequence[str]:
        """The names that it may get, the best first; the last is nobody else's."""
        return self.name, self.aside, _nameless(self.data)

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def split(entry: Entry, unfit: Mapping[str, Reason]) -> tuple[Entry | None, list[Content]]:
    """What may stay of `entry` (None: nothing is left to say), and what its `unfit` fields hold.

    The content has the entry's name where nothing else of the entry needs that, else the field behind it.
    """
    rest = {field: value for field, value in entry.items() if field not in unfit}
    stays = points_elsewhere(rest) or not unfit
    alone = not stays and len(unfit) == 1
    return rest if stays else None, [
        _content(rest, field, entry[field], reason, alone=alone) for field, reason in unfit.items()
    ]


def _content(rest: Entry, field: str, value: Any, reason: Reason, *, alone: bool) -> Content:
    content_type, data = _decoded(value, reason)
    name = str(rest.get("name") or "").strip()
    aside = _name_of(f"{name}.{field}" if name else "", data)
    own = _name_of(name, data) if alone else aside
    try:
        type_ = check_type(str(rest.get("type", "")))
    except InvalidTypeError:
        type_ = default_type(content_type)
    return Content(own, type_, content_type, data, f"status:{_printable(field)}", aside)


def _name_of(name: str, data: bytes) -> str:
    try:
        return check_name(name)
    except InvalidNameError:
        return _nameless(data)


def _nameless(data: bytes) -> str:
    return f"adopted-{hashlib.sha256(data).hexdigest()[:16]}"


def _decoded(value: Any, reason: Reason) -> tuple[str, bytes]:
    """The bytes that an unfit field stands for, and their content type."""
    if not isinstance(value, str):
        return "application/json", compact(value)
    raw = value.encode(errors="surrogatepass")
    if reason is Reason.URI_TOO_LONG:
        return "text/uri-list", raw + b"\r\n"
    scheme, _, rest = value.strip().partition(":")
    if scheme.lower() != "data" or "," not in rest:
        return _PLAIN, raw
    return _data_uri(rest) or (_PLAIN, raw)


def _data_uri(rest: str) -> tuple[str, bytes] | None:
    """A `data:` URI behind its scheme (RFC 2397); None where it cannot be decoded."""
    head, _, payload = rest.partition(",")
    encoded = head.lower().endswith(";base64")
    media_type = (head[: -len(";base64")] if encoded else head) or "text/plain;charset=US-ASCII"
    try:
        data = unquote_to_bytes(payload)
        if encoded:
            data = base64.b64decode(data, validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    try:
        return check_content_type(media_type.strip()), data
    except InvalidContentTypeError:
        return UNKNOWN_CONTENT, data


def _printable(field: str) -> str:
    return "".join(character for character in field if character.isprintable())[:_FIELD_LENGTH]
