"""Bytes that the store does not have where the index says that they are.

Cases: a store that comes back empty proves nothing, also to a service that starts on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import enumerate as threads
from typing import Any

from offload.objects.memory import MemoryObjects

DATA = b"0123456789"


def test_a_store_that_comes_back_empty_loses_nothing(serving: Any, eventually: Callable[..., None]) -> None:
    objects = MemoryObjects()
    with serving(objects=objects, s3_prefix="own") as first:
        run = first.run()
        run.stored("x", DATA)
        eventually(lambda: ("memory", "own/.offload-index") in objects._objects)
    emptied: Mapping[Any, Any] = dict(objects._objects)
    objects._objects.clear()

    url = f"sqlite:///{first.database}"
    with serving(objects=objects, s3_prefix="own", database_url=url) as second:
        run = replace(run, http=second.http)
        eventually(lambda: all(thread.name != "claim" for thread in threads()))
        answer = run.http.get(run.at("x"))
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:offload:problem:store-unavailable")
        assert [one["state"] for one in run.history()] == ["stored"]

        objects._objects.update(emptied)
        assert run.http.get(run.at("x")).content == DATA
