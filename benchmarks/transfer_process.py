"""A process of its own that only moves a day's rows: `python -m benchmarks.transfer_process DAY DSN`.

Out through ADBC: all columns of the drop, the day's viewings, and the state. Into a table like the ledger's
through COPY: the day's jobs. DSN is an administrator's for the queue. Prints the seconds of each, as JSON.
"""

import io
import json
import sys
import time

import psycopg

from episodes_assets.postgres.arrow import read_arrow
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.settings import load_settings

_DROP = """
    SELECT epid, algorithm_id, series, season, episode, title, premier_date, start_date
    FROM episodes WHERE batch_date = {day}::date
"""
_VIEWINGS = """
    SELECT epid, viewer_id, viewed_at, seconds_watched, completed FROM viewings
    WHERE viewed_at >= {day}::date::timestamp AT TIME ZONE 'UTC'
        AND viewed_at < ({day}::date + 1)::timestamp AT TIME ZONE 'UTC'
"""


def main(day: str, admin_dsn: str) -> None:
    """Move the rows; the jobs are those of the day's plan."""
    dsns = resolve_dsns(load_settings())
    dsn, results = dsns.require(Purpose.INPUT), dsns.require(Purpose.RESULTS)
    for each in (dsn, results):
        read_arrow(each, "SELECT 1 AS connected", is_ours=each == results)
    began = time.perf_counter()
    rows = read_arrow(dsn, _DROP, is_ours=False, day=day).num_rows
    drop = time.perf_counter() - began
    read_arrow(dsn, _VIEWINGS, is_ours=False, day=day)
    viewings = time.perf_counter() - began - drop
    read_arrow(results, "SELECT epid, tracked_on FROM state.tracked_episodes")
    state = time.perf_counter() - began - drop - viewings
    with psycopg.connect(admin_dsn, autocommit=True) as queue, queue.cursor() as cursor:
        with cursor.copy("COPY (SELECT * FROM ledger.jobs) TO STDOUT") as copy:
            jobs = io.BytesIO(b"".join(copy)).getvalue()
        cursor.execute("CREATE TABLE bare_jobs (LIKE ledger.jobs INCLUDING ALL)")
        cursor.execute("ALTER TABLE bare_jobs ADD FOREIGN KEY (plan_id) REFERENCES ledger.plans")
        began = time.perf_counter()
        with cursor.copy("COPY bare_jobs FROM STDIN") as copy:
            copy.write(jobs)
        into = time.perf_counter() - began
        cursor.execute("DROP TABLE bare_jobs")
    seconds = {"drop": drop, "viewings": viewings, "state": state, "jobs_in": into}
    print(json.dumps({**seconds, "rows": rows, "jobs": jobs.count(b"\n"), "seconds": sum(seconds.values())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
