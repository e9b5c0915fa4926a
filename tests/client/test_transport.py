"""The transport that listens while it talks.

Cases: which proxy the environment chooses, and that this host needs none; a store that a download is
redirected to has a proxy of its own, and is named where it does not answer or refuses; TLS with a private CA,
an early answer over TLS, and a certificate that is not trusted, which is not tried again; a server without
TLS; an authority that cannot be read; proxies that are no address.
"""

import hashlib
import io
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from offload.client import AnswerError, Client, MissingError, OutOfReachError
from offload.client.transport import _proxy_for
from offload.domain.digests import format_digest
from offload.errors import ConfigError

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


class TlsServer:
    """Refuses one upload over TLS after its headers, and counts what came of its body."""

    def __init__(self, certificate: Path) -> None:
        self.taken = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            raw, _ = self._listener.accept()
            with raw, self._context.wrap_socket(raw, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                while piece := connection.recv(65536):
                    self.taken += len(piece)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "offload test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_server(authority: Path) -> Iterator[TlsServer]:
    server = TlsServer(authority)
    yield server
    server.close()


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("http://offload.agents", {}, None),
        ("http://offload.agents", {"http_proxy": "http://p:3128"}, "http://p:3128"),
        ("https://offload.agents", {"http_proxy": "http://p:3128"}, None),
        ("https://offload.agents", {"https_proxy": "p:3128"}, "http://p:3128"),
        ("https://offload.agents", {"all_proxy": "http://p:3128"}, "http://p:3128"),
        ("http://offload.agents", {"http_proxy": "http://p:3128", "no_proxy": ".agents"}, None),
        ("http://offload:8080", {"http_proxy": "http://p:3128", "no_proxy": "offload"}, None),
        ("http://127.0.0.1:8080", {"http_proxy": "http://p:3128"}, None),
        ("http://localhost", {"all_proxy": "http://p:3128"}, None),
    ],
)
def test_the_environment_chooses_the_proxy(
    environment: pytest.MonkeyPatch, url: str, variables: dict[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    chosen = _proxy_for(httpx.URL(url))
    assert (str(chosen.url) if chosen else None) == proxy


def test_a_proxy_that_is_not_http_is_refused_by_name(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("all_proxy", "socks5://p:1080")
    with pytest.raises(ConfigError, match="socks5://p:1080"):
        Client("http://offload.agents")


@pytest.mark.parametrize(
    "proxy",
    ["socks4://u:hunter2@p", "http://u:hunter2@[::", "u:hunt/er2@p:x", "http://u:hunter2@a..b", "http://"],
)
def test_a_proxy_that_is_no_address_is_refused_and_not_shown(
    environment: pytest.MonkeyPatch, proxy: str
) -> None:
    environment.setenv("all_proxy", proxy)
    with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
        Client("http://offload.agents")
    assert "hunt" not in str(caught.value)


def test_requests_go_through_the_proxy(environment: pytest.MonkeyPatch, server: Any) -> None:
    environment.setenv("http_proxy", server.url)
    with Client("http://offload.agents") as client:
        client.put("agents/one", "a", bytes(2_000_000))
    assert server.seen[0].headers["host"] == "offload.agents"


@pytest.mark.parametrize("proxied", ["server", "store"])
def test_a_download_is_redirected_past_or_to_the_proxy_that_the_store_has(
    environment: pytest.MonkeyPatch, proxied: str
) -> None:
    asked: list[str] = []

    class Everything(BaseHTTPRequestHandler):
        """The server, the store and the proxy to the one of them that has a name."""

        def do_GET(self) -> None:
            asked.append(self.path)
            body = b"x" if "stored" in self.path else b""
            self.send_response(200 if body else 307)
            self.send_header("Location", f"{places['store']}/stored")
            self.send_header("Repr-Digest", format_digest(hashlib.sha256(b"x").digest()))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Everything) as running:
        here = f"http://127.0.0.1:{running.server_port}"
        places = {"server": here, "store": here} | {proxied: "http://by.proxy"}
        environment.setenv("http_proxy", here)
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        target = io.BytesIO()
        try:
            with Client(places["server"], retry_for=0) as client:
                client.download("agents/one", "a", target)
        finally:
            running.shutdown()
    assert target.getvalue() == b"x"
    assert [path.startswith("http://") for path in asked] == [
        proxied == "server",
        proxied == "store",
    ]


@pytest.mark.usefixtures("environment")
def test_a_store_that_does_not_answer_is_named_without_the_signature(server: Any, trouble: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        store = f"http://127.0.0.1:{probe.getsockname()[1]}"
    server.troubles = [trouble(307, headers={"location": f"{store}/a?signature=hunter2"})]
    with Client(server.url, retry_for=0) as client, pytest.raises(OutOfReachError) as caught:
        client.download("agents/one", "a", io.BytesIO())
    assert f"no answer from {store}, where {server.url}/ redirects to: " in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("environment")
def test_a_store_that_refuses_is_named(server: Any, trouble: Any) -> None:
    store = server.url.replace("127.0.0.1", "localhost")
    refusal = trouble(403, problem={"title": "Expired", "requestId": None})
    server.troubles = [trouble(307, headers={"location": f"{store}/a?signature=hunter2"}), refusal]
    with Client(server.url) as client, pytest.raises(AnswerError) as caught:
        client.download("agents/one", "a", io.BytesIO())
    assert str(caught.value) == f"Expired, says {store} (403 blank)"


def test_an_early_answer_is_heard_over_tls(
    environment: pytest.MonkeyPatch, tls_server: TlsServer, authority: Path
) -> None:
    environment.setenv("SSL_CERT_FILE", str(authority))
    with Client(tls_server.url) as client, pytest.raises(MissingError):
        client.put("agents/one", "a", bytes(20_000_000))
    assert tls_server.taken < 1_000_000


@pytest.mark.usefixtures("environment")
def test_a_certificate_that_is_not_trusted_is_not_tried_again(tls_server: TlsServer) -> None:
    notices = []
    with (
        Client(tls_server.url, notice=notices.append) as client,
        pytest.raises(OutOfReachError, match="certificate"),
    ):
        client.run("agents/one")
    assert notices == []


def test_an_authority_that_cannot_be_read_is_named_with_its_variable(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE names '.*none'"):
        Client("https://offload.agents")


@pytest.mark.usefixtures("environment")
def test_a_server_without_tls_is_not_tried_again(server: Any) -> None:
    notices = []
    with (
        Client(server.url.replace("http://", "https://"), notice=notices.append) as client,
        pytest.raises(OutOfReachError),
    ):
        client.run("agents/one")
    assert notices == []
