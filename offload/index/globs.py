"""Name globs, read once and written for each database.

The meaning is that of Python's `fnmatch.fnmatchcase`: `*` any characters (slashes too), `?` one, `[a-z]` one
of, `[!a-z]` one not of; case-sensitive; everything else, and a bracket that never closes, is literal.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


@dataclass(frozen=True, slots=True)
class Literal:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class One:
    """Any one character."""


@dataclass(frozen=True, slots=True)
class Many:
    """Any characters, or none."""


@dataclass(frozen=True, slots=True)
class Among:
    """One character that is (or with `negated` is not) in one of the code point ranges, ends included."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool


Glob = tuple[Literal | One | Many | Among, ...]


def parse(pattern: str) -> Glob:
    """Read a glob; neighbouring literals are joined, and so are neighbouring stars."""
    parts: list[Literal | One | Many | Among] = []
    for part in _parts(pattern):
        last = parts[-1] if parts else None
        if isinstance(part, Literal) and isinstance(last, Literal):
            parts[-1] = Literal(last.text + part.text)
        elif not (isinstance(part, Many) and isinstance(last, Many)):
            parts.append(part)
    return tuple(parts)


def literal_prefix(glob: Glob) -> str:
    """What every match starts with."""
    return glob[0].text if glob and isinstance(glob[0], Literal) else ""


def after_prefix(prefix: str) -> str | None:
    """The least string, by code point, above all that start with `prefix`; None where there is none."""
    stem = prefix.rstrip(chr(_LAST))
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    if _SURROGATES[0] <= following <= _SURROGATES[1]:
        following = _SURROGATES[1] + 1
    return stem[:-1] + chr(following)


def as_sqlite_glob(glob: Glob) -> str:
    """For SQLite's GLOB, which has no escapes but brackets."""
    return "".join(_sqlite(part) for part in glob)


def as_regex(glob: Glob) -> str:
    r"""For PostgreSQL's `~` (advanced regular expressions), anchored at both ends."""
    return r"\A" + "".join(_regex(part) for part in glob) + r"\Z"


def _parts(pattern: str) -> Iterator[Literal | One | Many | Among]:
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            yield Many()
        elif character == "?":
            yield One()
        elif character == "[" and (end := _bracket_end(pattern, at)) is not None:
            yield _among(pattern[at:end])
            at = end + 1
        else:
            yield Literal(character)


def _bracket_end(pattern: str, start: int) -> int | None:
    """Where the bracket that opened before `start` closes; a `]` that comes first is a character of it."""
    first = start + 1 if pattern[start : start + 1] == "!" else start
    end = pattern.find("]", first + 1)
    return end if end >= 0 else None


def _among(inside: str) -> Among:
    negated = inside.startswith("!")
    rest = inside[1:] if negated else inside
    ranges = []
    at = 0
    while at < len(rest):
        low = high = ord(rest[at])
        if rest[at + 1 : at + 2] == "-" and at + 2 < len(rest):
            high = ord(rest[at + 2])
            at += 2
        at += 1
        if low <= high:
            ranges.append((low, high))
    return Among(tuple(ranges), negated)


def _sqlite(part: Literal | One | Many | Among) -> str:
    match part:
        case Many():
            return "*"
        case One():
            return "?"
        case Literal(text):
            return re.sub(r"[*?\[]", lambda special: f"[{special[0]}]", text)
        case Among(ranges, negated):
            return _sqlite_bracket(ranges, negated=negated)


def _sqlite_bracket(ranges: tuple[tuple[int, int], ...], *, negated: bool) -> str:
    """SQLite takes `]` only as the first character, `^` only after it, and `-` only as the last."""
    if not ranges:
        return "?" if negated else _NEVER
    specials = {ord(c) for c in "]^-"}
    plain = [piece for low, high in ranges for piece in _without(low, high, specials)]
    members = {c for c in "]^-" if any(low <= ord(c) <= high for low, high in ranges)}
    text = ("]" if "]" in members else "") + "".join(
        chr(low) if low == high else f"{chr(low)}-{chr(high)}" for low, high in plain
    )
    if members == {"^"} and not plain and not negated:
        return "^"
    if "^" in members and not text and not negated:
        text = "-^"  # both are members here, and a `^` that comes first would negate
        return f"[{text}]"
    text += ("^" if "^" in members else "") + ("-" if "-" in members else "")
    return f"[{'^' if negated else ''}{text}]"


# A name has no NUL, and a bracket that holds nothing else matches no name.
_NEVER = "[\x01]"


def _without(low: int, high: int, removed: set[int]) -> Iterator[tuple[int, int]]:
    for cut in sorted(removed):
        if low <= cut <= high:
            if low < cut:
                yield low, cut - 1
            low = cut + 1
    if low <= high:
        yield low, high


def _regex(part: Literal | One | Many | Among) -> str:
    match part:
        case Many():
            return ".*"
        case One():
            return "."
        case Literal(text):
            return re.sub(r"[^A-Za-z0-9_\s\x80-\U0010ffff]", lambda special: "\\" + special[0], text)
        case Among(ranges, negated):
            return _regex_bracket(ranges, negated=negated)


def _regex_bracket(ranges: tuple[tuple[int, int], ...], *, negated: bool) -> str:
    if not ranges:
        return "." if negated else r"(?!)"
    inside = "".join(
        _regex_character(low) if low == high else f"{_regex_character(low)}-{_regex_character(high)}"
        for low, high in ranges
    )
    return f"[{'^' if negated else ''}{inside}]"


def _regex_character(code: int) -> str:
    character = chr(code)
    return "\\" + character if character in r"\[]^-" else character
