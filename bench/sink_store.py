"""What the sink answers: S3's operations over sizes and names, without the bytes."""

import itertools
import re
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

_SAID = re.compile(rb"\r\n(x-amz-meta-[^:\r]+|content-type|content-encoding):[ \t]*([^\r]*)", re.IGNORECASE)
_FIELD = re.compile(rb"\r\n([^:\r]+):[ \t]*([^\r]*)")
_KEYS = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
_PARTS = re.compile(r"<PartNumber>\s*(\d+)\s*</PartNumber>")
_LEAST_PART = 5 * 1024 * 1024
_PAGE = 1000
_NAMES = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    501: "Not Implemented",
}
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Request:
    """A request whose body has come; `body` is None where it was discarded."""

    __slots__ = ("__dict__", "body", "head", "method", "size", "target")

    def __init__(self, head: bytes, size: int, body: bytes | None) -> None:
        self.head, self.size, self.body = head, size, body
        self.method, self.target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def fields(self) -> dict[str, str]:
        return {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in _FIELD.findall(self.head)
        }

    @property
    def text(self) -> str:
        return (self.body or b"").decode()


@dataclass(slots=True)
class Answer:
    """A status, fields, and a body: bytes, or a number of zeros."""

    status: int = 200
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    zeros: int = 0

    @classmethod
    def xml(cls, name: str, inside: str) -> "Answer":
        document = f"{_XML}<{name} {_SPACE}>{inside}</{name}>".encode()
        return cls(fields=(("Content-Type", "application/xml"),), body=document)

    @classmethod
    def error(cls, status: int, code: str) -> "Answer":
        document = f"{_XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        return cls(status, (("Content-Type", "application/xml"),), document)

    def wire(self, *, head_only: bool) -> tuple[bytes, int]:
        """The bytes to send, and how many zeros after them."""
        length = len(self.body) + self.zeros
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        counted = "" if self.status == 204 else f"Content-Length: {length}\r\n"
        head = (
            f"HTTP/1.1 {self.status} {_NAMES[self.status]}\r\nServer: sink\r\n{fields}{counted}\r\n".encode(
                "latin-1"
            )
        )
        return (head, 0) if head_only else (head + self.body, self.zeros)


class Stored(NamedTuple):
    """An object, as far as it is kept."""

    size: int
    etag: str
    written: float
    said: tuple[tuple[bytes, bytes], ...]
    body: bytes | None


@dataclass(slots=True)
class _Upload:
    key: str
    begun: float
    said: tuple[tuple[bytes, bytes], ...]
    parts: dict[int, tuple[int, str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Bucket:
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)


class Store:
    """Buckets with their objects."""

    def __init__(self, bucket: str) -> None:
        self._buckets = {bucket: _Bucket()}
        self._tags = itertools.count(1)

    def answer(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        name, _, key = path[1:].partition("/")
        bucket = self._buckets.get(name)
        if not name:
            return self._list_buckets()
        if not key:
            return self._of_bucket(request, name, bucket)
        if bucket is None:
            return Answer.error(404, "NoSuchBucket")
        if "%" in key:
            key = unquote(key)
        if "?" in request.target and ("uploadId" in request.query or "uploads" in request.query):
            return self._of_upload(request, bucket, name, key)
        return self._of_object(request, bucket, key)

    def _list_buckets(self) -> Answer:
        found = "".join(
            f"<Bucket><Name>{name}</Name><CreationDate>{_iso(0)}</CreationDate></Bucket>"
            for name in self._buckets
        )
        return Answer.xml("ListAllMyBucketsResult", f"<Owner><ID>sink</ID></Owner><Buckets>{found}</Buckets>")

    def _of_bucket(self, request: Request, name: str, bucket: _Bucket | None) -> Answer:
        if request.method == "PUT" and not request.query:
            self._buckets.setdefault(name, _Bucket())
            return Answer(fields=(("Location", f"/{name}"),))
        if bucket is None:
            return Answer.error(404, "NoSuchBucket")
        if request.method == "DELETE":
            return self._delete_bucket(name, bucket)
        if request.method == "POST" and "delete" in request.query:
            return _delete_many(request, bucket)
        return _about_bucket(request, name, bucket)

    def _delete_bucket(self, name: str, bucket: _Bucket) -> Answer:
        if bucket.objects:
            return Answer.error(409, "BucketNotEmpty")
        del self._buckets[name]
        return Answer(204)

    def _of_object(self, request: Request, bucket: _Bucket, key: str) -> Answer:
        if request.method == "PUT":
            if b"\r\nif-none-match: *" in request.head.lower() and key in bucket.objects:
                return Answer.error(412, "PreconditionFailed")
            etag = self._tag()
            said = tuple(_SAID.findall(request.head))
            bucket.objects[key] = Stored(request.size, etag, time.time(), said, request.body)
            return Answer(fields=(("ETag", etag),))
        if request.method == "DELETE":
            bucket.objects.pop(key, None)
            return Answer(204)
        if request.method not in {"GET", "HEAD"}:
            return Answer.error(405, "MethodNotAllowed")
        stored = bucket.objects.get(key)
        return Answer.error(404, "NoSuchKey") if stored is None else _read(request, stored)

    def _of_upload(self, request: Request, bucket: _Bucket, name: str, key: str) -> Answer:
        named = f"<Bucket>{name}</Bucket><Key>{escape(key)}</Key>"
        if "uploads" in request.query and request.method == "POST":
            upload_id = f"upload-{next(self._tags)}"
            bucket.uploads[upload_id] = _Upload(key, time.time(), tuple(_SAID.findall(request.head)))
            return Answer.xml("InitiateMultipartUploadResult", f"{named}<UploadId>{upload_id}</UploadId>")
        upload_id = request.query.get("uploadId", "")
        upload = bucket.uploads.get(upload_id)
        if upload is None or upload.key != key:
            return Answer.error(404, "NoSuchUpload")
        if request.method == "PUT":
            etag = self._tag()
            upload.parts[int(request.query["partNumber"])] = (request.size, etag)
            return Answer(fields=(("ETag", etag),))
        if request.method == "POST":
            return self._complete(request, bucket, upload_id, named)
        if request.method == "DELETE":
            del bucket.uploads[upload_id]
            return Answer(204)
        return Answer.error(501, "NotImplemented")

    def _complete(self, request: Request, bucket: _Bucket, upload_id: str, named: str) -> Answer:
        upload = bucket.uploads[upload_id]
        numbers = [int(number) for number in _PARTS.findall(request.text)]
        if not numbers or not upload.parts.keys() >= set(numbers):
            return Answer.error(400, "InvalidPart")
        sizes = [upload.parts[number][0] for number in numbers]
        if any(size < _LEAST_PART for size in sizes[:-1]):
            return Answer.error(400, "EntityTooSmall")
        etag = f'{self._tag()[:-1]}-{len(numbers)}"'
        bucket.objects[upload.key] = Stored(sum(sizes), etag, time.time(), upload.said, None)
        del bucket.uploads[upload_id]
        return Answer.xml("CompleteMultipartUploadResult", f"{named}<ETag>{escape(etag)}</ETag>")

    def _tag(self) -> str:
        return f'"{next(self._tags):032x}"'


def _about_bucket(request: Request, name: str, bucket: _Bucket) -> Answer:
    if request.method == "HEAD":
        return Answer()
    if request.method != "GET":
        return Answer.error(501, "NotImplemented")
    if "location" in request.query:
        return Answer.xml("LocationConstraint", "")
    if "versioning" in request.query:
        return Answer.xml("VersioningConfiguration", "")
    if "lifecycle" in request.query:
        return Answer.error(404, "NoSuchLifecycleConfiguration")
    list_all = _list_uploads if "uploads" in request.query else _list_objects
    return list_all(request, name, bucket)


def _read(request: Request, stored: Stored) -> Answer:
    said = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in stored.said)
    fields = (
        *said,
        ("ETag", stored.etag),
        ("Last-Modified", formatdate(stored.written, usegmt=True)),
        ("Accept-Ranges", "bytes"),
    )
    first, last, status = 0, stored.size - 1, 200
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.fields.get("range", ""))
    if asked and asked[0] != "bytes=-":
        first = int(asked[1]) if asked[1] else max(0, stored.size - int(asked[2]))
        last = min(last, int(asked[2])) if asked[1] and asked[2] else last
        if first > last:
            return Answer.error(416, "InvalidRange")
        status, fields = 206, (*fields, ("Content-Range", f"bytes {first}-{last}/{stored.size}"))
    if stored.body is not None:
        return Answer(status, fields, stored.body[first : last + 1])
    return Answer(status, fields, zeros=last + 1 - first)


def _delete_many(request: Request, bucket: _Bucket) -> Answer:
    keys = [_unescaped(key) for key in _KEYS.findall(request.text)]
    for key in keys:
        bucket.objects.pop(key, None)
    quiet = "<Quiet>true</Quiet>" in request.text
    told = "" if quiet else "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
    return Answer.xml("DeleteResult", told)


def _list_objects(request: Request, name: str, bucket: _Bucket) -> Answer:
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    token = query.get("continuation-token", query.get("start-after", query.get("marker", "")))
    most = min(int(query.get("max-keys", _PAGE)), _PAGE)
    write = _quoted if query.get("encoding-type") == "url" else escape
    listed: list[str] = []
    groups: set[str] = set()
    last = ""
    cut = False
    for key in sorted(key for key in bucket.objects if key.startswith(prefix) and key > token):
        group = prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter if delimiter else ""
        grouped = bool(group) and key.startswith(group)
        if grouped and (group in groups or token.startswith(group)):
            last = key
            continue
        if len(listed) + len(groups) == most:
            cut = True
            break
        if grouped:
            groups.add(group)
        else:
            stored = bucket.objects[key]
            listed.append(
                f"<Contents><Key>{write(key)}</Key><Size>{stored.size}</Size><ETag>{escape(stored.etag)}</ETag>"
                f"<LastModified>{_iso(stored.written)}</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            )
        last = key
    version2 = query.get("list-type") == "2"
    following = "NextContinuationToken" if version2 else "NextMarker"
    return Answer.xml(
        "ListBucketResult",
        f"<Name>{name}</Name><Prefix>{write(prefix)}</Prefix><MaxKeys>{most}</MaxKeys>"
        + ("<EncodingType>url</EncodingType>" if write is _quoted else "")
        + (f"<KeyCount>{len(listed) + len(groups)}</KeyCount>" if version2 else "")
        + f"<IsTruncated>{'true' if cut else 'false'}</IsTruncated>"
        + (f"<{following}>{escape(last)}</{following}>" if cut else "")
        + "".join(listed)
        + "".join(
            f"<CommonPrefixes><Prefix>{write(one)}</Prefix></CommonPrefixes>" for one in sorted(groups)
        ),
    )


def _list_uploads(request: Request, name: str, bucket: _Bucket) -> Answer:
    write = _quoted if request.query.get("encoding-type") == "url" else escape
    prefix = request.query.get("prefix", "")
    found = "".join(
        f"<Upload><Key>{write(upload.key)}</Key><UploadId>{upload_id}</UploadId>"
        f"<Initiated>{_iso(upload.begun)}</Initiated></Upload>"
        for upload_id, upload in sorted(bucket.uploads.items(), key=lambda one: one[1].key)
        if upload.key.startswith(prefix)
    )
    encoding = "<EncodingType>url</EncodingType>" if write is _quoted else ""
    return Answer.xml(
        "ListMultipartUploadsResult",
        f"<Bucket>{name}</Bucket>{encoding}<IsTruncated>false</IsTruncated>{found}",
    )


def _quoted(text: str) -> str:
    return quote(text, safe="/")


def _unescaped(text: str) -> str:
    for written, meant in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#13;", "\r"), ("&#10;", "\n")):
        text = text.replace(written, meant)
    return text.replace("&amp;", "&")


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))
