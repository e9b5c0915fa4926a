"""Where what the benchmark installs once is kept: beside the control plane of the tests."""

import os
from pathlib import Path


def cached(name: str) -> Path:
    """The place of this in `XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offload" / name
