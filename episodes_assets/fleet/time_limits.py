"""How long jobs may take, together and alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from episodes_assets.algorithms.registry import get_registry


@dataclass(frozen=True)
class TimeLimits:
    """The limits of one worker, in seconds.

    Attributes:
        batch: Of jobs that run together.
        job: Of a job that runs alone, unless its algorithm has a limit of its own.
        by_algorithm: Limits set for algorithms by name; they go before what the modules declare.
    """

    batch: float
    job: float
    by_algorithm: Mapping[str, float] = field(default_factory=dict)

    def of(self, algorithm_ids: Collection[int]) -> float:
        """The limit of some jobs that start together, given the algorithm of each.

        A job alone gets its own. Several get that of a batch, or what the slowest of them may take alone
        when that is longer.
        """
        longest = max(self._of_one(algorithm_id) for algorithm_id in set(algorithm_ids))
        return longest if len(algorithm_ids) == 1 else max(self.batch, longest)

    def _of_one(self, algorithm_id: int) -> float:
        algorithm = get_registry().by_id.get(algorithm_id)
        if algorithm is None:
            return self.job
        return self.by_algorithm.get(algorithm.name) or algorithm.timeout_seconds or self.job
