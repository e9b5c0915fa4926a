"""docs/errors.md says what the service answers.

Cases: every type of the tree is listed once, under what clients get or what operators see; those that clients
get have their status, and are tried again exactly where a client does; what the OpenAPI document promises is
listed; the example; types in the rest of the documentation exist.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from offload import errors
from offload.errors import OffloadError
from offload.http.problems import Problem, problem_of, status_of

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "errors.md").read_text()
CLIENTS, OPERATORS = TEXT.partition("\n## What operators see")[::2]
STATUS = {
    kind: int(status) for kind, status in re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", CLIENTS, re.MULTILINE)
}
AGAIN = dict(re.findall(r"^\| `([a-z-]+)` \| \d+ \| (\w+) \|", CLIENTS, re.MULTILINE))
SEEN = set(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \|$", OPERATORS, re.MULTILINE))

# Only what derives from them is raised.
ANCESTORS = {"error", "unavailable", "invalid-input", "artifact-gone"}


def tree(root: type[OffloadError]) -> list[type[OffloadError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


TYPES = {kind.type: kind for kind in tree(OffloadError) if kind.__module__ == errors.__name__}


def test_every_type_is_listed_once() -> None:
    assert set(STATUS) | SEEN == set(TYPES) - ANCESTORS
    assert not set(STATUS) & SEEN


@pytest.mark.parametrize("name", STATUS)
def test_a_type_has_its_status(name: str) -> None:
    kind = TYPES[name]
    assert STATUS[name] == status_of(kind.__new__(kind))


@pytest.mark.parametrize("name", STATUS)
def test_it_is_said_what_to_try_again(name: str) -> None:
    assert AGAIN[name] == ("yes" if STATUS[name] in {408, 500, 503} else "no")


def test_what_the_api_promises_is_listed(openapi: dict[str, Any]) -> None:
    promised = {
        name
        for methods in openapi["paths"].values()
        for operation in methods.values()
        for answer in operation["responses"].values()
        for name in re.findall(r"`([a-z-]+)`: ", answer["description"])
    }
    assert promised - ANCESTORS <= set(STATUS)


def test_the_example_is_a_problem() -> None:
    example = Problem.model_validate_json(re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)[0])
    kind = TYPES[example.type.rpartition(":")[2]]
    assert example == problem_of(kind(), example.requestId)


def test_types_are_in_the_order_of_the_alphabet() -> None:
    assert list(STATUS) == sorted(STATUS)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_no_page_names_a_type_that_is_none(path: Path) -> None:
    for name in re.findall(r"urn:offload:problem:([a-z-]+)", path.read_text()):
        assert name in STATUS
