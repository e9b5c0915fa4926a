"""Every metric, in Prometheus' default registry. Names end in their unit."""

from prometheus_client import Counter, Gauge, Histogram

PUBLISHES = Counter("offload_publishes_total", "Publishes by outcome.", ["outcome"])
PUBLISH_FAILURES = Counter("offload_publish_failures_total", "Failed publishes by error type.", ["reason"])
PUBLISH_CONFLICTS = Counter(
    "offload_publish_conflicts_total", "Status writes refused since the AgentRun had changed."
)
PUBLISH_OBSERVED_DIFFERENCES = Counter(
    "offload_publish_observed_differences_total", "Patches that observe mode would have sent."
)
PUBLISH_LEFT_OUT = Counter(
    "offload_publish_left_out_artifacts_total",
    "Artifacts left out of a status that was written, by reason, each time it was written.",
    ["reason"],
)
ADOPTED = Counter("offload_adopted_artifacts_total", "Fields of others stored and replaced by a pointer.")
OLDEST_DIRTY = Gauge(
    "offload_oldest_dirty_run_age_seconds", "How long the run that waits longest has waited to be published."
)
WATCH_AGE = Gauge("offload_watch_age_seconds", "Time since the AgentRun watch was last known to be current.")
WATCH_REFUSED = Gauge(
    "offload_watch_refused_namespaces",
    "Namespaces whose AgentRuns may not be followed; 1 where all are followed as one.",
)
SCHEMA_USABLE = Gauge(
    "offload_schema_usable", "1 where the served AgentRun schema keeps pointers; nothing is published else."
)
LARGE_STATUS = Counter(
    "offload_large_statuses_seen_total", "Seen AgentRun statuses of more than 256 KiB as compact JSON."
)
WATCH_REPAIRS = Counter(
    "offload_watch_repairs_total",
    "Runs marked for publishing since another writer changed our part of status.",
)
LENGTHS_ADOPTED = Counter(
    "offload_lengths_adopted_total",
    "Runs whose list is kept shorter since another writer cut it to one length three times.",
)
LOOP_FAILURES = Counter(
    "offload_loop_failures_total", "Controller loops that failed and restarted.", ["loop"]
)

REQUESTS = Counter(
    "offload_http_requests_total",
    "HTTP requests by route template, method and status.",
    ["route", "method", "status"],
)
REQUEST_SECONDS = Histogram(
    "offload_http_request_duration_seconds", "Time to the whole answer.", ["route", "method"]
)
INGESTS = Counter(
    "offload_ingest_artifacts_total",
    "Uploads by outcome: created, same, or the type of the problem.",
    ["outcome"],
)
INGEST_BYTES = Counter(
    "offload_ingest_bytes_total", "Bytes of acknowledged uploads, by outcome.", ["outcome"]
)
PART_USABLE = Gauge(
    "offload_part_usable",
    "1 where the part answered when `/readyz` last asked: index, store, cluster.",
    ["part"],
    multiprocess_mode="livemostrecent",
)
UPLOADS_RUNNING = Gauge("offload_uploads_running", "Uploads in progress.", multiprocess_mode="livesum")
BYTES_IN_FLIGHT = Gauge(
    "offload_upload_memory_reserved_bytes", "Bytes of the upload budget in use.", multiprocess_mode="livesum"
)
BUDGET = Gauge("offload_upload_memory_budget_bytes", "The upload budget.", multiprocess_mode="livesum")
STORE_SECONDS = Histogram(
    "offload_store_operation_duration_seconds",
    "Requests to the object store by what they do; `put`: a whole artifact.",
    ["operation"],
)
INDEX_SECONDS = Histogram(
    "offload_index_operation_duration_seconds",
    "Transactions, read or write; `record`: an artifact's wait for its commit.",
    ["operation"],
)
ORPHANS_REMOVED = Counter(
    "offload_orphans_removed_total", "Objects and open uploads without a row that were removed."
)
SWEEPS = Counter("offload_sweeps_total", "Sweeps by outcome.", ["outcome"])
SWEEP_DELETIONS = Counter(
    "offload_sweep_deletions_total", "Artifacts that got a tombstone, by retention rule.", ["rule"]
)
SWEEP_BACKLOG = Gauge(
    "offload_sweep_backlog_artifacts", "Tombstones whose bytes are not deleted yet, when last looked."
)
