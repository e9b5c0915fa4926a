"""docs/cli.md says what `offload --help` says, and the README's commands run.

Cases: every command and sub-command has its section, and no section is left over; a section, or what is said
of all commands, names every option; the variables that options are read from; the README's quick commands;
what `make` would do; the extras that the README installs.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from offload import __version__
from offload.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXT = (ROOT / "docs/cli.md").read_text()
SHARED = TEXT.partition("\n## offload ")[0]
SECTIONS = dict(re.findall(r"^## offload (\w+)\n((?:(?!^## ).*\n?)*)", TEXT, re.MULTILINE))


def test_every_command_has_its_section() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_names_every_option(name: str) -> None:
    for command in leaves(name):
        for parameter in command.params:
            for option in parameter.opts + parameter.secondary_opts:
                if option.startswith("--"):
                    assert re.search(rf"{option}\b(?!-)", SECTIONS[name] + SHARED), f"{command.name} {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_variables_of_options_are_named(name: str) -> None:
    for command in leaves(name):
        for parameter in command.params:
            if parameter.envvar:
                assert f"`{parameter.envvar}`" in SHARED


def test_sub_commands_are_shown() -> None:
    for name in COMMANDS:
        for command in leaves(name):
            if command.name != name:
                assert f"offload {name} {command.name}" in SECTIONS[name]


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_readmes_quick_commands_run(option: str) -> None:
    assert f"`offload {option}`" in README
    done = run(sys.executable, "-m", "offload.cli.main", option)
    assert done.returncode == 0
    assert (f"offload {__version__}" if option == "--version" else "Usage: offload") in done.stdout


def test_make_knows_the_readmes_targets() -> None:
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    done = run("make", "--dry-run", *targets)
    assert done.returncode == 0, done.stderr
    assert "offload demo" in done.stdout
    assert "pytest" in done.stdout


def test_the_readmes_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"pip install '\.\[(\w+)\]'", README))
    assert named == {"server", "local"} <= set(extras)


def leaves(name: str) -> list[Any]:
    root: Any = typer.main.get_command(app)
    command = root.commands[name]
    return list(getattr(command, "commands", {name: command}).values())


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
