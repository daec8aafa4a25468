"""PgQueuer's queries, kept to the messages that are still this worker's.

PgQueuer gives a message to another worker when the first one falls silent, and ends or requeues it by its
id alone. A worker that comes back late would so take the message from the one that works it now.
"""

from datetime import timedelta

from pgqueuer.models import Job, TracebackRecord
from pgqueuer.queries import Queries
from pgqueuer.types import JOB_STATUS


class OwnMessages(Queries):
    """Ends and requeues a message only while it is in the hands of the manager that it was given to."""

    async def log_jobs(self, job_status: list[tuple[Job, JOB_STATUS, TracebackRecord | None]]) -> None:
        """End messages."""
        own = await self._still_own([job for job, _, _ in job_status])
        if kept := [each for each in job_status if each[0].id in own]:
            await super().log_jobs(kept)

    async def retry_job(self, job: Job, delay: timedelta, traceback_record: TracebackRecord | None) -> None:
        """Let a message be picked again later."""
        if await self._still_own([job]):
            await super().retry_job(job, delay, traceback_record)

    async def _still_own(self, jobs: list[Job]) -> set[int]:
        rows = await self.driver.fetch(
            f"""
            SELECT id FROM {self.qbe.settings.queue_table}
            JOIN unnest($1::bigint[], $2::uuid[]) AS ours (id, manager) USING (id)
            WHERE queue_manager_id = manager
            """,  # noqa: S608  PgQueuer's own table
            [job.id for job in jobs],
            [job.queue_manager_id for job in jobs],
        )
        return {int(str(row["id"])) for row in rows}
