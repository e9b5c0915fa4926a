"""Settings: which are risky, and which files they name cannot be used."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from offload.domain.limits import STATUS_ENTRIES
from offload.domain.quantities import format_size
from offload.services.doctor.findings import Check, Verdict, ok, warning

PART = "settings"
_STATUS_BYTES_MANY = 256 * 1024


@dataclass(frozen=True, slots=True)
class SettingsPart:
    """The settings that can be risky, and what raises `ConfigError` where a file is not usable."""

    auth: str
    tokens_named: bool
    check_access: Callable[[], object]
    retention_named: bool
    check_retention: Callable[[], object]
    publish: str
    artifacts_max: int
    artifacts_strict: bool
    status_max_bytes: int
    sqlite: bool

    def checks(self) -> Sequence[Check]:
        return [
            Check(PART, "access", self._access, "offload token create; OFFLOAD_TOKENS_FILE"),
            Check(PART, "retention", self._retention, "offload retention check FILE"),
            Check(PART, "publish", self._publish, ""),
            Check(PART, "limits", self._limits, ""),
            Check(PART, "database", self._database, ""),
        ]

    def _access(self) -> Iterator[Verdict]:
        if self.auth == "tokens" and not self.tokens_named:
            yield warning(
                "no token file is named: the controller needs none, `offload serve` does not start",
                "for `offload serve`: OFFLOAD_TOKENS_FILE, with an entry of `offload token create`",
            )
            return
        self.check_access()
        if self.auth == "none":
            yield warning(
                "OFFLOAD_AUTH=none: everyone who reaches this port may do everything",
                "OFFLOAD_AUTH=tokens and OFFLOAD_TOKENS_FILE, wherever others share this host",
            )
        else:
            yield ok("tokens, and their file is usable")

    def _retention(self) -> Iterator[Verdict]:
        self.check_retention()
        if self.retention_named:
            yield ok("the rules are usable")
        else:
            yield warning(
                "no rules: everything is kept for ever",
                "write rules, set OFFLOAD_RETENTION_FILE, look at `offload retention plan`",
            )

    def _publish(self) -> Iterator[Verdict]:
        if self.publish == "on":
            yield ok("on")
        else:
            yield warning(f"{self.publish}: no status is written", "OFFLOAD_PUBLISH=on for the controller")

    def _limits(self) -> Iterator[Verdict]:
        mode = "an excess fails the run" if self.artifacts_strict else "the oldest are left out"
        found = f"{self.artifacts_max} entries, {format_size(self.status_max_bytes)}; {mode}"
        usual = f"JANGAR_AGENTRUN_ARTIFACTS_MAX={STATUS_ENTRIES}"
        if self.artifacts_max > STATUS_ENTRIES:
            yield warning(
                f"{found}; every watcher pays for long lists", f"{usual}, unless it is the way back"
            )
        elif self.artifacts_max == 0:
            yield warning(f"{found}: status lists nothing", usual)
        elif self.status_max_bytes > _STATUS_BYTES_MANY:
            yield warning(f"{found}; etcd refuses requests of 1.5 MiB", "OFFLOAD_STATUS_MAX_BYTES=64KiB")
        else:
            yield ok(found)

    def _database(self) -> Iterator[Verdict]:
        yield ok("SQLite: one host, one serve worker, one controller" if self.sqlite else "PostgreSQL")
