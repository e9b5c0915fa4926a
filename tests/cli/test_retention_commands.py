"""`offload retention`, `offload sweep` and `offload token`, on SQLite and an S3 server.

Cases: rules shown, and their errors with exit 2; a plan in words and as JSON, now and at a time, cut at a
limit, for an index that is not there; a sweep carried out, parked (exit 3), confirmed, unknown (exit 4),
refused without a watch (exit 1); a token with its entry, added to a file with any indentation, refused where
an option or the file is wrong.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from offload.cli.main import app
from offload.dev.stores import Moto, StoreAddress
from offload.domain.access import Permission
from offload.domain.artifact import NewArtifact
from offload.domain.run import SeenRun
from offload.index import Index, leases, migrate, runs
from offload.index.recording import record_all
from offload.objects.s3 import S3Objects
from offload.services.sweep import WATCH
from offload.tokens_file import TokenFile

RULES = """
rules:
  - {name: logs, match: {type: log}, keep: {for: 7d}}
  - {name: old, match: {version: superseded}, keep: {last: 2}}
default: {keep: forever}
"""


@pytest.fixture(scope="module")
def moto() -> Iterator[StoreAddress]:
    try:
        version("moto")
    except PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("moto is not installed")
    with Moto() as address:
        yield address


@pytest.fixture
def send(
    tmp_path: Path, moto: StoreAddress, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """A configured installation; the fixture records logs of a run, ended already where `expired`."""
    url = f"sqlite:///{tmp_path / 'index.db'}"
    migrate.upgrade(url)
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    connection = moto.connection()
    for variable, value in {
        "OFFLOAD_DATABASE_URL": url,
        "OFFLOAD_RETENTION_FILE": str(rules),
        "OFFLOAD_S3_BUCKET": connection.bucket,
        "OFFLOAD_S3_ENDPOINT_URL": str(connection.endpoint_url),
        "OFFLOAD_S3_ADDRESSING": "path",
        "AWS_ACCESS_KEY_ID": str(connection.access_key),
        "AWS_SECRET_ACCESS_KEY": str(connection.secret_key),
        "AWS_REGION": str(connection.region),
        "AWS_DEFAULT_REGION": str(connection.region),
    }.items():
        monkeypatch.setenv(variable, value)
    index, objects = Index.connect(url), S3Objects(connection, threads=1)
    with index.begin() as tx:
        run = runs.observe(tx, SeenRun("u", "agents", "build-7", datetime(2026, 1, 1, tzinfo=UTC)))
        leases.done(tx, WATCH)

    async def put(name: str) -> NewArtifact:
        artifact_id = uuid4()

        async def source() -> AsyncIterator[bytes]:
            yield artifact_id.bytes

        key = f"agents/build-7/u/{artifact_id}/x"
        location = await objects.put(key, source(), size_bytes=16, content_type="text/plain", metadata={})
        return NewArtifact(
            id=artifact_id,
            run_uid=run.uid,
            name=name,
            type="log",
            content_type="text/plain",
            size_bytes=16,
            sha256=hashlib.sha256(artifact_id.bytes).digest(),
            location=location,
            stored_since=datetime.now(UTC),
            expires_at=datetime(2026, 1, 2, tzinfo=UTC) if name.startswith("expired") else None,
        )

    def record(*names: str) -> None:
        new = [asyncio.run(put(name)) for name in names]
        with index.begin() as tx:
            record_all(tx, new, grace=timedelta(hours=1), again=False)

    yield record
    objects.close()
    index.close()


def _offload(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("send")
def test_a_plan_for_a_mistyped_path_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLOAD_DATABASE_URL", f"sqlite:///{tmp_path / 'mistyped.db'}")
    result = _offload("retention", "plan")
    assert result.exit_code == 2
    assert "there is no index" in result.stderr
    assert not (tmp_path / "mistyped.db").exists()


def test_rules_are_shown_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    result = _offload("retention", "check", tmp_path / "rules.yaml")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines[1:3]] == [["1", "logs"], ["2", "old"]]
    assert "for 7d since it was created" in result.stdout
    assert lines[3] == ["default", "everything", "else", "for", "ever"]


def test_errors_of_rules_are_shown_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n- {name: a, match: {type: log}, keep: never}\n")
    result = _offload("retention", "check", path)
    assert result.exit_code == 2
    assert f"{path}:1: default: is required\n{path}:2: rules[0].keep: must be" in result.stderr


def test_a_plan_says_what_would_end_and_why(send: Callable[..., None]) -> None:
    send("a.log", "expired [x].log")
    result = _offload("retention", "plan")
    assert result.exit_code == 0
    [line] = [line for line in result.stdout.splitlines() if "build-7" in line]
    assert line.startswith("agents/build-7/expired [x].log")
    assert "own-expiry" in line
    assert "its sender wanted it kept until 2026-01-02T00:00:00Z" in line
    assert "1 of 2 stored artifacts would end, 16 B of 32 B" in result.stdout


def test_a_plan_is_made_for_a_time_and_cut_at_a_limit(send: Callable[..., None]) -> None:
    send(*(f"n{n}.log" for n in range(5)))
    result = _offload("retention", "plan", "--at", "2099-01-01T00:00:00Z", "--limit", "2")
    assert result.stdout.count("agents/build-7/") == 2
    assert "… and 3 more" in result.stdout
    assert "5 of 5 stored artifacts would end" in result.stdout


def test_a_plan_as_json_has_all_artifacts(send: Callable[..., None]) -> None:
    send(*(f"n{n}.log" for n in range(101)))
    result = _offload("retention", "plan", "--json", "--at", "2099-01-01T00:00:00Z")
    planned = json.loads(result.stdout)
    assert planned["at"] == "2099-01-01T00:00:00Z"
    assert (planned["count"], planned["bytes"], planned["storedCount"]) == (101, 1616, 101)
    assert planned["byRule"] == {"logs": {"count": 101, "bytes": 1616}}
    assert planned["beyondGuard"] is True
    assert len(planned["artifacts"]) == 101
    assert planned["artifacts"][0]["rule"] == "logs"


def test_a_time_that_is_none_is_a_usage_error(send: Callable[..., None]) -> None:
    send()
    assert _offload("retention", "plan", "--at", "tomorrow").exit_code == 2


def test_a_sweep_ends_what_the_plan_says(send: Callable[..., None]) -> None:
    send("a.log", "expired.log")
    result = _offload("sweep")
    assert result.exit_code == 0
    assert "ended 1 artifacts, 16 B" in result.stdout
    assert "0 of 1 stored artifacts" in _offload("retention", "plan").stdout


def test_a_sweep_beyond_the_guard_waits_for_its_confirmation(send: Callable[..., None]) -> None:
    send(*(f"expired-{n}" for n in range(101)))
    parked = _offload("sweep", "--json")
    assert parked.exit_code == 3
    plan_id = json.loads(parked.stdout)["waits"]
    again = _offload("sweep")
    assert again.exit_code == 3
    assert f"offload sweep --confirm {plan_id}" in again.stdout
    confirmed = _offload("sweep", "--confirm", plan_id, "--json")
    assert confirmed.exit_code == 0
    assert json.loads(confirmed.stdout)["ended"]["count"] == 101
    assert _offload("sweep", "--confirm", plan_id).exit_code == 4


def test_a_sweep_without_a_living_watch_is_refused(
    send: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send("expired.log")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    migrate.upgrade(other)
    monkeypatch.setenv("OFFLOAD_DATABASE_URL", other)
    result = _offload("sweep")
    assert result.exit_code == 1
    assert "refused: the watch of runs was not heard for 3m" in result.stderr


def test_a_token_comes_with_the_entry_that_makes_it_valid(tmp_path: Path) -> None:
    result = _offload("token", "create", "--name", "ci", "--namespace", "agents", "--allow", "read,write")
    assert result.exit_code == 0
    head, entry = result.stdout.split("OFFLOAD_TOKENS_FILE:\n")
    token = head.split()[3]
    (tmp_path / "tokens.yaml").write_text("tokens:\n" + entry)
    grant = TokenFile(tmp_path / "tokens.yaml").grant_for(token)
    assert grant is not None
    assert (grant.namespaces, grant.runs) == (("agents",), ("*",))
    assert grant.permissions == {Permission.READ, Permission.WRITE}


@pytest.mark.parametrize(
    "there",
    [
        None,
        "tokens:\n",
        "# ours\ntokens:\n  - name: first\n    sha256: {}\n    namespaces: [x]\n    permissions: [read]",
    ],
)
def test_a_token_is_added_to_a_file(tmp_path: Path, there: str | None) -> None:
    path = tmp_path / "tokens.yaml"
    if there is not None:
        path.write_text(there.format("a" * 64))
    tokens = [
        _offload(
            "token",
            "create",
            "--name",
            name,
            "--namespace",
            "agents",
            "--run",
            "a",
            "--run",
            "b-*",
            "--file",
            path,
        )
        for name in ("one", "two")
    ]
    file = TokenFile(path)
    for name, result in zip(("one", "two"), tokens, strict=True):
        grant = file.grant_for(result.stdout.strip())
        assert grant is not None
        assert (grant.name, grant.runs) == (name, ("a", "b-*"))
    assert there is None or path.read_text().startswith(there.format("a" * 64).rstrip())
    assert [child.name for child in tmp_path.iterdir()] == ["tokens.yaml"]


def test_a_token_can_end(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    token = _offload("token", "create", "--name", "a", "--namespace", "*", "--expires", "30d", "--file", path)
    now = datetime.now(UTC)
    in_time = TokenFile(path, clock=lambda: now + timedelta(days=29))
    late = TokenFile(path, clock=lambda: now + timedelta(days=31))
    assert in_time.grant_for(token.stdout.strip()) is not None
    assert late.grant_for(token.stdout.strip()) is None


@pytest.mark.parametrize(
    "options",
    [
        ("--allow", "admin"),
        ("--allow", ""),
        ("--expires", "soon"),
        ("--expires", "2020-01-01T00:00:00Z"),
        ("--name", "a b"),
        ("--namespace", ""),
    ],
)
def test_a_wrong_option_makes_no_token(tmp_path: Path, options: tuple[str, str]) -> None:
    path = tmp_path / "tokens.yaml"
    given = {"--name": "a", "--namespace": "agents", **dict([options])}
    flat = [part for pair in given.items() for part in pair]
    result = _offload("token", "create", *flat, "--file", path)
    assert result.exit_code == 2
    assert "offload_" not in result.output
    assert not path.exists()


@pytest.mark.parametrize("there", ["tokens: [", "tokens: []\n", "tokens:\n- {name: a}\n"])
def test_a_file_that_would_be_broken_is_left_as_it_is(tmp_path: Path, there: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(there)
    assert _offload("token", "create", "--name", "a", "--namespace", "*", "--file", path).exit_code == 2
    assert path.read_text() == there
