"""The schema that the API server serves now, as everyone who projects sees it."""

import threading

import structlog

from offload import metrics
from offload.cluster.interface import Cluster
from offload.domain.pointers import StatusSchema, read_schema
from offload.domain.projection import Caps, effective_cap
from offload.errors import ClusterUnavailableError, OffloadError, PointersNotKeptError

FIRST_SECONDS = 1.0
"""How long who needs a schema waits where another thread reads the first one."""

log = structlog.get_logger()


class ServedSchema:
    """Keeps what was last read; threads share it."""

    def __init__(self, cluster: Cluster, *, caps: Caps) -> None:
        """`caps` are only told beside the schema's own in the log."""
        self._cluster, self._caps = cluster, caps
        self._lock = threading.Lock()
        self._schema: StatusSchema | None = None
        self._generation = 0
        self._doubted = threading.Event()
        self._problem: OffloadError | None = ClusterUnavailableError("the AgentRun schema was not read yet")

    @property
    def generation(self) -> int:
        """Changes where status must be looked at anew: a schema is usable that was not, or another one is."""
        return self._generation

    @property
    def doubted(self) -> bool:
        """Whether something hints that what was read is old."""
        return self._doubted.is_set()

    def doubt(self) -> None:
        """Something hints that another schema is served: whoever refreshes should do so now."""
        self._doubted.set()

    @property
    def problem(self) -> str | None:
        """Why nothing can be published; None where something can."""
        return str(self._problem) if self._schema is None else None

    def current(self) -> StatusSchema:
        """The schema as last read.

        Raises:
            PointersNotKeptError: it can keep no pointers.
            ClusterUnavailableError: it could not be read yet.
        """
        if self._schema is None:
            self.refresh()
        if self._schema is None:
            raise self._problem or ClusterUnavailableError
        return self._schema

    def refresh(self) -> None:
        """Read it again; while the API server is away the one last read stays."""
        known = self._schema
        if not self._lock.acquire(timeout=0 if known else FIRST_SECONDS):
            return  # another thread reads it now, and waiting for it would only make a queue
        try:
            if self._schema is known:  # else it was read while this thread waited
                self._refresh()
        finally:
            self._lock.release()

    def _refresh(self) -> None:
        self._doubted.clear()
        try:
            schema = read_schema(self._cluster.status_schema())
        except PointersNotKeptError as error:
            if str(error) != str(self._problem):
                log.error("schema.unusable", problem=str(error))  # noqa: TRY400 - a schema is no bug of ours
            self._schema, self._problem = None, error
            metrics.SCHEMA_USABLE.set(0)
        except OffloadError as error:
            away = isinstance(error, ClusterUnavailableError)
            self._problem = error if away else ClusterUnavailableError(str(error))
            log.warning("schema.unread", problem=str(error))
        else:
            if self._schema is None or self._schema.digest != schema.digest:
                self._tell(schema)
                self._generation += 1
            self._schema, self._problem = schema, None
            metrics.SCHEMA_USABLE.set(1)

    def _tell(self, schema: StatusSchema) -> None:
        cap = effective_cap(self._caps, schema)
        log.info("schema.read", native=schema.native, legacy=schema.legacy, cap=cap)
        if cap < self._caps.count:
            log.warning("schema.lowers_cap", setting=self._caps.count, served=cap)
        if not schema.tells:
            log.warning("schema.keeps_no_conditions", problem="status cannot say what it leaves out")
