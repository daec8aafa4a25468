"""What a worker does with one message: claim the chunk's jobs, start them in groups, write their outcomes.

Jobs of a claim that start together are one micro-batch. A batch that fails is halved until the jobs that fail
are alone (bisection); jobs that cannot start on this worker fail or go back to the queue. The statements are
`ledger/claims.py`, computing is `compute`.
"""

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import psycopg
from pgqueuer.errors import RetryRequested

from episodes_assets import failures
from episodes_assets.algorithms.compute import AlgorithmFailed
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.errors import EpisodesError, LakeMissing
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import claims
from episodes_assets.ledger.dispatch import ChunkMessage
from episodes_assets.ledger.workers import Activity, Work, may_start_elsewhere, name_worker
from episodes_assets.worker import compute, outage
from episodes_assets.worker.outage import CountedStart, StartsToUncount
from episodes_assets.worker.profiler import Profiler


def split_unavailable(
    jobs: Sequence[claims.ClaimedJob], failures: Mapping[int, claims.JobFailure]
) -> tuple[list[claims.ClaimedJob], list[tuple[list[claims.ClaimedJob], claims.JobFailure]]]:
    """Jobs that can start; and, with the reason, those of each algorithm that cannot be imported."""
    runnable = [job for job in jobs if job.algorithm_id not in failures]
    return runnable, [
        ([job for job in jobs if job.algorithm_id == algorithm_id], failure)
        for algorithm_id, failure in failures.items()
    ]


def groups_to_start(starts: int, jobs: Sequence[claims.ClaimedJob]) -> Iterator[Sequence[claims.ClaimedJob]]:
    """How to start a claim's jobs, given how often they were started together.

    A chunk that was started before and is open may hold a job that killed its worker. So it starts the
    second time in small groups and after that job by job, those that were alone before at the end: so the
    other jobs succeed, and only starts of the job that kills are counted against it.
    """
    jobs = sorted(jobs, key=lambda job: job.starts)
    size = {0: len(jobs), 1: math.isqrt(len(jobs))}.get(starts, 1)
    fresh = [job for job in jobs if job.starts == 0]
    yield from parts(fresh, max(size, 1))
    yield from parts(jobs[len(fresh) :], 1)


def parts(jobs: Sequence[claims.ClaimedJob], size: int) -> Iterator[Sequence[claims.ClaimedJob]]:
    """Jobs in groups of at most `size`."""
    for begin in range(0, len(jobs), size):
        yield jobs[begin : begin + size]


def job_windows(jobs: Sequence[claims.ClaimedJob]) -> compute.JobWindows:
    """The columns of jobs that a micro-batch needs."""
    return compute.JobWindows(
        epid=np.array([job.epid for job in jobs], dtype=np.int64),
        algorithm_id=np.array([job.algorithm_id for job in jobs], dtype=np.int16),
        window_start=np.array([job.window_start for job in jobs], dtype="datetime64[D]"),
    )


log = logging.getLogger(__name__)
LONGEST_PAUSE_SECONDS = 3600.0


class JobsWereHeld(Exception):
    """Jobs of the chunk are held, so PgQueuer is to hold the message as well."""


@dataclass(frozen=True)
class ChunkRules:
    """How a worker treats its chunks.

    Attributes:
        worker: This worker's name.
        lake_url: The lake that viewings are read from.
        limits: How long jobs may take.
        max_starts: Starts after which a job without outcome is held.
        retry_seconds: Wait before a failed job's next start; doubles each time.
    """

    worker: str
    lake_url: str
    limits: compute.TimeLimits
    max_starts: int
    retry_seconds: float


@dataclass
class _Unfinished:
    """What came of a claim's jobs beside those that have succeeded.

    Attributes:
        held: How many are held.
        failed: Those that failed and are to be started again.
        left: Those whose algorithm does not import here, and may elsewhere.
        unknown: Those whose algorithm this release does not know.
        is_any_started: Whether any was started.
    """

    held: int = 0
    failed: list[claims.ClaimedJob] = field(default_factory=list)
    left: list[claims.ClaimedJob] = field(default_factory=list)
    unknown: list[claims.ClaimedJob] = field(default_factory=list)
    is_any_started: bool = False


class ChunkRunner:
    """Runs chunks in one session with the queue, one computation at a time.

    While one chunk computes, the next may be claimed and the last one's outcomes written.

    Args:
        ledger: The session's connection to it.
        process: Where micro-batches are computed.
        rules: How chunks are treated.
        activity: Set to what is computed.
        stopping: Set when the worker is to stop: claims of jobs that have not started are released.
        over: Set by the runner when the session must end.
        profiler: Takes the profiles that are wanted; None to take none.
        to_uncount: Starts that no job is to blame for, shared by the worker's sessions.

    Attributes:
        refusal: Why the worker may not work in this queue any more; None while it may.
    """

    def __init__(
        self,
        ledger: claims.GuardedLedger,
        process: compute.ComputeProcess,
        rules: ChunkRules,
        activity: Activity,
        stopping: asyncio.Event,
        over: asyncio.Event,
        profiler: Profiler | None = None,
        to_uncount: StartsToUncount | None = None,
    ) -> None:
        self.refusal: EpisodesError | None = None
        self._ledger = ledger
        self._process = process
        self._rules = rules
        self._activity = activity
        self._profiler = profiler
        self._stopping = stopping
        self._over = over
        self._to_uncount = to_uncount or StartsToUncount()
        self._pauses = outage.Pauses(rules.retry_seconds, over)
        self._compute_lock = asyncio.Lock()
        self._imports = compute.AlgorithmImports(process, rules.limits.batch)

    async def run(self, message: ChunkMessage, attempts: int) -> None:
        """Work a message.

        Args:
            message: Names the chunk.
            attempts: How often it was tried before; the wait after an outage grows with it.

        Raises:
            RetryRequested: If jobs of the chunk are to be started again later.
            JobsWereHeld: If none is, and some are held.
        """
        async with self._pauses.turn():
            await self._work(message, attempts)

    async def _work(self, message: ChunkMessage, attempts: int) -> None:
        claim: claims.Claim | None = None
        try:
            await self._require_admission()
            claim = await self._ledger.execute(
                claims.claim_chunk(self._ledger.connection, message, self._rules.worker)
            )
            if claim is None:
                return
            async with self._compute_lock:
                came = await self._run_claimed(claim)
            await self._release(claim)
        except claims.ClaimLost:
            log.warning("plan %d chunk %d: the claim is gone", message.plan_id, message.chunk)
            return
        except _Stopping:
            await self._release(claim)
            raise RetryRequested(timedelta(0), "the worker stops") from None
        except claims.INFRASTRUCTURE as error:
            reason = str(failures.explain(error, "the queue") or failures.name_defect(error))
            log.warning("plan %d chunk %d: %s; trying again", message.plan_id, message.chunk, reason)
            with suppress(*claims.INFRASTRUCTURE):  # the next claim replaces it anyway
                await self._release(claim)
            if self._ledger.connection.closed:
                self._over.set()
            elif isinstance(error, psycopg.Error) or await outage.is_lake_away(self._rules.lake_url):
                self._pauses.lengthen()
            pause = self._pause(attempts, outage.LONGEST_PAUSE_SECONDS)
            raise RetryRequested(pause, reason) from error
        except RetryRequested:
            raise
        except Exception as error:
            # PgQueuer holds the message and logs nothing; as it is sent again, this would repeat unseen.
            cause = failures.explain(error, "the queue")
            log.error(  # noqa: TRY400  a known cause needs no traceback
                "plan %d chunk %d: %s",
                message.plan_id,
                message.chunk,
                cause or "an unforeseen error",
                exc_info=cause is None,
            )
            with suppress(Exception):  # the next claim replaces it anyway
                await self._release(claim)
            raise
        self._end(claim, came, attempts)

    def _end(self, claim: claims.Claim, came: _Unfinished, attempts: int) -> None:
        """Say how the message of a chunk ends whose jobs were worked, as `run` does."""
        if came.is_any_started:
            self._pauses.end()
        elif came.left or came.unknown:
            self._pauses.lengthen(outage.REST_SECONDS)
        if came.failed:
            pause = self._pause(max(job.starts for job in came.failed), LONGEST_PAUSE_SECONDS)
            raise RetryRequested(pause, f"{len(came.failed)} jobs failed and are started again")
        if came.left or came.unknown:
            # Workers of another release may come in a moment, or never.
            longest = outage.LONGEST_PAUSE_SECONDS if came.left else LONGEST_PAUSE_SECONDS
            jobs = len(came.left) + len(came.unknown)
            raise RetryRequested(self._pause(attempts, longest), f"{jobs} jobs are left to other workers")
        if came.held:
            raise JobsWereHeld(f"{came.held} jobs of {claim.day} are held")

    def _pause(self, times_before: int, longest_seconds: float) -> timedelta:
        # Bounded, as PgQueuer's count of attempts is not, and a float would overflow.
        doubled = self._rules.retry_seconds * 2 ** min(times_before, 20)
        return timedelta(seconds=min(doubled, longest_seconds))

    async def _require_admission(self) -> None:
        try:
            await self._ledger.require_admission()
        except claims.INFRASTRUCTURE:
            raise
        except EpisodesError as error:
            self.refusal = error
            self._over.set()
            raise RetryRequested(timedelta(0), str(error)) from error

    async def _release(self, claim: claims.Claim | None) -> None:
        if claim is not None:
            await self._ledger.execute(claims.release_claim(self._ledger.connection, claim))

    async def _run_claimed(self, claim: claims.Claim) -> _Unfinished:
        if self._stopping.is_set():
            raise _Stopping
        came = _Unfinished()
        known = get_registry().ids
        came.unknown += [job for job in claim.jobs if job.algorithm_id not in known]
        if came.unknown:
            log.warning(
                "%s: %d jobs are left to workers of another release: this one knows no algorithm %s",
                claim.day,
                len(came.unknown),
                ", ".join(map(str, sorted({job.algorithm_id for job in came.unknown}))),
            )
        jobs = [job for job in claim.jobs if job.algorithm_id in known]
        unavailable = await self._imports.failures({job.algorithm_id for job in jobs})
        runnable, failures = split_unavailable(jobs, unavailable)
        for alike, failure in failures:
            await self._record_unavailable(claim, alike, failure, came)
        came.is_any_started = bool(runnable)
        for group in groups_to_start(claim.starts, runnable):
            for job, failure in await self._run_group(claim, group):
                came.held += await self._record(claim, [job], failure)
                came.failed += self._with_starts_left([job])
        return came

    async def _record_unavailable(
        self,
        claim: claims.Claim,
        jobs: Sequence[claims.ClaimedJob],
        failure: claims.JobFailure,
        came: _Unfinished,
    ) -> None:
        """Record that an algorithm does not import here; it counts against its jobs where no other has it."""
        worker = self._rules.worker
        is_left = await self._ledger.execute(
            may_start_elsewhere(self._ledger.connection, claim.plan_id, jobs[0].position, worker)
        )
        told = replace(failure, error=name_worker(failure.error, worker))
        came.held += await self._record(claim, jobs, told, uncounted_starts=0 if is_left else 1)
        if is_left:
            came.left += jobs
        else:
            came.failed += self._with_starts_left(jobs)

    def _with_starts_left(self, jobs: Sequence[claims.ClaimedJob]) -> list[claims.ClaimedJob]:
        return [job for job in jobs if job.starts + 1 < self._rules.max_starts]

    async def _record(
        self,
        claim: claims.Claim,
        jobs: Sequence[claims.ClaimedJob],
        failure: claims.JobFailure,
        *,
        uncounted_starts: int = 0,
    ) -> int:
        held = await self._ledger.execute(
            claims.record_failures(
                self._ledger.connection,
                claim,
                jobs,
                failure,
                self._rules.max_starts,
                uncounted_starts=uncounted_starts,
            )
        )
        named = f"epid {jobs[0].epid}" if len(jobs) == 1 else f"{len(jobs)} jobs of"
        log.warning(
            "%s %s algorithm %d %s: %s",
            claim.day,
            named,
            jobs[0].algorithm_id,
            f"failed, {held} held" if held else "failed",
            failure.error,
        )
        return held

    async def _run_group(
        self, claim: claims.Claim, group: Sequence[claims.ClaimedJob]
    ) -> list[tuple[claims.ClaimedJob, claims.JobFailure]]:
        """Run jobs together; if that fails, by bisection, until the jobs that fail are alone."""
        if len(group) == 1 and group[0].starts >= self._rules.max_starts:
            error = f"started {group[0].starts} times without an end: it kills its worker"
            return [(group[0], claims.JobFailure(error, traceback=""))]
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
        for part in parts(group, size):
            failures += await self._run_group(claim, part)
        return failures

    async def _start(
        self, claim: claims.Claim, jobs: Sequence[claims.ClaimedJob]
    ) -> claims.JobFailure | None:
        """Start jobs together; None when their outcomes are written."""
        if self._stopping.is_set():
            raise _Stopping
        if self._profiler is None:
            return await self._start_counted(claim, jobs)
        async with self._profiler.batch(self._ledger, claim.day):
            return await self._start_counted(claim, jobs)

    async def _start_counted(
        self, claim: claims.Claim, jobs: Sequence[claims.ClaimedJob]
    ) -> claims.JobFailure | None:
        await self._ledger.execute(claims.count_start(self._ledger.connection, claim, jobs))
        began = time.perf_counter()
        try:
            limit = self._rules.limits.of([job.algorithm_id for job in jobs])
            windows = job_windows(jobs)
            with self._activity.working(Work(claim.plan_id, claim.chunk, len(jobs))):
                batch = await self._compute(limit, claim, windows)
            took = claims.Took(time.perf_counter() - began, batch.seconds_by_algorithm)
            await self._ledger.execute(
                claims.write_outcomes(
                    self._ledger.connection, claim, jobs, batch.outcomes, self._rules.worker, took
                )
            )
        except claims.ClaimLost:
            raise
        except claims.INFRASTRUCTURE:
            await self._to_uncount.add(CountedStart(claim, jobs), self._ledger)
            raise
        except AlgorithmFailed as error:
            return claims.JobFailure(error.reason, error.trace)
        except Exception as error:
            if isinstance(error, psycopg.Error) and failures.explain(error) is not None:
                # The ledger refuses the outcomes: no job is to blame.
                await self._to_uncount.add(CountedStart(claim, jobs), self._ledger)
                raise
            message = _describe(error)
            trace = "".join(traceback.format_exception(error))
            return claims.JobFailure(
                message, trace, is_time_limit=isinstance(error, compute.ComputationTooLong)
            )
        self._activity.finished += len(jobs)
        log.info("%s: %d jobs in %.2f s", claim.day, len(jobs), time.perf_counter() - began)
        return None

    async def _compute(
        self, limit: float, claim: claims.Claim, windows: compute.JobWindows
    ) -> compute.MicroBatch:
        lake, version = self._rules.lake_url, claim.viewings_version
        if version is None:
            raise LakeMissing(
                f"the plan of {claim.day} is of a release before the lake, and names no version of it",
                f"run `episodes run {claim.day}`, which plans the day anew from the lake",
            )
        pinned = PinnedVersion(version, claim.viewings_digest)
        try:
            async with outage.connection_in_use(self._ledger):
                return await self._process.run(
                    limit, compute.run_micro_batch, lake, pinned, claim.day, windows
                )
        except compute.ComputationTooLong:
            # This raises if the lake does not answer: then no job has caused the delay.
            await asyncio.to_thread(Viewings(lake).newest)
            raise


def _describe(error: Exception) -> str:
    """What jobs failed with, in one line."""
    said = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
    if isinstance(error, MemoryError):
        return f"{said}: raise EPISODES_COMPUTE_MEMORY_MB, or let the algorithm take less memory"
    if getattr(error, "sqlstate", None) and (cause := failures.explain(error, "the input")) is not None:
        return str(cause)
    return said


class _Stopping(Exception):
    """The worker is stopping, so nothing more is started."""
