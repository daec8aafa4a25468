"""How long somebody must wait after so many failed logins: a pure rule."""

import math
from dataclasses import dataclass

LONGEST_SECONDS = 15 * 60.0
FORGOTTEN_AFTER_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Attempts:
    """Failed logins of a name or from an address, one after the other.

    Attributes:
        failures: How many.
        seconds_ago: How long ago the last one was.
    """

    failures: int
    seconds_ago: float


@dataclass(frozen=True)
class Waiting:
    """A rule.

    Attributes:
        free: How many failures cost no wait.
        halved_after_seconds: After which half of the failures are forgotten; None to keep all for a day.
        first_seconds: The wait after the first failure that costs one.
    """

    free: int
    halved_after_seconds: float | None = None
    first_seconds: float = 1.0

    def seconds_left(self, attempts: Attempts) -> float:
        """What is left to wait before the next attempt; 0 if it may be made now.

        After the free ones it is `first_seconds`, doubling with each failure to a quarter of an hour. A day
        after the last failure all are forgotten.
        """
        ago = max(0.0, attempts.seconds_ago)
        if attempts.failures < self.free or ago >= FORGOTTEN_AFTER_SECONDS:
            return 0.0
        doublings = min(attempts.failures - self.free, 20)
        return max(0.0, min(LONGEST_SECONDS, self.first_seconds * 2.0**doublings) - ago)

    def counted(self, attempts: Attempts) -> int:
        """How many failures there are with one more."""
        ago = max(0.0, attempts.seconds_ago)
        if ago >= FORGOTTEN_AFTER_SECONDS:
            return 1
        if self.halved_after_seconds is None:
            return 1 + attempts.failures
        return 1 + math.ceil(attempts.failures * math.pow(0.5, ago / self.halved_after_seconds))
