"""A shell beside a running `offload dev`, as a person would use it: commands shown, with what they say."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_STOPS_SECONDS = 15
_COMMAND_SECONDS = 120
_LINE = 150
_OURS = ("OFFLOAD_", "JANGAR_AGENTRUN_", "AGENTS_AGENTRUN_", "AWS_", "KUBECONFIG")
"""Variables of the caller that would make the commands mean something else."""


class DeviationError(Exception):
    """Something was not as it should be."""


def expect(what: str, expected: object, came: object, holds: bool) -> None:
    """Raise `DeviationError`, saying what was expected and what came, unless it `holds`."""
    if not holds:
        raise DeviationError(f"{what}: expected {expected}, came {came}")


class Shell:
    """Runs commands in an environment."""

    def __init__(self, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self.environment, self._say = environment, say
        self.python = shlex.quote(sys.executable)

    def run(self, command: str, *, stdin: bytes = b"", cwd: Path | None = None, shown: int = 12) -> str:
        """Show a command and the first lines of its output; answer all of it."""
        self._say(f"   $ {command}")
        text = self.output(command, stdin=stdin, cwd=cwd).decode(errors="replace")
        lines = text.rstrip().splitlines()
        for line in lines[:shown]:
            self._say("     " + (line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"))
        if len(lines) > shown:
            self._say(f"     … {len(lines) - shown} lines more")
        return text

    def output(self, command: str, *, stdin: bytes = b"", cwd: Path | None = None) -> bytes:
        """A command's standard output. Raises `DeviationError` where it fails."""
        # `offload` means this very code, whether or not its script is on the PATH.
        script = f'offload() {{ {self.python} -m offload.cli.main "$@"; }}\n{command}'
        process = subprocess.Popen(  # noqa: S603 - the commands are ours, and shown
            ["/bin/sh", "-c", script],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(stdin, timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DeviationError(f"{command}: expected an end within {_COMMAND_SECONDS} s") from error
        finally:
            with suppress(ProcessLookupError):  # nothing is left of it, unless it was cut short
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        said = (err or out).decode(errors="replace").strip()
        expect(command, "exit code 0", f"{process.returncode}: {said}", process.returncode == 0)
        return out


@contextmanager
def running_dev(data: Path, say: Callable[[str], None]) -> Iterator[Shell]:
    """`offload dev` on free ports, with its data in `data`, and a shell in the environment that it writes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    package = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
    environment["OFFLOAD_METRICS_PORT"] = "0"
    arguments = ["dev", "--port", "0", "--kube-port", "0", "--data", str(data)]
    say(f"   $ offload {shlex.join(arguments)}")
    complaints = data.with_name("dev.log")
    with complaints.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "offload.cli.main", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop it
        )
    try:
        _await(process, complaints, say)
        yield Shell(_sourced(data / "dev.env", environment), say)
    finally:
        _stop(process)


def _await(process: "subprocess.Popen[str]", complaints: Path, say: Callable[[str], None]) -> None:
    assert process.stdout  # noqa: S101 - it is a pipe
    for line in process.stdout:
        say(f"     {line.rstrip()}")
        if line.startswith("kubeconfig="):
            return
    process.wait()
    expect("offload dev", "a line kubeconfig=…", complaints.read_text().strip(), holds=False)


def _sourced(file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a shell that has read `file`."""
    done = subprocess.run(  # noqa: S603 - a file that we wrote
        ["/bin/sh", "-c", '. "$1" && exec env -0', "sh", file.resolve()],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


def _stop(process: "subprocess.Popen[str]") -> None:
    """End it, undisturbed by a second Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.terminate()
        try:
            process.communicate(timeout=_STOPS_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    finally:
        signal.signal(signal.SIGINT, before)
