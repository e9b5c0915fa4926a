"""What `offload put` sends, and under which names."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from offload.domain.names import check_name
from offload.errors import ConfigError, OffloadError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One upload: a file, or standard input where `path` is None."""

    name: str
    path: Path | None


@dataclass(slots=True)
class Plan:
    """What is to be sent, by name, what cannot be, and what is passed over."""

    items: dict[str, Item] = field(default_factory=dict)
    problems: list[OffloadError] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def plan(paths: list[str], *, name: str | None) -> Plan:
    """Name everything before anything is sent.

    A file is named by its base name, files of a folder `FOLDER/relative/path` from the folder's own base
    name, standard input by `name`. Two equal names are a problem, and so is one that breaks a rule.
    """
    made = Plan()
    given = [expanded for path in paths for expanded in _expanded(path, made)]
    if name is not None and given and (len(given) > 1 or Path(given[0]).is_dir()):
        made.problems.append(ConfigError("--name goes with one file, or with - for standard input"))
        return made
    for path in given:
        try:
            _add(path, name, made)
        except OSError as error:
            made.problems.append(_unreadable(path, error))
    return made


def _expanded(path: str, made: Plan) -> list[str]:
    """The paths that a pattern matches; shells leave quoted ones to us."""
    if path == STDIN or not glob.has_magic(path) or os.path.lexists(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if "**" in path:
        found = [each for each in found if not Path(each).is_dir()]
    if not found:
        made.problems.append(ConfigError(f"nothing matches {path!r}"))
    return found


def _add(path: str, name: str | None, made: Plan) -> None:
    if path == STDIN:
        if name is None:
            made.problems.append(ConfigError("- (standard input) needs --name"))
        else:
            _name(name, None, made)
    elif Path(path).is_dir():
        folder = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link, and name its target
        count = len(made.items)
        for file in _files_below(folder, frozenset(), made):
            _name(f"{folder.name}/{file.relative_to(folder).as_posix()}", file, made)
        if len(made.items) == count:
            made.passed_over.append(f"{path}: no files in it")
    elif Path(path).exists():
        _name(name or Path(path).name, Path(path), made)
    else:
        made.problems.append(ConfigError(f"there is no file {path!r}"))


def _name(name: str, path: Path | None, made: Plan) -> None:
    try:
        check_name(name)
    except OffloadError as error:
        made.problems.append(error)
        return
    other = made.items.get(name)
    if other:
        made.problems.append(ConfigError(f"{other.path} and {path} would both be named {name!r}"))
    else:
        made.items[name] = Item(name, path)


def _files_below(folder: Path, above: frozenset[tuple[int, int]], made: Plan) -> Iterator[Path]:
    """Regular files, in order of their names; links are followed, unless they lead back up.

    `above` identifies the folders that lead here. Those that hold the target of a link, or hold the very
    first folder, are among them: siblings of what was asked for are nobody's to send.
    """
    try:
        identity = _identity(folder)
        if identity in above:
            made.passed_over.append(f"{folder}: leads back to a folder that it is in")
            return
        if folder.is_symlink() or not above:
            above |= {_identity(parent) for parent in (*folder.parents, *folder.resolve().parents)}
        entries = sorted(folder.iterdir())
    except OSError as error:
        made.problems.append(_unreadable(folder, error))
        return
    for entry in entries:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            made.problems.append(_unreadable(entry, error))
            continue
        if is_folder:
            yield from _files_below(entry, above | {identity}, made)
        elif is_file:
            yield entry
        else:
            made.passed_over.append(f"{entry}: {'a link to nothing' if entry.is_symlink() else 'no file'}")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _unreadable(path: str | Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {error.strerror}")
