"""The command line as a whole.

Cases: what `--help` and the client's commands import, and how long they take to start; a package that is
missing is named with the command that brings it; every command that is listed is there and documented; the
version; a typing error; completion of command names; an error that nobody expected.
"""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from offload import __version__
from offload.cli import exits, lazy
from offload.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[2]
HEAVY = {
    "boto3",
    "botocore",
    "kubernetes",
    "sqlalchemy",
    "fastapi",
    "starlette",
    "alembic",
    "uvicorn",
    "moto",
}
START_SECONDS = 0.3


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offload.cli.main", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["put", "--help"],
        ["put", "README.md", "--run", "a/b", "--url", "http://127.0.0.1:9", "--retry-for", "0s"],
        ["history", "a/b", "--url", "http://127.0.0.1:9", "--help"],
        ["get", "--help"],
    ],
)
def test_what_a_runner_types_imports_nothing_of_the_server(arguments: list[str]) -> None:
    code = (
        "import sys; from offload.cli.main import app\n"
        f"sys.argv = ['offload', *{arguments!r}]\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert loaded & HEAVY == set()


def processor_seconds() -> float:
    """Of the commands so far: by the clock, a command takes as long as a busy machine lets it wait."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("arguments", [["--help"], ["put", "--help"]])
def test_it_starts_quickly(arguments: list[str]) -> None:
    run(*arguments)
    took = []
    for _ in range(5):
        began = processor_seconds()
        run(*arguments)
        took.append(processor_seconds() - began)
    assert min(took) < START_SECONDS


@pytest.mark.parametrize(
    ("package", "extra"), [("uvicorn", "server"), ("moto", "local"), ("jsonschema", "standin")]
)
def test_a_missing_package_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    def missing(_: str) -> Any:
        raise ModuleNotFoundError(f"No module named {package!r}", name=f"{package}.inner")

    monkeypatch.setattr(lazy.importlib, "import_module", missing)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == exits.USAGE
    assert result.stderr == (
        f"offload: this command needs more packages: pip install '.[{extra}]' in a checkout"
        f" (No module named '{package}')\n"
    )


def test_every_package_of_an_extra_is_known_by_the_name_it_is_imported_by() -> None:
    imported_as = {"python-multipart": "python_multipart", "pyyaml": "yaml"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, requirements in extras.items():
        for requirement in requirements:
            package = re.split(r"[\[<>=]", requirement)[0].lower()
            if package != "offload":
                assert imported_as.get(package, package.replace("-", "_")) in lazy.EXTRAS[extra], requirement


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    assert find_spec(COMMANDS[name].module) is not None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"\n## offload {name}\n" in (ROOT / "docs/cli.md").read_text()


@pytest.mark.parametrize("name", ["put", "runs", "history", "explain", "get"])
def test_every_option_of_the_client_is_documented(name: str) -> None:
    section = (ROOT / "docs/cli.md").read_text().partition(f"\n## offload {name}\n")[2].partition("\n## ")[0]
    shared = (ROOT / "docs/cli.md").read_text().partition("\n## offload ")[0]
    for option in set(re.findall(r"--[a-z-]+", run(name, "--help").stdout)) - {"--help"}:
        assert f"`{option}" in section + shared, option


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for code in (
        exits.FAILED,
        exits.USAGE,
        exits.WAITS,
        exits.NOT_FOUND,
        exits.OUT_OF_REACH,
        exits.INTERRUPTED,
    ):
        assert f"\n| {code} |" in text


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"offload {__version__}\n"


def test_a_mistyped_command_is_guessed() -> None:
    done = run("hist0ry")
    assert done.returncode == exits.USAGE
    assert "Did you mean 'history'?" in done.stderr


def test_commands_are_completed_without_importing_them() -> None:
    done = run(_OFFLOAD_COMPLETE="complete_bash", COMP_WORDS="offload ", COMP_CWORD="1")
    assert set(done.stdout.split()) >= set(COMMANDS)


def test_an_unexpected_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("boom")

    monkeypatch.setattr("offload.cli.put.required_run", broken)
    result = CliRunner().invoke(app, ["put", "README.md"])
    assert result.exit_code == exits.FAILED
    assert result.stderr == "offload: unexpected TypeError: boom; --debug shows where\n"
    assert "Traceback" in CliRunner().invoke(app, ["--debug", "put", "README.md"]).stderr
