"""Names, types and content types.

Cases: names that pass; names that break each rule, with the rule named; lengths at their limits in bytes;
types and content types that pass and fail; the defaults of both; and as properties: what passes keeps every
rule, and its key fits into S3.
"""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offload.domain.keys import KeyParts, object_key, parts_of
from offload.domain.names import (
    check_content_type,
    check_name,
    check_type,
    default_content_type,
    default_type,
)
from offload.errors import InvalidContentTypeError, InvalidNameError, InvalidTypeError

ID = UUID("0198c0de-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "run.log",
        "dir/sub/run.log",
        "Bericht für März.txt",
        "日本語/ログ.txt",
        "a b",
        "...",
        ".hidden",
        "a/.../b",
        "100%.txt",
        "data",
        "a/data:x",
        "emoji-\N{SNOWMAN}",
        "x" * 255,
        "/".join(["y" * 255, "z" * 255]),
        "ä" * 127,
    ],
)
def test_a_good_name_passes_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        ("/a", "slash"),
        ("a/", "slash"),
        ("/", "slash"),
        ("data:,x", "data:"),
        ("DaTa:x/y", "data:"),
        (" a", "white space"),
        ("a ", "white space"),
        ("\N{NO-BREAK SPACE}a", "white space"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
        ("\udc80", "UTF-8"),
        ("a//b", "segment"),
        (".", "segment"),
        ("..", "segment"),
        ("a/../b", "segment"),
        ("a/./b", "segment"),
        ("../a", "segment"),
        ("x" * 256, "255 bytes"),
        ("ä" * 128, "255 bytes"),
        ("/".join(["y" * 255, "z" * 255, "a"]), "512 bytes"),
    ],
)
def test_a_bad_name_is_refused_with_the_rule_it_breaks(name: str, rule: str) -> None:
    with pytest.raises(InvalidNameError, match=rule) as refused:
        check_name(name)
    assert refused.value.field == "name"


@given(st.text(max_size=600) | st.text(alphabet="a/. \t", max_size=12))
def test_a_name_that_passes_keeps_every_rule_and_fits_into_a_key(name: str) -> None:
    try:
        check_name(name)
    except InvalidNameError:
        return
    encoded = name.encode()
    assert 1 <= len(encoded) <= 512
    assert name == name.strip()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", name)
    for segment in name.split("/"):
        assert segment not in {"", ".", ".."}
        assert len(segment.encode()) <= 255
    key = object_key("p" * 100, "n" * 63, "r" * 253, "u" * 36, ID, name)
    assert len(key) <= 1024
    assert key.isascii()
    assert parts_of(key, "p" * 100) == KeyParts("n" * 63, "r" * 253, "u" * 36, ID)


@pytest.mark.parametrize("good", ["log", "a", "a-b", "9", "x" * 63])
def test_a_dns_label_is_a_type(good: str) -> None:
    assert check_type(good) == good


@pytest.mark.parametrize("bad", ["", "Log", "a_b", "-a", "a-", "x" * 64, "a.b", "a b", "ä", "log\n"])
def test_another_word_is_no_type(bad: str) -> None:
    with pytest.raises(InvalidTypeError, match="DNS label"):
        check_type(bad)


@pytest.mark.parametrize(
    "good",
    [
        "text/plain",
        "text/plain; charset=utf-8",
        'multipart/x; boundary="a b"',
        "application/vnd.api+json",
        "text/plain;charset=utf-8;format=flowed",
    ],
)
def test_a_media_type_is_a_content_type(good: str) -> None:
    assert check_content_type(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain;",
        "text/plain\r\nX: y",
        "text/plain; a",
        "te xt/plain",
        "a/" + "b" * 254,
    ],
)
def test_other_text_is_no_content_type(bad: str) -> None:
    with pytest.raises(InvalidContentTypeError, match="media type"):
        check_content_type(bad)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("run.log", "text/plain"),
        ("last.diff", "text/x-diff"),
        ("0001.PATCH", "text/x-diff"),
        ("report.json", "application/json"),
        ("events.jsonl", "application/x-ndjson"),
        ("notes.md", "text/markdown"),
        ("a.yml", "application/yaml"),
        ("logs.tar.gz", "application/gzip"),
        ("page.html", "text/html"),
        ("a.b/c", "application/octet-stream"),
        ("binary", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
    ],
)
def test_a_name_suggests_its_content_type(name: str, content_type: str) -> None:
    assert default_content_type(name) == content_type


@given(st.text(min_size=1, max_size=60))
def test_whatever_a_name_suggests_is_valid(name: str) -> None:
    content_type = default_content_type(name)
    assert check_content_type(content_type) == content_type
    assert check_type(default_type(content_type))


@pytest.mark.parametrize(
    ("content_type", "artifact_type"),
    [
        ("text/plain; charset=utf-8", "log"),
        ("TEXT/X-DIFF", "diff"),
        ("application/json", "report"),
        ("application/problem+json", "report"),
        ("image/svg+xml", "report"),
        ("image/png", "image"),
        ("video/mp4", "video"),
        ("text/css", "text"),
        ("application/zip", "archive"),
        ("application/octet-stream", "file"),
        ("chemical/x-pdb", "file"),
    ],
)
def test_a_content_type_suggests_a_type(content_type: str, artifact_type: str) -> None:
    assert default_type(content_type) == artifact_type
