"""A YAML (or JSON) file as a pydantic model, with every error at once and the line that each is on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo

from offload.errors import ConfigError, shorten


class Entry(BaseModel):
    """A mapping in a configuration file: exact types, and no key that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


M = TypeVar("M", bound=Entry)

_Place = tuple[str | int, ...]


def read_config(path: Path, model: type[M]) -> M:
    """Read the file at `path` as `model`. Times stay text; anchors work, merge keys (`<<`) do not.

    Raises:
        ConfigError: the file cannot be read, or is not a `model`: one line `FILE:LINE: PLACE: RULE` an error.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_config(text, model, name=str(path))


def parse_config(text: str, model: type[M], *, name: str) -> M:
    """Read `text` as `model`; errors call it `name`. Raises `ConfigError` as `read_config` does."""
    try:
        document = _Document(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{name}:{line}: is not YAML: {said}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}:1: is not YAML: {error}") from error
    errors = list(document.errors)
    try:
        config = model.model_validate(document.value, context={})
    except ValidationError as error:
        errors += [_described(detail, document) for detail in error.errors(include_url=False)]
        raise ConfigError(_listed(name, errors)) from error
    if errors:
        raise ConfigError(_listed(name, errors))
    return config


def unique(value: str, info: ValidationInfo) -> str:
    """Refuse a value that this field had before in the file; for `AfterValidator`."""
    seen: set[str] = info.context.setdefault(info.field_name, set()) if info.context is not None else set()
    if value in seen:
        raise ValueError(f"must be unique in the file; got {value!r} again")
    seen.add(value)
    return value


class _Loader(yaml.SafeLoader):
    """YAML's plain values without times: those are read where they are used, by one rule."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute, replaced and not shared
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Document:
    """A document's value, the line of each place in it, and what YAML lets pass and we do not."""

    def __init__(self, text: str) -> None:
        self.lines: dict[_Place, int] = {(): 1}
        self.errors: list[tuple[int, str]] = []
        self._loader = _Loader(text)
        try:
            root = self._loader.get_single_node()
            self.value = {} if root is None else self._read(root, ())
        finally:
            self._loader.dispose()

    def line(self, place: _Place) -> int:
        """The line of the longest part of `place` that is in the file."""
        return next(self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines)

    def _read(self, node: yaml.Node, place: _Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return dict(self._members(node, place))
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*place, number)) for number, item in enumerate(node.value)]
        return self._loader.construct_object(node)

    def _members(self, node: yaml.MappingNode, place: _Place) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in seen:
                self.errors.append((line, f"{_written((*place, key))}: is there twice"))
            seen.add(key)
            self.lines[*place, key] = line
            yield key, self._read(value_node, (*place, key))


def _described(detail: Any, document: _Document) -> tuple[int, str]:
    place = tuple(detail["loc"])
    said = detail["msg"].removeprefix("Value error, ")
    match detail["type"]:
        case "missing":
            said = "is required"
        case "extra_forbidden":
            said = "is not a known key"
        case "model_type":
            said = f"must be a mapping; got {shorten(detail['input'])}"
        case kind if kind != "value_error":
            said = f"{said[0].lower()}{said[1:]}; got {shorten(detail['input'])}"
    return document.line(place), f"{_written(place)}: {said}"


def _written(place: _Place) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".") or "the file"


def _listed(name: str, errors: list[tuple[int, str]]) -> str:
    return "\n".join(f"{name}:{line}: {said}" for line, said in sorted(errors))
