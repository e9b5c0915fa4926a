"""Why a figure misses its goal on the machine of the last results: what was looked at, and what the limit is.

docs/performance.md shows the note of each figure that misses; `python -m bench.report` renders it again.
"""

_TWO_CORES = (
    "SeaweedFS takes most of the CPU of both cores, straight or through us, so each CPU-second of ours is "
    "time: with 11 of the store's and 2 of ours on two cores the ratio can be some 0.85 at most. Where "
    "sender, service and store have machines of their own, they overlap."
)
_BYTES = (
    "of the CPU of `offload serve` for 1 GiB, SHA-256 takes 31 %, the kernel's receiving and sending 33 "
    "%, copies between buffers 11 %, Python for each chunk 20 %."
)
_SLOW = (
    "an absolute figure, and the machine, shared with others, was slow in these hours: in turn, the version "
    "before took 1.64 to 2.08 s a GiB into the sink, and this one 1.62 to 2.18; some hours earlier it "
    "had been 1.23."
)
_SMALL = (
    "one event loop and the recorder share Python's lock, and no function has more than 5 % of what "
    "holds it: "
    "the request to the store takes 29 %, the recorder 8 %, the line in the log and the metrics 7 %, "
    "the answer "
    "5 %. A shorter switch interval of the lock changed nothing; a second worker process brings little "
    "on two "
    "cores, see [growth](#growth)."
)
_BUSY = (
    "an absolute figure, measured while the machine was slow: some hours earlier half were visible after "
    "20.6 ms and 99 % after 164. With 100 uploads a second, two cores have 20 ms for each, and all programs "
    "together, the senders and who watches among them, wanted more. Patches then wait for each other, and "
    "one brings several pointers."
)
_LISTS = (
    "a patch of a list of some 25 entries takes 9.6 ms of CPU in the API server, one of some 5 entries "
    "4.5 ms: decoding, merging, validating and encoding the whole object are 57 % of its profile. With 50 "
    "entries, 100 patches a second are more than the two cores give, so patches are fewer, and each comes "
    "later."
)

NOTES: dict[str, str] = {
    "big-one": _TWO_CORES,
    "big-one/cpu": f"{_SLOW} {_BYTES[0].upper()}{_BYTES[1:]} Into the sink, which leaves the caches alone, "
    "it is some tenth less.",
    "big-many": "as `big-one`.",
    "big-sink": _BYTES,
    "big-sink/curl": f"curl into the sink neither hashes nor passes on; {_BYTES}",
    "small": "two cores do everything: a request's 2.6 ms of them let some 770 a second through, if "
    "none waited. "
    f"In ours, {_SMALL}",
    "small-sink": _SMALL,
    "small-sqlite": "MLflow's default is no store: its processes write files into a local folder, without a "
    "hash, a row or a sync, and some rounds of it are 2.5 times as fast as others. Ours are in "
    "SeaweedFS, with a "
    "row that is on disk.",
    "batch/sink": "the other side is our own PUT, which has become cheaper; a file of a POST takes 0.3 ms of "
    "CPU: its request to the store, its share of the row and of the answer. 64 files on their way in place "
    "of 32 were 10 % more, and hold twice the memory.",
    "read-big": "each byte is received and sent once more, on a core that SeaweedFS needs too; with "
    "`OFFLOAD_S3_PUBLIC_ENDPOINT_URL` readers are sent to the store.",
    "read-small": "a read takes 0.4 ms of CPU in `offload serve`: of what holds Python's lock, the request "
    "to the store is 34 %, sending the answer 20 %, the line in the log and the metrics 15 %, the look "
    "into the index, shared by all who wait, below 5 %. The peer is one request to a file server in Go.",
    "history": "a page takes 1.85 ms of CPU: reading 101 rows into artifacts 0.67 ms (raw psycopg fetches "
    "them in 0.16 ms), finding the run 0.17 ms, their expiry 0.1 ms, the answer's models and JSON 0.34 ms; "
    "the remainder is the request itself, a change of thread and the log. The peer has no HTTP and no JSON. "
    "Without models, from row to JSON, it would be some 0.4 ms less. More or fewer threads change nothing.",
    "history/p99": "an absolute figure, measured while the machine was slow: raw psycopg read 1,315 "
    "pages a second, and 3,028 some hours earlier, when this was 16.1 ms.",
    "mem-slow": "the bodies themselves are 59 MiB, for each waits whole until it is sent, and 500 "
    "connections "
    "with their requests some 20 MiB. To send each as it comes would hold a connection of the store for two "
    "minutes, and what a store drops meanwhile could not be tried again: the bytes are gone. All 500 "
    "are taken; "
    "where a body past 64 KiB reserved a MiB more than its length, 271 of them were told 503, and the "
    "figure was "
    "64 MiB.",
    "mem-slow/others": "of two cores that are busy with the others, 500 slow senders take 1.1 % of one in "
    "`offload serve`, and some more in the program that sends for them.",
    "idle/cpu": "an absolute figure, measured while the machine was slow: 0.45 % some hours earlier. Of "
    "that, 0.15 % are the ten looks a second of uvicorn's loop at whether to end. 0.3 % are the "
    "controller's: of its Python, 44 % look every few seconds whether bytes are to be erased, 25 % look once "
    "a second whether a run is dirty, should a wake-up have been missed.",
    "visible/kubernetes/p50": _BUSY,
    "visible/kubernetes/p99": "as for half of them.",
    "visible/full-lists/p50": _LISTS,
    "visible/full-lists/p99": "as for half of them.",
}
