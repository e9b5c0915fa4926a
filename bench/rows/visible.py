"""From the acknowledgement to the pointer in status; `bench.cluster` measures it."""

from collections.abc import Iterator
from importlib import import_module

from bench.effort import Effort
from bench.measure import Figure
from bench.servers import Servers


def visible(_servers: Servers, effort: Effort) -> Iterator[Figure]:
    for row in import_module("bench.cluster").visible(rounds=1 if effort.quick else 3):
        known = ("name", "ours", "peer", "peer_name", "ratio", "spread", "config")
        yield Figure(**{field: row[field] for field in known})
