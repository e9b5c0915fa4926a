"""The schema that is served decides, on a real API server.

- each schema that keeps pointers: what is written is what is stored, again writes nothing, also past the cap
- generated entries: what the API server stores and refuses is what is predicted
- schemas that keep no condition of ours: pointers all the same, and conditions of others stay
- schemas that keep no pointers: a problem, and nothing is sent
- a rule that cannot be foreseen (CEL) refuses: told, tried ever more rarely, published once it is gone
- conditions that are there by default stay beside ours
- nulls of other writers, which a merge patch drops; two entries of a name where only one may be
- a status that lacks what its schema requires waits for its other writer
- strict mode where status has no reason
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from offload.cluster.interface import AgentRun
from offload.domain import structural
from offload.domain.conditions import TRUNCATED
from offload.domain.projection import Caps
from offload.services.publish import Outcome, Publisher
from tests.kube.control_plane import ControlPlane
from tests.kube.room import KubeRoom, opening_room
from tests.kube.schemas import KEEPING, SILENT, UNUSABLE, Crd, changed, read
from tests.publishing import AGENTRUNS, eventually

THEIRS = {
    "type": "Ready",
    "status": "True",
    "reason": "Started",
    "message": "runs",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


class Wiretap:
    """Keeps what is sent and what is answered."""

    def __init__(self, room: KubeRoom) -> None:
        self._send = room.cluster.patch_status
        self.sent: list[Mapping[str, Any]] = []
        self.answered: list[AgentRun] = []
        room.cluster.patch_status = self.patch_status  # type: ignore[method-assign]

    def patch_status(self, run: AgentRun, patch: Mapping[str, Any]) -> AgentRun:
        self.sent.append(patch)
        answer = self._send(run, patch)
        self.answered.append(answer)
        return answer


@pytest.fixture(scope="module")
def room(
    agents: ControlPlane,
    served: Callable[[Crd], None],  # noqa: ARG001 - has ours served again after these tests
    create_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[KubeRoom]:
    with opening_room(agents, create_database(), tmp_path_factory.mktemp("schemas")) as opened:
        yield opened


@pytest.fixture
def tap(room: KubeRoom) -> Iterator[Wiretap]:
    sends = room.cluster.patch_status
    yield Wiretap(room)
    room.cluster.patch_status = sends  # type: ignore[method-assign]


def condition_of(status: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    return next((one for one in status.get("conditions", ()) if one.get("type") == type_), None)


def published_as_sent(room: KubeRoom, tap: Wiretap, run: AgentRun, publisher: Publisher) -> Mapping[str, Any]:
    """Publish; the status, which must be what was sent, with nothing left to do."""
    tap.sent.clear()
    tap.answered.clear()
    assert room.publish(run, publisher) is Outcome.WRITTEN
    [sent], [answer] = tap.sent, tap.answered
    read_back = room.read(run)
    for field, value in sent.items():
        assert read_back.status[field] == answer.status[field] == value
    patches = room.patches(run)
    assert room.look_again(run, publisher=publisher) is Outcome.UNCHANGED
    room.echoes.forget(run.seen.uid)  # as a replica that knows nothing of it
    assert room.look_again(run, publisher=publisher) is Outcome.UNCHANGED
    assert room.read(run).resource_version == read_back.resource_version
    assert room.patches(run) == patches
    return read_back.status


@pytest.mark.parametrize("name", KEEPING, scope="module")
def test_what_is_written_is_what_is_stored(room: KubeRoom, tap: Wiretap, name: str) -> None:
    room.serve(KEEPING[name])
    publisher = room.publisher(caps=Caps(count=12))
    run = room.create()
    room.put(run, {"phase": "Running", "conditions": [THEIRS]})
    names = [f"log-{number}" for number in range(15)]
    stored = [room.upload(run, name) for name in names[:2]]
    status = published_as_sent(room, tap, run, publisher)
    assert room.names(run) == names[:2]
    assert condition_of(status, TRUNCATED) is None
    addresses = [entry.get("uri") or entry["url"] for entry in status["artifacts"]]
    assert addresses == [artifact.location.uri for artifact in stored]

    for name_ in names[2:]:
        room.upload(run, name_)
    status = published_as_sent(room, tap, run, publisher)
    most = min(12, room.schema.current().max_items or 12)
    assert room.names(run) == names[-most:]
    condition = condition_of(status, TRUNCATED)
    assert condition
    assert (condition["status"], condition["reason"]) == ("True", "CountLimit")
    assert condition["message"].startswith(f"{most} of 15 artifacts are")
    assert status["phase"] == "Running"
    theirs = condition_of(status, "Ready")
    assert theirs
    kept = {
        field: value
        for field, value in THEIRS.items()
        if name != "conditions-without-time" or field != "lastTransitionTime"
    }
    assert kept.items() <= theirs.items()


@pytest.mark.parametrize("name", [*KEEPING, *SILENT], scope="module")
def test_what_the_api_server_makes_of_an_entry_is_predicted(room: KubeRoom, name: str) -> None:
    room.serve({**KEEPING, **SILENT}[name])
    schema = room.schema.current()
    run = room.create()
    write = writer(room, run)
    for entries in generated(random.Random(name), 24):
        predicted = schema.stored("artifacts", entries)
        answer = write({"artifacts": entries})
        taken = structural.takes(schema.artifacts, predicted)
        assert (answer is not None) == taken, (entries, answer)
        if answer is not None:
            assert answer["artifacts"] == predicted, entries


@pytest.mark.parametrize("name", SILENT, scope="module")
def test_pointers_are_published_where_conditions_are_not_kept(
    room: KubeRoom, tap: Wiretap, name: str
) -> None:
    room.serve(SILENT[name])
    run = room.create()
    if name == "one-condition":
        room.put(run, {"conditions": [THEIRS]})
    before = room.status(run).get("conditions")
    for number in range(3):
        room.upload(run, f"log-{number}")
    status = published_as_sent(room, tap, run, room.publisher(caps=Caps(count=2)))
    assert room.names(run) == ["log-1", "log-2"]
    assert status.get("conditions") == before
    assert room.schema.current().tells == (name == "one-condition")


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_schema_that_keeps_no_pointers_is_a_problem(room: KubeRoom, name: str) -> None:
    room.serve(UNUSABLE[name])
    assert room.schema.problem
    run = room.create()
    room.upload(run, "log")
    room.publish(run)
    assert room.patches(run) == 0
    room.serve(read("ours"))
    assert room.schema.problem is None
    assert room.publish(run) is Outcome.WRITTEN


def test_a_rule_that_cannot_be_foreseen_is_told_and_not_fought(room: KubeRoom) -> None:
    rule = {"rule": "self.url.startsWith('https://')", "message": "only https here"}
    room.serve(changed("legacy", entry={"x-kubernetes-validations": [rule]}))
    run = room.create()
    room.upload(run, "log")
    publisher = room.publisher()
    pauses = []
    for _ in range(4):
        assert room.publish(run, publisher) is Outcome.FAILED
        found = room.run(run)
        assert "only https here" in (found.publish_error or "")
        pauses.append(found.publish_failures)
    assert pauses == [1, 2, 3, 4]
    assert room.patches(run) == 4
    room.serve(read("legacy"))
    room.touch(run)
    eventually(lambda: room.publish(run, publisher) is Outcome.WRITTEN)
    assert room.names(run) == ["log"]


def test_conditions_that_are_there_by_default_stay(room: KubeRoom, tap: Wiretap) -> None:
    room.serve(KEEPING["default-conditions"])
    run = room.create()
    for number in range(3):
        room.upload(run, f"log-{number}")
    status = published_as_sent(room, tap, run, room.publisher(caps=Caps(count=2)))
    assert [one["type"] for one in status["conditions"]] == ["Accepted", TRUNCATED]


def test_nulls_of_others_are_no_difference(room: KubeRoom, tap: Wiretap) -> None:
    room.serve(KEEPING["open-entries"])
    run = room.create()
    theirs = {"name": "site", "uri": "https://example.org/x", "extra": None, "more": {"a": None, "b": [None]}}
    room.put(run, {"artifacts": [theirs]})
    publisher = room.publisher()
    room.touch(run)
    assert room.publish(run, publisher) is Outcome.UNCHANGED
    assert room.status(run)["artifacts"] == [theirs]

    room.upload(run, "log")
    status = published_as_sent(room, tap, run, publisher)
    kept = {"name": "site", "uri": "https://example.org/x", "more": {"b": [None]}}
    assert status["artifacts"][0] == kept
    assert [entry["name"] for entry in status["artifacts"]] == ["site", "log"]


def test_where_a_name_may_be_there_once_it_is_the_artifact_s(room: KubeRoom, tap: Wiretap) -> None:
    room.serve(KEEPING["one-of-a-name"])
    run = room.create()
    theirs = [{"name": name, "url": f"https://example.org/{name}"} for name in ("log", "x")]
    room.put(run, {"artifacts": theirs})
    artifact = room.upload(run, "log")
    status = published_as_sent(room, tap, run, room.publisher())
    addresses = {entry["name"]: entry["url"] for entry in status["artifacts"]}
    assert addresses == {"log": artifact.location.uri, "x": "https://example.org/x"}
    condition = condition_of(status, TRUNCATED)
    assert condition
    assert condition["message"].startswith("2 of 3 artifacts are listed")


def test_a_status_that_lacks_what_its_schema_requires_waits_for_its_writer(room: KubeRoom) -> None:
    room.serve(changed("legacy", status={"required": ["phase"]}))
    run = room.create()
    room.upload(run, "log")
    publisher = room.publisher()
    assert room.publish(run, publisher) is Outcome.FAILED
    assert "phase" in (room.run(run).publish_error or "")
    room.write(run.seen.name, {"phase": "Running"})
    assert room.publish(run, publisher) is Outcome.WRITTEN
    assert room.names(run) == ["log"]


def test_strict_mode_fails_a_run_whose_status_has_no_reason(room: KubeRoom, tap: Wiretap) -> None:
    room.serve(read("early"))
    run = room.create()
    room.put(run, {"phase": "Running", "conditions": [THEIRS]})
    for number in range(3):
        room.upload(run, f"log-{number}")
    status = published_as_sent(room, tap, run, room.publisher(caps=Caps(count=2), strict=True))
    assert status["phase"] == "Failed"
    assert status["finishedAt"]
    assert "reason" not in status
    over = condition_of(status, "ArtifactsOverLimit")
    assert over
    assert (over["status"], over["reason"]) == ("True", "CountLimit")
    assert condition_of(status, "Ready") == THEIRS


def writer(room: KubeRoom, run: AgentRun) -> Callable[[Mapping[str, Any]], Mapping[str, Any] | None]:
    """Merge-patches status as another writer would; the status that is answered, None where it is refused."""

    def write(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
        answer = room.api.patch(
            f"{AGENTRUNS}/{run.seen.name}/status",
            json={"status": status},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert answer.status_code in {200, 422}, answer.text
        stored: Mapping[str, Any] = answer.json()["status"]
        return stored if answer.status_code == 200 else None

    return write


def generated(chance: random.Random, count: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of entries as writers of all sorts would send them."""
    values: Mapping[str, list[Any]] = {
        "name": ["log", "Log", "a b", "", "x" * 257, "é", 5],
        "type": ["log", "other", ""],
        "uri": ["s3://bucket/a/b", "https://example.org/" + "x" * 300],
        "url": ["s3://bucket/a/b", "https://example.org/" + "x" * 300, ""],
        "key": ["a/b", "k" * 300, 7],
        "contentType": ["text", "text/plain; charset=utf-8", None],
        "sizeBytes": [0, 4, 5, 2**31 - 1, 2**31, -1, "5"],
        "path": ["/tmp/x", None],
        "unknown": ["x", 1, None, {"a": None, "b": [1, None]}],
        "tier": ["cold", None],
        "nested": [{}, {"level": 1, "gone": 2}, {"note": None}, None],
    }
    for _ in range(count):
        entries = []
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            fields = ["name", *chance.sample(sorted(values), chance.randint(1, 5))]
            # Mostly the first value, which all schemas take: else nearly all lists would be refused.
            entries.append(
                {
                    field: values[field][0] if chance.random() < 0.75 else chance.choice(values[field])
                    for field in fields
                    if field != "name" or chance.random() < 0.95
                }
            )
        yield entries
