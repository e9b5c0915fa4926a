"""What holds for every page of the documentation.

Cases: links lead somewhere, with their anchors; every variable, metric, command and option that is named
exists; every page is reached from the README; CHANGELOG.md has this version; every decision is in the list,
and has its number.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client.metrics import MetricWrapperBase

from offload import __version__, metrics
from offload.cli.main import COMMANDS, app
from offload.settings import Settings, environment_names

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

# Read by the client, by the shell or by libraries; each is in docs/settings.md or docs/cli.md.
OTHER_VARIABLES = {
    "OFFLOAD_BUCKET",
    "OFFLOAD_DEBUG",
    "OFFLOAD_RUN",
    "OFFLOAD_RUN_UID",
    "OFFLOAD_TOKEN",
    "OFFLOAD_TOKEN_FILE",
    "OFFLOAD_URL",
}

METRICS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), {ROOT / "README.md"}
    while ahead:
        page = ahead.pop()
        reached.add(page)
        links = {link.partition("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link}
        ahead |= {(page.parent / link).resolve() for link in links if link.endswith(".md")} - reached
    assert reached == set(PAGES)


@pages
def test_variables_exist(page: Path) -> None:
    known = {name for field in Settings.model_fields for name in environment_names(field)} | OTHER_VARIABLES
    for name in re.findall(r"\b(?:OFFLOAD|JANGAR|AGENTS)_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()):
        assert name in known


@pages
def test_metrics_exist(page: Path) -> None:
    known = {f"{metric._name}{'_total' * (metric._type == 'counter')}" for metric in METRICS}
    for name in re.findall(r"\boffload_[a-z_]+\b", page.read_text()):
        assert name in known


@pages
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        command: Any = typer.main.get_command(app)
        for word in words:
            if word.startswith("-"):
                options = {
                    option
                    for parameter in command.params
                    for option in parameter.opts + parameter.secondary_opts
                }
                assert word.partition("=")[0] in options | {"--help", "-h", "-"}, words
            elif getattr(command, "commands", None) is not None and re.fullmatch(r"[a-z]+", word):
                assert word in command.commands, words
                command = command.commands[word]


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs/decisions"
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert LINK.findall((folder / "README.md").read_text()) == files
    for number, name in enumerate(files, start=1):
        assert (folder / name).read_text().startswith(f"# {number:04}: ")
        assert name.startswith(f"{number:04}-")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[list[str]]:
    """The words behind `offload` in code."""
    lines = [
        line
        for language, code in FENCED.findall(text)
        if language in {"sh", "console"}
        for line in code.splitlines()
    ]
    lines += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    found = []
    for line in lines:
        for part in re.split(r"\||&&|;| -- |\$ ", line.partition(" #")[0]):
            words = [word.strip("[]\\") for word in part.split()]
            if words[:1] == ["offload"] and len(words) > 1:
                found.append([word for word in words[1:] if word])
    return found


def test_commands_are_found_where_they_are() -> None:
    text = "`offload put - --name x` and\n```sh\ngit diff | offload get a/b  # offload nothing\n```\n"
    assert commands(text) == [["get", "a/b"], ["put", "-", "--name", "x"]]
    assert set(COMMANDS) <= {words[0] for words in commands((ROOT / "docs/cli.md").read_text())}
