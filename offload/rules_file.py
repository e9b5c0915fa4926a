"""Retention rules from their YAML file (docs/retention.md)."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from offload.config_file import Entry, read_config, unique
from offload.domain import retention
from offload.domain.names import check_type
from offload.domain.quantities import parse_duration
from offload.domain.retention import Policy, Since, Version
from offload.errors import InvalidInputError

_RULE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMESPACE_GLOB = re.compile(r"[a-z0-9*?\[\]!-]+")
_RESERVED = {retention.DEFAULT, retention.OWN_EXPIRY}


def load_rules(path: Path) -> Policy:
    """Read the rules at `path`.

    Raises:
        ConfigError: the file cannot be read or breaks a rule; every error has its line.
    """
    file = read_config(path, RulesFile)
    return Policy(tuple(rule.in_domain() for rule in file.rules), file.default.keep.in_domain())


def _duration(value: object) -> timedelta:
    if not isinstance(value, str):
        raise ValueError(f"must be a duration such as 90s, 15m, 24h or 7d; got {value!r}")  # noqa: TRY004 - pydantic reads ValueError only
    duration = parse_duration(value)
    if not duration:
        raise ValueError(f"must be longer than nothing; got {value!r}")
    return duration


def _versions(value: object) -> object:
    if value is None:  # as a key without a value is read: nobody means "for ever" by it
        raise ValueError("must be a number of versions; got nothing")
    return value


def _rule_name(value: str) -> str:
    if not isinstance(value, str) or not _RULE_NAME.fullmatch(value):
        raise ValueError(f"must be 1 to 63 of a-z, 0-9 and '-', not '-' at either end; got {value!r}")
    if value in _RESERVED:
        raise ValueError(f"is a name that is taken; got {value!r}")
    return value


def _namespace_glob(value: str) -> str:
    if not isinstance(value, str) or not _NAMESPACE_GLOB.fullmatch(value):
        raise ValueError(f"must be a namespace or a glob of namespaces; got {value!r}")
    return value


def _artifact_type(value: str) -> str:
    try:
        return check_type(str(value))
    except InvalidInputError as error:
        raise ValueError(f"{error.rule}; got {value!r}") from error


def _one_of(words: type[Since] | type[Version]) -> BeforeValidator:
    def read(value: object) -> Since | Version:
        try:
            return words(str(value))
        except ValueError as error:
            raise ValueError(f"must be one of {', '.join(words)}; got {value!r}") from error

    return BeforeValidator(read)


class KeepEntry(Entry):
    """How long: `forever`, `{for: DURATION, since: created|finished}` or `{last: N}`."""

    duration: Annotated[timedelta | None, BeforeValidator(_duration)] = Field(None, alias="for")
    since: Annotated[Since, _one_of(Since)] = Since.CREATED
    last: Annotated[int | None, BeforeValidator(_versions), Field(ge=1)] = None

    @model_validator(mode="before")
    @classmethod
    def _forever_or_mapping(cls, value: Any) -> Any:
        if value == "forever":
            return {}
        if not isinstance(value, dict) or not value:
            raise ValueError(f"must be forever, {{for: DURATION}} or {{last: N}}; got {value!r}")
        if "for" in value and "last" in value:
            raise ValueError("must have either for or last, not both")
        if "since" in value and "for" not in value:
            raise ValueError("must have for beside since")
        return value

    def in_domain(self) -> retention.Keep:
        if self.duration is not None:
            return retention.KeepFor(self.duration, self.since)
        return retention.KeepForever() if self.last is None else retention.KeepLast(self.last)


class MatchEntry(Entry):
    """What a rule is for: every condition that is given must hold."""

    namespace: Annotated[str, BeforeValidator(_namespace_glob)] = "*"
    type: Annotated[str | None, BeforeValidator(_artifact_type)] = None
    name: Annotated[str, StringConstraints(min_length=1)] = "*"
    version: Annotated[Version, _one_of(Version)] = Version.ANY

    @model_validator(mode="before")
    @classmethod
    def _has_a_condition(cls, value: Any) -> Any:
        if value == {}:
            raise ValueError("must have a condition; what no rule matches is the default's")
        return value

    def in_domain(self) -> retention.Match:
        return retention.Match(self.namespace, self.type, self.name, self.version)


class RuleEntry(Entry):
    """One rule of the list."""

    name: Annotated[str, BeforeValidator(_rule_name), AfterValidator(unique)]
    match: MatchEntry
    keep: KeepEntry

    def in_domain(self) -> retention.Rule:
        return retention.Rule(self.name, self.match.in_domain(), self.keep.in_domain())


class DefaultEntry(Entry):
    """What is done where no rule matches."""

    keep: KeepEntry


class RulesFile(Entry):
    """The whole file."""

    rules: list[RuleEntry] = Field(default_factory=list)
    default: DefaultEntry
