"""Logs.

Cases: a failure is logged with its traceback and without the values of variables, in both forms.
"""

import subprocess
import sys
from pathlib import Path

import pytest

FAILING = """
import structlog
from offload import logs

logs.configure(level="info", form={form!r})

def fail():
    password = "ge" + "heim"
    raise ValueError(len(password))

try:
    fail()
except ValueError:
    structlog.get_logger("offload").exception("it.failed")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_tells_no_variables(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING.format(form=form)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "it.failed" in done.stderr
    assert "in fail" in done.stderr
    assert "geheim" not in done.stderr
