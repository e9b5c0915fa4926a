"""Why a figure misses its goal on the machine of the last results: what was looked at, and what the limit is.

docs/performance.md shows the note of each figure that misses; `python -m bench.report` renders it again.
"""

_TWO_CORES = (
    "SeaweedFS takes most of the CPU of both cores, straight or through us, so each CPU-second of ours is "
    "time: with 10 of the store's and 2 of ours the ratio is some 0.85 where both cores are busy "
    "throughout. One body leaves them some rest, 8 at once leave none. Where sender, service and store have "
    "machines of their own, they overlap."
)
_BYTES = (
    "of the CPU of `offload serve` for 1 GiB, SHA-256 takes 31 %, the kernel's receiving and sending 33 "
    "%, copies between buffers 11 %, Python for each chunk 20 %."
)
_SHARED = (
    "an absolute figure, and the machine is shared with others: within days, the same code took from 1.23 "
    "to 2.2 s a GiB into the sink."
)
_SMALL = (
    "one event loop and the recorder share Python's lock. Of what holds it, the request to the store is 29 "
    "%, the recorder 8 %, the line in the log and the metrics 7 %, the answer 5 %; the remainder is spread, "
    "and no single function has more than 5 %. A shorter switch interval of the lock changed nothing; a "
    "second worker process brings little on two cores, see [growth](#growth)."
)
_BUSY = (
    "an absolute figure, and the machine was slow: on a faster day half were visible after 20.6 ms and 99 % "
    "after 164. With 100 uploads a second, two cores have 20 ms for each. The servers take 18.5 of them "
    "here, and sender and watcher the remainder. Patches then wait for each other, and one brings several "
    "pointers."
)
_LISTS = (
    "a patch of a list of some 25 entries takes 9.6 ms of CPU in the API server, one of some 5 entries "
    "4.5 ms: decoding, merging, validating and encoding the whole object are 57 % of its profile. With 50 "
    "entries, 100 patches a second are more than the two cores give, so patches are fewer, and each comes "
    "later."
)

NOTES: dict[str, str] = {
    "big-one": _TWO_CORES,
    "big-one/cpu": f"{_SHARED} {_BYTES[0].upper()}{_BYTES[1:]} Into the sink, which leaves the caches alone, "
    "it is some tenth less.",
    "big-many": _TWO_CORES,
    "big-sink": _BYTES,
    "big-sink/curl": f"curl into the sink neither hashes nor passes on; {_BYTES}",
    "small": "two cores do everything: the 2.8 ms of them that the servers take for a request let some 730 a "
    f"second through, if the sender took nothing and none waited. In ours, {_SMALL}",
    "small-sink": _SMALL,
    "small-sqlite": "MLflow's default is no store: its processes write files into a local folder, without a "
    "hash, a row or a sync, and some rounds of it are 2.5 times as fast as others. Ours are in SeaweedFS, "
    "with a row that is on disk.",
    "batch/sink": "the other side is our own PUT over 8 connections, which is cheap itself; a file of a POST "
    "takes 0.3 ms of CPU: its request to the store, its share of the row and of the answer. 64 files on "
    "their way in place of 32 were 10 % more, and hold twice the memory.",
    "read-big": "each byte is received and sent once more, on a core that SeaweedFS needs too; with "
    "`OFFLOAD_S3_PUBLIC_ENDPOINT_URL` readers are sent to the store.",
    "read-small": "of what holds Python's lock in `offload serve` for a read, the request "
    "to the store is 34 %, sending the answer 20 %, the line in the log and the metrics 15 %, the look "
    "into the index, shared by all who wait, below 5 %. The peer is one request to a file server in Go.",
    "history": "of a page's CPU, reading 101 rows into artifacts is 36 % (raw psycopg's fetching them would "
    "be 9 %), finding the run 9 %, their expiry 5 %, the answer's models and JSON 18 %; the remainder is the "
    "request itself, a change of thread and the log. The peer has no HTTP and no JSON. Without models, from "
    "row to JSON, a page would be a fifth cheaper. More or fewer threads change nothing.",
    "history/p99": "an absolute figure, and the machine was slow: on a day when raw psycopg read 3,028 pages "
    "a second, this was 16.1 ms.",
    "mem-slow": "the bodies themselves are 59 MiB, for each waits whole until it is sent, and 500 "
    "connections with their requests some 20 MiB. To send each as it comes would hold a connection of the "
    "store for two minutes, and what a store drops meanwhile could not be tried again: the bytes are gone. "
    "All 500 are taken; to hold fewer, some would have to be told 503.",
    "mem-slow/others": "of two cores that are busy with the others, 500 slow senders take 1.1 % of one in "
    "`offload serve`, and some more in the program that sends for them.",
    "idle/cpu": "an absolute figure, and the machine was slow: 0.45 % on a faster day. Of "
    "that, 0.15 % are the ten looks a second of uvicorn's loop at whether to end. 0.3 % are the "
    "controller's: of its Python, 44 % look every few seconds whether bytes are to be erased, 25 % look once "
    "a second whether a run is dirty, should a wake-up have been missed.",
    "visible/kubernetes/p50": _BUSY,
    "visible/kubernetes/p99": "as for half of them.",
    "visible/full-lists/p50": _LISTS,
    "visible/full-lists/p99": "as for half of them.",
}
