"""docs/http.md says what the OpenAPI document says.

Cases: every endpoint has its section and no section is left over; a section names every parameter and every
answer, and no answer that there is none of; the problem types of each answer; the table at the top; the
example of an artifact; the table of types.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from offload.domain.names import default_type
from offload.http import problems
from offload.http.problems import status_of

TEXT = (Path(__file__).parents[2] / "docs/http.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", TEXT, re.MULTILINE))
ENDPOINTS = {
    (method, heading.split(" ")[-1]): body
    for heading, body in SECTIONS.items()
    if "/" in heading
    for method in re.findall(r"[A-Z]{3,}", heading.rpartition(" ")[0])
}
ANSWERS = r"^\| (\d{3}) \| (.*) \| (.*)\|$"
COMMON = TEXT.partition("*Any endpoint*")[2].partition("\n\n")[0]
EVERYWHERE = {kind.type: status_of(kind.__new__(kind)) for kind in problems._ANYWHERE}


def described(openapi: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    }


def test_every_endpoint_has_its_section(openapi: dict[str, Any]) -> None:
    assert set(ENDPOINTS) == set(described(openapi))


def test_the_table_at_the_top_names_every_endpoint(openapi: dict[str, Any]) -> None:
    table = TEXT.partition("\n## ")[0]
    named = {
        (method, path)
        for methods, path in re.findall(r"`([A-Z, ]+) (/[^`]*)`", table)
        for method in methods.split(", ")
    }
    assert named == {*described(openapi), ("GET", "/openapi.json")}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_a_section_names_every_parameter(endpoint: tuple[str, str], openapi: dict[str, Any]) -> None:
    rows = re.findall(r"^\| (.*) \| (query|header) \|", ENDPOINTS[endpoint], re.MULTILINE)
    documented = {(name, place) for names, place in rows for name in re.findall(r"`([^`]+)`", names)}
    parameters = {
        (parameter["name"], parameter["in"])
        for parameter in described(openapi)[endpoint].get("parameters", [])
        if parameter["in"] != "path"
    }
    assert parameters <= documented
    assert {name for name in documented if name[1] == "query"} <= parameters


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_a_section_names_every_answer(endpoint: tuple[str, str], openapi: dict[str, Any]) -> None:
    rows = re.findall(ANSWERS, ENDPOINTS[endpoint], re.MULTILINE)
    documented = {int(status): set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", types)) for status, _, types in rows}
    assert len(documented) == len(rows)
    responses = described(openapi)[endpoint]["responses"]
    for status, answer in responses.items():
        types = set(re.findall(r"`([a-z-]+)`: ", answer["description"])) - set(EVERYWHERE)
        if types or int(status) not in EVERYWHERE.values():
            assert types <= documented[int(status)], status
        if types:
            assert documented[int(status)] <= types, status
    assert {str(status) for status in documented} <= set(responses)


def test_what_any_endpoint_can_answer_is_said_once() -> None:
    for name in set(EVERYWHERE) - {"unauthenticated"}:
        assert f"`{name}`" in COMMON


def test_the_example_of_an_artifact_has_its_fields(openapi: dict[str, Any]) -> None:
    example = json.loads(re.findall(r"```json\n(\{\n.*?)```", TEXT, re.DOTALL)[0])
    schemas = openapi["components"]["schemas"]
    assert list(example) == list(schemas["ArtifactOut"]["properties"])
    assert list(example["run"]) == list(schemas["RunReference"]["properties"])


def test_the_table_of_types_is_the_rules() -> None:
    rows = re.findall(
        r"^\| (`[a-z]+/.*) \| (`\w.*`)(?: else)? \|$", TEXT.partition("\n## PUT")[0], re.MULTILINE
    )
    assert len(rows) == 6
    for contents, types in rows:
        named = re.findall(r"`([^`]+)`", types)
        for place, content in enumerate(re.findall(r"`([^`]+)`", contents)):
            example = content.replace("…+", "application/x+").replace("…", "x")
            assert default_type(example) == named[place if len(named) > 1 else 0]
