"""Raw uploads by PUT.

Cases: 201 with the whole artifact, Location, ETag, Repr-Digest; the same bytes again (200, one object); other
bytes (a new version); A, B, A (three versions); with a length, chunked, empty, larger than a part; names with
slashes, Unicode, percent signs, U+FFFD, a namespace called artifacts, and each rule that a name can break;
types and content types, given, by default and refused; digests of both headers and both algorithms, right,
wrong, malformed, contradicting, unknown, in two lines; what must not be ignored (ranges, other conditions,
content and transfer codings); If-None-Match: *; expires (a duration, a time, past, later than the rule, not
one); too large by its length and as it comes; unknown query parameters; a request id of the client's own; the
shortcut answers as the framework does.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

MIB = 2**20


def test_a_new_artifact_is_answered_with_all_that_is_known_of_it(service: Any, run: Any) -> None:
    answer = run.put("logs/build.log", b"hello")
    body = answer.json()
    assert answer.status_code == 201
    assert UUID(body["id"]).version == 7
    sha256 = hashlib.sha256(b"hello").hexdigest()
    assert {
        key: body[key] for key in ("name", "type", "contentType", "sizeBytes", "sha256", "expiresAt")
    } == {
        "name": "logs/build.log",
        "type": "log",
        "contentType": "text/plain",
        "sizeBytes": 5,
        "sha256": sha256,
        "expiresAt": None,
    }
    assert body["uri"] == f"s3://memory/agents/{run.name}/{run.uid}/{body['id']}/logs/build.log"
    assert body["run"] == {"namespace": "agents", "name": run.name, "uid": run.uid}
    assert body["historyUrl"] == f"{service.url}{run.artifacts}?uid={run.uid}"
    assert datetime.now(UTC) - datetime.fromisoformat(body["createdAt"]) < timedelta(minutes=1)
    assert answer.headers["Location"] == f"{service.url}/v1/artifacts/{body['id']}"
    assert answer.headers["ETag"] == f'"{sha256}"'
    assert answer.headers["Repr-Digest"].startswith("sha-256=:")
    assert service.http.get(answer.headers["Location"]).json() == body
    assert service.http.get(body["historyUrl"]).json()["items"] == [body]


def test_the_same_bytes_again_are_the_same_artifact(service: Any, run: Any) -> None:
    first, second = run.put("a", b"same"), run.put("a", b"same")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_b_a_makes_three_versions(service: Any, run: Any) -> None:
    made = [run.put("a", data) for data in (b"A", b"B", b"A")]
    assert [answer.status_code for answer in made] == [201] * 3
    assert [item["id"] for item in run.history()] == [answer.json()["id"] for answer in reversed(made)]
    assert [item["current"] for item in run.history()] == [True, False, False]
    assert service.http.get(run.at("a")).content == b"A"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 9 * MIB])
@pytest.mark.parametrize("way", ["length", "chunked"])
def test_bodies_of_every_size_come_back_as_they_went(run: Any, size: int, way: str) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 100_000):
            yield data[start : start + 100_000]

    answer = run.put("body", data if way == "length" else pieces())
    assert answer.status_code == 201
    assert answer.json()["sizeBytes"] == size
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert run.http.get(run.at("body")).content == data


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c.txt",
        "日本語/ログ.txt",
        "100%.txt",
        "a%2Fb",
        "with space",
        "question?",
        "hash#",
        "plus+and&",
        "…/x",
        "...",
        "artifacts/x",
        "truly \N{REPLACEMENT CHARACTER}",
        "n" * 255,
        f"{'s' * 255}/{'s' * 254}/x",
    ],
)
def test_names_come_back_as_they_went(run: Any, name: str) -> None:
    stored = run.stored(name, b"named")
    assert stored["name"] == name
    assert run.http.get(run.at(name)).content == b"named"


def test_a_namespace_may_be_called_artifacts(service: Any) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "artifacts"}}
    assert service.api.post("/api/v1/namespaces", json=body).status_code in {201, 409}
    run = service.run(namespace="artifacts")
    assert run.stored("x\N{REPLACEMENT CHARACTER}")["name"] == "x\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("encoded", "rule"),
    [
        ("", "must not be empty"),
        ("a%00b", "must have no control characters"),
        ("a%0Ab", "must have no control characters"),
        ("%20a", "must not start or end with white space"),
        ("a%20", "must not start or end with white space"),
        ("%2Fa", "must not start or end with a slash"),
        ("a%2F", "must not start or end with a slash"),
        ("a%2F%2Fb", "must have no empty, '.' or '..' segment"),
        ("a%2F%2E%2E%2Fb", "must have no empty, '.' or '..' segment"),
        ("%2E", "must have no empty, '.' or '..' segment"),
        ("a" * 256, "must have at most 255 bytes between two slashes"),
        ("/".join(["é" * 100] * 3), "must be at most 512 bytes of UTF-8"),
        ("a%FF", "must be UTF-8"),
        ("a%ED%A0%80", "must be UTF-8"),
    ],
)
def test_a_name_that_breaks_a_rule_is_refused_by_it(service: Any, run: Any, encoded: str, rule: str) -> None:
    answer = service.http.put(f"{run.artifacts}/{encoded}", content=b"x")
    _assert_refused(answer, 400, "invalid-name", f"name: {rule}; got ")
    service.assert_nothing_left(run)


@pytest.mark.parametrize(
    ("name", "content_type", "expected"),
    [
        ("x", None, ("application/octet-stream", "file")),
        ("x.log", None, ("text/plain", "log")),
        ("fix.patch", None, ("text/x-diff", "diff")),
        ("report.json", None, ("application/json", "report")),
        ("x.tar.gz", None, ("application/gzip", "archive")),
        ("x", "text/plain; charset=utf-8", ("text/plain; charset=utf-8", "log")),
        ("x", "image/png", ("image/png", "image")),
        ("x.json", "application/x-www-form-urlencoded", ("application/json", "report")),
    ],
)
def test_content_type_and_type_have_defaults(
    run: Any, name: str, content_type: str | None, expected: tuple[str, str]
) -> None:
    stored = run.stored(name, headers={"Content-Type": content_type} if content_type else {})
    assert (stored["contentType"], stored["type"]) == expected
    assert run.http.get(run.at(name)).headers["Content-Type"] == expected[0]


def test_a_given_type_is_kept(run: Any) -> None:
    assert run.stored("x.log", params={"type": "trace-1"})["type"] == "trace-1"


@pytest.mark.parametrize("type_", ["", "UPPER", "-a", "a_b", "a" * 64])
def test_a_type_that_is_no_dns_label_is_refused(service: Any, run: Any, type_: str) -> None:
    _assert_refused(run.put("x", params={"type": type_}), 400, "invalid-type", "type: must be a DNS label")
    service.assert_nothing_left(run)


@pytest.mark.parametrize("content_type", ["text", "text/", "a b/c", "text/plain; x", "text/" + "p" * 300])
def test_a_content_type_that_is_none_is_refused(service: Any, run: Any, content_type: str) -> None:
    answer = run.put("x", headers={"Content-Type": content_type})
    _assert_refused(answer, 400, "invalid-content-type", "contentType: must be a media type")
    service.assert_nothing_left(run)


@pytest.mark.parametrize("field", ["Repr-Digest", "Content-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_a_right_digest_is_taken_and_a_wrong_one_leaves_nothing(
    service: Any, run: Any, digest: Callable[..., str], field: str, algorithm: str
) -> None:
    wrong = run.put("x", b"other", headers={field: digest(b"meant", algorithm)})
    _assert_refused(wrong, 400, "digest-mismatch", f"{algorithm} of the 5 bytes that came is ")
    large = run.put("x", b"o" * (9 * MIB), headers={field: digest(b"meant", algorithm)})
    _assert_refused(large, 400, "digest-mismatch", f"{algorithm} of the {9 * MIB} bytes that came is ")
    service.assert_nothing_left(run)
    assert run.put("x", b"meant", headers={field: digest(b"meant", algorithm)}).status_code == 201


@pytest.mark.parametrize(
    "value",
    [
        "sha-256",
        "sha-256=abc",
        "sha-256=:not base64:",
        "sha-256=:YQ==:",
        "sha-256=:Y:",
        "",
        "sha-256=:YQ==:,",
    ],
)
def test_a_digest_that_cannot_be_read_is_refused(service: Any, run: Any, value: str) -> None:
    answer = run.put("x", headers={"Repr-Digest": value})
    _assert_refused(answer, 400, "invalid-digest", "Repr-Digest: must ")
    service.assert_nothing_left(run)


def test_other_algorithms_are_passed_over_and_all_known_ones_verified(
    run: Any, digest: Callable[..., str]
) -> None:
    both = f"md5=:YQ==:, {digest(b'x')}, {digest(b'x', 'sha-512')}"
    assert run.put("x", b"x", headers={"Repr-Digest": both}).status_code == 201
    one_wrong = f"{digest(b'x')}, {digest(b'y', 'sha-512')}"
    answer = run.put("y", b"x", headers={"Repr-Digest": one_wrong})
    _assert_refused(answer, 400, "digest-mismatch", "sha-512 of the 1 bytes")


def test_a_digest_header_in_two_lines_is_read_as_one(run: Any, digest: Callable[..., str]) -> None:
    lines = [("Repr-Digest", digest(b"x")), ("Repr-Digest", digest(b"y", "sha-512"))]
    answer = run.put("x", b"x", headers=lines)
    _assert_refused(answer, 400, "digest-mismatch", "sha-512 of the 1 bytes")


def test_two_digests_that_contradict_are_refused(run: Any, digest: Callable[..., str]) -> None:
    headers = {"Repr-Digest": digest(b"x"), "Content-Digest": digest(b"y")}
    _assert_refused(
        run.put("x", headers=headers), 400, "invalid-digest", "Content-Digest: must not contradict"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Content-Range", "bytes 0-0/2"),
        ("If-Match", "*"),
        ("If-None-Match", '"abc"'),
        ("If-Unmodified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ],
)
def test_headers_that_ask_for_what_is_not_done_are_refused(
    service: Any, run: Any, field: str, value: str
) -> None:
    _assert_refused(run.put("x", headers={field: value}), 400, "invalid-header", f"{field}: ")
    service.assert_nothing_left(run)


def test_a_content_coding_is_refused(service: Any, run: Any) -> None:
    answer = run.put("x", headers={"Content-Encoding": "gzip"})
    _assert_refused(answer, 415, "unsupported-media-type", "Content-Encoding 'gzip'")
    service.assert_nothing_left(run)
    assert run.put("x", headers={"Content-Encoding": "identity"}).status_code == 201


@pytest.mark.parametrize(
    "coding",
    ["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"],
)
def test_a_transfer_coding_that_would_be_stored_is_refused(
    service: Any, run: Any, read_answer: Callable[..., Any], coding: str
) -> None:
    with service.connect() as connection:
        connection.sendall(service.request("PUT", run.at("x"), coding) + b"5\r\nhello\r\n0\r\n\r\n")
        answer = read_answer(connection)
        assert answer.status == 415
        assert b"Transfer-Encoding 'gzip, chunked'" in answer.read()
    service.assert_nothing_left(run)


def test_if_none_match_takes_new_names_only(service: Any, run: Any) -> None:
    assert run.put("x", b"1", headers={"If-None-Match": "*"}).status_code == 201
    for data in (b"1", b"2"):
        answer = run.put("x", data, headers={"If-None-Match": "*"})
        _assert_refused(answer, 412, "name-exists", "'x' has a current version")
    service.assert_nothing_left(run, objects=1, rows=1)


def test_if_none_match_decides_between_two_at_once(service: Any, run: Any) -> None:
    """Both are past the early check: the committing transaction decides."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - one use

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: run.put("x", b"%d" % n, headers={"If-None-Match": "*"}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 7
    service.assert_nothing_left(run, objects=1, rows=1)


@pytest.mark.parametrize("expires", ["7d", "(time)"])
def test_expires_is_kept(run: Any, expires: str) -> None:
    asked = datetime.now(UTC) + timedelta(days=7)
    stored = run.stored("x", params={"expires": asked.isoformat() if expires == "(time)" else expires})
    assert abs(datetime.fromisoformat(stored["expiresAt"]) - asked) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "expires", ["soon", "7", "", "0s", "2020-01-01T00:00:00Z", "2030-01-01", "9" * 30 + "d"]
)
def test_an_expiry_that_is_none_is_refused(service: Any, run: Any, expires: str) -> None:
    _assert_refused(run.put("x", params={"expires": expires}), 400, "invalid-expiry", "expires: must be ")
    service.assert_nothing_left(run)


def test_an_expiry_may_only_shorten_what_the_rule_gives(serve: Any, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n- name: logs\n  match: {type: log}\n  keep: {for: 10d}\ndefault: {keep: forever}\n"
    )
    service = serve(retention_file=rules)
    run = service.run()
    ruled = run.stored("ruled.log", b"1")
    days = datetime.fromisoformat(ruled["expiresAt"]) - datetime.fromisoformat(ruled["createdAt"])
    assert days == timedelta(days=10)
    assert run.put("x.log", b"2", params={"expires": "11d"}).json()["type"].endswith("invalid-expiry")
    shorter = run.stored("x.log", b"2", params={"expires": "9d"})
    assert shorter["expiresAt"] < ruled["expiresAt"]
    assert run.history()[0] == shorter
    assert run.put("x.log", b"2", params={"expires": "9d"}).json() == shorter
    assert run.stored("kept.bin")["expiresAt"] is None


def test_a_body_past_the_limit_is_refused_by_its_length_or_as_it_comes(serve: Any) -> None:
    service = serve(upload_max_size=MIB)
    run = service.run()
    assert run.put("x", b"x" * MIB).status_code == 201
    early = run.put("y", b"x" * (MIB + 1))
    _assert_refused(early, 413, "upload-too-large", "an artifact may have 1 MiB")
    late = run.put("y", iter([b"x" * 2**16] * 40))
    _assert_refused(late, 413, "upload-too-large", "an artifact may have 1 MiB")
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_query_parameter_that_is_not_known_is_refused(service: Any, run: Any) -> None:
    _assert_refused(run.put("x", params={"typ": "log"}), 400, "invalid-query", "typ: ")
    service.assert_nothing_left(run)


def _assert_refused(answer: Any, status: int, type_: str, detail: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["type"]) == (status, f"urn:offload:problem:{type_}"), body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert body["status"] == status
    assert body["detail"].startswith(detail), body["detail"]
    assert re.fullmatch(r"[0-9a-f]{16}", body["requestId"])


@pytest.mark.parametrize(
    ("name", "query", "headers"),
    [
        ("new.log", "", {}),
        ("a/b%20c.txt", "?type=report&expires=7d", {"Content-Type": "text/plain"}),
        ("new.log", "?type=Not+One", {}),
        ("new.log", "?unknown=1", {}),
        ("new.log", "?uid=", {}),
        ("../up", "", {}),
        ("%ff", "", {}),
        ("new.log", "?expires=soon", {}),
        ("new.log", "", {"If-None-Match": '"x"'}),
        ("new.log", "", {"Repr-Digest": "sha-256=:AAAA:"}),
        ("new.log", "", {"Content-Encoding": "gzip"}),
        ("new.log", "", {"Authorization": "Bearer wrong"}),
        ("new.log", "?uid=another", {}),
    ],
)
def test_the_shortcut_answers_as_the_framework_does(
    serve: Any, take_the_long_way: Callable[[], None], name: str, query: str, headers: dict[str, str]
) -> None:
    """The same request both ways; ids, times and links of the two runs differ, and nothing else."""

    def answer() -> tuple[Any, ...]:
        run = service.run()
        answered = run.http.put(f"{run.artifacts}/{name}{query}", content=b"bytes", headers=headers)
        told = re.sub(r"run-\d+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16}\b|\d{4}-\S+Z", "-", answered.text)
        differ = {"date", "x-request-id", "location", "content-length"}
        return answered.status_code, told, {k: v for k, v in answered.headers.items() if k not in differ}

    service = serve()
    short = answer()
    take_the_long_way()
    assert short == answer()
