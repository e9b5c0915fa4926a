"""The adapter next to a server that fails, and how each failure is told apart.

- no server, silence, an answer that breaks off or is no JSON
- 401, 403, 404 with and without a name, 409, 410, 413, 422, 429 with and without Retry-After, 500, 503
- a refusal by admission is not a refusal of this identity; a status that is not found is no missing run
- a kept connection that the server has closed is no outage for a read
- changes: outages are ridden out without a new list; 410 and an expired page token list again; a list begins
  before its first page; a watch that is silent, cut off or ends at once is opened again, with pauses, and
  ends with who reads it; what is heard late is old, and of several namespaces the oldest counts; a run that
  is nested too deep for the parser hides no other; a refusal of this identity is told, holds up no other
  namespace, and mends itself
- client-side rate; which configuration is taken, and one that is not usable; a token in a file is always the
  file's; a credential plug-in that gives nothing ends the start
"""

import copy
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.client import Configuration
from kubernetes.config import incluster_config, kube_config

from offload.cluster import api, feed
from offload.cluster.interface import AgentRun, Deleted, Fresh, Listed, Present, Refused
from offload.cluster.kubernetes import KubernetesCluster
from offload.cluster.standin import StandIn
from offload.domain.run import SeenRun
from offload.errors import (
    AgentRunGoneError,
    ClusterForbiddenError,
    ClusterUnavailableError,
    ConfigError,
    IndexUnavailableError,
    PointersNotKeptError,
    StatusConflictError,
    StatusRefusedError,
)

NAMED = {"kind": "Status", "message": "no", "details": {"name": "demo"}}


class Faulty(ThreadingHTTPServer):
    """Answers by `script`: a function of method, path and query that gets the connection's handler."""

    daemon_threads = True

    def __init__(self, script: Callable[["Exchange"], None]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.script, self.calls = script, []
        self.namespaces: Sequence[str] = ()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def cluster(self) -> KubernetesCluster:
        configuration = Configuration(host=f"http://127.0.0.1:{self.server_port}")
        return KubernetesCluster(configuration, namespaces=self.namespaces)

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def _any(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = url.path, {k: v[0] for k, v in parse_qs(url.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.calls.append(copy.copy(self))  # one instance serves a whole connection
        self.server.script(self)

    do_GET = do_POST = do_PATCH = _any  # noqa: N815 - names that the standard library looks for

    def answer(self, code: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def event(self, kind: str, body: Any) -> None:
        self.line(json.dumps({"type": kind, "object": body}).encode() + b"\n")

    def line(self, line: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def faulty() -> Iterator[Callable[[Callable[[Exchange], None]], Faulty]]:
    started: list[Faulty] = []

    def start(script: Callable[[Exchange], None]) -> Faulty:
        started.append(Faulty(script))
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "READ_SECONDS", 0.3)
    monkeypatch.setattr(feed, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(feed, "FIRST_PAUSE", 0.02)


def body(name: str = "demo", revision: int = 7, phase: str | None = None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(revision)}
    return {"metadata": metadata, "spec": {}, **({"status": {"phase": phase}} if phase else {})}


def a_list(*items: Any, revision: int = 7, token: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(revision), "continue": token}, "items": list(items)}


RUN = AgentRun(SeenRun("uid-demo", "ns", "demo", None), "7", {})  # type: ignore[arg-type]


# Single requests.


def test_no_server_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    cluster = KubernetesCluster(Configuration(host=f"http://127.0.0.1:{port}"))
    with pytest.raises(ClusterUnavailableError) as caught:
        cluster.check()
    assert caught.value.__cause__ is not None


def test_a_silent_server_is_unavailable_in_bounded_time(faulty: Any) -> None:
    server = faulty(lambda _: time.sleep(5))
    began = time.monotonic()
    with pytest.raises(ClusterUnavailableError):
        server.cluster.check()
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("code", "answer", "error"),
    [
        (401, {}, ClusterForbiddenError),
        (403, {}, ClusterForbiddenError),
        (404, NAMED, AgentRunGoneError),
        (404, b"404 page not found\n", ClusterUnavailableError),
        (409, NAMED, StatusConflictError),
        (410, {}, ClusterUnavailableError),
        (413, {}, StatusRefusedError),
        (422, {}, StatusRefusedError),
        (429, {}, ClusterUnavailableError),
        (500, b"<html>", ClusterUnavailableError),
        (503, {}, ClusterUnavailableError),
        (302, {}, ClusterUnavailableError),
    ],
)
def test_each_refusal_has_its_error(faulty: Any, code: int, answer: Any, error: type[Exception]) -> None:
    server = faulty(lambda exchange: exchange.answer(code, answer))
    with pytest.raises(error) as caught:
        server.cluster.get("ns", "demo")
    assert type(caught.value).__mro__.index(error) <= 1
    assert str(code) in str(caught.value)
    assert len(server.calls) == 1


def test_a_missing_kind_is_not_a_missing_run(faulty: Any) -> None:
    server = faulty(
        lambda exchange: exchange.answer(404, {"kind": "Status", "reason": "NotFound", "details": {}})
    )
    with pytest.raises(ClusterUnavailableError):
        server.cluster.get("ns", "demo")


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_passed_on(faulty: Any, code: int) -> None:
    server = faulty(lambda exchange: exchange.answer(code, {}, Retry_After="17"))
    with pytest.raises(ClusterUnavailableError) as caught:
        server.cluster.check()
    assert caught.value.retry_after == 17


def test_retry_after_in_the_status_counts_too(faulty: Any) -> None:
    server = faulty(lambda exchange: exchange.answer(500, {"details": {"retryAfterSeconds": 3}}))
    with pytest.raises(ClusterUnavailableError) as caught:
        server.cluster.check()
    assert caught.value.retry_after == 3


def test_an_answer_that_is_not_json_is_unavailable(faulty: Any) -> None:
    server = faulty(lambda exchange: exchange.answer(200, b"<html>"))
    with pytest.raises(ClusterUnavailableError):
        server.cluster.check()


def test_an_answer_that_breaks_off_is_unavailable(faulty: Any) -> None:
    def break_off(exchange: Exchange) -> None:
        exchange.answer(200, b"{", Content_Length="100")
        exchange.close_connection = True

    with pytest.raises(ClusterUnavailableError):
        faulty(break_off).cluster.check()


def test_a_read_survives_the_end_of_a_kept_connection(faulty: Any) -> None:
    def close_every_second(exchange: Exchange) -> None:
        if len(exchange.server.calls) == 2:
            exchange.connection.shutdown(socket.SHUT_RDWR)
            exchange.close_connection = True
        else:
            exchange.answer(200, {})

    server = faulty(close_every_second)
    cluster = server.cluster
    cluster.check()
    cluster.check()
    assert len(server.calls) == 3


def test_a_patch_is_never_sent_twice(faulty: Any) -> None:
    def hang_up(exchange: Exchange) -> None:
        exchange.connection.shutdown(socket.SHUT_RDWR)
        exchange.close_connection = True

    server = faulty(hang_up)
    with pytest.raises(ClusterUnavailableError):
        server.cluster.patch_status(RUN, {"phase": "Failed"})
    assert [e.command for e in server.calls] == ["PATCH"]


def test_a_patch_carries_its_preconditions(faulty: Any) -> None:
    server = faulty(lambda exchange: exchange.answer(200, body(revision=8)))
    server.cluster.patch_status(RUN, {"phase": "Failed", "reason": None})
    (call,) = server.calls
    assert call.query == {"fieldManager": "offload", "fieldValidation": "Strict"}
    assert call.headers["Content-Type"] == "application/merge-patch+json"
    sent = json.loads(call.body)
    assert sent["metadata"] == {"uid": "uid-demo", "resourceVersion": "7"}
    assert sent["status"] == {"phase": "Failed", "reason": None}


@pytest.mark.parametrize(("allowed", "error"), [(True, StatusRefusedError), (False, ClusterForbiddenError)])
def test_a_rule_that_refuses_is_told_from_a_missing_permission(
    faulty: Any, allowed: bool, error: Any
) -> None:
    def refuse(exchange: Exchange) -> None:
        if exchange.command == "PATCH":
            exchange.answer(403, {"message": "admission webhook denied the request"})
        else:
            exchange.answer(201, {"status": {"allowed": allowed}})

    with pytest.raises(error) as caught:
        faulty(refuse).cluster.patch_status(RUN, {"phase": "Failed"})
    assert isinstance(caught.value, ClusterForbiddenError) is not allowed


def test_a_run_whose_status_is_not_found_is_gone_only_where_the_run_is(faulty: Any) -> None:
    """An API server names the run also where its CRD has no status subresource."""
    there = [body(), body("demo") | {"metadata": {**body()["metadata"], "uid": "another"}}, None]

    def answer(exchange: Exchange) -> None:
        if exchange.command == "PATCH" or there[0] is None:
            exchange.answer(404, NAMED)
        else:
            exchange.answer(200, there[0])

    server = faulty(answer)
    with pytest.raises(StatusRefusedError, match="status subresource"):
        server.cluster.patch_status(RUN, {"phase": "Failed"})
    for _ in range(2):
        del there[0]
        with pytest.raises(AgentRunGoneError):
            server.cluster.patch_status(RUN, {"phase": "Failed"})


def test_requests_keep_to_the_rate(faulty: Any) -> None:
    server = faulty(lambda exchange: exchange.answer(200, {}))
    cluster = KubernetesCluster(
        Configuration(host=f"http://127.0.0.1:{server.server_port}"), requests_per_second=20
    )
    began = time.monotonic()
    for _ in range(12):
        cluster.check()
    assert time.monotonic() - began > 0.4


@pytest.mark.parametrize("text", ["", "[]", "{unclosed", "apiVersion: v1\nkind: Config\n"])
def test_a_kubeconfig_that_says_nothing_is_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        KubernetesCluster.from_config(str(path))
    assert str(path) in str(caught.value)


def test_a_missing_kubeconfig_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        KubernetesCluster.from_config(str(tmp_path / "missing"))


def test_a_pods_service_account_comes_before_the_usual_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "kubeconfig"
    StandIn().write_kubeconfig(usual, server="http://usual:1")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(usual))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert api.configuration(None).host == "http://usual:1"

    for name, text in (("TOKEN", "first"), ("CERT", "a certificate")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = api.configuration(None)
    assert found.host == "https://10.0.0.1:443"
    assert found.auth_settings()["BearerToken"]["value"] == "Bearer first"
    (tmp_path / "TOKEN").write_text("second\n")
    assert found.auth_settings()["BearerToken"]["value"] == "Bearer second"
    assert api.configuration(str(usual)).host == "http://usual:1"


def test_a_kubeconfigs_token_file_is_read_for_each_request(faulty: Any, tmp_path: Path) -> None:
    server = faulty(lambda exchange: exchange.answer(200, {}))
    path, token = tmp_path / "kubeconfig", tmp_path / "secrets" / "token"
    StandIn().write_kubeconfig(path, server=f"http://127.0.0.1:{server.server_port}")
    config = json.loads(path.read_text())
    config["users"][0]["user"] = {"tokenFile": "secrets/token"}
    path.write_text(json.dumps(config))
    token.parent.mkdir()
    token.write_text("first")
    cluster = KubernetesCluster.from_config(str(path))
    cluster.check()
    token.write_text("second\n")
    cluster.check()
    token.unlink()
    with pytest.raises(ClusterUnavailableError):
        cluster.check()
    assert [call.headers["Authorization"] for call in server.calls] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("command", "works"),
    [
        ("exit 1", False),
        ("echo nonsense", False),
        ("""echo '{"apiVersion": "%s", "kind": "ExecCredential", "status": {"token": "theirs"}}'""", True),
    ],
)
def test_a_credential_plug_in_that_fails_at_the_start_is_a_config_error(
    faulty: Any, tmp_path: Path, command: str, works: bool
) -> None:
    server = faulty(lambda exchange: exchange.answer(200, {}))
    path, version = tmp_path / "kubeconfig", "client.authentication.k8s.io/v1"
    StandIn().write_kubeconfig(path, server=f"http://127.0.0.1:{server.server_port}")
    config = json.loads(path.read_text())
    plug_in = {"apiVersion": version, "command": "sh", "args": ["-c", command.replace("%s", version)]}
    config["users"][0]["user"] = {"exec": plug_in}
    path.write_text(json.dumps(config))
    if works:
        KubernetesCluster.from_config(str(path)).check()
        assert server.calls[0].headers["Authorization"] == "Bearer theirs"
    else:
        with pytest.raises(ConfigError, match="the credential plug-in sh gave no credentials"):
            KubernetesCluster.from_config(str(path))


def test_a_group_that_is_not_served_keeps_no_pointers(faulty: Any) -> None:
    server = faulty(lambda exchange: exchange.answer(200, {"paths": {}}))
    with pytest.raises(PointersNotKeptError, match="is the CRD installed"):
        server.cluster.status_schema()


def test_a_document_that_the_index_does_not_know_yet_is_read_and_not_kept(faulty: Any) -> None:
    names = iter(["old", "old", "new", "new"])

    kind = {"group": "agents.proompteng.ai", "version": "v1alpha1", "kind": "AgentRun"}
    run = {"properties": {"status": {"type": "object"}}, "x-kubernetes-group-version-kind": [kind]}

    def answer(exchange: Exchange) -> None:
        if exchange.route == "/openapi/v3":
            address = f"/openapi/v3/apis/agents.proompteng.ai/v1alpha1?hash={next(names)}"
            paths = {"apis/agents.proompteng.ai/v1alpha1": {"serverRelativeURL": address}}
            exchange.answer(200, {"paths": paths})
        elif exchange.query.get("hash") == "old":
            exchange.answer(301, {})
        else:
            exchange.answer(200, {"components": {"schemas": {"Run": run}}})

    server = faulty(answer)
    cluster = server.cluster
    for _ in range(4):
        assert cluster.status_schema() == {"type": "object"}
    asked = [call.query for call in server.calls if call.route != "/openapi/v3"]
    assert asked == [{"hash": "old"}, {}, {"hash": "old"}, {}, {"hash": "new"}]


def test_a_long_refusal_is_told_by_its_start_and_end(faulty: Any) -> None:
    message = f"invalid: {'x' * 90_000}: unknown field"
    server = faulty(lambda exchange: exchange.answer(422, {"kind": "Status", "message": message}))
    with pytest.raises(StatusRefusedError, match=r"422 invalid: .*: unknown field$") as refused:
        server.cluster.check()
    assert len(str(refused.value)) < 1200


def test_references_in_the_served_schema_are_resolved(faulty: Any) -> None:
    kind = {"group": "agents.proompteng.ai", "version": "v1alpha1", "kind": "AgentRun"}
    reference = {"$ref": "#/components/schemas/Condition"}
    loop = {"type": "object", "properties": {"within": reference}}
    root = {
        "properties": {"status": {"properties": {"one": reference}}},
        "x-kubernetes-group-version-kind": [kind],
    }
    document = {"components": {"schemas": {"Run": root, "Condition": loop}}}
    address = "/openapi/v3/apis/agents.proompteng.ai/v1alpha1"

    def serve(exchange: Exchange) -> None:
        index = {"paths": {address.removeprefix("/openapi/v3/"): {"serverRelativeURL": f"{address}?hash=1"}}}
        exchange.answer(200, document if exchange.route == address else index)

    server = faulty(serve)
    cluster = server.cluster
    resolved = {"type": "object", "properties": {"within": {}}}
    assert cluster.status_schema() == {"properties": {"one": resolved}}
    cluster.status_schema()
    assert [e.route for e in server.calls] == ["/openapi/v3", address, "/openapi/v3"]
    assert server.calls[1].query == {"hash": "1"}


# The stream of changes.


def test_an_outage_is_ridden_out_without_a_new_list(faulty: Any, follow: Any) -> None:
    watches = []

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list(body()))
        watches.append(exchange.query["resourceVersion"])
        if len(watches) == 1:
            exchange.begin_stream()
            exchange.event("MODIFIED", body(revision=9, phase="Running"))
        elif len(watches) == 6:
            exchange.begin_stream()
            exchange.event("DELETED", body(revision=12))
            time.sleep(1)
        exchange.close_connection = True  # cut off, or no answer at all
        return None

    server = faulty(script)
    follower = follow(server.cluster)
    follower.wait_for(lambda c: isinstance(c, Deleted))
    assert watches == ["7", "9", "9", "9", "9", "9"]
    assert len([e for e in server.calls if "watch" not in e.query]) == 1
    assert [type(c) for c in follower.seen] == [Present, Listed, Fresh, Present, Deleted]


@pytest.mark.parametrize("in_stream", [True, False])
def test_a_revision_that_is_too_old_lists_again(faulty: Any, follow: Any, in_stream: bool) -> None:
    lists = []

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            lists.append(1)
            return exchange.answer(200, a_list(body(f"run-{len(lists)}"), revision=10 * len(lists)))
        if exchange.query["resourceVersion"] == "10":
            if not in_stream:
                return exchange.answer(410, {"code": 410})
            exchange.begin_stream()
            exchange.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
            return exchange.end_stream()
        exchange.begin_stream()
        time.sleep(1)
        return None

    follower = follow(faulty(script).cluster)
    follower.wait_for(lambda c: c == Listed(None, frozenset({"uid-run-2"})))
    assert [c.uids for c in follower.seen if isinstance(c, Listed)] == [{"uid-run-1"}, {"uid-run-2"}]


def test_an_expired_page_token_starts_the_list_over(faulty: Any, follow: Any) -> None:
    pages = []

    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query:
            exchange.begin_stream()
            return time.sleep(1)
        pages.append(exchange.query.get("continue"))
        if len(pages) == 2:
            return exchange.answer(410, {"code": 410, "metadata": {"continue": "inconsistent"}})
        name, token = ("b", "") if pages[-1] else ("a", "next")
        return exchange.answer(200, a_list(body(name), token=token))

    follower = follow(faulty(script).cluster)
    follower.wait_for(lambda c: c == Listed(None, frozenset({"uid-a", "uid-b"})))
    assert pages == [None, "next", None, "next"]
    assert len([c for c in follower.seen if isinstance(c, Listed)]) == 1


def test_a_list_begins_before_its_first_page(faulty: Any) -> None:
    asked: list[str] = []
    times: list[datetime] = []

    def clock() -> datetime:
        asked.append("time")
        times.append(datetime.now(UTC))
        if len(times) == 1:
            raise IndexUnavailableError
        return times[-1]

    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query:
            exchange.begin_stream()
            return time.sleep(1)
        asked.append(page := exchange.query.get("continue", "first"))
        if asked.count(page) == 1:
            return exchange.answer(500, {})
        return exchange.answer(200, a_list(body(page), token="second" if page == "first" else ""))

    with closing(faulty(script).cluster.changes(threading.Event(), clock)) as changes:
        listed = next(change for change in changes if isinstance(change, Listed))
        assert next(changes) == Fresh(listed.began)
    assert asked == ["time", "time", "first", "time", "first", "second", "second"]
    assert listed == Listed(None, frozenset({"uid-first", "uid-second"}))
    assert listed.began_at == times[-1]


def test_a_silent_watch_is_opened_again(faulty: Any, follow: Any) -> None:
    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        exchange.begin_stream()
        if len(exchange.server.calls) > 2:
            exchange.event("ADDED", body(revision=8))
        return time.sleep(5)

    began = time.monotonic()
    follow(faulty(script).cluster).wait_for(lambda c: isinstance(c, Present))
    assert 0.5 <= time.monotonic() - began < 4


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_watch_may_be_silent_for_longer_than_a_request(
    faulty: Any, follow: Any, monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    monkeypatch.setattr(feed, "SILENCE_SECONDS", 5)

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        exchange.begin_stream(Connection=connection)
        time.sleep(3 * api.READ_SECONDS)
        exchange.event("ADDED", body(revision=8))
        return time.sleep(1)

    server = faulty(script)
    follow(server.cluster).wait_for(lambda c: isinstance(c, Present))
    assert len(server.calls) == 2


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}])
def test_a_watch_that_is_answered_without_a_body_is_opened_again(
    faulty: Any, follow: Any, headers: dict[str, str]
) -> None:
    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        if len(exchange.server.calls) == 2:
            return exchange.answer(200, b"", **headers)
        exchange.begin_stream()
        exchange.event("ADDED", body(revision=8))
        return time.sleep(1)

    follow(faulty(script).cluster).wait_for(lambda c: isinstance(c, Present))


def test_one_that_reads_no_more_ends_a_watch_that_is_being_opened(
    faulty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "READ_SECONDS", 5)
    monkeypatch.setattr(feed, "SILENCE_SECONDS", 5)
    asked, answered = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        asked.set()
        answered.wait(5)
        exchange.begin_stream()
        return time.sleep(5)

    server = faulty(script)
    server.namespaces = ["slow"]
    with closing(server.cluster.changes(threading.Event())) as changes:
        next(changes)
        assert asked.wait(5)
        [watch] = [thread for thread in threading.enumerate() if thread.name == "watch-slow"]
        threading.Timer(0.5, answered.set).start()
    watch.join(2)
    assert not watch.is_alive()


def test_bookmarks_and_the_end_of_a_watch_are_fresh_and_move_the_revision(faulty: Any, follow: Any) -> None:
    revisions = []

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        revisions.append(exchange.query["resourceVersion"])
        exchange.begin_stream()
        if len(revisions) == 1:
            exchange.event("BOOKMARK", {"metadata": {"resourceVersion": "50"}})
            return exchange.end_stream()
        return time.sleep(1)

    follower = follow(faulty(script).cluster)
    follower.wait_for(lambda _: len(revisions) > 1 and len(follower.seen) > 3)
    assert revisions == ["7", "50"]
    assert [type(c) for c in follower.seen] == [Listed, Fresh, Fresh, Fresh]


def test_an_answer_that_ends_at_once_and_says_nothing_is_not_fresh(
    faulty: Any, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting = threading.Event()

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        exchange.begin_stream()
        if lasting.is_set():
            time.sleep(0.4)
        return exchange.end_stream()

    monkeypatch.setattr(feed, "SHORTEST_WATCH_SECONDS", 60)
    server = faulty(script)
    follower = follow(server.cluster)
    follower.wait_for(lambda _: len(server.calls) > 4)
    assert [type(c) for c in follower.seen] == [Listed, Fresh]  # of the list
    monkeypatch.setattr(feed, "SHORTEST_WATCH_SECONDS", 0.3)
    lasting.set()
    follower.wait_for(lambda _: len(follower.seen) > 2)
    assert isinstance(follower.seen[-1], Fresh)


def test_what_is_heard_late_is_as_old_as_the_watch_that_told_it(
    faulty: Any, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process was frozen: what the server had sent before was kept for it."""
    for name, seconds in (("WATCH_SECONDS", 0.2), ("LATE_SECONDS", 0.1), ("SILENCE_SECONDS", 5.0)):
        monkeypatch.setattr(feed, name, seconds)
    watched: list[float] = []

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        watched.append(time.monotonic())
        exchange.begin_stream()
        time.sleep(1)
        exchange.event("BOOKMARK", {"metadata": {"resourceVersion": "50"}})
        return exchange.end_stream()

    began = time.monotonic()
    follower = follow(faulty(script).cluster)
    follower.wait_for(lambda _: len(follower.seen) > 3)
    _, _, bookmark, end = follower.seen[:4]
    assert bookmark == end
    assert began + 0.3 <= bookmark.at <= watched[0] + 0.3


def test_of_several_namespaces_the_one_that_was_heard_longest_ago_counts(faulty: Any, follow: Any) -> None:
    late = threading.Event()

    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query or ("/namespaces/late/" in exchange.route and not late.is_set()):
            return exchange.answer(500, {})
        return exchange.answer(200, a_list())

    server = faulty(script)
    server.namespaces = ["broken", "late"]
    follower = follow(server.cluster)
    listed = follower.wait_for(lambda c: isinstance(c, Listed))
    time.sleep(0.5)
    late.set()
    assert follower.wait_for(lambda c: isinstance(c, Fresh)) == Fresh(listed.began)


def test_lists_of_many_namespaces_are_held_one_page_at_a_time(faulty: Any) -> None:
    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query:
            return exchange.answer(500, {})
        name = exchange.route.split("/")[-2]
        return exchange.answer(200, a_list(*(body(f"{name}-{number}") for number in range(feed.PAGE))))

    server = faulty(script)
    server.namespaces = [f"ns-{number}" for number in range(10)]

    def lists() -> int:
        return len([call for call in server.calls if "watch" not in call.query])

    stop = threading.Event()
    with closing(server.cluster.changes(stop)) as changes:
        next(changes)
        time.sleep(0.5)
        assert lists() <= 2
        listed = [next(change for change in changes if isinstance(change, Listed)) for _ in range(10)]
        assert {change.namespace for change in listed} == set(server.namespaces)
        assert {len(change.uids) for change in listed} == {feed.PAGE}


def test_one_that_reads_no_more_ends_lists_soon(faulty: Any) -> None:
    server = faulty(
        lambda exchange: exchange.answer(200, a_list(*(body(f"run-{n}") for n in range(feed.PAGE))))
    )
    server.namespaces = [f"ns-{number}" for number in range(10)]
    with closing(server.cluster.changes(threading.Event())) as changes:
        next(changes)
        time.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    assert len(server.calls) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-ns-")]


def test_a_server_that_ends_every_watch_at_once_is_not_flooded(faulty: Any, follow: Any) -> None:
    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        exchange.begin_stream()
        return exchange.end_stream()

    server = faulty(script)
    follow(server.cluster)
    time.sleep(1)
    assert 1 < len(server.calls) < 20


def test_a_run_nested_too_deep_for_the_parser_hides_no_other(faulty: Any, follow: Any) -> None:
    nested = b'{"a":' * 1500 + b"1" + b"}" * 1500

    def deepened(value: Any) -> bytes:
        return json.dumps(value).encode().replace(b'"deep"', nested)

    def script(exchange: Exchange) -> None:
        if "watch" not in exchange.query:
            return exchange.answer(200, deepened(a_list(body("a", phase="deep"), body("b", phase="Running"))))
        exchange.begin_stream()
        for revision, name, phase in ((8, "c", "deep"), (9, "d", "Running")):
            event = {"type": "ADDED", "object": body(name, revision, phase)}
            exchange.line(deepened(event) + b"\n")
        return time.sleep(1)

    follower = follow(faulty(script).cluster)
    follower.wait_for(lambda c: isinstance(c, Present) and c.run.seen.name == "d")
    found = {c.run.seen.name: c.run.seen.phase for c in follower.seen if isinstance(c, Present)}
    assert found == {"a": None, "b": "Running", "c": None, "d": "Running"}


@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_of_this_identity_is_told_and_mends_itself(
    faulty: Any, follow: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(feed, "LONGEST_PAUSE", 0.05)

    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query:
            exchange.begin_stream()
            return time.sleep(1)
        if len(exchange.server.calls) < 3:
            return exchange.answer(code, {"message": "no"})
        return exchange.answer(200, a_list(body()))

    follower = follow(faulty(script).cluster)
    follower.wait_for(lambda c: c == Refused(None, None))
    refused, *rest = follower.seen
    assert isinstance(refused, Refused)
    assert f"{code} no" in (refused.why or "")
    assert ("credentials are expired" in (refused.why or "")) is (code == 401)
    assert [type(change) for change in rest] == [Present, Listed, Fresh, Refused]


def test_a_namespace_that_is_refused_holds_up_no_other_and_nothing_is_fresh(
    faulty: Any, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LONGEST_PAUSE", 0.05)
    granted = threading.Event()

    def script(exchange: Exchange) -> None:
        if "/namespaces/closed/" in exchange.route and not granted.is_set():
            return exchange.answer(403, {"message": "no"})
        if "watch" not in exchange.query:
            return exchange.answer(200, a_list())
        exchange.begin_stream()
        exchange.event("BOOKMARK", {"metadata": {"resourceVersion": "8"}})
        if "/namespaces/open/" in exchange.route:
            exchange.event("ADDED", body(f"run-{len(exchange.server.calls)}", revision=9))
        return exchange.end_stream()

    server = faulty(script)
    server.namespaces = ["open", "closed"]
    follower = follow(server.cluster)

    def followed_without_being_fresh(since: int) -> None:
        """Until two more runs of the open namespace came."""
        follower.wait_for(lambda _: len([c for c in follower.seen[since:] if isinstance(c, Present)]) > 1)
        assert not [c for c in follower.seen[since:] if isinstance(c, Fresh)]

    refused = follower.wait_for(lambda c: isinstance(c, Refused))
    assert (refused.namespace, "403 no" in refused.why) == ("closed", True)
    followed_without_being_fresh(since=0)
    granted.set()
    follower.wait_for(lambda c: c == Refused("closed", None))
    follower.wait_for(lambda c: isinstance(c, Fresh))
    since = len(follower.seen)
    granted.clear()
    follower.wait_for(lambda _: any(isinstance(c, Refused) and c.why for c in follower.seen[since:]))
    followed_without_being_fresh(since=len(follower.seen))


def test_a_missing_crd_is_waited_for(faulty: Any, follow: Any) -> None:
    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query:
            exchange.begin_stream()
            return time.sleep(1)
        if len(exchange.server.calls) < 4:
            return exchange.answer(404, b"404 page not found\n")
        return exchange.answer(200, a_list(body()))

    follow(faulty(script).cluster).wait_for(lambda c: isinstance(c, Listed))


def test_a_pause_that_the_server_asks_for_is_kept(faulty: Any, follow: Any) -> None:
    def script(exchange: Exchange) -> None:
        if "watch" in exchange.query:
            exchange.begin_stream()
            return time.sleep(1)
        if len(exchange.server.calls) == 1:
            return exchange.answer(429, {}, Retry_After="1")
        return exchange.answer(200, a_list())

    began = time.monotonic()
    follow(faulty(script).cluster).wait_for(lambda c: isinstance(c, Listed))
    assert time.monotonic() - began >= 1


def test_pauses_grow_to_their_longest_and_stay_there_however_long_the_outage() -> None:
    pauses = [feed.pause_after(failures) for failures in (0, 1, 100, 100_000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (feed.FIRST_PAUSE, feed.LONGEST_PAUSE)


def test_what_others_write_in_odd_shapes_reads_as_absent(faulty: Any) -> None:
    odd = body() | {"spec": {"agentRef": "coder"}, "status": {"phase": 3, "finishedAt": "soon"}}
    run = faulty(lambda exchange: exchange.answer(200, odd)).cluster.get("ns", "demo")
    assert (run.seen.agent, run.seen.phase, run.seen.finished_at) == (None, None, None)
    none = faulty(lambda exchange: exchange.answer(200, body() | {"spec": None, "status": ["x"]}))
    assert none.cluster.get("ns", "demo").status == {}
