"""Lists and watches, merged into one stream of changes."""

import json
import logging
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import urllib3

from offload.cluster.api import Api, AskedToWaitError, Object, TooOldError, refusal
from offload.cluster.interface import AgentRun, Change, Clock, Deleted, Fresh, Listed, Present, Refused
from offload.cluster.nested import parse
from offload.cluster.reading import collection_path, read_run
from offload.errors import (
    ClusterForbiddenError,
    ClusterUnavailableError,
    OffloadError,
    StatusRefusedError,
)

PAGE = 250
WATCH_SECONDS = 50
SHORTEST_WATCH_SECONDS = 1.0
"""One that ends sooner ended as soon as it began."""
LATE_SECONDS = 5.0
"""How much later than asked a watch may end. What comes later was kept for a process that was frozen."""
SILENCE_SECONDS = 55.0
"""A watch that says nothing for so long is dead: its bookmarks and its end come sooner."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds. The longest is short, so that pointers are there soon after an outage; jitter spreads replicas."""

QUEUED = 250
"""Changes that wait for the reader; feeds pause beyond."""

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


def merged(
    api: Api, namespaces: Sequence[str], stop: threading.Event, clock: Clock | None = None
) -> Iterator[Change]:
    """The changes of every namespace (none named: of all at once), each followed in a thread.

    `Fresh` is given once every one of them was heard since the last `Fresh`, by the time of the one that was
    heard longest ago. Raises what a feed ends with.
    """
    ended = threading.Event()
    waiting: queue.Queue[tuple[_Feed, Change | Exception]] = queue.Queue(QUEUED)
    paging = threading.Lock()
    feeds = [_Feed(api, namespace, clock, waiting, ended, paging) for namespace in (namespaces or (None,))]
    for feed in feeds:
        feed.start()
    heard: dict[_Feed, float] = {}
    try:
        while not stop.is_set():
            try:
                feed, change = waiting.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(change, Exception):
                raise change
            if isinstance(change, Fresh):
                heard[feed] = change.at
                if len(heard) < len(feeds):
                    continue
                change = Fresh(min(heard.values()))
                heard.clear()
            elif isinstance(change, Refused):
                heard.pop(feed, None)
            yield change
    finally:
        ended.set()
        for feed in feeds:
            feed.interrupt()
        for feed in feeds:
            feed.join(timeout=2)


@dataclass(slots=True)
class _Listing:
    """A list that has come so far."""

    began: float
    began_at: datetime | None
    uids: set[str] = field(default_factory=set)
    token: str = ""


class _Feed(threading.Thread):
    """One list and the watches that follow it."""

    def __init__(  # noqa: PLR0913, PLR0917 - what all of them share, once
        self,
        api: Api,
        namespace: str | None,
        clock: Clock | None,
        out: "queue.Queue[tuple[_Feed, Change | Exception]]",
        ended: threading.Event,
        paging: threading.Lock,
    ) -> None:
        """`paging` is held by the one feed that has a page of a list in memory, until it is emitted."""
        super().__init__(name=f"watch-{namespace or 'all'}", daemon=True)
        self._api, self._namespace, self._clock = api, namespace, clock
        self._out, self._ended = out, ended
        self._path, self._paging = collection_path(namespace), paging
        self._listing: _Listing | None = None
        self._revision: str | None = None
        self._watched_until = 0.0
        self._response: urllib3.HTTPResponse | None = None
        self._refused: str | None = None
        self._failures = 0

    def interrupt(self) -> None:
        """Wake a watch that waits for the server; `ended` is set before."""
        if response := self._response:
            with suppress(Exception):
                response.shutdown()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self._attempt()
        except Exception as error:  # noqa: BLE001 - it is raised where the changes are read
            self._emit(error)

    def _attempt(self) -> None:
        try:
            if self._revision is None:
                self._list()
            began = time.monotonic()
            self._watched_until = began + WATCH_SECONDS + LATE_SECONDS
            heard = self._watch()
            lasted = time.monotonic() - began >= SHORTEST_WATCH_SECONDS
            # What answers and says nothing, as a balancer without an API server can, tells nothing of runs.
            if heard or lasted:
                self._emit(self._fresh())
            if not lasted:
                raise ClusterUnavailableError("the watch ended as soon as it began")
            self._failures = 0
        except ClusterForbiddenError as error:
            # It is told once, and asked for until it is granted.
            self._tell(str(error))
            self._ended.wait(LONGEST_PAUSE * random.uniform(0.5, 1))  # noqa: S311 - jitter
        except (TooOldError, StatusRefusedError) as error:
            self._listing = self._revision = None
            self._pause(error)
        except OffloadError as error:
            # The revision stays good, and so does the place in a list: what an API server has least of as it
            # comes back is time for lists.
            self._pause(error)

    def _list(self) -> None:
        while not self._ended.is_set():
            # Until its runs were taken: each feed that waits would have a page in memory otherwise.
            with self._paging:
                if self._ended.is_set() or self._list_page():
                    return

    def _list_page(self) -> bool:
        """Emit the next page of the list; whether it was the last."""
        listing = self._listing
        if listing is None:
            began_at = self._clock() if self._clock else None
            listing = _Listing(time.monotonic(), began_at)
        runs, metadata = self._page(listing.token)
        # Its place is kept from its first page on: the others show the runs as they were then.
        self._listing = listing
        for run in runs:
            listing.uids.add(run.seen.uid)
            self._emit(Present(run))
        listing.token = metadata.get("continue", "")
        if listing.token:
            return False
        self._emit(Listed(self._namespace, frozenset(listing.uids), listing.began, listing.began_at))
        self._emit(Fresh(listing.began))
        self._listing, self._revision = None, metadata["resourceVersion"]
        return True

    def _page(self, token: str) -> tuple[list[AgentRun], Object]:
        query = {"limit": str(PAGE), **({"continue": token} if token else {})}
        page = self._api.get(self._path, query)
        # Reduced before they are emitted: specs can be large, and none is needed.
        return [read_run(item) for item in page.pop("items")], page["metadata"]

    def _watch(self) -> bool:
        """Watch until the server ends it; whether anything was heard."""
        if self._ended.is_set():
            return False
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._revision or "",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        self._response = response = self._api.stream(self._path, query, silence=SILENCE_SECONDS)
        self._tell(None)
        heard = False
        try:
            if self._ended.is_set():  # since it was asked for: `interrupt` found nothing to wake
                return False
            for line in _lines(response):
                if self._ended.is_set():
                    break
                self._take(parse(line))
                heard = True
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._api.lost(f"watching {self._path}", error) from error
        finally:
            self._response = None
            response.close()
        return heard

    def _take(self, event: Object) -> None:
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise refusal(body.get("code", 500), f"watching {self._path}", json.dumps(body).encode())
        self._failures = 0
        if kind == "BOOKMARK":
            self._emit(self._fresh())
        else:
            run = read_run(body)
            self._emit(Deleted(run) if kind == "DELETED" else Present(run))
        self._revision = body["metadata"]["resourceVersion"]

    def _fresh(self) -> Fresh:
        return Fresh(min(time.monotonic(), self._watched_until))

    def _tell(self, refused: str | None) -> None:
        if refused != self._refused:
            self._refused = refused
            self._emit(Refused(self._namespace, refused))

    def _emit(self, change: Change | Exception) -> None:
        while not self._ended.is_set():
            with suppress(queue.Full):
                self._out.put((self, change), timeout=POLL_SECONDS)
                return

    def _pause(self, error: OffloadError) -> None:
        most = pause_after(self._failures)
        self._failures += 1
        asked = error.retry_after if isinstance(error, AskedToWaitError) else 0
        seconds = asked + most * random.uniform(0.25, 1)  # noqa: S311 - jitter
        if not self._ended.is_set():
            log.warning("following %s: trying again in %.1f s: %s", self._path, seconds, error)
        self._ended.wait(seconds)


def pause_after(failures: int) -> float:
    """The most seconds to wait after one more than so many failures in a row."""
    # An outage of hours has more of them than a float has powers of two.
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))


def _lines(response: urllib3.HTTPResponse) -> Iterator[bytes]:
    """Whole lines; what is left without an end when the answer ends was cut off, and is dropped."""
    rest = b""
    for piece in response.stream(2**16, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
