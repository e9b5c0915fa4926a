"""The runs that uploads are for, as they were found a moment ago."""

import asyncio
import time
from concurrent.futures import Executor, ThreadPoolExecutor

from offload.domain.run import Run
from offload.errors import ClusterUnavailableError
from offload.services.incarnations import Incarnations

KEPT_SECONDS = 2.0
"""For longer, the first upload to a run that was created again would be told to come back by the old one."""
_MOST = 10_000
_ASKS_WAITING = 64

_Wanted = tuple[str, str, str | None]
"""A namespace, a name, and the uid where one is pinned."""


class KnownRuns:
    """Finds runs to write to, on one event loop.

    Who writes by what was found here checks in the transaction that it still holds, and calls `forget` where
    it does not.
    """

    def __init__(self, incarnations: Incarnations, threads: Executor) -> None:
        """`threads` are for looks into the index."""
        self._incarnations, self._threads = incarnations, threads
        # Questions to the API server have threads of their own: where it hangs, known runs must not wait.
        self._askers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ask")
        self._asking: dict[_Wanted, asyncio.Future[Run]] = {}
        self._found: dict[_Wanted, tuple[float, Run]] = {}

    async def find(self, namespace: str, name: str, uid: str | None) -> Run:
        """The run that an upload is for. Raises as `Incarnations.to_write` and `ask` do."""
        wanted = (namespace, name, uid)
        found_at, run = self._found.get(wanted, (0.0, None))
        if run is not None and time.monotonic() - found_at < KEPT_SECONDS:
            return run
        loop = asyncio.get_running_loop()
        run = await loop.run_in_executor(self._threads, self._incarnations.to_write, *wanted)
        run = run or await self._ask(wanted)
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[wanted] = (time.monotonic(), run)
        return run

    def forget(self) -> None:
        """Find all runs anew from now on."""
        self._found.clear()

    def close(self) -> None:
        """End the threads that ask; what hangs in one of them is not waited for."""
        self._askers.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, wanted: _Wanted) -> Run:
        """Ask the API server, once for all uploads that wait for the same run."""
        asking = self._asking.get(wanted)
        if asking is None:
            if len(self._asking) >= _ASKS_WAITING:
                raise ClusterUnavailableError("too many look-ups wait for the API server", retry_after=2)
            loop = asyncio.get_running_loop()
            asking = loop.run_in_executor(self._askers, self._incarnations.ask, *wanted)
            self._asking[wanted] = asking
            asking.add_done_callback(lambda done: self._asked(wanted, done))
        return await asyncio.shield(asking)

    def _asked(self, wanted: _Wanted, done: "asyncio.Future[Run]") -> None:
        del self._asking[wanted]
        if not done.cancelled():
            done.exception()  # all who waited may be gone: nobody else takes it then
