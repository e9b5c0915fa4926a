"""A bucket looked at, on moto and SeaweedFS.

Cases: versioning off, on and suspended; lifecycle rules, none and of each kind; a multipart upload that is
opened and aborted; the store's clock, by a proxy that changes it, and by a refusal; a bucket that is missing;
a store that does not answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import boto3
import pytest

from offload.dev.stores import StoreAddress
from offload.errors import StoreRefusedError, StoreUnavailableError
from offload.objects.inspection import LifecycleRule, Versioning
from offload.objects.s3_inspection import S3Inspection


@pytest.fixture
def moto_client(moto: StoreAddress) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=moto.endpoint_url,
        aws_access_key_id=moto.access_key,
        aws_secret_access_key=moto.secret_key,
        region_name=moto.region,
    )
    yield client
    client.close()


@pytest.fixture
def bucket(moto_client: Any) -> str:
    name = f"inspected-{uuid4()}"
    moto_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def inspection(moto: StoreAddress, bucket: str) -> Iterator[S3Inspection]:
    inspected = S3Inspection(replace(moto.connection(), bucket=bucket))
    yield inspected
    inspected.close()


def test_versioning_is_told(inspection: S3Inspection, moto_client: Any, bucket: str) -> None:
    assert inspection.versioning() is Versioning.OFF
    for status, told in (("Enabled", Versioning.ON), ("Suspended", Versioning.SUSPENDED)):
        moto_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        assert inspection.versioning() is told


def test_lifecycle_rules_in_force_are_told(inspection: S3Inspection, moto_client: Any, bucket: str) -> None:
    assert inspection.lifecycle() == []
    rules: list[dict[str, Any]] = [
        {
            "ID": "uploads",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {
            "ID": "old",
            "Filter": {"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}]}},
            "Expiration": {"Days": 3},
        },
        {"ID": "versions", "Filter": {"Prefix": "b/"}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        {"ID": "asleep", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}, "Status": "Disabled"},
    ]
    moto_client.put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={"Rules": [{"Status": "Enabled", **rule} for rule in rules]},
    )

    def rule(name: str, prefix: str, narrowed: bool, *ends: bool) -> LifecycleRule:
        return LifecycleRule(name, prefix, narrowed, *ends)

    assert inspection.lifecycle() == [
        rule("uploads", "", False, True, False, False),
        rule("old", "a/", True, False, True, False),
        rule("versions", "b/", False, False, False, True),
    ]


@pytest.mark.parametrize("store", ["moto", "seaweedfs"])
def test_a_tried_multipart_upload_leaves_nothing(store: str, request: pytest.FixtureRequest) -> None:
    address: StoreAddress = request.getfixturevalue(store)
    objects = request.getfixturevalue(f"{store}_objects")
    inspected = S3Inspection(address.connection())
    key = f"tried/{uuid4()}"
    inspected.try_multipart(key)
    assert list(objects.open_uploads(key)) == []
    assert abs(inspected.clock_ahead()) < timedelta(seconds=2)
    inspected.versioning()
    inspected.lifecycle()
    inspected.close()


@pytest.mark.parametrize("status", [200, 403])
def test_the_clock_is_told_by_any_answer(
    moto: StoreAddress, make_proxy: Callable[[str], Any], verdicts: Any, status: int
) -> None:
    proxy = make_proxy(moto.endpoint_url)
    away = timedelta(minutes=20)
    proxy.rule = lambda _seen: verdicts.answer(
        status, headers={"Date": format_datetime(datetime.now(UTC) - away, usegmt=True)}
    )
    inspected = S3Inspection(replace(moto.connection(), endpoint_url=proxy.url))
    assert abs(inspected.clock_ahead() + away) < timedelta(seconds=2)
    inspected.close()


def test_a_missing_bucket_is_refused(moto: StoreAddress) -> None:
    inspected = S3Inspection(replace(moto.connection(), bucket="nobody-made-it"))
    with pytest.raises(StoreRefusedError, match="NoSuchBucket"):
        inspected.lifecycle()
    with pytest.raises(StoreRefusedError, match="NoSuchBucket"):
        inspected.try_multipart("x")
    inspected.close()


def test_a_store_that_is_away_is_unavailable(
    moto: StoreAddress, make_proxy: Callable[[str], Any], verdicts: Any
) -> None:
    proxy = make_proxy(moto.endpoint_url)
    proxy.rule = lambda _seen: verdicts.drop_request()
    inspected = S3Inspection(replace(moto.connection(), endpoint_url=proxy.url, attempts=1))
    for look in (inspected.clock_ahead, inspected.versioning, inspected.lifecycle):
        with pytest.raises(StoreUnavailableError):
            look()
    inspected.close()
