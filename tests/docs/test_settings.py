"""docs/settings.md says what `offload.settings.Settings` says.

Cases: every setting has its row, with every name, its default, its unit and its reason, and no row is left
over; variables without our prefix set nothing; the memory for uploads holds the largest one's window; sweeps
have a pause between them; it is told how much earlier than requests bodies are ended.
"""

import re
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from offload.domain.quantities import format_duration, format_size
from offload.errors import ConfigError
from offload.settings import CommaList, Duration, Port, Settings, Size, environment_names, load_settings
from offload.wiring import serving

TEXT = (Path(__file__).parents[2] / "docs/settings.md").read_text()
MIB = 2**20
PORT_MOST = 65535
UNITS = {Duration: "duration", Size: "size", Port: "port", CommaList: "list", SecretStr: "URL, secret"}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_has_its_row(name: str) -> None:
    assert row(name) in TEXT.splitlines()


def test_no_row_is_left_over() -> None:
    documented = re.findall(r"^\| `([A-Z0-9_]+)`", TEXT, re.MULTILINE)
    names = [environment_names(field)[0] for field in Settings.model_fields]
    others = re.findall(r"^\| `([A-Z0-9_]+)`", TEXT.partition("\n## Other")[2], re.MULTILINE)
    assert sorted(documented) == sorted(names + others)
    assert not set(others) & set(names)


def test_how_much_earlier_bodies_are_ended_is_told() -> None:
    assert f"still being read {serving._END_SOURCES_BEFORE:.0f} s less" in row("shutdown_grace")


def row(name: str) -> str:
    field = Settings.model_fields[name]
    names = " or ".join(f"`{variable}`" for variable in environment_names(name))
    return f"| {names} | {shown(field.default)} | {unit(name, field)} | {field.description} |"


def unit(name: str, field: FieldInfo) -> str:
    annotation = Settings.__annotations__[name]
    if annotation in UNITS:
        return UNITS[annotation] + bounds(field)
    kinds = [kind for kind in options(annotation) if kind is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{kind}`" for kind in kinds)
    words = {str: "text", int: "number", float: "number", bool: "`true` or `false`", Path: "path"}
    if "url" in name:
        return "URL"
    return " or ".join(words[kind] for kind in kinds) + bounds(field)


def bounds(field: FieldInfo) -> str:
    least = next((rule.ge for rule in field.metadata if isinstance(rule, Ge)), 0)
    most = next((rule.le for rule in field.metadata if isinstance(rule, Le)), None)
    if field.annotation is int and most is not None and least != most:
        return "" if most == PORT_MOST else f", {least} to {most}"
    return f", at least {shown(least).strip('`')}" if least else ""


def options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Literal, Union, UnionType} else (annotation,)


def shown(default: Any) -> str:
    match default:
        case None | () | "":
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case timedelta():
            return f"`{format_duration(default)}`"
        case SecretStr():
            return f"`{default.get_secret_value()}`"
        case int() if default >= 2**16:
            return f"`{format_size(default).replace(' ', '')}`"
    return f"`{default}`"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_variable_without_a_prefix_of_ours_sets_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in environment_names(name):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name.upper(), "7")
    assert getattr(Settings(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize(
    ("part_size", "max_size", "least"),
    [
        ("8MiB", "50GiB", 33 * MIB),  # a 10,000th of it is smaller than a part
        ("8MiB", "500GiB", 209 * MIB),
        ("5MiB", "1B", 21 * MIB),
    ],
)
def test_one_upload_never_needs_more_than_the_memory_for_all(
    part_size: str, max_size: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLOAD_UPLOAD_PART_SIZE", part_size)
    monkeypatch.setenv("OFFLOAD_UPLOAD_MAX_SIZE", max_size)
    assert load_settings(upload_memory=least).upload_memory == least
    with pytest.raises(ConfigError, match=f"upload_memory: must be at least {least // MIB} MiB"):
        load_settings(upload_memory=least - 1)


@pytest.mark.parametrize("every", ["0s", "500ms", "9s"])
def test_sweeps_that_follow_each_other_without_a_pause_are_refused(
    every: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLOAD_SWEEP_EVERY", every)
    with pytest.raises(ConfigError, match=r"^OFFLOAD_SWEEP_EVERY: "):
        load_settings()
