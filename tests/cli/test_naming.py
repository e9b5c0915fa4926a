"""What `offload put` sends, and under which names.

Cases: files, folders with nested files, `.` and links as folders; patterns, of which the shell knows nothing;
links to files, to nothing, back up and beside; a folder that cannot be read; special files; equal names, and
many; names that break a rule; standard input.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offload.cli.naming import Item, Plan, plan


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    (work / "out" / "sub").mkdir(parents=True)
    for name in ("a.log", "b.log", "out/x", "out/sub/y", "out/.hidden"):
        (work / name).touch()
    monkeypatch.chdir(work)
    return work


def names(made: Plan) -> list[str]:
    assert made.problems == []
    return list(made.items)


def test_a_file_is_named_by_its_base_name() -> None:
    assert names(plan(["a.log", "out/sub/y"], name=None)) == ["a.log", "y"]


def test_one_file_may_be_given_a_name() -> None:
    assert names(plan(["out/sub/y"], name="logs/y.txt")) == ["logs/y.txt"]


@pytest.mark.parametrize("path", ["out", "out/", "./out", "out/sub/.."])
def test_files_of_a_folder_are_named_below_its_base_name(path: str) -> None:
    assert names(plan([path], name=None)) == ["out/.hidden", "out/sub/y", "out/x"]


def test_the_current_folder_is_named_too() -> None:
    assert "work/out/sub/y" in names(plan(["."], name=None))


def test_a_link_to_a_folder_is_named_as_the_link() -> None:
    Path("link").symlink_to("out/sub")
    assert names(plan(["link"], name=None)) == ["link/y"]


def test_patterns_are_expanded_in_order() -> None:
    assert names(plan(["*.log"], name=None)) == ["a.log", "b.log"]
    assert names(plan(["**/y"], name=None)) == ["y"]
    assert names(plan(["o*"], name=None)) == ["out/.hidden", "out/sub/y", "out/x"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file() -> None:
    Path("[1]*").touch()
    assert names(plan(["[1]*"], name=None)) == ["[1]*"]


def test_links_to_files_are_followed_and_loops_are_not() -> None:
    Path("out/link").symlink_to("../a.log")
    Path("out/sub/loop").symlink_to("..")
    Path("out/self").symlink_to(".")
    made = plan(["out"], name=None)
    assert names(made) == ["out/.hidden", "out/link", "out/sub/y", "out/x"]
    assert len(made.passed_over) == 2


def test_a_link_that_leads_above_the_folder_is_not_followed(folder: Path) -> None:
    Path("out/up").symlink_to("..")
    Path("out/sub/top").symlink_to(folder.parent)
    made = plan(["out"], name=None)
    assert names(made) == ["out/.hidden", "out/sub/y", "out/x"]
    assert len(made.passed_over) == 2


@pytest.mark.parametrize("path", ["link", "in/link"])
def test_a_link_that_leads_above_what_another_link_led_to_is_not_followed(path: str) -> None:
    Path("in").mkdir()
    Path(path).symlink_to(Path("out/sub").resolve())
    Path("out/sub/up").symlink_to("..")
    made = plan([path.partition("/")[0]], name=None)
    assert names(made) == [f"{path}/y"]
    assert len(made.passed_over) == 1


def test_a_link_to_a_folder_beside_is_followed() -> None:
    Path("beside").mkdir()
    Path("beside/z").touch()
    Path("out/link").symlink_to("../beside")
    assert "out/link/z" in names(plan(["out"], name=None))


def test_a_folder_that_cannot_be_read_is_a_problem_and_the_rest_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = Path.iterdir

    def guarded(folder: Path) -> Iterator[Path]:  # root, whom the tests may run as, reads everything
        if folder.name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", guarded)
    made = plan(["out"], name=None)
    assert list(made.items) == ["out/.hidden", "out/x"]
    assert [str(problem) for problem in made.problems] == [
        f"{Path('out/sub').resolve()} cannot be read: Permission denied"
    ]


def test_links_to_nothing_and_special_files_are_passed_over_and_said() -> None:
    Path("out/broken").symlink_to("nowhere")
    os.mkfifo("out/pipe")
    made = plan(["out"], name=None)
    assert "out/broken" not in names(made)
    assert [line.partition(": ")[2] for line in made.passed_over] == ["a link to nothing", "no file"]


def test_a_folder_without_files_is_said() -> None:
    Path("empty").mkdir()
    made = plan(["empty"], name=None)
    assert names(made) == []
    assert made.passed_over == ["empty: no files in it"]


@pytest.mark.parametrize("paths", [["a.log", "a.log"], ["a.log", "out/../a.log"], ["out", "./out"]])
def test_equal_names_are_a_problem(paths: list[str]) -> None:
    assert "would both be named" in str(plan(paths, name=None).problems[0])


def test_a_name_is_not_held_against_each_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    class Watched(Item):
        def __getattribute__(self, attribute: str) -> Any:
            nonlocal looks
            looks += 1
            return super().__getattribute__(attribute)

    monkeypatch.setattr("offload.cli.naming.Item", Watched)
    for number in range(300):
        Path(f"out/{number}").touch()
    assert len(names(plan(["out"], name=None))) == 303
    assert looks < 3000


def test_a_name_that_is_no_utf8_is_a_problem(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder / "out") + b"/\xff"))).touch()
    assert "must be UTF-8" in str(plan(["out"], name=None).problems[0])


def test_standard_input_is_named_by_the_option() -> None:
    made = plan(["-"], name="all.txt")
    assert names(made) == ["all.txt"]
    assert made.items["all.txt"].path is None
    assert "needs --name" in str(plan(["-"], name=None).problems[0])
