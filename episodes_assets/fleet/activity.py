"""What a worker is doing at this moment, as it tells it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    """Jobs that a worker computes together.

    Attributes:
        plan_id: Their plan.
        chunk: Their chunk.
        jobs: How many.
        began: When, by `time.monotonic`.
    """

    plan_id: int
    chunk: int
    jobs: int
    began: float = field(default_factory=time.monotonic)


@dataclass
class Activity:
    """One worker's, from its start to its end, over all of its sessions.

    Attributes:
        work: What it computes; None when it waits for work.
        finished: Jobs whose outcomes it has written.
        began: When it started, by `time.monotonic`.
    """

    work: Work | None = None
    finished: int = 0
    began: float = field(default_factory=time.monotonic)

    @contextmanager
    def working(self, work: Work) -> Iterator[None]:
        """Say that this is being computed while the block lasts."""
        self.work = work
        try:
            yield
        finally:
            self.work = None
