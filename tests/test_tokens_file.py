"""The token file.

Cases: a created token's entry makes it valid, with its scopes; unknown, wrong, empty and strange tokens are
none; expiry to the instant; a changed, a broken, a missing, an unreadable and a mended file, and a
change that keeps time and size; a rule of the format broken, with line and place, and never the token itself
in an error; tokens are long, different, recognisable; an added entry leaves the file's mode and a link to it;
entries added at once, without locks, after a kill, and one that is refused.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from offload.domain.access import Grant, Permission
from offload.errors import ConfigError
from offload.tokens_file import TOKEN_PREFIX, NewToken, TokenFile, add_entry, create_token

NOW = datetime(2026, 1, 1, tzinfo=UTC)
READ_WRITE = frozenset({Permission.READ, Permission.WRITE})


def _token(name: str = "ci", expires_at: datetime | None = None) -> NewToken:
    return create_token(
        name, namespaces=["agents"], runs=["ci-*"], permissions=READ_WRITE, expires_at=expires_at
    )


def _file(path: Path, *tokens: NewToken) -> Path:
    path.write_text("tokens:\n" + "".join(token.entry for token in tokens) if tokens else "tokens: []\n")
    return path


def test_a_created_token_is_valid_with_its_entry(tmp_path: Path) -> None:
    one, other = _token("one"), _token("other", NOW + timedelta(days=30))
    tokens = TokenFile(_file(tmp_path / "tokens.yaml", one, other), clock=lambda: NOW)
    assert tokens.grant_for(one.token) == Grant("one", READ_WRITE, ("agents",), ("ci-*",))
    assert tokens.grant_for(other.token) == Grant(
        "other", READ_WRITE, ("agents",), ("ci-*",), NOW + timedelta(days=30)
    )


def test_the_file_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    entry = {
        "name": "j",
        "sha256": hashlib.sha256(b"offload_x").hexdigest(),
        "namespaces": ["*"],
        "permissions": ["delete"],
    }
    path.write_text(json.dumps({"tokens": [entry]}))
    assert TokenFile(path).grant_for("offload_x") == Grant(
        "j", frozenset({Permission.DELETE}), ("*",), ("*",)
    )


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    docs = Path(__file__).parent.parent / "docs" / "access.md"
    [example] = re.findall(r"```yaml\n(tokens:.*?)```", docs.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "tokens.yaml"
    path.write_text(example)
    assert TokenFile(path).grant_for("another") is None


@pytest.mark.parametrize("token", ["", "offload_", "x", "offload_" + "A" * 43, "\udc80", "ä", "x" * 100_000])
def test_another_token_has_no_grant(tmp_path: Path, token: str) -> None:
    assert TokenFile(_file(tmp_path / "tokens.yaml", _token())).grant_for(token) is None


def test_the_hash_in_the_file_is_no_token(tmp_path: Path) -> None:
    created = _token()
    tokens = TokenFile(_file(tmp_path / "tokens.yaml", created))
    assert tokens.grant_for(hashlib.sha256(created.token.encode()).hexdigest()) is None
    assert created.token not in created.entry


@pytest.mark.parametrize(("seconds", "valid"), [(-1, True), (0, False), (1, False)])
def test_a_token_ends_at_its_expiry(tmp_path: Path, seconds: int, valid: bool) -> None:
    created = _token(expires_at=NOW)
    tokens = TokenFile(
        _file(tmp_path / "tokens.yaml", created), clock=lambda: NOW + timedelta(seconds=seconds)
    )
    assert (tokens.grant_for(created.token) is not None) is valid


def test_a_changed_file_is_in_force_at_once(tmp_path: Path) -> None:
    one, other = _token("one"), _token("other")
    path = _file(tmp_path / "tokens.yaml", one)
    tokens = TokenFile(path)
    assert tokens.grant_for(other.token) is None
    _file(path, one, other)
    assert tokens.grant_for(other.token) is not None
    _file(path, other)
    assert tokens.grant_for(one.token) is None


def test_a_file_that_is_replaced_as_kubernetes_does_is_in_force_at_once(tmp_path: Path) -> None:
    one, other = _token("one"), _token("two")
    for folder, token in (("v1", one), ("v2", other)):
        (tmp_path / folder).mkdir()
        path = _file(tmp_path / folder / "tokens.yaml", token)
        os.utime(path, ns=(0, 0))
    (tmp_path / "data").symlink_to("v1")
    tokens = TokenFile(tmp_path / "data" / "tokens.yaml")
    assert tokens.grant_for(one.token) is not None
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(tmp_path / "data")
    assert tokens.grant_for(one.token) is None
    assert tokens.grant_for(other.token) is not None


@pytest.mark.parametrize("breaks", ["tokens: [", "tokens: 3", None])
def test_a_broken_file_leaves_the_last_good_one_in_force_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, breaks: str | None
) -> None:
    one, other = _token("one"), _token("other")
    path = _file(tmp_path / "tokens.yaml", one)
    tokens = TokenFile(path)
    if breaks is None:
        path.unlink()
    else:
        path.write_text(breaks)
    for _ in range(3):
        assert tokens.grant_for(one.token) is not None
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "last good one stays in force" in record.getMessage()
    _file(path, other)
    assert tokens.grant_for(one.token) is None
    assert tokens.grant_for(other.token) is not None


def test_a_file_that_cannot_be_opened_for_a_while_is_read_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = _token("one"), _token("other")
    path = _file(tmp_path / "tokens.yaml", one)
    tokens = TokenFile(path)
    _file(path, other)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        for _ in range(3):
            assert tokens.grant_for(one.token) is not None
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert tokens.grant_for(one.token) is None
    assert tokens.grant_for(other.token) is not None


def test_a_change_that_keeps_time_and_size_is_in_force_at_once(tmp_path: Path) -> None:
    one, other = _token("one"), _token("two")
    path = _file(tmp_path / "tokens.yaml", one)
    before = path.stat()
    tokens = TokenFile(path)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock has ticks
        _file(path, other)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
        before.st_mtime_ns,
        before.st_size,
        before.st_ino,
    )
    assert tokens.grant_for(one.token) is None
    assert tokens.grant_for(other.token) is not None


def test_an_added_entry_leaves_the_files_mode_and_a_link_to_it(tmp_path: Path) -> None:
    one, other = _token("one"), _token("other")
    path = _file(tmp_path / "real.yaml", one)
    path.chmod(0o640)
    link = tmp_path / "tokens.yaml"
    link.symlink_to(path)

    add_entry(link, other.entry)

    assert link.readlink() == path
    assert path.stat().st_mode & 0o777 == 0o640
    tokens = TokenFile(link)
    assert all(tokens.grant_for(token.token) for token in (one, other))
    assert {entry.name for entry in tmp_path.iterdir()} == {"real.yaml", "tokens.yaml"}


ADDS_MANY = """
import sys
from pathlib import Path
from offload.domain.access import Permission
from offload.tokens_file import add_entry, create_token
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    made = create_token(
        f"{sys.argv[1]}-{number}", namespaces=["agents"], permissions=[Permission.READ]
    )
    add_entry(Path("tokens.yaml"), made.entry)
"""


def test_entries_that_two_processes_add_at_once_are_all_there(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", ADDS_MANY, name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    for process in adding:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
    for process in adding:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in adding:
        process.communicate(timeout=60)
    assert [process.returncode for process in adding] == [0, 0]
    names = re.findall(r"name: (\S+)", (tmp_path / "tokens.yaml").read_text())
    assert sorted(names) == sorted(f"{name}-{number}" for name in ("one", "other") for number in range(20))
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.yaml"]


def test_an_entry_is_added_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    one = _token()
    add_entry(tmp_path / "tokens.yaml", one.entry)
    assert TokenFile(tmp_path / "tokens.yaml").grant_for(one.token) is not None


def test_what_a_killed_addition_left_is_not_in_the_way(tmp_path: Path) -> None:
    one, other = _token("one"), _token("other")
    path = _file(tmp_path / "tokens.yaml", one)
    (tmp_path / "tokens.yaml.new").write_text("tokens:\n" + "- name: half" * 100)
    add_entry(path, other.entry)
    tokens = TokenFile(path)
    assert all(tokens.grant_for(token.token) for token in (one, other))


def test_an_entry_that_is_refused_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    one = _token()
    path = _file(tmp_path / "tokens.yaml", one)
    before = path.read_text()
    with pytest.raises(ConfigError, match="with the new entry"):
        add_entry(path, one.entry)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.yaml"]


def test_a_first_file_that_is_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        TokenFile(tmp_path / "none.yaml")


GOOD = {
    "name": "ci",
    "sha256": "0" * 63 + "a",
    "namespaces": "[agents]",
    "permissions": "[read]",
}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "a b"}, "tokens[0].name: string should match pattern"),
        ({"sha256": "abc"}, "tokens[0].sha256: must be the SHA-256 of a token"),
        ({"sha256": "A" * 64}, "tokens[0].sha256: must be the SHA-256 of a token"),
        ({"namespaces": "[]"}, "tokens[0].namespaces: list should have at least 1 item"),
        ({"namespaces": "agents"}, "tokens[0].namespaces: input should be a valid list"),
        ({"namespaces": "['']"}, "tokens[0].namespaces[0]: string should have at least 1 character"),
        ({"runs": "[]"}, "tokens[0].runs: list should have at least 1 item"),
        ({"permissions": "[]"}, "tokens[0].permissions: list should have at least 1 item"),
        ({"permissions": "[read, admin]"}, "tokens[0].permissions[1]: must be one of read, write, delete"),
        ({"expires": "30d"}, "tokens[0].expires: must be a time with its offset"),
        ({"expires": "2030-01-01T00:00:00"}, "tokens[0].expires: must be a time with its offset"),
        ({"admin": "true"}, "tokens[0].admin: is not a known key"),
    ],
)
def test_a_broken_entry_is_named_with_its_line_and_place(
    tmp_path: Path, changes: dict[str, str], error: str
) -> None:
    path = tmp_path / "tokens.yaml"
    lines = [f"{key}: {value}" for key, value in {**GOOD, **changes}.items()]
    path.write_text("tokens:\n- " + "\n  ".join(lines) + "\n")
    line = 2 + next(number for number, text in enumerate(lines) if text.startswith(next(iter(changes))))
    with pytest.raises(ConfigError) as refused:
        TokenFile(path)
    assert refused.value.detail.startswith(f"{path}:{line}: {error}")


def test_two_entries_have_two_names_and_two_tokens(tmp_path: Path) -> None:
    created = _token("one")
    path = _file(tmp_path / "tokens.yaml", created, created)
    with pytest.raises(ConfigError) as refused:
        TokenFile(path)
    assert [line.split(": ")[1] for line in refused.value.detail.splitlines()] == [
        "tokens[1].name",
        "tokens[1].sha256",
    ]


def test_a_token_in_place_of_its_hash_is_in_no_error(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("tokens: [{name: a, sha256: offload_secret, namespaces: ['*'], permissions: [read]}]")
    with pytest.raises(ConfigError) as refused:
        TokenFile(path)
    assert "offload_secret" not in refused.value.detail


def test_tokens_are_long_different_and_recognisable() -> None:
    tokens = {_token().token for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert token.startswith(TOKEN_PREFIX)
        assert len(token) == len(TOKEN_PREFIX) + 43
        assert token.isascii()


def test_an_entry_that_would_be_broken_is_not_made() -> None:
    with pytest.raises(ConfigError, match="permissions"):
        create_token("ci", namespaces=["agents"], permissions=[])
