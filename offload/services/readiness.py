"""How the parts that the service stands on are, each asked in its own thread and none for long."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from offload import metrics
from offload.errors import OffloadError

PATIENCE_SECONDS = 1.5
KEPT_SECONDS = 2.0
"""Probes come from several places; the parts are asked no more often than this."""


log = structlog.get_logger()


class Readiness:
    """Asks `checks` (part → a blocking call that raises what is wrong). Threads share it."""

    def __init__(self, checks: Mapping[str, Callable[[], object]]) -> None:
        self._checks = checks
        self._threads = ThreadPoolExecutor(max_workers=len(checks), thread_name_prefix="readiness")
        self._asking: dict[str, Future[object]] = {}
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, str | None]] | None = None
        self.reached: set[str] = set()
        """Parts that have answered once."""

    def look(self) -> Mapping[str, str | None]:
        """Part → None, or what is wrong with it. A part that does not answer in time is wrong too."""
        with self._lock:
            if self._known and time.monotonic() - self._known[0] < KEPT_SECONDS:
                return self._known[1]
            until = time.monotonic() + PATIENCE_SECONDS
            for name, check in self._checks.items():
                if name not in self._asking:  # else it still has not answered the last time
                    self._asking[name] = self._threads.submit(check)
            found = {name: self._answer(name, until) for name in self._checks}
            self.reached.update(name for name, problem in found.items() if problem is None)
            for name, problem in found.items():
                metrics.PART_USABLE.labels(part=name).set(problem is None)
            self._known = (time.monotonic(), found)
            return found

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, name: str, until: float) -> str | None:
        try:
            self._asking[name].result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            return f"no answer within {PATIENCE_SECONDS:g} s"
        except OffloadError as error:
            del self._asking[name]
            log.warning("readiness", part=name, problem=error.detail)
            return error.told
        except Exception:
            del self._asking[name]
            log.exception("readiness", part=name)
            return "failed in a way that was not expected; the log has it"
        del self._asking[name]
        return None
