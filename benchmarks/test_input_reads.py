"""How often the input's viewings are read, as its own server counts it, while windows reach over them again.

Two counts, because reading and counting differ for the server. *Rows* are rows of `viewings` that it fetched
from the table, by whatever plan. *Index entries* are what it passed in the indexes: those that lead to the
rows, and those that are counted when a day is looked at again because viewings may have arrived late.
"""

import datetime as dt
from typing import Any

from benchmarks import inputs
from benchmarks.assets_process import FINISHING, PLANNING
from benchmarks.conftest import Measure, forget_days
from benchmarks.sizes import Sizes
from episodes_assets.days import ONE_DAY
from episodes_assets.input.loading import replace_input
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System, failure

FIRST = dt.date(2022, 3, 1)  # far from the days of the other benchmarks
EPISODES = 200

_END_SESSIONS = """
    SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_READS = """
    SELECT (seq_tup_read + idx_tup_fetch)::bigint,
        (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'viewings')::bigint
    FROM pg_stat_user_tables WHERE relname = 'viewings'
"""


def reads(system: System) -> tuple[int, int]:
    """Rows and index entries so far; sessions tell theirs when they end at the latest, so they are ended."""
    system.query("input", _END_SESSIONS)
    ((rows, entries),) = system.query("input", _READS)
    return rows, entries


def test_input_reads(measure: Measure, system: System, sizes: Sizes) -> None:
    """The days of a first window are there when the history begins, so every window is full."""
    span = sizes.read_days
    days = [FIRST + number * ONE_DAY for number in range(span)]
    before = [FIRST - (number + 1) * ONE_DAY for number in range(span - 1)]

    def arrive(day: dt.date) -> None:
        replace_input(
            system.dsn(Purpose.INPUT_WRITER),
            drops=inputs.drop(2 * EPISODES, EPISODES, day=day, window_days=span),
            drop_days=[day],
            viewings=inputs.viewings(day, sizes.read_viewings, EPISODES, everyone=True),
            viewing_days=[day],
        )
        system.query("input", "VACUUM ANALYZE")

    forget_days(system)
    for day in before:
        arrive(day)

    def timed() -> dict[str, Any]:
        rows = entries = 0
        for day in days:
            arrive(day)
            rows_before, entries_before = reads(system)
            result = system.materialize(day, select=[*PLANNING, *FINISHING])
            assert result.success, failure(result)
            rows_after, entries_after = reads(system)
            rows, entries = rows + rows_after - rows_before, entries + entries_after - entries_before
        ((analysed,),) = system.query(
            "results",
            "SELECT sum((metrics ->> 'views')::bigint) FROM published.results"
            " WHERE algorithm_id = 0 AND day = ANY (%s)",
            [days],
        )
        late_days = system.settings.late_days
        return {"rows": rows, "entries": entries, "analysed": int(analysed), "late_days": late_days}

    viewings = sizes.read_viewings * (len(days) + len(before))
    with system.workers(2):
        name = f"{span} days, windows of {span} days"
        measure("input reads", name, timed, rounds=1, warm=False, viewings=viewings)
