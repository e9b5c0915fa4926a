"""Several files in one round trip: multipart/form-data by POST.

Cases: order and each file's words; one file; the same bytes again (200); some new (201); a bad name, type,
digest or content type among good ones (422, the good ones are stored, the results say which); a store that
fails for one (503 with Retry-After, worth sending again); all three kinds together; the same name twice; no
filename; a filename that is no UTF-8, has quotes, slashes; curl's own form; plain fields; broken framing
before and after a file (what was stored is told); no part; headers up to the bound and past it; a boundary
that is too long; more parts than are taken; not multipart (415); a large part is streamed; a large part that
is refused is skipped; 1,000 small files; fewer places than files; type and expires are for all; what is wrong
for all (an unknown run, its uid, type, expires) is told before the body is read; a coding of the body or of a
part is refused; If-None-Match is for each of the files, other conditions are refused.
"""

import asyncio
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offload.errors import StoreUnavailableError
from offload.objects.memory import MemoryObjects

MIB = 2**20
B = "multipart/form-data; boundary=b"


def _form(*parts: tuple[str, bytes] | tuple[str, bytes, dict[str, str]]) -> bytes:
    """A body of parts: a filename, its bytes, and headers."""
    body = b""
    for filename, data, *more in parts:
        headers = "".join(f"{name}: {value}\r\n" for name, value in (more[0] if more else {}).items())
        disposition = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        body += b"--b\r\n" + (disposition + headers).encode() + b"\r\n" + data + b"\r\n"
    return body + b"--b--\r\n"


def _post(run: Any, body: Any, content_type: str = B, **arguments: Any) -> Any:
    headers = {"Content-Type": content_type, **arguments.pop("headers", {})}
    return run.http.post(run.artifacts, content=body, headers=headers, **arguments)


def test_files_are_stored_and_answered_in_order(run: Any) -> None:
    answer = _post(
        run,
        _form(
            ("z.log", b"1"),
            ("dir/a.json", b"{}", {"Content-Type": "application/octet-stream"}),
            ("m", b"", {"Content-Type": "image/png"}),
        ),
    )
    results = answer.json()["results"]
    assert answer.status_code == 201
    assert [(one["name"], one["status"], one["problem"]) for one in results] == [
        ("z.log", 201, None),
        ("dir/a.json", 201, None),
        ("m", 201, None),
    ]
    words = [(one["artifact"]["type"], one["artifact"]["contentType"]) for one in results]
    assert words == [("log", "text/plain"), ("report", "application/json"), ("image", "image/png")]
    assert {item["id"] for item in run.history()} == {one["artifact"]["id"] for one in results}
    assert run.http.get(run.at("dir/a.json")).content == b"{}"


def test_the_same_files_again_are_200_and_one_new_among_them_201(service: Any, run: Any) -> None:
    assert _post(run, _form(("a", b"1"))).status_code == 201
    again = _post(run, _form(("a", b"1")))
    assert (again.status_code, [one["status"] for one in again.json()["results"]]) == (200, [200])
    mixed = _post(run, _form(("a", b"1"), ("b", b"1")))
    assert (mixed.status_code, [one["status"] for one in mixed.json()["results"]]) == (201, [200, 201])
    service.assert_nothing_left(run, objects=2, rows=2)


def test_refused_files_do_not_keep_the_others_from_being_stored(
    service: Any, run: Any, digest: Callable[..., str]
) -> None:
    answer = _post(
        run,
        _form(
            ("good", b"1"),
            ("../bad", b"2"),
            ("wrong", b"3", {"Repr-Digest": digest(b"meant")}),
            ("unread", b"4", {"Content-Digest": "sha-256"}),
            ("typeless", b"5", {"Content-Type": "none"}),
            ("right", b"6", {"Repr-Digest": digest(b"6")}),
        ),
    )
    results = answer.json()["results"]
    assert answer.status_code == 422
    assert [one["status"] for one in results] == [201, 400, 400, 400, 400, 201]
    assert [one["problem"] and one["problem"]["type"].rpartition(":")[2] for one in results] == [
        None,
        "invalid-name",
        "digest-mismatch",
        "invalid-digest",
        "invalid-content-type",
        None,
    ]
    assert [bool(one["artifact"]) for one in results] == [True, False, False, False, False, True]
    assert {one["problem"]["requestId"] for one in results if one["problem"]} == {
        answer.headers["X-Request-Id"]
    }
    assert {item["name"] for item in run.history()} == {"good", "right"}
    assert len(service.keys(run)) == 2


def test_one_that_is_worth_a_retry_makes_the_whole_503(serve: Any) -> None:
    objects = MemoryObjects()
    service = serve(objects=objects)
    run = service.run()

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.endswith("/fails"):
            raise StoreUnavailableError

    objects.before = fail
    form = _form(("good", b"1"), ("/bad", b"2"), ("fails", b"3"), ("also-good", b"4"))
    answer = _post(run, form)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert [one["status"] for one in answer.json()["results"]] == [201, 400, 503, 201]
    objects.before = lambda _operation, _key: None
    again = _post(run, form)
    assert [one["status"] for one in again.json()["results"]] == [200, 400, 201, 200]
    service.assert_nothing_left(run, objects=3, rows=3)


def test_the_later_of_two_files_of_one_name_is_current(run: Any) -> None:
    answer = _post(run, _form(("a", b"first"), ("b", b"x"), ("a", b"second"), ("a", b"third")))
    assert [one["status"] for one in answer.json()["results"]] == [201] * 4
    assert run.http.get(run.at("a")).content == b"third"
    assert [item["current"] for item in run.history(name="a")] == [True, False, False]


def test_a_part_without_a_filename_is_refused(run: Any) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n--b--\r\n'
    answer = _post(run, body)
    (result,) = answer.json()["results"]
    assert (answer.status_code, result["status"], result["name"]) == (422, 400, None)
    assert result["problem"]["detail"].startswith("filename: every part must have one")


def test_a_filename_that_is_not_utf8_is_refused(service: Any, run: Any) -> None:
    body = _form(("NAME", b"1")).replace(b"NAME", b"\xff\xfe")
    answer = _post(run, body)
    (result,) = answer.json()["results"]
    assert (answer.status_code, result["problem"]["type"]) == (422, "urn:offload:problem:invalid-name")
    service.assert_nothing_left(run)


@pytest.mark.parametrize("name", ["ünï/日本.txt", "100%", "a;b", "a=b, c"])
def test_filenames_are_taken_as_they_are(run: Any, name: str) -> None:
    answer = _post(run, _form((name, b"1")))
    assert answer.json()["results"][0]["artifact"]["name"] == name


def test_what_curl_sends_is_taken(service: Any, run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"log")
    (tmp_path / "b.json").write_bytes(b"{}")
    command = ["curl", "-sS", "-w", "%{http_code}", "-H"]
    command += [f"Authorization: {service.http.headers['Authorization']}"]
    command += ["-F", f"file=@{tmp_path}/a.log", "-F", f"file=@{tmp_path}/b.json;filename=deep/b.json"]
    done = subprocess.run(
        [*command, service.url + run.artifacts], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.endswith("201")
    assert {(item["name"], item["type"]) for item in run.history()} == {
        ("a.log", "log"),
        ("deep/b.json", "report"),
    }


def test_httpx_s_own_form_is_taken(run: Any) -> None:
    answer = run.http.post(run.artifacts, files=[("file", ("a", b"1")), ("file", ("b", b"2"))])
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"--b--\r\n",
        b"--c\r\n\r\nx\r\n--c--\r\n",
        b"--b\r\nContent-Disposition",
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nno end',
        b"--b\r\n" + b"X-Large: " + b"x" * 20_000 + b"\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n--b--\r\n",
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(service: Any, run: Any, body: bytes) -> None:
    answer = _post(run, body)
    assert answer.status_code in {400, 422}
    assert "urn:offload:problem:invalid-multipart" in answer.text
    service.assert_nothing_left(run)


@pytest.mark.parametrize("headers", [{f"X-{n}": "y" for n in range(500)}, {"X-Large": "y" * 16_000}])
def test_as_many_headers_as_are_promised_are_taken(run: Any, headers: dict[str, str]) -> None:
    answer = _post(run, _form(("a", b"1", headers)))
    assert (answer.status_code, run.http.get(run.at("a")).content) == (201, b"1")


def test_a_boundary_that_is_too_long_is_a_problem(service: Any, run: Any) -> None:
    answer = _post(run, b"x", f"multipart/form-data; boundary={'b' * 300}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:offload:problem:invalid-multipart")
    service.assert_nothing_left(run)


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_files_before_broken_framing_are_told_to_be_stored(service: Any, run: Any, size: int) -> None:
    whole = _form(("first", b"x" * size), ("second", b"y" * size))
    answer = _post(run, whole[: len(whole) - size // 2 - 10])
    results = answer.json()["results"]
    assert answer.status_code == 422
    assert [one["status"] for one in results] == [201, 400]
    assert results[1]["problem"]["type"] == "urn:offload:problem:invalid-multipart"
    service.assert_nothing_left(run, objects=1, rows=1)


def test_a_file_before_a_broken_header_in_one_piece_is_stored(service: Any, run: Any) -> None:
    whole = _form(("first", b"x"), ("second", b"y"))
    head, _, tail = whole.rpartition(b"Content-Disposition")
    answer = _post(run, head + b"Broken header\r\nContent-Disposition" + tail)
    assert answer.status_code == 422
    assert [one["status"] for one in answer.json()["results"]] == [201, 400]
    service.assert_nothing_left(run, objects=1, rows=1)


def test_more_parts_than_are_taken_are_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offload.http.multipart.PARTS", 3)
    answer = _post(run, _form(*((f"f{n}", b"x") for n in range(5))))
    assert [one["status"] for one in answer.json()["results"]] == [201, 201, 201, 400]
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "multipart/mixed; boundary=b", "multipart/form-data"]
)
def test_what_is_not_multipart_is_415(service: Any, run: Any, content_type: str) -> None:
    answer = _post(run, _form(("a", b"1")), content_type)
    assert (answer.status_code, answer.json()["type"]) == (
        415,
        "urn:offload:problem:unsupported-media-type",
    )
    service.assert_nothing_left(run)


def test_a_content_coding_is_refused(run: Any) -> None:
    answer = _post(run, _form(("a", b"1")), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("field", "refused", "taken"),
    [
        ("Content-Encoding", "gzip", "identity"),
        ("Content-Transfer-Encoding", "base64", "binary"),
        ("Content-Transfer-Encoding", "quoted-printable", "8BIT"),
    ],
)
def test_a_part_in_a_coding_is_refused(run: Any, field: str, refused: str, taken: str) -> None:
    form = _form(("coded", b"MQ==", {field: refused}), ("plain", b"1", {field: taken}))
    answer = _post(run, form)
    assert answer.status_code == 422
    coded, plain = answer.json()["results"]
    assert (coded["status"], plain["status"]) == (415, 201)
    assert coded["problem"]["detail"].startswith(f"{field} '{refused}'")
    assert [artifact["name"] for artifact in run.history()] == ["plain"]


class Gate(MemoryObjects):
    """Says how much of a body had come when a store's upload was given its first MiB."""

    at_first = None
    given = sent = 0

    async def put(self, key: str, source: Any, **arguments: Any) -> Any:
        async def noting() -> Any:
            async for piece in source:
                self.given += len(piece)
                if self.at_first is None and self.given >= MIB:
                    self.at_first = self.sent
                yield piece

        return await super().put(key, noting(), **arguments)


def test_a_large_part_is_streamed(serve: Any) -> None:
    objects = Gate()
    service = serve(objects=objects)
    run = service.run()
    whole = _form(("large", b"x" * 40 * MIB), ("small", b"y"))

    def pieces() -> Any:
        for start in range(0, len(whole), 2**18):
            objects.sent += 2**18
            yield whole[start : start + 2**18]

    answer = _post(run, pieces())
    assert [one["status"] for one in answer.json()["results"]] == [201, 201]
    assert answer.json()["results"][0]["artifact"]["sha256"] == hashlib.sha256(b"x" * 40 * MIB).hexdigest()
    assert objects.at_first is not None
    assert objects.at_first < 30 * MIB


def test_a_large_part_that_is_refused_is_skipped(serve: Any) -> None:
    service = serve(upload_max_size=MIB)
    run = service.run()
    answer = _post(run, _form(("large", b"x" * 5 * MIB), ("/bad", b"x" * 2 * MIB), ("small", b"y")))
    assert answer.status_code == 422
    assert [one["status"] for one in answer.json()["results"]] == [413, 400, 201]
    service.assert_nothing_left(run, objects=1, rows=1)


class AtOnce(MemoryObjects):
    """Counts the uploads that run together."""

    running = most = 0

    async def put(self, key: str, source: Any, **arguments: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        try:
            return await super().put(key, source, **arguments)
        finally:
            self.running -= 1


def test_a_thousand_small_files_are_one_request(serve: Any) -> None:
    objects = AtOnce()
    service = serve(objects=objects)
    run = service.run()
    answer = _post(run, _form(*((f"f{n:04}", b"%d" % n) for n in range(1000))))
    results = answer.json()["results"]
    assert answer.status_code == 201
    assert [one["name"] for one in results] == [f"f{n:04}" for n in range(1000)]
    assert {one["status"] for one in results} == {201}
    assert len(run.history()) == len(service.keys(run)) == 1000
    assert 2 < objects.most <= 32


@pytest.mark.parametrize("most", [1, 4])
def test_files_of_one_request_never_take_more_places_than_there_are(serve: Any, most: int) -> None:
    run = serve(upload_max_concurrent=most).run()
    answer = _post(run, _form(*((f"f{n}", b"%d" % n) for n in range(100))))
    assert answer.status_code == 201, answer.text
    assert len(run.history()) == 100


def test_only_new_names_are_stored_where_that_is_asked(run: Any) -> None:
    run.stored("there", b"old")
    files = _form(("there", b"new"), ("other", b"new"))
    answer = _post(run, files, headers={"If-None-Match": "*"})
    results = answer.json()["results"]
    assert (answer.status_code, [one["status"] for one in results]) == (422, [412, 201])
    assert results[0]["problem"]["type"] == "urn:offload:problem:name-exists"
    assert run.http.get(run.at("there")).content == b"old"


def test_other_conditions_are_refused(run: Any) -> None:
    answer = _post(run, _form(("a", b"1")), headers={"If-Match": '"x"'})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:offload:problem:invalid-header")
    assert run.http.get(run.at("a")).status_code == 404


def test_type_and_expiry_are_for_all(run: Any) -> None:
    answer = _post(run, _form(("a", b"1"), ("b", b"2")), params={"type": "trace", "expires": "1d"})
    artifacts = [one["artifact"] for one in answer.json()["results"]]
    assert [artifact["type"] for artifact in artifacts] == ["trace", "trace"]
    assert all(artifact["expiresAt"] for artifact in artifacts)


@pytest.mark.parametrize(
    ("query", "status", "type_"),
    [
        ({"uid": "other"}, 409, "run-uid-mismatch"),
        ({"type": "NO"}, 400, "invalid-type"),
        ({"expires": "soon"}, 400, "invalid-expiry"),
    ],
)
def test_what_is_wrong_for_all_files_is_told_at_once(
    service: Any, run: Any, query: dict[str, str], status: int, type_: str
) -> None:
    answer = _post(run, _form(("a", b"1")), params=query)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:offload:problem:{type_}")
    service.assert_nothing_left(run)


def test_an_unknown_run_is_told_at_once(service: Any) -> None:
    answer = service.http.post("/v1/namespaces/agents/agentruns/unknown/artifacts", files={"f": ("a", b"1")})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:offload:problem:run-not-found")
