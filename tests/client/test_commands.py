"""The client's commands against a real HTTP server.

Cases of put: what is printed for a person, for a program and in the summary; several at once; a folder;
nothing sent where two names are equal or a name breaks a rule; exit codes by what failed; the rest is not
tried once the server is out of reach; --best-effort; the uid of the environment pins only the environment's
run; no terminal is steered. Of get: where it writes, standard output, a missing folder, a missing artifact.
Of runs, history and explain: the table and the JSON lines. The token from the environment and from a file; no
server, no run; one line on standard error and no traceback, which --debug shows.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from offload.cli.main import app
from offload.client import Client

Cli = Callable[..., Result]
UID = "0b7f3c52-6e0e-4c1a-9a55-2f0d6f4f9e11"


@pytest.fixture
def cli(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    for name in [name for name in os.environ if name.startswith("OFFLOAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OFFLOAD_URL", server.url)
    monkeypatch.setenv("OFFLOAD_RUN", "agents/one")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return run


def test_put_says_what_it_stored_and_sums_up(cli: Cli, server: Any) -> None:
    Path("a.log").write_text("hello")
    result = cli("put", "a.log", "--type", "log", "--expires", "7d")
    assert result.exit_code == 0
    assert result.stdout == "stored     a.log  5 B  s3://bucket/a.log\n"
    assert result.stderr.startswith("offload: 1 stored; 5 B in ")
    assert server.current == {"a.log": b"hello"}
    assert server.seen[0].query == {"type": "log", "expires": "7d"}


def test_put_again_says_unchanged(cli: Cli) -> None:
    Path("a.log").write_text("hello")
    cli("put", "a.log")
    assert cli("put", "a.log").stdout.startswith("unchanged  a.log")


def test_put_sends_several_files_folders_and_patterns_at_once(cli: Cli, server: Any) -> None:
    Path("out/deep").mkdir(parents=True)
    Path("out/deep/x").write_text("x")
    for number in range(20):
        Path(f"{number}.log").write_text(str(number))
    result = cli("put", "*.log", "out", "--jobs", "8", "--json")
    assert result.exit_code == 0
    assert {**{f"{n}.log": str(n).encode() for n in range(20)}, "out/deep/x": b"x"} == server.current
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 21
    assert {line["outcome"] for line in lines} == {"stored"}
    assert {line["artifact"]["name"] for line in lines} == set(server.current)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a/x", "b/x"], "would both be named 'x'"),
        (["a/x", "none"], "there is no file 'none'"),
        (["*.nothing"], "nothing matches"),
        (["-"], "needs --name"),
        (["a/x", "b/y", "--name", "z"], "--name goes with one file"),
        (["a", "--name", "z"], "--name goes with one file"),
        (["a/x", "--name", "../z"], "segment"),
        (["a/x", "--type", "No Label"], "DNS label"),
        (["a/x", "--expires", "soon"], "7d"),
        (["a/x", "--content-type", "text"], "media type"),
        (["a/x", "--run", "agents"], "NAMESPACE/NAME"),
        (["a/x", "--retry-for", "long"], "90s"),
        (["a/x", "--url", "offload:80"], "http://"),
    ],
)
def test_put_refuses_before_anything_is_sent(cli: Cli, server: Any, arguments: list[str], says: str) -> None:
    for file in (Path("a/x"), Path("b/x"), Path("b/y")):
        file.parent.mkdir(exist_ok=True)
        file.write_text(str(file))
    result = cli("put", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.seen == []


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1), (401, 2), (404, 4), (409, 1), (410, 4), (413, 1), (500, 5), (503, 5)]
)
def test_exit_codes_say_what_failed(cli: Cli, server: Any, trouble: Any, status: int, code: int) -> None:
    Path("a").write_text("x")
    server.troubles = [trouble(status, problem={"type": "/errors/word", "detail": "because"})]
    result = cli("put", "a", "--retry-for", "0s")
    assert result.exit_code == code
    assert f"offload: a: because ({status} word, request req-1)\n" in result.stderr
    assert "1 failed" in result.stderr


def test_one_refused_file_does_not_stop_the_others(cli: Cli, server: Any, trouble: Any) -> None:
    for name in "abc":
        Path(name).write_text(name)
    server.troubles = [trouble(413)]
    result = cli("put", "a", "b", "c", "--jobs", "1")
    assert result.exit_code == 1
    assert set(server.current) == {"b", "c"}


def test_nothing_more_is_tried_once_the_server_is_out_of_reach(cli: Cli, server: Any, trouble: Any) -> None:
    for name in "abc":
        Path(name).write_text(name)
    server.troubles = [trouble(503)]
    result = cli("put", "a", "b", "c", "--jobs", "1", "--retry-for", "0s", "--json")
    assert result.exit_code == 5
    assert [json.loads(line)["outcome"] for line in result.stdout.splitlines()] == [
        "failed",
        "not sent",
        "not sent",
    ]
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "arguments", [["a"], ["none"], ["a", "--run", "nonsense"], ["a", "--url", "nonsense"], ["a", "none"]]
)
def test_best_effort_never_fails_the_run(cli: Cli, server: Any, trouble: Any, arguments: list[str]) -> None:
    Path("a").write_text("x")
    server.troubles = [trouble(503)]
    result = cli("put", *arguments, "--best-effort", "--retry-for", "0s")
    assert result.exit_code == 0
    assert "offload: " in result.stderr


def test_best_effort_sends_what_can_be_sent(cli: Cli, server: Any) -> None:
    Path("a").write_text("x")
    assert cli("put", "none", "a", "--best-effort").exit_code == 0
    assert server.current == {"a": b"x"}


def test_the_environments_uid_pins_only_the_environments_run(
    cli: Cli, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLOAD_RUN_UID", UID)
    Path("a").write_text("x")
    cli("put", "a")
    cli("put", "a", "--run", "agents/other")
    cli("history", "agents/other")
    cli("history", "--uid", "given")
    assert [seen.query.get("uid") for seen in server.seen] == [UID, None, None, "given"]


def test_the_token_comes_from_the_environment_or_a_file(
    cli: Cli, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("token").write_text("from-file\n")
    monkeypatch.setenv("OFFLOAD_TOKEN_FILE", "token")
    cli("history")
    monkeypatch.setenv("OFFLOAD_TOKEN", "from-environment")
    cli("history")
    assert [seen.headers["authorization"] for seen in server.seen] == [
        "Bearer from-file",
        "Bearer from-environment",
    ]


def test_a_token_file_that_is_not_there_is_one_clear_line(cli: Cli) -> None:
    result = cli("history", "--token-file", "none")
    assert result.exit_code == 2
    assert result.stderr.startswith("offload: the token file none cannot be read")


@pytest.mark.parametrize(("variable", "says"), [("OFFLOAD_URL", "no server"), ("OFFLOAD_RUN", "no run")])
def test_what_the_environment_lacks_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, says: str
) -> None:
    monkeypatch.delenv(variable)
    result = cli("history")
    assert result.exit_code == 2
    assert says in result.stderr


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" not in cli("history", "nonsense").stderr
    assert "Traceback" in cli("--debug", "history", "nonsense").stderr


def test_get_writes_a_file_named_like_the_artifact(cli: Cli, client: Client) -> None:
    client.put("agents/one", "dir/a b?.log", b"hello")
    result = cli("get", "agents/one/dir/a b?.log")
    assert result.exit_code == 0
    assert Path("a b?.log").read_bytes() == b"hello"
    assert "sha256 2cf24dba" in result.stderr
    assert list(Path().iterdir()) == [Path("a b?.log")]


@pytest.mark.parametrize("output", ["there/b", "there"])
def test_get_writes_where_it_is_told(cli: Cli, client: Client, output: str) -> None:
    client.put("agents/one", "b", b"hello")
    Path("there").mkdir()
    assert cli("get", "agents/one/b", "-o", output).exit_code == 0
    assert Path("there/b").read_bytes() == b"hello"


@pytest.mark.parametrize("output", ["newdir/x", "newdir/", "file/"])
def test_get_names_the_folder_that_is_missing(cli: Cli, client: Client, output: str) -> None:
    client.put("agents/one", "b", b"hello")
    Path("file").touch()
    result = cli("get", "agents/one/b", "-o", output)
    assert result.exit_code == 2
    assert result.stderr == f"offload: there is no folder '{output.partition('/')[0]}'\n"
    assert list(Path().iterdir()) == [Path("file")]


@pytest.mark.parametrize(
    "arguments", [["history", "--since", "foo"], ["get", "agents/one/a", "--version", "nope"]]
)
def test_a_time_or_an_id_that_is_none_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("got '") == 1


def test_get_writes_only_the_bytes_to_standard_output(cli: Cli, client: Client) -> None:
    client.put("agents/one", "b", b"\0\xff")
    assert cli("get", "agents/one/b", "-o", "-").stdout_bytes == b"\0\xff"


def test_get_of_what_is_not_there_exits_with_4(cli: Cli) -> None:
    result = cli("get", "agents/one/none")
    assert result.exit_code == 4
    assert result.stderr == "offload: no such artifact (404 artifact-not-found, request req-1)\n"
    assert list(Path().iterdir()) == []


def test_get_of_damaged_bytes_exits_with_1_and_writes_nothing(
    cli: Cli, client: Client, server: Any, trouble: Any
) -> None:
    client.put("agents/one", "a", b"hello")
    server.troubles = [trouble(corrupt=True)]
    assert cli("get", "agents/one/a").exit_code == 1
    assert list(Path().iterdir()) == []


def test_history_is_a_table_with_each_fate(cli: Cli, client: Client, server: Any) -> None:
    client.put("agents/one", "a.log", b"x" * 2048)
    client.put("agents/one", "b.log", b"y")
    server.artifacts[0] |= {
        "state": "expired",
        "endedAt": "2026-02-01T00:00:00Z",
        "endedBy": "rule:logs",
        "current": False,
    }
    lines = cli("history", "agents/one").stdout.splitlines()
    assert lines[0].split() == ["CREATED", "NAME", "TYPE", "SIZE", "CURRENT", "FATE", "EXPIRES", "ID"]
    assert "b.log" in lines[1]
    assert "2 KiB" in lines[2]
    assert "expired 2026-02-01T00:00:00Z by rule:logs" in lines[2]


def test_history_passes_its_filters_on(cli: Cli, server: Any) -> None:
    cli("history", "--type", "log", "--name", "*.log", "--state", "lost", "--order", "oldest", "--limit", "3")
    assert server.seen[0].query == {
        "type": "log",
        "name": "*.log",
        "state": "lost",
        "order": "oldest",
        "limit": "3",
    }


def test_history_for_programs_is_a_line_each(cli: Cli, client: Client) -> None:
    for name in ("a", "b", "ü"):
        client.put("agents/one", name, b"x")
    lines = cli("history", "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["ü", "b", "a"]


def test_runs_shows_what_status_lists(cli: Cli) -> None:
    lines = cli("runs").stdout.splitlines()
    assert lines[0].split()[:3] == ["NAME", "PHASE", "AGENT"]
    assert lines[1].split()[:2] == ["one", "Running"]
    assert "1/2" in lines[1]
    assert len(lines) == 4
    assert json.loads(cli("runs", "agents", "--json", "--limit", "1").stdout)["artifacts"]["leftOut"] == 1


def test_explain_shows_status_and_the_reason_for_the_rest(cli: Cli) -> None:
    result = cli("explain")
    assert f"agents/one ({UID})" in result.stdout
    assert "behind since 2026-01-01T00:00:02Z; conflict" in result.stdout
    assert "s3://bucket/a" in result.stdout
    assert "CountLimit: 50 newer ones" in result.stdout
    would_change = result.stdout.partition("A publish would change: 2\n")[2].splitlines()
    assert would_change[1].split() == ["condition", "C", "-", "True", "Why:", "so"]
    assert would_change[2].split() == ["entry", "old.log", "s3://bucket/old", "-"]
    assert "https://e.org/theirs" in result.stdout
    assert "left out by the limits of status" in result.stdout
    assert json.loads(cli("explain", "--json").stdout)["leftOut"][0]["reason"] == "CountLimit"


def test_what_could_steer_a_terminal_is_not_printed(cli: Cli, client: Client, server: Any) -> None:
    client.put("agents/one", "a", b"x")
    server.artifacts[0]["endedBy"] = server.artifacts[0]["type"] = "\x1b[31mred"
    assert "\x1b" not in cli("history").stdout


def test_put_prints_nothing_of_the_server_that_could_steer_a_terminal(
    cli: Cli, client: Client, server: Any, trouble: Any
) -> None:
    client.put("agents/one", "a", b"x")
    server.artifacts[0]["uri"] = "s3://bucket/\x1b[31mred"
    Path("a").write_text("x")
    Path("b").write_text("x")
    server.troubles = [trouble(400, problem={"detail": "\x1b[31mred"})]
    result = cli("put", "b", "a", "--jobs", "1")
    assert "[31mred" in result.stdout
    assert "[31mred" in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize(("value", "shown"), [("false", False), ("0", False), ("1", True), ("true", True)])
def test_the_environment_says_whether_the_traceback_is_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
) -> None:
    monkeypatch.setenv("OFFLOAD_DEBUG", value)
    assert ("Traceback" in cli("history", "nonsense").stderr) is shown
