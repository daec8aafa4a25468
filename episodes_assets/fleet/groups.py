"""Which of a claim's jobs start together, and which cannot start here at all."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from episodes_assets.fleet.micro_batch import JobWindows
from episodes_assets.ledger.claims import ClaimedJob, JobFailure


def split_unavailable(
    jobs: Sequence[ClaimedJob], failures: Mapping[int, JobFailure]
) -> tuple[list[ClaimedJob], list[tuple[list[ClaimedJob], JobFailure]]]:
    """Jobs that can start; and, with the reason, those of each algorithm that cannot be imported."""
    runnable = [job for job in jobs if job.algorithm_id not in failures]
    return runnable, [
        ([job for job in jobs if job.algorithm_id == algorithm_id], failure)
        for algorithm_id, failure in failures.items()
    ]


def groups_to_start(starts: int, jobs: Sequence[ClaimedJob]) -> Iterator[Sequence[ClaimedJob]]:
    """How to start a claim's jobs, given how often they were started together.

    A chunk that was started before and is open may hold a job that killed its worker. So it starts the
    second time in small groups and after that job by job, those that were alone before at the end: the
    innocent get through, and the guilty one is counted by itself.
    """
    jobs = sorted(jobs, key=lambda job: job.starts)
    size = {0: len(jobs), 1: math.isqrt(len(jobs))}.get(starts, 1)
    fresh = [job for job in jobs if job.starts == 0]
    yield from parts(fresh, max(size, 1))
    yield from parts(jobs[len(fresh) :], 1)


def parts(jobs: Sequence[ClaimedJob], size: int) -> Iterator[Sequence[ClaimedJob]]:
    """Jobs in groups of at most `size`."""
    for begin in range(0, len(jobs), size):
        yield jobs[begin : begin + size]


def job_windows(jobs: Sequence[ClaimedJob]) -> JobWindows:
    """What a micro-batch is told of its jobs."""
    return JobWindows(
        epid=np.array([job.epid for job in jobs], dtype=np.int64),
        algorithm_id=np.array([job.algorithm_id for job in jobs], dtype=np.int16),
        window_start=np.array([job.window_start for job in jobs], dtype="datetime64[D]"),
    )
