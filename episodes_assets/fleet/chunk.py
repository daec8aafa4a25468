"""What a worker does with one message: claim the chunk's jobs, run them, write what came of them."""

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from pgqueuer.errors import RetryRequested

from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.fleet import claims
from episodes_assets.fleet.claims import AsyncConnection, Claim, ClaimedJob, ClaimLost, JobFailure
from episodes_assets.fleet.compute_process import ComputeProcess
from episodes_assets.fleet.messages import ChunkMessage
from episodes_assets.fleet.micro_batch import JobWindow, run_micro_batch

log = logging.getLogger(__name__)

# No fault of a job's. An OSError is not among them: it may be an algorithm's own, for ever.
INFRASTRUCTURE = (DatabaseUnreachable, psycopg.OperationalError, psycopg.InterfaceError)


class JobsWereHeld(Exception):
    """Jobs of the chunk failed for the last time: the message is held as well."""


@dataclass
class ChunkRunner:
    """Runs chunks, one computation at a time.

    While one chunk computes, the next may be claimed and the last one's outcomes written.

    Attributes:
        connection: To `queue` in autocommit mode, as a worker; each statement stands alone.
        input_dsn: The input database, read-only.
        process: Where micro-batches are computed.
        stopping: Set when the worker is to stop: what has not begun is given back.
        worker: This worker's name.
        max_starts: Starts after which a job without outcome is held.
        retry_seconds: Wait before a failed job's next start; doubles each time.
    """

    connection: AsyncConnection
    input_dsn: str
    process: ComputeProcess
    stopping: asyncio.Event
    worker: str
    max_starts: int
    retry_seconds: float

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, message: ChunkMessage, attempts: int) -> None:
        """Work a message.

        Args:
            message: Names the chunk.
            attempts: How often it was tried before; the wait before the next try grows with it.

        Raises:
            RetryRequested: If jobs of the chunk are to be started again later.
            JobsWereHeld: If none is, and some are held.
        """
        claim = await claims.claim_chunk(self.connection, message, self.worker)
        if claim is None:
            return
        delay = timedelta(seconds=min(self.retry_seconds * 2**attempts, 3600))
        try:
            async with self._turn:
                held, failed = await self._run_claimed(claim)
        except ClaimLost:
            log.warning("%s chunk %d: claimed by another worker", claim.day, message.chunk)
            return
        except _Stopping:
            await claims.give_back(self.connection, claim)
            raise RetryRequested(timedelta(0), "the worker stops") from None
        except INFRASTRUCTURE as error:
            log.warning("%s chunk %d: %s; trying again", claim.day, message.chunk, error)
            await claims.give_back(self.connection, claim)
            raise RetryRequested(delay, str(error)) from error
        if failed:
            raise RetryRequested(delay, f"{failed} jobs failed and are started again")
        if held:
            raise JobsWereHeld(f"{held} jobs of {claim.day} are held")

    async def _run_claimed(self, claim: Claim) -> tuple[int, int]:
        """Run a claim's jobs; how many are held, how many are to be started again."""
        fresh = [job for job in claim.jobs if job.starts == 0]
        # A job that was started before and has no outcome may have killed its worker. It runs alone,
        # after those that were only in its company.
        alone = sorted((job for job in claim.jobs if job.starts > 0), key=lambda job: job.starts)
        if fresh:
            failure = await self._start(claim, fresh)
            if failure is not None:
                log.warning(
                    "%s: a batch of %d failed (%s); its jobs run one by one",
                    claim.day,
                    len(fresh),
                    failure.error,
                )
                alone = [*fresh, *alone]
        held = failed = 0
        for job in alone:
            failure = await self._start_alone(claim, job)
            if failure is not None:
                is_held = await claims.record_failure(self.connection, claim, job, failure, self.max_starts)
                held, failed = held + is_held, failed + (not is_held)
                log.warning(
                    "%s epid %d algorithm %d %s: %s",
                    claim.day,
                    job.epid,
                    job.algorithm_id,
                    "is held" if is_held else "failed",
                    failure.error,
                )
        return held, failed

    async def _start_alone(self, claim: Claim, job: ClaimedJob) -> JobFailure | None:
        if job.starts >= self.max_starts:
            return JobFailure(
                error=f"started {job.starts} times without an end: it kills its worker",
                traceback="",
            )
        return await self._start(claim, [job])

    async def _start(self, claim: Claim, jobs: Sequence[ClaimedJob]) -> JobFailure | None:
        """Start jobs together; None when their outcomes are written."""
        if self.stopping.is_set():
            raise _Stopping
        await claims.count_start(self.connection, claim, jobs)
        began = time.perf_counter()
        windows = [JobWindow(job.epid, job.algorithm_id, job.window_start) for job in jobs]
        try:
            outcomes = await self.process.run(run_micro_batch, self.input_dsn, claim.day, windows)
            written = await claims.write_outcomes(self.connection, claim, jobs, outcomes, self.worker)
        except INFRASTRUCTURE:
            await claims.uncount_start(self.connection, claim, jobs)
            raise
        except Exception as error:  # noqa: BLE001  algorithms may raise anything
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            return JobFailure(message, "".join(traceback.format_exception(error)))
        seconds = time.perf_counter() - began
        log.info("%s: %d jobs in %.2f s", claim.day, written, seconds)
        return None


class _Stopping(Exception):
    """The worker is to stop before this."""
