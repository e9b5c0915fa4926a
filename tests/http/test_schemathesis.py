"""The service against its own OpenAPI document, by Schemathesis: all phases, all default checks but one.

Cases: examples, coverage, fuzzing and stateful phases with a token for everything and a run that exists; no
finding. `use_after_free` is left out: what was erased answers 200 with its tombstone by design, which
`test_history.py` covers.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG = """
hooks = "schemathesis_hooks"

[checks.positive_data_acceptance]
# Beside its default: 410, as an erased artifact is named by valid requests too; 412, as If-None-Match asked.
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "429", "5xx"]

[parameters]
"path.namespace" = "agents"
"path.run" = "{run}"
"""


def test_the_service_does_what_its_document_says(service: Any, tmp_path: Path) -> None:
    run = service.run()
    run.stored("seed/a.log", b"seed")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(run=run.name))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={config}",
            "run",
            f"{service.url}/openapi.json",
            f"--header=Authorization: {service.http.headers['Authorization']}",
            "--exclude-checks=use_after_free",
            "--phases=examples,coverage,fuzzing,stateful",
            "--max-examples=40",
            "--seed=1",
            "--no-color",
            "--continue-on-failure",
            "--generation-database=none",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
