"""Bytes that the store does not have where the index says that they are.

Cases: a store that comes back empty proves nothing, also to a service that starts on it; a copy under the
same key, as of a bucket with versions that was restored, is what is read, and one of another size is not;
what has no copy is lost. The marker of one prefix proves nothing of keys under another.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from threading import enumerate as threads
from typing import Any

from offload.domain.artifact import Location
from offload.errors import ObjectMissingError
from offload.objects.interface import ObjectInfo
from offload.objects.memory import MemoryObjects

DATA = b"0123456789"


class Versioned(MemoryObjects):
    """Objects of which one version is there."""

    version = "first"

    async def put(self, key: str, source: AsyncIterator[bytes], **more: Any) -> Location:
        return replace(await super().put(key, source, **more), version_id=self.version)

    @asynccontextmanager
    async def get(self, location: Location, **which: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        self._refuse_others(location)
        async with super().get(location, **which) as stream:
            yield stream

    def head(self, location: Location) -> ObjectInfo:
        self._refuse_others(location)
        return replace(super().head(location), location=replace(location, version_id=self.version))

    def _refuse_others(self, location: Location) -> None:
        if location.version_id not in {None, self.version}:
            raise ObjectMissingError


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


def test_the_marker_of_another_prefix_loses_nothing(serving: Any, eventually: Callable[..., None]) -> None:
    objects = MemoryObjects()
    with serving(objects=objects, s3_prefix="own") as first:
        run = first.run()
        run.stored("x", DATA)
    objects._objects.clear()

    url = f"sqlite:///{first.database}"
    with serving(objects=objects, s3_prefix="other", database_url=url) as second:
        run = replace(run, http=second.http)
        eventually(lambda: ("memory", "other/.offload-index") in objects._objects)
        answer = run.http.get(run.at("x"))
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:offload:problem:store-unavailable")
        assert [one["state"] for one in run.history()] == ["stored"]


def test_a_copy_of_another_version_is_read(serve: Any, eventually: Callable[..., None]) -> None:
    objects = Versioned()
    service = serve(objects=objects)
    run = service.run()
    run.stored("small", DATA)
    run.stored("large", DATA * 10_000)
    eventually(lambda: ("memory", ".offload-index") in objects._objects)

    objects.version = "copy"

    assert run.http.get(run.at("small")).content == DATA
    assert run.http.get(run.at("small"), headers={"Range": "bytes=2-3"}).content == b"23"
    assert run.http.get(run.at("large")).content == DATA * 10_000
    assert {one["state"] for one in run.history()} == {"stored"}

    [large] = [key for key in objects._objects if key[1].endswith("/large")]
    objects.write(large[1], b"of another size")
    [small] = [key for key in objects._objects if key[1].endswith("/small")]
    del objects._objects[small]
    for name in ("small", "large"):
        assert run.http.get(run.at(name)).json()["type"] == "urn:offload:problem:artifact-lost"
