"""History over HTTP: lists, runs, explanations, single artifacts, erasing.

Cases: an empty history; both orders; each filter and all together; pages by cursor in both orders, of every
size, with the Link header, to the null at the end, complete and without doubles while artifacts are added;
filters and order stay in `next`; a cursor of another list, of other filters, of another incarnation, of no
list, or forged with places that no database takes (400); unknown and malformed query parameters; the list of
runs with its filters and pages; a run's resource (counts, labels, agent, phase, publish state); before and
after it is deleted; an explanation (not yet published, superseded, expired, run deleted,
unusable schema); one artifact by id (GET, HEAD); DELETE (history stays, asked twice, counts; If-Match; the
database restarts: 503); links behind a proxy and by the setting; the shortcut answers as the framework does.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from offload.domain import cursors
from offload.domain.artifact import State
from offload.errors import PointersNotKeptError
from offload.http import history
from offload.index import sweeping


@pytest.fixture
def full(service: Any, run: Any) -> Any:
    """A run with seven artifacts: two types, a superseded one, an expired one, a deleted one."""
    for name in ("a.log", "b.log", "dir/c.json", "a.log", "d.json", "old.log", "bad.json"):
        run.stored(name, name.encode() + str(len(run.history())).encode())
    by_name = {item["name"]: UUID(item["id"]) for item in run.history()}
    with service.index.begin() as tx:
        sweeping.tombstone(tx, [by_name["old.log"]], state=State.EXPIRED, by="rule:logs")
    assert service.http.delete(f"/v1/artifacts/{by_name['bad.json']}").status_code == 200
    return run


def test_a_history_without_artifacts_is_empty(run: Any) -> None:
    answer = run.http.get(run.artifacts)
    assert (answer.status_code, answer.json()) == (200, {"items": [], "next": None})
    assert "Link" not in answer.headers


def test_everything_is_there_newest_first_or_oldest_first(full: Any) -> None:
    names = ["bad.json", "old.log", "d.json", "a.log", "dir/c.json", "b.log", "a.log"]
    assert [item["name"] for item in full.history()] == names
    assert [item["name"] for item in full.history(order="oldest")] == names[::-1]
    sequence = [item["seq"] for item in full.history()]
    assert sequence == sorted(sequence, reverse=True)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"type": "log"}, ["old.log", "a.log", "b.log", "a.log"]),
        ({"type": "none"}, []),
        ({"name": "*.json"}, ["bad.json", "d.json", "dir/c.json"]),
        ({"name": "a.log"}, ["a.log", "a.log"]),
        ({"name": "[ad].*"}, ["d.json", "a.log", "a.log"]),
        ({"name": "?.LOG"}, []),
        ({"state": "expired"}, ["old.log"]),
        ({"state": "deleted"}, ["bad.json"]),
        ({"state": "lost"}, []),
        ({"state": "stored", "type": "report"}, ["d.json", "dir/c.json"]),
        ({"state": "stored", "type": "log", "name": "a*", "order": "oldest"}, ["a.log", "a.log"]),
        ({"since": "2000-01-01T00:00:00Z", "until": "2000-01-02T00:00:00Z"}, []),
        ({"until": "2100-01-01T00:00:00+02:00", "name": "b*"}, ["bad.json", "b.log"]),
    ],
)
def test_filters_choose(full: Any, query: dict[str, str], names: list[str]) -> None:
    assert [item["name"] for item in full.history(**query)] == names


def test_since_includes_and_until_excludes_their_instant(full: Any) -> None:
    history = full.history()
    middle = history[3]["createdAt"]
    newer, older = full.history(since=middle), full.history(until=middle)
    assert newer + older == history
    assert min(newer, key=lambda item: item["seq"])["createdAt"] == middle


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_are_the_whole_list(service: Any, full: Any, order: str, limit: int) -> None:
    whole = full.history(order=order)
    pages = _pages(service, f"{full.artifacts}?order={order}&limit={limit}")
    assert [item for page in pages for item in page] == whole
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert len(pages) == -(-len(whole) // limit)


def test_filters_stay_in_next(service: Any, full: Any) -> None:
    query = "type=log&name=*log&state=stored&since=2000-01-01T00:00:00Z&limit=1&order=oldest"
    pages = _pages(service, f"{full.artifacts}?{query}")
    assert [[item["name"] for item in page] for page in pages] == [["a.log"], ["b.log"], ["a.log"]]


def test_what_is_added_meanwhile_moves_no_page(service: Any, full: Any) -> None:
    whole = full.history()
    first = service.http.get(full.artifacts, params={"limit": 3}).json()
    full.stored("later")
    rest = _pages(service, first["next"])
    assert first["items"] + [item for page in rest for item in page] == whole


def test_a_list_stays_with_its_incarnation(service: Any, full: Any) -> None:
    whole = full.history()
    first = service.http.get(full.artifacts, params={"limit": 3}).json()
    again = service.create_again(full)
    again.stored("of-the-new-one")
    rest = _pages(service, first["next"])
    assert first["items"] + [item for page in rest for item in page] == whole


@pytest.mark.parametrize("change", [{"type": "log"}, {"order": "oldest"}, {"name": "*"}, {"state": "stored"}])
def test_a_cursor_of_other_filters_is_refused(service: Any, full: Any, change: dict[str, str]) -> None:
    cursor = _cursor(service.http.get(full.artifacts, params={"limit": 2}).json()["next"])
    _assert_bad_cursor(service.http.get(full.artifacts, params={**change, "cursor": cursor}))


def test_a_cursor_of_another_list_is_refused(service: Any, full: Any) -> None:
    cursor = _cursor(service.http.get(full.artifacts, params={"limit": 2}).json()["next"])
    other = service.run()
    other.stored("x")
    _assert_bad_cursor(service.http.get(other.artifacts, params={"cursor": cursor}))
    _assert_bad_cursor(service.http.get("/v1/namespaces/agents/agentruns", params={"cursor": cursor}))


@pytest.mark.parametrize("cursor", ["abc", "AAAA", "W10", "bnVsbA", "a" * 512])
def test_a_cursor_of_no_list_is_refused(service: Any, full: Any, cursor: str) -> None:
    _assert_bad_cursor(service.http.get(full.artifacts, params={"cursor": cursor}))
    _assert_bad_cursor(service.http.get("/v1/namespaces/agents/agentruns", params={"cursor": cursor}))


@pytest.mark.parametrize("place", [2**63, -1, 2**200])
def test_a_forged_place_in_history_is_refused(service: Any, full: Any, place: int) -> None:
    cursor = cursors.encode(f"{full.uid} {full.artifacts}?order=newest", [place])
    _assert_bad_cursor(service.http.get(full.artifacts, params={"cursor": cursor}))
    right = cursors.encode(f"{full.uid} {full.artifacts}?order=newest", [2**62])
    assert service.http.get(full.artifacts, params={"cursor": right}).status_code == 200


@pytest.mark.parametrize(
    "place", [["soon", "uid"], ["2026-01-01", "uid"], ["2026-01-01T00:00:00Z", "\ud800"], ["9" * 99, "\0"]]
)
def test_a_forged_place_among_runs_is_refused(service: Any, place: list[str | int]) -> None:
    path = "/v1/namespaces/agents/agentruns"
    _assert_bad_cursor(service.http.get(path, params={"cursor": cursors.encode(f"{path}?", place)}))
    right = cursors.encode(f"{path}?", ["2026-01-01T00:00:00Z", "uid"])
    assert service.http.get(path, params={"cursor": right}).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"colour": "red"},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "x"},
        {"order": "up"},
        {"state": "gone"},
        {"since": "yesterday"},
        {"until": "2026-01-01"},
        {"until": ""},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"type": "UPPER"},
        {"name": "x" * 513},
        {"uid": ""},
        {"cursor": "!"},
    ],
)
def test_a_query_that_is_not_valid_is_refused_by_its_name(full: Any, query: dict[str, str]) -> None:
    answer = full.http.get(full.artifacts, params=query)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:offload:problem:invalid-query")
    assert answer.json()["detail"].startswith(f"{next(iter(query))}: ")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/content"), ("HEAD", "/content")]
)
def test_a_parameter_of_what_takes_none_is_refused(run: Any, method: str, path: str) -> None:
    artifact = run.stored("a", b"1")
    answer = run.http.request(method, f"/v1/artifacts/{artifact['id']}{path}", params={"dryRun": "true"})
    assert answer.status_code == 400
    assert run.http.get(run.at("a")).content == b"1"


def test_runs_are_listed_newest_first_with_their_filters(service: Any) -> None:
    namespace = _namespace(service)
    made = [service.run(namespace=namespace, agentRef={"name": f"agent-{n % 2}"}) for n in range(5)]
    for run in made:
        run.stored("x")
    service.delete_run(made[0])
    path = f"/v1/namespaces/{namespace}/agentruns"

    def names(**query: Any) -> set[str]:
        return {item["name"] for item in service.http.get(path, params=query).json()["items"]}

    every = {run.name for run in made}
    assert names() == every
    assert names(agent="agent-1") == {made[1].name, made[3].name}
    assert names(deleted=True) == {made[0].name}
    assert names(deleted=False) == every - {made[0].name}
    assert names(phase="Running") == set()
    for query in ({}, {"deleted": False}, {"agent": "agent-0"}):
        whole = service.http.get(path, params=query).json()["items"]
        pages = _pages(service, str(httpx.URL(path, params={**query, "limit": 2})))
        assert [item for page in pages for item in page] == whole
        times = [item["createdAt"] for item in whole]
        assert times == sorted(times, reverse=True)
    assert service.http.get("/v1/namespaces/no-such/agentruns").json() == {"items": [], "next": None}


def test_a_run_tells_what_it_produced_and_how_it_is_published(service: Any) -> None:
    run = service.run(labels={"team": "a"}, agentRef={"name": "reviewer"})
    run.stored("a", b"12345")
    run.stored("a", b"123")
    run.stored("b", b"")
    found = service.http.get(run.path).json()
    assert found["artifacts"] == {
        "total": 3,
        "current": 2,
        "stored": 3,
        "storedBytes": 8,
        "listed": 0,
        "leftOut": 2,
    }
    assert (found["labels"], found["agent"], found["uid"]) == ({"team": "a"}, "reviewer", run.uid)
    publish = found["publish"]
    assert (publish["mode"], publish["behind"], publish["publishedAt"]) == ("on", True, None)
    assert publish["dirtySince"]
    assert found["historyUrl"] == f"{service.url}{run.artifacts}?uid={run.uid}"


def test_history_stays_after_the_run_is_deleted(service: Any, full: Any) -> None:
    before = full.history()
    service.delete_run(full)
    assert full.history() == before
    found = service.http.get(full.path).json()
    assert datetime.now(UTC) - datetime.fromisoformat(found["deletedAt"]) < timedelta(minutes=1)
    assert service.http.get(full.at("b.log")).status_code == 200


def test_an_explanation_says_why_each_is_not_in_status(service: Any, full: Any) -> None:
    found = service.http.get(f"{full.path}/explanation").json()
    assert found["status"] == []
    assert [(one["name"], one["reason"]) for one in found["leftOut"]] == [
        ("bad.json", "Deleted"),
        ("old.log", "Expired"),
        ("d.json", "NotYetPublished"),
        ("a.log", "NotYetPublished"),
        ("dir/c.json", "NotYetPublished"),
        ("b.log", "NotYetPublished"),
        ("a.log", "Superseded"),
    ]
    assert found["publish"]["behind"] is True
    service.delete_run(full)
    found = service.http.get(f"{full.path}/explanation").json()
    assert {one["reason"] for one in found["leftOut"]} == {"RunDeleted"}


def test_an_explanation_shows_what_status_lists(service: Any, run: Any) -> None:
    stored = run.stored("x")
    entries = [
        {"name": "x", "type": "log", "uri": stored["uri"], "contentType": "text/plain", "sizeBytes": 1},
        {"name": "theirs", "uri": "https://example.com/log"},
    ]
    service.api.patch(
        f"/apis/agents.proompteng.ai/v1alpha1/namespaces/agents/agentruns/{run.name}/status",
        json={"status": {"artifacts": entries}},
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
    found = service.http.get(f"{run.path}/explanation").json()
    assert found["leftOut"] == []
    assert found["status"] == [
        {"position": 0, "name": "x", "uri": stored["uri"], "ours": True},
        {"position": 1, "name": "theirs", "uri": "https://example.com/log", "ours": False},
    ]


def test_an_explanation_tells_what_a_publish_would_change(service: Any, full: Any) -> None:
    before = service.api.get(
        f"/apis/agents.proompteng.ai/v1alpha1/namespaces/agents/agentruns/{full.name}"
    ).json()
    pending = service.http.get(f"{full.path}/explanation").json()["pending"]
    assert [(one["of"], one["name"], one["before"]) for one in pending] == [
        ("entry", "b.log", None),
        ("entry", "dir/c.json", None),
        ("entry", "a.log", None),
        ("entry", "d.json", None),
    ]
    assert all(one["after"].startswith("s3://") for one in pending)
    after = service.api.get(
        f"/apis/agents.proompteng.ai/v1alpha1/namespaces/agents/agentruns/{full.name}"
    ).json()
    assert after == before
    service.delete_run(full)
    assert service.http.get(f"{full.path}/explanation").json()["pending"] == []


def test_an_explanation_names_a_schema_that_keeps_no_pointers(
    service: Any, full: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable() -> None:
        raise PointersNotKeptError

    monkeypatch.setattr(service.parts.browse._schema, "current", unusable)
    answer = service.http.get(f"{full.path}/explanation")
    assert answer.status_code == 200
    assert {one["reason"] for one in answer.json()["leftOut"]} == {"PointersNotKept"}


def test_one_artifact_is_found_by_its_id(service: Any, run: Any) -> None:
    stored = run.stored("x")
    answer = service.http.get(f"/v1/artifacts/{stored['id']}")
    assert answer.json() == stored
    head = service.http.head(f"/v1/artifacts/{stored['id']}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["ETag"] == answer.headers["ETag"] == f'"{stored["sha256"]}"'
    assert service.http.get(f"/v1/artifacts/{uuid4()}").status_code == 404


def test_erasing_leaves_the_history(service: Any, run: Any) -> None:
    stored = run.stored("x", b"secret")
    erased = service.http.delete(f"/v1/artifacts/{stored['id']}")
    assert erased.status_code == 200
    found = erased.json()
    assert (found["state"], found["endedBy"], found["current"]) == ("deleted", "token:all", False)
    assert found["endedAt"]
    assert service.http.delete(f"/v1/artifacts/{stored['id']}").json() == found
    assert run.history() == [found]
    assert service.http.get(run.path).json()["artifacts"]["stored"] == 0
    assert service.http.get(run.at("x")).status_code == 410
    assert len(service.keys(run)) == 1  # until its pointer is gone
    assert run.put("x", b"secret").status_code == 201
    assert service.http.delete(f"/v1/artifacts/{uuid4()}").status_code == 404


def test_erasing_other_bytes_than_were_meant_erases_nothing(service: Any, run: Any) -> None:
    stored = run.stored("x")
    url = f"/v1/artifacts/{stored['id']}"
    refused = service.http.delete(url, headers={"If-Match": '"other"'})
    assert (refused.status_code, refused.json()["type"]) == (412, "urn:offload:problem:precondition-failed")
    assert run.history() == [stored]
    assert service.http.delete(url, headers={"If-Match": f'"{stored["sha256"]}"'}).status_code == 200


def test_erasing_while_the_database_restarts_is_503(
    serve: Any, create_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_database()
    service = serve(database_url=url)
    stored, reach = service.run().stored("x"), history.reach_artifact

    def reach_and_restart(*arguments: Any) -> Any:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        return reach(*arguments)

    with monkeypatch.context() as restarting:
        restarting.setattr(history, "reach_artifact", reach_and_restart)
        answer = service.http.delete(f"/v1/artifacts/{stored['id']}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["type"] == "urn:offload:problem:index-unavailable"
    assert service.http.delete(f"/v1/artifacts/{stored['id']}").status_code == 200


def test_links_start_with_what_the_proxy_says(service: Any, run: Any) -> None:
    run.stored("a")
    run.stored("b")
    headers = {"Host": "artifacts.example", "X-Forwarded-Proto": "https"}
    answer = service.http.get(run.artifacts, params={"limit": 1}, headers=headers)
    assert answer.json()["next"].startswith(f"https://artifacts.example{run.artifacts}?")
    assert answer.json()["items"][0]["historyUrl"].startswith("https://artifacts.example/v1/")


def test_links_start_with_the_setting(serve: Any) -> None:
    service = serve(public_url="https://offload.example/base/")
    run = service.run()
    stored = run.put("x", headers={"X-Forwarded-Proto": "https"})
    assert stored.headers["Location"] == f"https://offload.example/base/v1/artifacts/{stored.json()['id']}"


def _pages(service: Any, url: str | None) -> list[list[dict[str, Any]]]:
    pages = []
    while url:
        answer = service.http.get(url)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["items"])
        url = answer.json()["next"]
        assert answer.headers.get("Link") == (f'<{url}>; rel="next"' if url else None)
    return pages


def _cursor(url: str) -> str:
    return parse_qs(urlsplit(url).query)["cursor"][0]


def _namespace(service: Any) -> str:
    name = f"ns-{uuid4().hex[:8]}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    assert service.api.post("/api/v1/namespaces", json=body).status_code == 201
    return name


def _assert_bad_cursor(answer: Any) -> None:
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:offload:problem:invalid-cursor")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?limit=2", {}),
        ("?limit=2&order=oldest&type=log&name=*.log&state=stored", {}),
        ("?since=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00%2B01:00", {}),
        ("?type=log&type=file", {}),
        ("?limit=", {}),
        ("?limit=0", {}),
        ("?since=yesterday", {}),
        ("?state=none", {}),
        ("?cursor=bm90IG9uZQ", {}),
        ("?uid=another", {}),
        ("?unknown=1", {}),
        ("", {"Authorization": "Bearer wrong"}),
    ],
)
def test_the_shortcut_answers_as_the_framework_does(
    full: Any, take_the_long_way: Callable[[], None], query: str, headers: dict[str, str]
) -> None:
    """The same request both ways; only its own id and time differ."""

    def answer() -> tuple[Any, ...]:
        answered = full.http.get(f"{full.artifacts}{query}", headers=headers)
        told = re.sub(r'"[0-9a-f]{16}"', "-", answered.text)
        differ = {"date", "x-request-id"}
        return answered.status_code, told, {k: v for k, v in answered.headers.items() if k not in differ}

    short = answer()
    take_the_long_way()
    assert short == answer()
