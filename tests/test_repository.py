"""What is committed.

- no file names a package or image registry: where to get things is the business of the machine
- no file names a folder of somebody's machine
- `make` says what it needs where Python is too old
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Written with a class around one letter, so that this file is not a finding of its own.
REGISTRIES = re.compile(
    r"(py[p]i|pythonhoste[d])\.(org|io)|np[m]js\.(org|com)|yarnp[k]g\.com|prox[y]\.golang\.org|crate[s]\.io"
    r"|(deb|securit[y]|archiv[e])\.(debian|ubuntu)\.(org|com)|docke[r]\.(io|com)|ghc[r]\.io|gc[r]\.io|qua[y]\.io"
    r"|registr[y]\.k8s\.io|publi[c]\.ecr\.aws|repo[1]?\.maven\.(org|apache\.org)"
)
FOLDERS = re.compile(r"(?<![\w.}/-])/([r]oot|[h]ome/\w+|[U]sers/\w+|[w]ork|[m]nt|[b]uilds)(/|\b)")


@pytest.fixture(scope="module")
def files() -> list[tuple[str, str]]:
    """Name and text of each committed file, and of each that would be with `git add --all`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git repository")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert "pyproject.toml" in names
    return [(name, (ROOT / name).read_text(encoding="utf-8", errors="replace")) for name in names]


@pytest.mark.parametrize("pattern", [REGISTRIES, FOLDERS], ids=["registry", "folder"])
def test_no_file_names_a(pattern: re.Pattern[str], files: list[tuple[str, str]]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:200]}"
        for name, text in files
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    "text", ["https://" + "pypi" + ".org/simple", "FROM " + "docker" + ".io/python", "gh" + "cr.io/x"]
)
def test_a_registry_would_be_found(text: str) -> None:
    assert REGISTRIES.search(text)


@pytest.mark.parametrize("text", ["cd /" + "root/x", "'/" + "home/me/x'", "=/" + "work/main", "/" + "mnt/x"])
def test_a_folder_would_be_found(text: str) -> None:
    assert FOLDERS.search(text)


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "--silent", "setup", f"VENV={tmp_path / 'venv'}", "PYTHON=false"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode
    assert "needs Python 3.11 or newer with venv; false is not one" in done.stderr
    assert not (tmp_path / "venv").exists()
