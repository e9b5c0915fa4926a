"""The retention rules file.

Cases: the worked example of docs/retention.md read into the domain's words, its end-to-end effect; defaults;
every rule of the format broken once, with file, line and place; all errors of a file at once, in its order;
files that are not YAML, not text, not there; a digest that does not depend on how the file is written.
"""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from offload.domain.retention import (
    KeepFor,
    KeepForever,
    KeepLast,
    Match,
    Policy,
    Rule,
    Since,
    Version,
)
from offload.errors import ConfigError
from offload.rules_file import load_rules

DOCS = Path(__file__).parent.parent / "docs" / "retention.md"
KEEP = "default: {keep: forever}\n"


def _load(folder: Path, text: str) -> Policy:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return load_rules(path)


def _errors(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        _load(folder, text)
    return [line.removeprefix(f"{folder}/") for line in refused.value.detail.splitlines()]


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    [example, *_] = re.findall(r"```yaml\n(rules:.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert _load(tmp_path, example) == Policy(
        (
            Rule("sandboxes", Match(namespace="sandbox-*"), KeepFor(timedelta(days=1))),
            Rule("releases", Match(namespace="prod", type="report", name="release/*"), KeepForever()),
            Rule("old-versions", Match(version=Version.SUPERSEDED), KeepLast(3)),
            Rule("logs", Match(type="log"), KeepFor(timedelta(days=30), Since.FINISHED)),
        ),
        KeepFor(timedelta(days=90)),
    )


def test_a_default_is_enough(tmp_path: Path) -> None:
    assert _load(tmp_path, KEEP) == Policy((), KeepForever())


def test_json_is_yaml(tmp_path: Path) -> None:
    assert _load(tmp_path, '{"rules": [], "default": {"keep": {"last": 2}}}') == Policy((), KeepLast(2))


def test_an_anchor_saves_writing(tmp_path: Path) -> None:
    text = """
rules:
  - {name: a, match: {type: log}, keep: &short {for: 1d}}
  - {name: b, match: {type: diff}, keep: *short}
default: {keep: forever}
"""
    assert {rule.keep for rule in _load(tmp_path, text).rules} == {KeepFor(timedelta(days=1))}


def test_the_digest_is_of_what_the_file_says_and_not_of_how(tmp_path: Path) -> None:
    one = _load(tmp_path, "rules:\n- name: a\n  match: {type: log}\n  keep: {for: 1d}\n" + KEEP)
    other = _load(tmp_path, KEEP + '# why\nrules: [{keep: {for: 24h}, name: a, match: {type: "log"}}]\n')
    longer = _load(tmp_path, "rules:\n- name: a\n  match: {type: log}\n  keep: {for: 2d}\n" + KEEP)
    assert one.digest == other.digest != longer.digest


def _rule(name: str = "a", match: str = "{type: log}", keep: str = "forever", more: str = "") -> str:
    return f"{KEEP}rules:\n- name: {name}\n  match: {match}\n  keep: {keep}\n{more}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("rules: []\n", "rules.yaml:1: default: is required"),
        ("", "rules.yaml:1: default: is required"),
        ("- a\n", "rules.yaml:1: the file: must be a mapping; got ['a']"),
        ("default: forever\n", "rules.yaml:1: default: must be a mapping; got 'forever'"),
        (f"{KEEP}rules: 3\n", "rules.yaml:2: rules: input should be a valid list; got 3"),
        (f"{KEEP}rules: [x]\n", "rules.yaml:2: rules[0]: must be a mapping; got 'x'"),
        (f"{KEEP}rule: []\n", "rules.yaml:2: rule: is not a known key"),
        (f"{KEEP}{KEEP}", "rules.yaml:2: default: is there twice"),
        (f"{KEEP}rules:\n- name: a\n  keep: forever\n", "rules.yaml:3: rules[0].match: is required"),
        (_rule(match="{}"), "rules.yaml:4: rules[0].match: must have a condition"),
        (_rule(match="{typ: log}"), "rules.yaml:4: rules[0].match.typ: is not a known key"),
        (_rule(match="{type: Log}"), "rules.yaml:4: rules[0].match.type: must be a DNS label"),
        (_rule(match="{type: 7.5}"), "rules.yaml:4: rules[0].match.type: must be a DNS label"),
        (
            _rule(match="{namespace: Agents}"),
            "rules.yaml:4: rules[0].match.namespace: must be a namespace or",
        ),
        (_rule(match="{namespace: [a]}"), "rules.yaml:4: rules[0].match.namespace: must be a namespace or"),
        (
            _rule(match="{name: ''}"),
            "rules.yaml:4: rules[0].match.name: string should have at least 1 character",
        ),
        (
            _rule(match="{name: 1}"),
            "rules.yaml:4: rules[0].match.name: input should be a valid string; got 1",
        ),
        (
            _rule(match="{version: old}"),
            "rules.yaml:4: rules[0].match.version: must be one of any, current, super",
        ),
        (_rule(match="\n    type: log\n    type: diff"), "rules.yaml:6: rules[0].match.type: is there twice"),
        (_rule(name="A"), "rules.yaml:3: rules[0].name: must be 1 to 63 of a-z"),
        (_rule(name="default"), "rules.yaml:3: rules[0].name: is a name that is taken"),
        (_rule(name="own-expiry"), "rules.yaml:3: rules[0].name: is a name that is taken"),
        (_rule(name="yes"), "rules.yaml:3: rules[0].name: must be 1 to 63 of a-z"),
        (_rule(keep="never"), "rules.yaml:5: rules[0].keep: must be forever, {for: DURATION} or {last: N}"),
        (_rule(keep="{}"), "rules.yaml:5: rules[0].keep: must be forever, {for: DURATION} or {last: N}"),
        (_rule(keep="{for: 1d, last: 2}"), "rules.yaml:5: rules[0].keep: must have either for or last"),
        (_rule(keep="{last: 2, since: created}"), "rules.yaml:5: rules[0].keep: must have for beside since"),
        (_rule(keep="{for: 3 weeks}"), "rules.yaml:5: rules[0].keep.for: must be a duration such as 90s"),
        (_rule(keep="\n    for: 30"), "rules.yaml:6: rules[0].keep.for: must be a duration such as 90s"),
        (_rule(keep="{for: 0d}"), "rules.yaml:5: rules[0].keep.for: must be longer than nothing"),
        (_rule(keep="{for: 2030-01-01}"), "rules.yaml:5: rules[0].keep.for: must be a duration"),
        (
            _rule(keep="{for: 1d, since: started}"),
            "rules.yaml:5: rules[0].keep.since: must be one of created, fin",
        ),
        (
            _rule(keep="{last: 0}"),
            "rules.yaml:5: rules[0].keep.last: input should be greater than or equal to 1",
        ),
        (
            _rule(keep="{last: '3'}"),
            "rules.yaml:5: rules[0].keep.last: input should be a valid integer; got '3'",
        ),
        (
            _rule(keep="{last: }"),
            "rules.yaml:5: rules[0].keep.last: must be a number of versions; got nothing",
        ),
        (_rule(keep="{last: true}"), "rules.yaml:5: rules[0].keep.last: input should be a valid integer"),
        (_rule(more="  because: x\n"), "rules.yaml:6: rules[0].because: is not a known key"),
        (
            _rule(more="- {name: a, match: {type: diff}, keep: forever}\n"),
            "rules.yaml:6: rules[1].name: must be unique in the file; got 'a' again",
        ),
    ],
)
def test_what_breaks_a_rule_is_named_with_its_line_and_place(tmp_path: Path, text: str, error: str) -> None:
    [only] = _errors(tmp_path, text)
    assert only.startswith(error)


def test_all_errors_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    errors = _errors(
        tmp_path,
        """rules:
  - name: a
    match: {type: log}
    keep: {for: 1 day}
  - name: a
    match: {name: x, nam: y}
    keep: forever
    keep: forever
defaults: {}
""",
    )
    assert [error.partition(": ")[2].partition(": ")[0] for error in errors] == [
        "default",
        "rules[0].keep.for",
        "rules[1].name",
        "rules[1].match.nam",
        "rules[1].keep",
        "defaults",
    ]
    assert [int(error.split(":")[1]) for error in errors] == [1, 4, 5, 6, 8, 9]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"default: {keep: [", "rules.yaml:1: is not YAML"),
        (b"default:\n\tkeep: forever\n", "rules.yaml:2: is not YAML"),
        (b"a: 1\n---\nb: 2\n", "rules.yaml:2: is not YAML"),
        (b"default: &d [*d]\n", "rules.yaml:1: is not YAML"),
        (b"default: {keep: !!python/object:x {}}\n", "rules.yaml:1: "),
        (b"\x00", "rules.yaml:1: is not YAML"),
        (b"\xff\xfe\xfd", "rules.yaml: cannot be read"),
    ],
)
def test_what_is_no_yaml_is_one_clear_error(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_rules(path)
    assert refused.value.detail.removeprefix(f"{tmp_path}/").startswith(error)


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_rules(tmp_path / "none.yaml")
