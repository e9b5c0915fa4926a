"""What an examination finds, and how it is made: every check at once, each by itself, none for long."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

from offload.errors import OffloadError

PATIENCE_SECONDS = 10.0

T = TypeVar("T")


class State(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should know."""
    BROKEN = "broken"
    """Something that the service does will fail."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says; `check` names one of several things that it looked at."""

    state: State
    found: str
    remedy: str = ""
    check: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    part: str
    check: str
    state: State
    found: str
    remedy: str
    """What to do about it; empty where there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One look at a part."""

    part: str
    name: str
    look: Callable[[], Iterable[Verdict]]
    """May block, and may raise: what it raises is what is broken, and `remedy` mends it."""
    remedy: str
    patience: float = PATIENCE_SECONDS
    """Seconds in which it must have said all."""


class Opened(Generic[T]):
    """Something that several checks share, opened by the first that needs it; a failure is shared too."""

    def __init__(self, opening: Callable[[], T]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._there: list[T] = []
        self._error: OffloadError | None = None

    def __call__(self) -> T:
        """What was opened. Raises what opening it raised."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._there:
                try:
                    self._there.append(self._opening())
                except OffloadError as error:
                    self._error = error
                    raise
            return self._there[0]


def ok(found: str, *, check: str = "") -> Verdict:
    """It works."""
    return Verdict(State.OK, found, check=check)


def warning(found: str, remedy: str, *, check: str = "") -> Verdict:
    """It works, and somebody should know."""
    return Verdict(State.WARNING, found, remedy, check)


def broken(found: str, remedy: str, *, check: str = "") -> Verdict:
    """It does not work."""
    return Verdict(State.BROKEN, found, remedy, check)


def examine(checks: Sequence[Check], *, secrets: Collection[str] = ()) -> list[Finding]:
    """Make all `checks` at once and answer what each found, in their order.

    One that has not ended in its time is broken, and is left behind in its thread. None of the `secrets` is
    in an answer, whatever an error's text says.
    """
    findings: list[list[Finding]] = [[] for _ in checks]
    threads = [
        threading.Thread(target=_make, args=(check, found), daemon=True)
        for check, found in zip(checks, findings, strict=True)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for check, found, thread in zip(checks, findings, threads, strict=True):
        thread.join(max(0.0, began + check.patience - time.monotonic()))
        if thread.is_alive():
            found.append(_finding(check, broken(f"no answer within {check.patience:g} s", check.remedy)))
    return [_without(secrets, finding) for found in findings for finding in tuple(found)]


def is_broken(findings: Iterable[Finding]) -> bool:
    """Whether anything is; warnings are not."""
    return any(finding.state is State.BROKEN for finding in findings)


def _make(check: Check, found: list[Finding]) -> None:
    try:
        # Each as it comes: what was said before a failure or a silence counts.
        found.extend(_finding(check, verdict) for verdict in check.look())
    except OffloadError as error:
        found.append(_finding(check, broken(str(error), check.remedy)))
    except Exception as error:  # noqa: BLE001 - the other checks go on, and this one says what it met
        found.append(_finding(check, broken(f"unexpected {type(error).__name__}: {error}", check.remedy)))


def _finding(check: Check, verdict: Verdict) -> Finding:
    return Finding(check.part, verdict.check or check.name, verdict.state, verdict.found, verdict.remedy)


def _without(secrets: Collection[str], finding: Finding) -> Finding:
    found, remedy = finding.found, finding.remedy
    for secret in filter(None, secrets):
        found, remedy = found.replace(secret, "***"), remedy.replace(secret, "***")
    return replace(finding, found=found, remedy=remedy)
