"""PgQueuer's messages: how many there are, and PgQueuer's statements limited to the messages of one worker.

PgQueuer gives a message to another worker when the first one falls silent, and ends or requeues it by its id
alone: a worker that comes back late would end the message of the one that works it now. So each of these
statements names the worker as well. Sending messages is `dispatch`.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from pgqueuer.core.insights import InsightsService
from pgqueuer.models import Job, TracebackRecord
from pgqueuer.queries import Queries
from pgqueuer.types import JOB_STATUS

from episodes_assets.postgres.connect import CONNECT_TIMEOUT_SECONDS, unreachable
from episodes_assets.postgres.session import READ_ONLY, SessionKind, pin_async


@dataclass(frozen=True)
class MessageFigures:
    """Messages by what PgQueuer does with them.

    Attributes:
        waiting: That no worker has picked.
        picked: That a worker has.
        held: Whose chunks have ended with held jobs.
        oldest_seconds: How long the oldest of the waiting ones has waited; None when none waits.
    """

    waiting: int
    picked: int
    held: int
    oldest_seconds: float | None


async def read_message_figures(queue_dsn: str) -> MessageFigures:
    """How many messages there are, and how long the oldest has waited.

    Raises:
        DatabaseUnreachable: If the queue cannot be reached.
        SystemFailure: If it cannot answer for another reason.
    """
    try:
        async with await psycopg.AsyncConnection.connect(
            queue_dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS, application_name="episodes"
        ) as connection:
            await pin_async(connection, SessionKind.PGQUEUER, READ_ONLY)
            # Not its `overview`, which folds finished messages into statistics, and so writes.
            insights = InsightsService(Queries.from_psycopg_connection(connection))
            sizes, ages = await insights.queue_size(), await insights.queue_age()
    except psycopg.Error as error:
        raise unreachable(queue_dsn, error) from error
    counts: Counter[str] = Counter()
    for size in sizes:
        counts[size.status] += size.count
    return MessageFigures(
        waiting=counts["queued"],
        picked=counts["picked"],
        held=counts["failed"],
        oldest_seconds=max((age.oldest_age_seconds for age in ages), default=None),
    )


_FIND_MANAGERS = "SELECT id, queue_manager_id FROM pgqueuer WHERE id = ANY ($1::bigint[])"


class OwnMessages(Queries):
    """PgQueuer's queries, which end or requeue a message only while it is assigned to the same manager."""

    async def log_jobs(self, job_status: list[tuple[Job, JOB_STATUS, TracebackRecord | None]]) -> None:
        """End messages."""
        own = await self._still_own([job for job, _, _ in job_status])
        if kept := [each for each in job_status if each[0].id in own]:
            await super().log_jobs(kept)

    async def retry_job(self, job: Job, delay: timedelta, traceback_record: TracebackRecord | None) -> None:
        """Requeue a message, to be picked again later."""
        if await self._still_own([job]):
            await super().retry_job(job, delay, traceback_record)

    async def _still_own(self, jobs: list[Job]) -> set[int]:
        # In a session with PgQueuer's planner settings, so no join: whatever the statistics say, each message
        # is looked up by its id.
        rows = await self.driver.fetch(_FIND_MANAGERS, [job.id for job in jobs])
        managers = {int(str(row["id"])): row["queue_manager_id"] for row in rows}
        own = [job for job in jobs if (manager := managers.get(job.id)) and manager == job.queue_manager_id]
        return {job.id for job in own}
