"""JSON of any depth.

API servers take what is nested 10,000 deep. Python's parser gives up near 1,000, and functions that go into
values before: one such run in a list would hide all others, and its own status would not be published.
"""

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

DEEPEST = 100
"""Levels of a status that are read. Nothing that we write or judge lies deeper."""
PARSED = 2 * DEEPEST
"""Levels that are kept of what the parser gives up at: more, as a status lies some levels down itself."""

_STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)

log = logging.getLogger(__name__)


def parse(text: bytes) -> Any:
    """The value that `text` is; what is deeper than `PARSED` reads as null where the parser gives up.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        log.warning("JSON is too deep for its parser: what is nested deeper than %d reads as null", PARSED)
        return json.loads(_cut(text))


def shallow(value: Any) -> Any:
    """`value` with null for what is nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST):
        level = [below for above in level for below in _within(above) if isinstance(below, dict | list)]
        if not level:
            return value
    return _copied(value, DEEPEST)


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _copied(value: Any, levels: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return None
    if isinstance(value, dict):
        return {name: _copied(below, levels - 1) for name, below in value.items()}
    return [_copied(below, levels - 1) for below in value]


def _cut(text: bytes) -> bytes:
    kept: list[bytes] = []
    depth = rest = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                if depth == PARSED + 1:
                    kept += [text[rest : found.start()], b"null"]
            case b"]" | b"}":
                if depth == PARSED + 1:
                    rest = found.end()
                depth -= 1
    return b"".join([*kept, text[rest:]])
