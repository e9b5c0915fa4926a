"""Lists and single resources of `Client`.

Cases: pages are followed with their filters, and the token stays with the server it is meant for; a run, an
artifact, an explanation; reads are tried again.
"""

from typing import Any

import pytest

from offload.client import Client, MissingError

RUN = "agents/one"


def test_history_follows_pages_newest_first(client: Client) -> None:
    for number in range(5):
        client.put(RUN, f"{number}.log", b"x")
    assert [artifact.name for artifact in client.history(RUN)] == [
        "4.log",
        "3.log",
        "2.log",
        "1.log",
        "0.log",
    ]
    assert next(client.history(RUN, order="oldest")).name == "0.log"


def test_filters_go_with_every_page(server: Any, client: Client) -> None:
    for name in ("a.log", "b.txt", "c.log", "d.log"):
        client.put(RUN, name, b"x")
    del server.seen[:]
    assert [artifact.name for artifact in client.history(RUN, name="*.log")] == ["d.log", "c.log", "a.log"]
    assert [seen.query["name"] for seen in server.seen] == ["*.log", "*.log"]


def test_the_token_stays_with_its_server_whatever_next_says(server: Any) -> None:
    with Client(server.url, "secret") as client:
        assert [run.name for run in client.runs("agents")] == ["one", "two", "three"]
    assert [seen.path for seen in server.seen] == ["/v1/namespaces/agents/agentruns"] * 2


def test_run_filters_are_sent_as_the_server_reads_them(server: Any, client: Client) -> None:
    next(client.runs("agents", agent="coder", phase="Failed", deleted=False))
    assert server.seen[0].query == {"agent": "coder", "phase": "Failed", "deleted": "false", "limit": "1000"}


def test_a_run_has_counts_and_publish_state(server: Any, client: Client) -> None:
    run = client.run(RUN, uid="some-uid")
    assert (run.artifacts.listed, run.artifacts.left_out, run.artifacts.stored_bytes) == (1, 1, 4096)
    assert run.publish.behind
    assert run.publish.error == "conflict"
    assert server.seen[0].query == {"uid": "some-uid"}


def test_an_artifact_is_found_by_its_id(client: Client) -> None:
    stored = client.put(RUN, "a", b"x")
    assert client.artifact(stored.id).name == "a"
    with pytest.raises(MissingError):
        client.artifact("00000000-0000-0000-0000-000000000000")


def test_an_explanation_names_what_is_left_out_and_why(client: Client) -> None:
    explanation = client.explain(RUN)
    assert [entry.name for entry in explanation.status] == ["a.log"]
    assert [(left.name, left.reason) for left in explanation.left_out] == [("b.log", "CountLimit")]
    assert [(one.of, one.name, one.before, one.after) for one in explanation.pending] == [
        ("condition", "C", None, "True Why: so"),
        ("entry", "old.log", "s3://bucket/old", None),
    ]


def test_reads_are_tried_again(server: Any, client: Client, trouble: Any) -> None:
    server.troubles = [trouble(503)]
    assert client.run(RUN).name == "one"
