"""A controller as a widely installed chart runs it, in a process of its own.

It watches the AgentRuns of a namespace, and merge-patches the whole status of each, several times a second,
with the resourceVersion that it has just read. What it writes can be an older view. It rewrites each entry to
`name`, `key`, `path` and `url`, trims white space, drops entries without a name, and has a cap of its own.

    python -m tests.kube.installed_controller NAMESPACE ROLE [setting=value ...]

    every=0.2    seconds between two writes of a run
    stale=0      how old the view is that it writes, in seconds; `first`: the first that it saw of the run
    max=50       its own cap
    keeps=newest what its cap leaves: the newest, or the oldest
    strict=false whether more entries than its cap fail the run
    phase=       the phase that it writes, where it is to write one
    entry=       the name of an entry of its own that it sees to

It says `ready` as it begins, and goes on until it is killed. What it did is in the audit log.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

GROUP = ("agents.proompteng.ai", "v1alpha1")
KEPT = ("name", "key", "path", "url")
LIMITED, EXCEEDED = "ArtifactsLimited", "ArtifactsLimitExceeded"
SETTINGS = {
    "every": "0.2",
    "stale": "0",
    "max": "50",
    "keeps": "newest",
    "strict": "false",
    "phase": "",
    "entry": "",
}


class InstalledController:
    def __init__(self, kubeconfig: str, namespace: str, settings: Mapping[str, str]) -> None:
        connection = config.new_client_from_config(kubeconfig)
        connection.set_default_header("Content-Type", "application/merge-patch+json")
        self._api = client.CustomObjectsApi(connection)
        self._namespace, self._settings = namespace, {**SETTINGS, **settings}
        self._seen: dict[str, deque[tuple[float, dict[str, Any]]]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def watch(self) -> None:
        """Keep every status that was seen of every run, with the time."""
        for event in watch.Watch().stream(
            self._api.list_namespaced_custom_object, *GROUP, self._namespace, "agentruns"
        ):
            run = event["object"]
            name, status = run["metadata"]["name"], run.get("status", {})
            with self._lock:
                if event["type"] == "DELETED":
                    self._seen.pop(name, None)
                else:
                    self._seen.setdefault(name, deque(maxlen=200)).append((time.monotonic(), status))

    def write(self) -> None:
        """Write each run's status, for ever."""
        while True:
            began = time.monotonic()
            with self._lock:
                names = list(self._seen)
            for name in names:
                try:
                    self._write(name)
                except ApiException as error:
                    if error.status not in {404, 409}:
                        raise
            time.sleep(max(0.0, float(self._settings["every"]) - (time.monotonic() - began)))

    def _write(self, name: str) -> None:
        place = (*GROUP, self._namespace, "agentruns", name)
        read = self._api.get_namespaced_custom_object(*place)
        metadata = {"resourceVersion": read["metadata"]["resourceVersion"]}
        status = self._status(self._view(name, read.get("status", {})))
        self._api.patch_namespaced_custom_object_status(*place, {"metadata": metadata, "status": status})

    def _view(self, name: str, latest: dict[str, Any]) -> dict[str, Any]:
        stale = self._settings["stale"]
        with self._lock:
            seen = list(self._seen.get(name, ()))
        if stale == "0" or not seen:
            return latest
        if stale == "first":
            return seen[0][1]
        old = [status for at, status in seen if time.monotonic() - at >= float(stale)]
        return old[-1] if old else seen[0][1]

    def _status(self, view: dict[str, Any]) -> dict[str, Any]:
        entries = [rewritten(entry) for entry in view.get("artifacts", ())]
        entries = [entry for entry in entries if entry.get("name")]
        own = self._settings["entry"]
        if own and own not in [entry["name"] for entry in entries]:
            entries.append({"name": own, "url": f"https://controller.example/{own}"})
        most, strict = int(self._settings["max"]), self._settings["strict"] == "true"
        over = len(entries) > most
        if over:
            entries = entries[-most:] if self._settings["keeps"] == "newest" else entries[:most]
        self._count += 1
        status = {**view, "artifacts": entries, "observedGeneration": self._count}
        if self._settings["phase"]:
            status["phase"] = self._settings["phase"]
        if over and strict:
            status |= {"phase": "Failed", "reason": EXCEEDED}
        conditions = view.get("conditions", [])
        status["conditions"] = with_condition(conditions, EXCEEDED if strict else LIMITED, over)
        return status


def rewritten(entry: Mapping[str, Any]) -> dict[str, Any]:
    found = {field: entry[field] for field in KEPT if field in entry}
    return {field: value.strip() if isinstance(value, str) else value for field, value in found.items()}


def with_condition(conditions: list[dict[str, Any]], type_: str, over: bool) -> list[dict[str, Any]]:
    others = [one for one in conditions if one["type"] != type_]
    before = next((one for one in conditions if one["type"] == type_), None)
    status = "True" if over else "False"
    if before and before["status"] == status:
        return conditions
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    condition = {
        "type": type_,
        "status": status,
        "reason": "Limit",
        "message": "its own",
        "lastTransitionTime": now,
    }
    return [*others, condition]


def main(kubeconfig: str, namespace: str, *settings: str) -> None:
    controller = InstalledController(
        kubeconfig, namespace, dict(setting.partition("=")[::2] for setting in settings)
    )
    threading.Thread(target=controller.watch, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    controller.write()


if __name__ == "__main__":
    main(*sys.argv[1:])
