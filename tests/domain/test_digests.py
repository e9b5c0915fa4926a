"""Digest fields (RFC 9530).

Cases: sha-256 and sha-512 read, also without padding or with parameters; unknown algorithms passed over,
whatever they hold; the last of a name wins; broken syntax, base64 and lengths refused with the field's name;
writing is the inverse of reading.
"""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain.digests import format_digest, parse_digests
from offload.errors import InvalidDigestError

SHA256 = hashlib.sha256(b"x").digest()
SHA512 = hashlib.sha512(b"x").digest()


def _member(algorithm: str, digest: bytes) -> str:
    return f"{algorithm}=:{base64.b64encode(digest).decode()}:"


@pytest.mark.parametrize(
    ("value", "digests"),
    [
        (_member("sha-256", SHA256), {"sha-256": SHA256}),
        (
            f"{_member('sha-512', SHA512)}, {_member('sha-256', SHA256)}",
            {"sha-256": SHA256, "sha-512": SHA512},
        ),
        (f"{_member('md5', b'x' * 16)},{_member('sha-256', SHA256)}", {"sha-256": SHA256}),
        (_member("crc32c", b"abcd"), {}),
        (f"sha-256=:{base64.b64encode(SHA256).decode().rstrip('=')}:", {"sha-256": SHA256}),
        (f"{_member('sha-256', SHA256)}; q=1;x", {"sha-256": SHA256}),
        (f'a="b, \\"", c;d=1, e=("f" 2);g, {_member("sha-256", SHA256)}', {"sha-256": SHA256}),
        (f"{_member('sha-256', bytes(32))}, {_member('sha-256', SHA256)}", {"sha-256": SHA256}),
    ],
)
def test_digests_that_can_be_verified_are_read(value: str, digests: dict[str, bytes]) -> None:
    assert parse_digests("Repr-Digest", value) == digests


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha-256",
        "sha-256=abc",
        f"sha-256={base64.b64encode(SHA256).decode()}",
        "sha-256=::",
        _member("sha-256", b"short"),
        _member("sha-512", SHA256),
        "sha-256=:A:",
        "SHA-256=:AAAA:",
        _member("sha-256", SHA256) + ",",
        f'a="b, {_member("sha-256", SHA256)}',
    ],
)
def test_a_broken_field_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidDigestError) as refused:
        parse_digests("Content-Digest", value)
    assert refused.value.field == "Content-Digest"


@given(st.binary(min_size=32, max_size=32))
def test_a_written_digest_reads_back(sha256: bytes) -> None:
    assert parse_digests("Repr-Digest", format_digest(sha256)) == {"sha-256": sha256}
