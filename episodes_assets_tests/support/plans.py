"""Plans in the ledger, recorded and finished for a test."""

import numpy as np
import pandas as pd

from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger import plans
from episodes_assets.ledger.plans import Plan
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.postgres.connect import Connection
from episodes_assets_tests.support.system import System, day

# Of a lake that the test does not have, so that nothing is compared with it.
NO_DIGEST = PinnedVersion(0, None)


def jobs_of(*epids: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epid": np.array(epids, dtype=np.int64),
            "algorithm_id": np.zeros(len(epids), dtype=np.int16),
            "window_start": pd.Series([day(1)] * len(epids), dtype="datetime64[s]"),
        }
    )


def record(
    queue: Connection,
    *epids: int,
    chunk_jobs: int = 2,
    snapshot_id: str = "s",
    rework: bool = False,
    above: int = 0,
    viewings: PinnedVersion | None = NO_DIGEST,
) -> tuple[Plan, bool]:
    jobs = jobs_of(*epids)
    return plans.record_plan(
        queue,
        day(1),
        jobs,
        checksum=plan_checksum(jobs),
        snapshot_id=snapshot_id,
        code_version="1",
        chunk_jobs=chunk_jobs,
        viewings=viewings,
        rework=rework,
        above=above,
    )


def finish(system: System, jobs: int, ago: float, seconds: float, *, number: int = 1) -> None:
    """Let jobs be finished so long ago, after so many seconds."""
    system.query(
        "queue",
        """
        WITH next AS (
            SELECT plan_id, first_position, chunk, succeeded FROM ledger.chunks
            JOIN ledger.plans USING (plan_id) WHERE day = %s AND succeeded + %s <= chunks.jobs
        ), counted AS (
            UPDATE ledger.chunks SET succeeded = chunks.succeeded + %s FROM next
            WHERE (chunks.plan_id, chunks.chunk) = (next.plan_id, next.chunk)
        )
        INSERT INTO ledger.batches SELECT plan_id, first_position + succeeded, chunk, %s, %s, '{0}',
            ARRAY[%s]::int[], '{1}', 'w', now() - make_interval(secs => %s) FROM next
        """,
        [day(number), jobs, jobs, jobs, seconds, jobs, ago],
    )
