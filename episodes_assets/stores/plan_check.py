"""Reading plans back from the ledger, to compare them with what was planned."""

import datetime as dt
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from episodes_assets.checks.ledger import LedgerDay
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.postgres.arrow import stream_arrow
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.ledger import Plan, require_current

_JOBS = """
    SELECT plan_id, epid, algorithm_id, window_start FROM ledger.jobs
    WHERE plan_id = ANY ({plans}::bigint[]) ORDER BY plan_id
"""


def read_ledger_days(connection: Connection, dsn: str, plans: Sequence[Plan]) -> list[LedgerDay]:
    """What the ledger has of some plans, in their order; one reading for all of them.

    Args:
        connection: To `queue`.
        dsn: The same database.
        plans: As they are to be.

    Raises:
        PlanOvertaken: If one of them was replaced meanwhile.
    """
    stored = {}
    with stream_arrow(dsn, _JOBS, plans=[plan.plan_id for plan in plans]) as batches:
        for jobs in _by_plan(batches):
            stored[jobs["plan_id"][0].as_py()] = _count(jobs)
    require_current(connection, [plan.plan_id for plan in plans])
    none = (0, "", 0)
    found = [(plan, *stored.get(plan.plan_id, _count(_NO_JOBS) if not plan.jobs else none)) for plan in plans]
    return [
        LedgerDay(plan.day, plan.jobs, plan.checksum, rows, checksum, repeated)
        for plan, rows, checksum, repeated in found
    ]


def read_job_counts(connection: Connection, first: dt.date, last: dt.date) -> dict[dt.date, int]:
    """The jobs of the current plans of some days, by day.

    Args:
        connection: To `queue`.
        first: The first day.
        last: The last one, included.
    """
    return dict(
        connection.execute(
            "SELECT day, jobs FROM ledger.plans WHERE superseded_at IS NULL AND day BETWEEN %s AND %s",
            [first, last],
        ).fetchall()
    )


_NO_JOBS = pa.table(
    {
        "plan_id": pa.array([], pa.int64()),
        "epid": pa.array([], pa.int64()),
        "algorithm_id": pa.array([], pa.int16()),
        "window_start": pa.array([], pa.date32()),
    }
)


def _by_plan(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Cut a stream ordered by plan into the jobs of each."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        plan_ids = batch["plan_id"].to_numpy()
        ends = [*np.flatnonzero(np.diff(plan_ids)) + 1, len(plan_ids)]
        begin = 0
        for end in ends:
            piece = batch[begin:end]
            if waiting and piece.num_rows and waiting[0]["plan_id"][0] != piece["plan_id"][0]:
                yield pa.Table.from_batches(waiting)
                waiting = []
            waiting += [piece] if piece.num_rows else []
            begin = end
    if waiting:
        yield pa.Table.from_batches(waiting)


def _count(jobs: pa.Table) -> tuple[int, str, int]:
    """How many jobs a plan has in the ledger, their checksum, and how many are repeated."""
    jobs = jobs.sort_by([("epid", "ascending"), ("algorithm_id", "ascending")])
    epid, algorithm_id = jobs["epid"].to_numpy(), jobs["algorithm_id"].to_numpy()
    repeated = (np.diff(epid) == 0) & (np.diff(algorithm_id) == 0)
    frame = jobs.select(["epid", "algorithm_id", "window_start"]).to_pandas(date_as_object=False)
    return jobs.num_rows, plan_checksum(frame), int(repeated.sum())
