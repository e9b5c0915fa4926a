"""How bytes go over the wire: the address and the credentials are boto3's, the sending is ours.

- a bucket in another region is found, and asked there from then on
- virtual addressing, and the proxy that the environment names
- TLS: a private CA is trusted where it is named, and no other
- bodies up to 64 KiB are signed with their SHA-256, larger ones where it is asked for
- a store that takes nothing, or never answers, is unavailable in bounded time
- a connection that was kept open and is gone is no failure
- every loop has connections of its own, and leaves none
- without credentials there is no adapter; those that one finds are for all that it sends
- an error that comes in two pieces keeps its code
"""

import asyncio
import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import botocore.session
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from offload.dev.stores import StoreAddress
from offload.domain.limits import PART_LEAST
from offload.errors import ConfigError, ObjectMissingError, StoreUnavailableError
from offload.objects.s3 import S3Objects
from offload.objects.s3_client import S3Connection

PART = PART_LEAST
ELSEWHERE = b"<Error><Code>PermanentRedirect</Code></Error>"
NOBODY = S3Connection("bucket", "http://127.0.0.1:1", None, "us-east-1", "key", "secret", addressing="path")


def test_a_bucket_in_another_region_is_found(
    moto: StoreAddress, verdicts: Any, make_proxy: Callable[[str], Any], shelf_of: Callable[..., Any]
) -> None:
    def there_only(seen: Any) -> Any:
        there = {"x-amz-bucket-region": "us-west-2"}
        if "/us-west-2/s3/" not in seen.headers.get("Authorization", ""):
            return verdicts.answer(301, ELSEWHERE, there)
        return verdicts.answer(200, b"", there) if seen.method == "HEAD" else None

    proxy = make_proxy(moto.endpoint_url)
    proxy.rule = there_only
    adapter = S3Objects(replace(moto.connection(), endpoint_url=proxy.url, region="us-east-1"))
    shelf = shelf_of(adapter)

    location = shelf.put("log", b"bytes")
    asked = len(proxy.seen)
    assert shelf.get(location) == b"bytes"
    adapter.close()

    assert len(proxy.seen) == asked + 1, "it asks where it found the bucket"


def test_virtual_addresses_go_by_the_environments_proxy(
    verdicts: Any,
    make_proxy: Callable[[str], Any],
    shelf_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = make_proxy("http://nowhere.invalid")
    proxy.rule = lambda _seen: verdicts.answer(200, b"", {"ETag": '"e"'})
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    connection = replace(NOBODY, endpoint_url="http://store.invalid:8080", addressing="virtual")
    adapter = S3Objects(connection)
    shelf = shelf_of(adapter)
    shelf.put("log", b"bytes")
    adapter.close()

    (seen,) = proxy.seen
    assert seen.path == f"http://bucket.store.invalid:8080/{shelf.key('log')}"
    assert seen.headers["Host"] == "bucket.store.invalid:8080"


@pytest.mark.parametrize("trusted", [True, False])
def test_the_ca_that_is_named_is_trusted_and_no_other(
    moto: StoreAddress,
    make_proxy: Callable[[str], Any],
    shelf_of: Callable[..., Any],
    tmp_path: Path,
    trusted: bool,
) -> None:
    certificate, other = self_signed(tmp_path, "store"), self_signed(tmp_path, "other")
    proxy = make_proxy(moto.endpoint_url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy.socket = context.wrap_socket(proxy.socket, server_side=True, do_handshake_on_connect=False)
    connection = replace(
        moto.connection(),
        endpoint_url=proxy.url.replace("http:", "https:"),
        ca_bundle=str(certificate if trusted else other),
        attempts=1,
    )
    adapter = S3Objects(connection, part_size=PART)
    shelf = shelf_of(adapter)
    data = os.urandom(PART + 1)
    try:
        if trusted:
            assert shelf.get(shelf.put("log", data)) == data
        else:
            with pytest.raises(StoreUnavailableError):
                shelf.put("log", b"x")
            assert not proxy.seen
    finally:
        adapter.close()


@pytest.mark.parametrize(("asked", "said"), [(True, "sha"), (False, "UNSIGNED-PAYLOAD")])
def test_large_bodies_are_signed_where_it_is_asked_for(
    moto: StoreAddress,
    make_proxy: Callable[[str], Any],
    shelf_of: Callable[..., Any],
    asked: bool,
    said: str,
) -> None:
    proxy = make_proxy(moto.endpoint_url)
    connection = replace(moto.connection(), endpoint_url=proxy.url, sign_bodies=asked)
    adapter = S3Objects(connection, part_size=PART)
    shelf = shelf_of(adapter)
    small, large = os.urandom(2**16), os.urandom(2**16 + 1)
    shelf.put("small", small)
    shelf.put("large", large)
    shelf.put("parts", large * 100)
    adapter.close()

    sent = {seen.length: seen.headers["X-Amz-Content-SHA256"] for seen in proxy.seen if seen.method == "PUT"}
    first = (large * 100)[:PART]
    assert sent[len(small)] == hashlib.sha256(small).hexdigest()
    assert sent[len(large)] == (hashlib.sha256(large).hexdigest() if said == "sha" else said)
    assert sent[PART] == (hashlib.sha256(first).hexdigest() if said == "sha" else said)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("size", [10, 20 * 2**20])
def test_a_store_that_hangs_is_unavailable_in_bounded_time(
    shelf_of: Callable[..., Any], reads: bool, size: int
) -> None:
    with hanging(reads=reads) as port:
        adapter = S3Objects(
            replace(NOBODY, endpoint_url=f"http://127.0.0.1:{port}", read_timeout=0.3, attempts=2),
            part_size=32 * 2**20,
        )
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            shelf_of(adapter).put("log", bytes(size))
        assert time.monotonic() - began < 6
        adapter.close()


def test_a_kept_connection_that_is_gone_is_no_failure(
    moto: StoreAddress, verdicts: Any, make_proxy: Callable[[str], Any], shelf_of: Callable[..., Any]
) -> None:
    proxy = make_proxy(moto.endpoint_url)
    adapter = S3Objects(replace(moto.connection(), endpoint_url=proxy.url))
    shelf = shelf_of(adapter)

    async def twice() -> None:
        await shelf.putting("first", shelf.pieces(b"1"))
        dropped = [verdicts.drop_request()]
        proxy.rule = lambda _seen: dropped.pop() if dropped else None
        await shelf.putting("second", shelf.pieces(b"2"))

    asyncio.run(twice())
    assert shelf.names() == ["first", "second"]
    adapter.close()


def test_every_loop_leaves_no_connection(seaweedfs: StoreAddress, shelf_of: Callable[..., Any]) -> None:
    adapter = S3Objects(seaweedfs.connection())
    shelf = shelf_of(adapter)
    port = int(seaweedfs.endpoint_url.rpartition(":")[2])

    def connections() -> int:
        return sum(
            bool(one.raddr) and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED
            for one in psutil.Process().net_connections("tcp4")
        )

    async def many() -> int:
        await asyncio.gather(*[shelf.putting(f"{n}", shelf.pieces(b"x")) for n in range(8)])
        return connections()

    before = connections()
    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    during = asyncio.run(many())

    assert before < during
    assert connections() <= before
    adapter.close()


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file in which boto3 would find some."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


@pytest.mark.usefixtures("no_credentials")
def test_without_credentials_there_is_no_adapter() -> None:
    with pytest.raises(ConfigError, match="no S3 credentials"):
        S3Objects(replace(NOBODY, access_key=None, secret_key=None))


def test_credentials_are_looked_for_once(
    moto: StoreAddress, no_credentials: Path, shelf_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_credentials.write_text("[default]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    asking: list[botocore.session.Session] = []
    find = botocore.session.Session.get_credentials

    def find_for_the_first(session: botocore.session.Session) -> Any:
        asking.append(session)
        return find(session) if session is asking[0] else None

    monkeypatch.setattr(botocore.session.Session, "get_credentials", find_for_the_first)
    adapter = S3Objects(replace(moto.connection(), access_key=None, secret_key=None))
    shelf = shelf_of(adapter)

    adapter.check()
    assert shelf.get(shelf.put("log", b"x")) == b"x"
    adapter.close()


@contextmanager
def hanging(*, reads: bool) -> Iterator[int]:
    """A server that takes connections, and perhaps bytes, and never answers."""
    taken: list[socket.socket] = []

    def take(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            taken.append(connection)
            if reads:
                threading.Thread(target=drain, args=(connection,), daemon=True).start()

    def drain(connection: socket.socket) -> None:
        try:
            while connection.recv(2**20):
                pass
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in taken:
        connection.close()


def self_signed(folder: Path, name: str) -> Path:
    """A certificate of 127.0.0.1 that is its own CA, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_an_error_in_two_pieces_keeps_its_code(shelf_of: Callable[..., Any]) -> None:
    document = b"<Error><Code>NoSuchKey</Code></Error>"

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2**16)
            head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(document)
            connection.sendall(head + document[:15])
            time.sleep(0.2)
            connection.sendall(document[15:])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=[listener])
        server.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        adapter = S3Objects(replace(NOBODY, endpoint_url=endpoint, attempts=1))
        shelf = shelf_of(adapter)
        with pytest.raises(ObjectMissingError):
            shelf.get(shelf.at("log"))
        server.join()
        adapter.close()
