"""Why a figure misses its goal on the machine of the last results: what was looked at, and what the limit is.

docs/performance.md shows the note of each figure that misses; `python -m bench.report` renders it again.
"""

NOTES: dict[str, str] = {}
