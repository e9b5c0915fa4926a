"""`Repr-Digest` and `Content-Digest` fields (RFC 9530): dictionaries of byte sequences (RFC 9651)."""

import base64
import binascii
import re
from collections.abc import Iterator

from offload.errors import InvalidDigestError

_LENGTHS = {"sha-256": 32, "sha-512": 64}
_FORM = "must look like sha-256=:BASE64:"
_BYTES = r":[A-Za-z0-9+/=]*:"
_KEY = r"[a-z*][a-z0-9_.*-]*"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_ITEM = rf'(?:{_BYTES}|%?{_TEXT}|[^\s",;:()][^\s",;()]*)'
_MEMBER = re.compile(
    rf'[ \t]*({_KEY})(?:=({_ITEM}|\((?:{_TEXT}|[^"()])*\)))?(?:; *{_KEY}(?:={_ITEM})?)*[ \t]*(?:,(?=.)|\Z)'
)


def parse_digests(field: str, value: str) -> dict[str, bytes]:
    """The digests in a header named `field` that can be verified here: sha-256 and sha-512, by name.

    Other algorithms are passed over (RFC 9530, section 2: a recipient may ignore any).

    Raises:
        InvalidDigestError: the syntax is wrong, or a digest has not its algorithm's length.
    """
    digests: dict[str, bytes] = {}
    for algorithm, given in _members(field, value):
        if algorithm not in _LENGTHS:
            continue
        if not given.startswith(":"):
            raise InvalidDigestError(field, _FORM, value)
        encoded = given.strip(":")
        try:
            # The padding may be missing (RFC 9651, section 4.2.7).
            digest = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error as error:
            raise InvalidDigestError(field, "must hold base64 between colons", value) from error
        if len(digest) != _LENGTHS[algorithm]:
            raise InvalidDigestError(field, f"must hold {_LENGTHS[algorithm]} bytes for {algorithm}", value)
        digests[algorithm] = digest
    return digests


def format_digest(sha256: bytes) -> str:
    """`sha-256=:BASE64:`, the value of a `Repr-Digest` field."""
    return f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"


def _members(field: str, value: str) -> Iterator[tuple[str, str]]:
    """Keys and values; parameters say nothing of a digest."""
    place = 0
    while match := _MEMBER.match(value, place):
        yield match[1], match[2] or ""
        place = match.end()
        if place == len(value):
            return
    raise InvalidDigestError(field, _FORM, value)
