"""Telling our own writes from others', and runs as last seen.

Cases: our part alone counts; older versions are history; a failed verdict is ours; unknown runs; a bound;
conditions of any shape; what a list was before another writer changed it, of each of many runs, and once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from offload.cluster.interface import AgentRun
from offload.domain.cuts import names_of
from offload.domain.run import SeenRun
from offload.services.echoes import Echoes, is_blank
from offload.services.reads import LastReads

OURS = {"type": "ArtifactsTruncated", "status": "True"}
VERDICT = {"type": "ArtifactsOverLimit", "status": "True"}
STATUS: dict[str, Any] = {"artifacts": [{"name": "a"}], "conditions": [OURS], "phase": "Running"}


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({"phase": "Succeeded"}, True),
        ({"theirs": 1}, True),
        ({"conditions": [{"type": "Ready"}, OURS]}, True),
        ({"conditions": []}, False),
        ({"conditions": [{**OURS, "status": "False"}]}, False),
        ({"artifacts": []}, False),
        ({"artifacts": [{"name": "a", "type": "log"}]}, False),
    ],
)
def test_a_status_matches_by_our_part_alone(change: dict[str, Any], matches: bool) -> None:
    echoes = Echoes()
    echoes.remember("run", STATUS, "5")
    assert echoes.matches("run", {**STATUS, **change}, "6") is matches


@pytest.mark.parametrize("odd", [5, "text", {"type": "x"}, [5], [{"type": {}}], [{"type": ["x"]}]], ids=str)
def test_conditions_of_any_shape_are_not_ours(odd: Any) -> None:
    assert is_blank({"conditions": odd})
    echoes = Echoes()
    echoes.remember("run", {**STATUS, "conditions": []}, "5")
    assert echoes.matches("run", {**STATUS, "conditions": odd}, "6")


def test_what_came_before_is_history() -> None:
    echoes = Echoes()
    echoes.remember("run", STATUS, "5")
    assert echoes.matches("run", {}, "4")
    assert not echoes.matches("run", {}, "5")


def test_the_phase_is_ours_while_the_run_is_over_its_limit() -> None:
    echoes = Echoes()
    failed = {"phase": "Failed", "conditions": [VERDICT]}
    echoes.remember("run", failed, "5")
    assert echoes.matches("run", {**failed, "phase": "Running"}, "6") is False


def test_a_run_that_was_never_remembered_or_fell_out_is_unknown() -> None:
    echoes = Echoes(most=2)
    for uid in ("a", "b", "c"):
        echoes.remember(uid, STATUS, "1")
    assert echoes.matches("a", STATUS, "2") is None
    assert echoes.matches("c", STATUS, "2") is True
    echoes.forget("c")
    assert echoes.matches("c", STATUS, "2") is None


def read(uid: str, version: str, status: Mapping[str, Any] = MappingProxyType({})) -> AgentRun:
    return AgentRun(SeenRun(uid, "agents", uid, datetime(2026, 1, 1, tzinfo=UTC)), version, status)


def test_what_a_list_was_is_known_of_each_of_many_runs() -> None:
    echoes = Echoes()
    before, cut = {"artifacts": [{"name": "a"}, {"name": "b"}]}, {"artifacts": [{"name": "b"}]}
    uids = [f"run-{number}" for number in range(2000)]
    for uid in uids:
        echoes.remember(uid, before, "1")
    for uid in uids:
        assert echoes.keep(read(uid, "2", cut)) == names_of(before["artifacts"])
        assert echoes.keep(read(uid, "3", cut)) is None


def test_what_was_not_as_it_should_be_was_not_cut() -> None:
    echoes = Echoes()
    before, cut = {"artifacts": [{"name": "a"}, {"name": "b"}]}, {"artifacts": [{"name": "b"}]}
    assert echoes.keep(read("run", "1", cut)) is None
    echoes.foretell("run", before, "1")
    assert echoes.keep(read("run", "2", cut)) is None  # it came before our patch, which is refused
    echoes.foretell("run", before, "2")
    assert echoes.keep(read("run", "3", before)) is None
    assert echoes.keep(read("run", "4", cut)) == names_of(before["artifacts"])
    echoes.remember("run", before, "3")  # our answer, after what came later
    assert echoes.keep(read("run", "5", cut)) is None


def test_the_newest_version_of_a_run_is_kept() -> None:
    reads = LastReads()
    for version in ("9", "10", "2"):
        reads.keep(read("a", version))
    assert reads.get("a") == read("a", "10")
    reads.forget("a")
    assert reads.get("a") is None


def test_only_the_runs_last_in_use_are_kept() -> None:
    reads = LastReads(most=2)
    for uid in ("a", "b", "a", "c"):
        reads.keep(read(uid, "1"))
    assert [uid for uid in ("a", "b", "c") if reads.get(uid)] == ["a", "c"]
