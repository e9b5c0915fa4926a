"""A bucket looked at through boto3."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from offload.errors import StoreUnavailableError
from offload.objects.inspection import LifecycleRule, Versioning
from offload.objects.s3_client import S3Connection, make_client, owner_arguments
from offload.objects.s3_errors import code_of, translated

_CONNECTIONS = 4


class S3Inspection:
    """One bucket, looked at (see `inspection.Inspection`)."""

    def __init__(self, connection: S3Connection) -> None:
        self._client = make_client(connection, boto3.session.Session(), connections=_CONNECTIONS)
        self._bucket: Any = {"Bucket": connection.bucket, **owner_arguments(connection)}

    def clock_ahead(self) -> timedelta:
        asked = datetime.now(UTC)
        with translated("asking the store for its time"):
            try:
                answer: Any = self._client.head_bucket(**self._bucket)
            except ClientError as error:
                answer = error.response
        here = asked + (datetime.now(UTC) - asked) / 2
        told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if not told:
            raise StoreUnavailableError("the store's answers do not say what time it has")
        # Cut to the second: half a second later is the best guess.
        return parsedate_to_datetime(told).astimezone(UTC) + timedelta(seconds=0.5) - here

    def versioning(self) -> Versioning:
        with translated("asking for the bucket's versioning"):
            status = self._client.get_bucket_versioning(**self._bucket).get("Status")
        return {"Enabled": Versioning.ON, "Suspended": Versioning.SUSPENDED}.get(status or "", Versioning.OFF)

    def lifecycle(self) -> Sequence[LifecycleRule]:
        with translated("asking for the bucket's lifecycle rules"):
            try:
                answer = self._client.get_bucket_lifecycle_configuration(**self._bucket)
            except ClientError as error:
                if code_of(error) == "NoSuchLifecycleConfiguration":
                    return []
                raise
        return [_rule(rule) for rule in answer.get("Rules", ()) if rule.get("Status") == "Enabled"]

    def try_multipart(self, key: str) -> None:
        with translated("opening a multipart upload"):
            opened = self._client.create_multipart_upload(Key=key, **self._bucket)
        with translated("aborting a multipart upload"):
            self._client.abort_multipart_upload(Key=key, UploadId=opened["UploadId"], **self._bucket)

    def close(self) -> None:
        self._client.close()


def _rule(rule: Mapping[str, Any]) -> LifecycleRule:
    narrowing = rule.get("Filter") or {}
    both = narrowing.get("And") or {}
    return LifecycleRule(
        name=rule.get("ID") or "(unnamed)",
        prefix=both.get("Prefix") or narrowing.get("Prefix") or rule.get("Prefix") or "",
        narrowed=bool((both.keys() | narrowing.keys()) - {"Prefix", "And"}),
        ends_uploads="AbortIncompleteMultipartUpload" in rule,
        ends_objects=bool({"Days", "Date"} & (rule.get("Expiration") or {}).keys()),
        ends_versions="NoncurrentVersionExpiration" in rule,
    )
