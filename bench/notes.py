"""Why a figure misses its goal on the machine of the last results: what was looked at, and what the limit is.

docs/performance.md shows the note of each figure that misses; `python -m bench.report` renders it again.
"""

_TWO_CORES = (
    "SeaweedFS takes 10.8 to 11.5 CPU-seconds for a GiB, straight or through us, and with it both cores "
    "are busy all the time (1 s idle of 15). So each CPU-second of ours is time: with 2.6 of them a GiB "
    "the ratio can be 0.81 at most. Where sender, service and store have machines of their own, they "
    "overlap."
)
_BYTES = (
    "of the CPU of `offload serve` for 1 GiB, SHA-256 takes 31 %, the kernel's receiving and sending 33 "
    "%, copies between buffers 11 %, Python for each chunk 20 %."
)
_SMALL = (
    "a PUT takes 1.0 ms of CPU in `offload serve`, where one event loop and the recorder share Python's "
    "lock; SeaweedFS takes 0.8 ms for it (0.5 ms for the peer's unsigned request), PostgreSQL 0.2 ms. A "
    "second worker process brought 26 % more into the sink, at three times the memory; a shorter switch "
    "interval of Python's lock nothing."
)
_LISTS = (
    "a patch of a list of some 25 entries takes 9.6 ms of CPU in the API server, one of some 5 entries "
    "4.5 ms: decoding, merging, validating and encoding the whole object are 57 % of its profile. With 50 "
    "entries, 100 patches a second are more than the two cores give, so patches are fewer, and each comes "
    "later."
)

NOTES: dict[str, str] = {
    "big-one": _TWO_CORES,
    "big-one/cpu": f"{_BYTES} Into the sink, which leaves the caches alone, it is a fifth to a quarter less.",
    "big-many": "as `big-one`.",
    "big-sink": _BYTES,
    "big-sink/curl": f"curl into the sink neither hashes nor passes on; {_BYTES}",
    "small": _SMALL,
    "small-sink": _SMALL,
    "small-sink/p99": "as `small-sink`.",
    "small-sqlite": "MLflow's default is no store: its processes write files into a local folder, without a "
    "hash, a row or a sync. Ours are in SeaweedFS, with a row that is on disk.",
    "batch/sink": "the other side is our own PUT, which has become cheaper; a file of a POST takes 0.8 ms: "
    "its request to the store, its share of the row and of the answer.",
    "read-big": "each byte is received and sent once more, on a core that SeaweedFS needs too; with "
    "`OFFLOAD_S3_PUBLIC_ENDPOINT_URL` readers are sent to the store.",
    "read-small": "a read takes 2.9 ms: the run and the artifact from the index, on another thread, the "
    "request to the store, the answer. The peer is one request to a file server in Go.",
    "history": "a page takes 3.8 ms over one connection: reading 101 rows 31 %, their expiry and the rest "
    "of the use case 9 %, finding the run 19 %, the answer's models and JSON 16 %; the remainder "
    "is the framework, a change of thread and the log. Raw psycopg only fetches the rows.",
    "history/p99": "as `history`: the readers share one Python process.",
    "visible/full-lists/p50": _LISTS,
    "visible/full-lists/p99": "as for half of them.",
}
