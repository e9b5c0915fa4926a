"""JSON of any depth.

API servers take what is nested 10,000 deep, Python's parser gives up near 1,000, and one such run in a list
would hide all others.
"""

import json
import logging
import re
from typing import Any

DEEPEST = 100
"""What is nested deeper reads as null where the parser gives up. Nothing that we write or judge is there."""

_STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)

log = logging.getLogger(__name__)


def parse(text: bytes) -> Any:
    """The value that `text` is.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        log.warning(
            "JSON is nested too deep for its parser: what is more than %d deep reads as null", DEEPEST
        )
        return json.loads(_shallow(text))


def _shallow(text: bytes) -> bytes:
    kept: list[bytes] = []
    depth = rest = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                if depth == DEEPEST + 1:
                    kept += [text[rest : found.start()], b"null"]
            case b"]" | b"}":
                if depth == DEEPEST + 1:
                    rest = found.end()
                depth -= 1
    return b"".join([*kept, text[rest:]])
