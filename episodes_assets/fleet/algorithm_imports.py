"""Which algorithms can be imported: found out in the compute process, which alone runs their modules.

The worker itself, which holds the queue's DSN, never imports one. What a module does when it is imported,
be it to raise, to hang or to end its process, fails the jobs of its algorithm and no others.
"""

import time
from collections.abc import Collection

from episodes_assets.algorithms.registry import AlgorithmUnavailable, get_registry
from episodes_assets.fleet.compute_process import ComputationDied, ComputationTooLong, ComputeProcess
from episodes_assets.fleet.micro_batch import import_algorithm
from episodes_assets.ledger.claims import JobFailure

# So long a failure is taken for granted: each further try may cost the time limit or the process.
REMEMBERED_SECONDS = 600.0
# A process that dies once may have been killed by somebody else.
DEATHS_TO_BLAME = 2


class AlgorithmImports:
    """Imports algorithms in a worker's compute process before any of their jobs start there.

    Args:
        process: Where micro-batches are computed.
        limit_seconds: How long an import may take.
    """

    def __init__(self, process: ComputeProcess, limit_seconds: float) -> None:
        self._process = process
        self._limit_seconds = limit_seconds
        self._imported_by: dict[int, int] = {}
        self._failures: dict[int, tuple[float, JobFailure]] = {}

    async def failures(self, algorithm_ids: Collection[int]) -> dict[int, JobFailure]:
        """Why jobs of some algorithms cannot start, by id; the others are imported when this returns."""
        now = time.monotonic()
        self._failures = {
            each: failed for each, failed in self._failures.items() if now - failed[0] < REMEMBERED_SECONDS
        }
        # One that ends the process takes along what was imported before it.
        while missing := sorted(each for each in algorithm_ids if not self._is_settled(each)):
            failure = await self._import(missing[0])
            if failure is None:
                self._imported_by[missing[0]] = self._process.incarnation
            else:
                self._failures[missing[0]] = time.monotonic(), failure
        return {each: self._failures[each][1] for each in algorithm_ids if each in self._failures}

    def _is_settled(self, algorithm_id: int) -> bool:
        is_imported = self._imported_by.get(algorithm_id) == self._process.incarnation
        return is_imported or algorithm_id in self._failures

    async def _import(self, algorithm_id: int) -> JobFailure | None:
        name = get_registry().name_of(algorithm_id)
        for _ in range(DEATHS_TO_BLAME):
            try:
                await self._process.run(self._limit_seconds, import_algorithm, algorithm_id)
            except AlgorithmUnavailable as error:
                return _unavailable(error.reason, error.trace)
            except ComputationTooLong as error:
                return _unavailable(f"{name} does not import ({error})")
            except ComputationDied:
                continue
            return None
        return _unavailable(f"{name} does not import (it ends the process)")


def _unavailable(reason: str, trace: str = "") -> JobFailure:
    return JobFailure(f"{AlgorithmUnavailable.__name__}: {reason}", trace)
