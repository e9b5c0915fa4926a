"""docs/architecture.md and the layers.

Cases: every room is in the table, and none that is not there; what the walk through the rooms names is there;
each of the ten promises names tests, and they are there; the domain imports the standard library alone; each
package that one room alone may import is in a contract.
"""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/architecture.md").read_text()
PROMISES = re.findall(r"^\| (\d+) \| \*\*.*\| (.*) \|$", TEXT, re.MULTILINE)
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_every_room_is_named() -> None:
    rooms = {
        f"offload/{path.name}{'/' * path.is_dir()}"
        for path in (ROOT / "offload").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    named = set(re.findall(r"`(offload/[a-z_]+(?:\.py|/))`", TEXT))
    assert named == rooms - {"offload/__init__.py"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(offload(?:\.\w+)+)`", TEXT))))
def test_what_the_walk_names_is_there(name: str) -> None:
    modules = [name]
    while "." in modules[-1]:
        modules.append(modules[-1].rpartition(".")[0])
    for module in modules:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for attribute in name.removeprefix(module).strip(".").split("."):
            found = getattr(found, attribute) if attribute else found
        return
    pytest.fail(f"there is no {name}")


def test_there_are_ten_promises() -> None:
    assert [int(number) for number, _ in PROMISES] == list(range(1, 11))


@pytest.mark.parametrize(("number", "tests"), PROMISES, ids=[number for number, _ in PROMISES])
def test_a_promise_has_tests_and_they_exist(number: str, tests: str) -> None:
    ids = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`", tests)
    assert len(ids) == tests.count("`") / 2 > 0, number
    for path, name in ids:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, f"{path}::{name}"


@pytest.mark.parametrize("path", sorted((ROOT / "offload/domain").glob("*.py")), ids=lambda path: path.name)
def test_the_domain_imports_the_standard_library_alone(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(
            ("offload.domain", "offload.errors")
        )


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_what_a_room_alone_imports_is_in_a_contract() -> None:
    protected = {
        name
        for contract in CONTRACTS
        if contract["type"] == "protected"
        for name in contract["protected_modules"]
    }
    rows = re.findall(
        r"^\| `offload/(?:objects|cluster|index|http|client)/` \|.*\| ([^|]+) \|$", TEXT, re.MULTILINE
    )
    for package in ", ".join(rows).split(", "):
        assert package.lower() in protected, package
