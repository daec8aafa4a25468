"""What a worker does with one message: claim the chunk's jobs, run them, write what came of them."""

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import psycopg
from pgqueuer.errors import RetryRequested

from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.fleet import claims
from episodes_assets.fleet.claims import AsyncConnection, Claim, ClaimedJob, ClaimLost, JobFailure
from episodes_assets.fleet.compute_process import ComputationTooLong, ComputeProcess
from episodes_assets.fleet.messages import ChunkMessage
from episodes_assets.fleet.micro_batch import JobWindows, run_micro_batch

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
            await claims.give_back(self.connection, claim)
        except ClaimLost:
            log.warning("%s chunk %d: claimed by another worker", claim.day, message.chunk)
            return
        except _Stopping:
            await claims.give_back(self.connection, claim)
            raise RetryRequested(timedelta(0), "the worker stops") from None
        except INFRASTRUCTURE as error:
            log.warning("%s chunk %d: %s; trying again", claim.day, message.chunk, error)
            with suppress(*INFRASTRUCTURE):  # the next claim takes it anyway
                await claims.give_back(self.connection, claim)
            raise RetryRequested(delay, str(error)) from error
        if failed:
            raise RetryRequested(delay, f"{failed} jobs failed and are started again")
        if held:
            raise JobsWereHeld(f"{held} jobs of {claim.day} are held")

    async def _run_claimed(self, claim: Claim) -> tuple[int, int]:
        """Run a claim's jobs; how many are held, how many are to be started again."""
        held = failed = 0
        for group in groups_to_start(claim):
            for job, failure in await self._run_group(claim, group):
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

    async def _run_group(
        self, claim: Claim, group: Sequence[ClaimedJob]
    ) -> list[tuple[ClaimedJob, JobFailure]]:
        """Run jobs together; when that fails, in ever smaller groups, until those to blame stand alone."""
        if len(group) == 1 and group[0].starts >= self.max_starts:
            error = f"started {group[0].starts} times without an end: it kills its worker"
            return [(group[0], JobFailure(error, traceback=""))]
        failure = await self._start(claim, group)
        if failure is None:
            return []
        if len(group) == 1:
            return [(group[0], failure)]
        log.warning(
            "%s: a batch of %d failed (%s); running it in parts", claim.day, len(group), failure.error
        )
        # Each part that hangs takes the whole time limit, so there halving would cost more than it saves.
        size = 1 if failure.is_time_limit else (len(group) + 1) // 2
        failures = []
        for part in _parts(group, size):
            failures += await self._run_group(claim, part)
        return failures

    async def _start(self, claim: Claim, jobs: Sequence[ClaimedJob]) -> JobFailure | None:
        """Start jobs together; None when their outcomes are written."""
        if self.stopping.is_set():
            raise _Stopping
        await claims.count_start(self.connection, claim, jobs)
        began = time.perf_counter()
        try:
            outcomes = await self.process.run(run_micro_batch, self.input_dsn, claim.day, job_windows(jobs))
            await claims.write_outcomes(self.connection, claim, jobs, outcomes, self.worker)
        except ClaimLost:
            raise
        except INFRASTRUCTURE:
            await claims.uncount_start(self.connection, claim, jobs)
            raise
        except Exception as error:  # noqa: BLE001  algorithms may raise anything
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            trace = "".join(traceback.format_exception(error))
            return JobFailure(message, trace, is_time_limit=isinstance(error, ComputationTooLong))
        log.info("%s: %d jobs in %.2f s", claim.day, len(jobs), time.perf_counter() - began)
        return None


def groups_to_start(claim: Claim) -> Iterator[Sequence[ClaimedJob]]:
    """How to start a claim's jobs, given how often that has gone wrong.

    A chunk that was started before and is open may hold a job that killed its worker. So it starts the
    second time in small groups and after that job by job, those that were alone before at the end: the
    innocent get through, and the guilty one is counted by itself.
    """
    jobs = sorted(claim.jobs, key=lambda job: job.starts)
    size = {0: len(jobs), 1: math.isqrt(len(jobs))}.get(claim.starts, 1)
    fresh = [job for job in jobs if job.starts == 0]
    yield from _parts(fresh, max(size, 1))
    yield from _parts(jobs[len(fresh) :], 1)


def _parts(jobs: Sequence[ClaimedJob], size: int) -> Iterator[Sequence[ClaimedJob]]:
    for begin in range(0, len(jobs), size):
        yield jobs[begin : begin + size]


def job_windows(jobs: Sequence[ClaimedJob]) -> JobWindows:
    """What a micro-batch is told of its jobs."""
    return JobWindows(
        epid=np.array([job.epid for job in jobs], dtype=np.int64),
        algorithm_id=np.array([job.algorithm_id for job in jobs], dtype=np.int16),
        window_start=np.array([job.window_start for job in jobs], dtype="datetime64[D]"),
    )


class _Stopping(Exception):
    """The worker is to stop before this."""
