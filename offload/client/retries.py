"""When to send again, and how long to wait before."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_DELAY = 0.25
LONGEST_DELAY = 15.0


@dataclass(slots=True)
class Patience:
    """How long failures are borne: no attempt begins later than `total` seconds after the first failure."""

    total: float
    failures: int = 0
    first_failure: float | None = None

    def delay(self, *, now: float, asked: float | None) -> float | None:
        """Count a failure at `now` (monotonic seconds); the seconds to wait, or None to give up.

        `asked` is what the server's Retry-After names: never less than that, and a bit more, so that
        those who were turned away together do not come back together.
        """
        if self.first_failure is None:
            self.first_failure = now
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**self.failures)
        self.failures += 1
        spread = random.uniform(0.5, 1) * ceiling  # noqa: S311 - jitter, not a secret
        wait = spread if asked is None else asked + spread / 4
        return wait if now + wait - self.first_failure <= self.total else None


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """The seconds that a Retry-After field asks for (RFC 9110, section 10.2.3); None where it is not one."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
