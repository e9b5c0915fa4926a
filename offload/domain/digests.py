"""`Repr-Digest` and `Content-Digest` fields (RFC 9530): dictionaries of byte sequences (RFC 9651)."""

import base64
import binascii
import re

from offload.errors import InvalidDigestError

_LENGTHS = {"sha-256": 32, "sha-512": 64}
_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):[ \t]*")


def parse_digests(field: str, value: str) -> dict[str, bytes]:
    """The digests in a header named `field` that can be verified here: sha-256 and sha-512, by name.

    Other algorithms are passed over (RFC 9530, section 2: a recipient may ignore any).

    Raises:
        InvalidDigestError: the syntax is wrong, or a digest has not its algorithm's length.
    """
    digests: dict[str, bytes] = {}
    for member in value.split(","):
        match = _MEMBER.fullmatch(member)
        if not match:
            raise InvalidDigestError(field, "must look like sha-256=:BASE64:", value)
        algorithm, encoded = match.groups()
        if algorithm not in _LENGTHS:
            continue
        try:
            digest = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise InvalidDigestError(field, "must hold base64 between colons", value) from error
        if len(digest) != _LENGTHS[algorithm]:
            raise InvalidDigestError(field, f"must hold {_LENGTHS[algorithm]} bytes for {algorithm}", value)
        digests[algorithm] = digest
    return digests


def format_digest(sha256: bytes) -> str:
    """`sha-256=:BASE64:`, the value of a `Repr-Digest` field."""
    return f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"
