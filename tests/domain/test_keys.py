"""Object keys.

Cases: the six parts in order, with and without a prefix; bytes that become `_`; the parts read back; keys
that are not ours (marker, other prefix, too short, no id, other characters) have none; probes.
"""

from uuid import UUID, uuid4

import pytest

from offload.domain.keys import MARKER, KeyParts, is_probe, marker_key, object_key, parts_of, probe_key

ID = UUID("0198c0de-0000-7000-8000-000000000001")


@pytest.mark.parametrize(("prefix", "start"), [("", ""), ("offload", "offload/"), ("a/b", "a/b/")])
def test_a_key_is_made_of_its_parts_in_order(prefix: str, start: str) -> None:
    assert (
        object_key(prefix, "agents", "run-1", "uid-1", ID, "d/run.log")
        == f"{start}agents/run-1/uid-1/{ID}/d/run.log"
    )


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b", "a_b"),
        ("ä", "__"),
        ("a+b=c", "a_b_c"),
        ("a/b-c_d.E9", "a/b-c_d.E9"),
        ("%41", "_41"),
        ("a?#&", "a___"),
    ],
)
def test_unsafe_bytes_of_a_name_become_underscores(name: str, safe: str) -> None:
    assert object_key("p", "n", "r", "u", ID, name).endswith(f"/{ID}/{safe}")


@pytest.mark.parametrize("prefix", ["", "offload", "a/b"])
def test_the_parts_are_read_back(prefix: str) -> None:
    assert parts_of(object_key(prefix, "n", "r", "u", ID, "x/y"), prefix) == KeyParts("n", "r", "u", ID)


@pytest.mark.parametrize(
    "key",
    [
        f"offload/{MARKER}",
        f"n/r/u/{ID}/x",
        f"offloading/n/r/u/{ID}/x",
        "offload/n/r/u/no-id/x",
        f"offload/n/r/u/{ID}",
        f"offload/n/r/{ID}/x",
        f"offload/n/r/u/{ID.hex}/x",
        f"offload/n/r/u/{ID}/ä",
        f"offload/n/r\0/u/{ID}/x",
        "",
    ],
)
def test_a_key_that_is_not_ours_has_no_parts(key: str) -> None:
    assert parts_of(key, "offload") is None


@pytest.mark.parametrize("prefix", ["", "offload"])
def test_a_probe_is_told_from_an_artifact(prefix: str) -> None:
    assert is_probe(probe_key(prefix, uuid4()), prefix)
    assert not is_probe(object_key(prefix, "n", "r", "u", ID, "probe"), prefix)
    assert not is_probe(object_key(prefix, ".offload-doctor", "r", "u", ID, "probe"), prefix)


def test_the_marker_lies_right_under_the_prefix() -> None:
    assert marker_key("offload") == "offload/.offload-index"
    assert marker_key("") == ".offload-index"
