"""Our signatures are botocore's: for the same request at the same time, the same headers.

- with and without a session token, a query, an unsigned payload, white space inside a header
- keys and values that are percent-encoded
- another day, region or secret makes another signature
"""

import hashlib
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from offload.objects.s3_signing import UNSIGNED, signed

NOW = datetime(2026, 11, 24, 23, 59, 58, tzinfo=UTC)
BODY = hashlib.sha256(b"body").hexdigest()
HEADERS = {
    "Host": "store.example.org:9000",
    "Content-Type": "text/plain;   charset=utf-8",
    "x-amz-meta-name": "a%20b/%E2%82%AC",
}


def of_botocore(
    method: str, path: str, query: str, payload: str, credentials: ReadOnlyCredentials, region: str
) -> Any:
    class Given(auth.S3SigV4Auth):
        def payload(self, request: Any) -> str:  # noqa: ARG002 - botocore asks for it with the request
            return payload

    url = f"http://{HEADERS['Host']}{path}{'?' if query else ''}{query}"
    request = AWSRequest(method, url, headers={k: v for k, v in HEADERS.items() if k != "Host"})
    signer = Given(Credentials(*credentials), "s3", region)
    with mock.patch.object(auth, "get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        signer.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def ours(
    method: str, path: str, query: str, payload: str, credentials: ReadOnlyCredentials, region: str
) -> Any:
    sent = signed(
        method, path, query, HEADERS, payload=payload, credentials=credentials, region=region, now=NOW
    )
    return {name.lower(): value for name, value in sent.items() if name != "Host"}


@pytest.mark.parametrize("token", [None, "session/token=="])
@pytest.mark.parametrize("payload", [BODY, UNSIGNED])
@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("PUT", "/bucket/agents/run/uid/id/a.log", ""),
        ("PUT", "/a/..%2F/~x%20y/%E2%82%AC", "partNumber=12&uploadId=a%2Bb%2Fc%3D"),
        ("GET", "/", "versionId=null"),
    ],
)
def test_signatures_are_botocores(
    method: str, path: str, query: str, payload: str, token: str | None
) -> None:
    credentials = ReadOnlyCredentials("key", "secret", token)
    request = (method, path, query, payload, credentials, "eu-central-1")

    assert ours(*request) == of_botocore(*request)


def test_every_word_of_it_counts() -> None:
    request = ("PUT", "/b/k", "", BODY)
    key = ReadOnlyCredentials("key", "secret", None)

    signatures = {
        ours(*request, key, "us-east-1")["authorization"],
        ours(*request, key, "us-east-2")["authorization"],
        ours(*request, ReadOnlyCredentials("key", "another", None), "us-east-1")["authorization"],
        ours("PUT", "/b/K", "", BODY, key, "us-east-1")["authorization"],
        ours("PUT", "/b/k", "", UNSIGNED, key, "us-east-1")["authorization"],
    }
    assert len(signatures) == 5
