"""Every metric, in Prometheus' default registry. Names end in their unit."""

from prometheus_client import Counter, Gauge

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
LARGE_STATUS = Counter(
    "offload_large_statuses_seen_total", "Seen AgentRun statuses of more than 256 KiB as compact JSON."
)
WATCH_REPAIRS = Counter(
    "offload_watch_repairs_total",
    "Runs marked for publishing since another writer changed our part of status.",
)
LOOP_FAILURES = Counter(
    "offload_loop_failures_total", "Controller loops that failed and restarted.", ["loop"]
)
