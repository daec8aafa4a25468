"""Other engines read the lake as it is, and come to the same results."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_reach_of_a_whole_day_in_sql(system: System, tmp_path: Path) -> None:
    system.generate(day(1), day(4), episodes=400)
    with system.workers():
        result = system.materialize(day(1), day(4))
        assert result.success, failure(result)
    system.query("input", "DROP TABLE viewings")
    published = system.published().query("day == @day(4) and algorithm_id == 0")
    ((version,),) = system.query(
        "results", "SELECT viewings_version FROM published.days WHERE day = %s", [day(4)]
    )
    jobs = published[["epid", "start", "end"]].astype({"start": "str", "end": "str"})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("jobs", jobs)
        files = DeltaTable(f"{system.settings.lake}/viewings", version=version).file_uris()
        found = connection.execute(
            """
            SELECT jobs.epid, count(viewings.epid), count(DISTINCT viewer_id)
                    + max(viewings.epid IS NOT NULL AND viewer_id IS NULL)::integer,
                coalesce(sum(greatest(least(seconds_watched, 86400), 0)), 0),
                count(*) FILTER (WHERE completed)
            FROM jobs LEFT JOIN read_parquet($files, hive_partitioning = true) AS viewings
                ON viewings.epid = jobs.epid AND viewings.day BETWEEN jobs.start::date AND jobs."end"::date
            GROUP BY jobs.epid ORDER BY jobs.epid
            """,
            {"files": files},
        ).fetchall()
    names = ("views", "viewers", "seconds_watched", "completed_views")
    expected = [
        (epid, *(json.loads(metrics)[name] for name in names))
        for epid, metrics in zip(published["epid"], published["metrics"], strict=True)
    ]
    assert len(expected) > 100
    assert [tuple(map(int, row)) for row in found] == expected
    assert max(views for _, views, *_ in expected) > 10


@pytest.mark.long
def test_the_due_episodes_of_a_day_in_sql(system: System) -> None:
    """From the three tables alone, which are read as they are."""
    system.generate(day(1), day(3), episodes=400)
    system.plan(day(1), day(3))
    tables = {
        name: DeltaTable(f"{system.settings.lake}/{name}").file_uris()
        for name in ("episodes", "quarantine", "viewings")
    }
    with duckdb.connect() as connection:
        due = connection.execute(
            """
            SELECT epid, algorithm_id
            FROM read_parquet($episodes, hive_partitioning = true)
            WHERE day = '2018-03-03' AND start_date <= day AND algorithm_id <> 0 AND epid IN (
                SELECT epid FROM read_parquet($viewings, hive_partitioning = true) WHERE day = '2018-03-03'
            )
            ORDER BY ALL
            """,
            {name: tables[name] for name in ("episodes", "viewings")},
        ).fetchall()
        reasons = connection.execute(
            "SELECT day, count(*), count(reasons) FROM read_parquet($quarantine, hive_partitioning = true)"
            " GROUP BY day ORDER BY day",
            {"quarantine": tables["quarantine"]},
        ).fetchall()
        records = connection.execute(
            "SELECT decode(value) FROM parquet_kv_metadata($episodes) WHERE key = 'episodes.drop'",
            {"episodes": tables["episodes"]},
        ).fetchall()
    assert due == [tuple(job[:2]) for job in system.jobs(day(3)) if job[1] != 0]
    assert len(due) > 10
    taken = system.drops.require_all([day(1), day(2), day(3)])
    assert reasons == [(each.day, each.quarantined_rows, each.quarantined_rows) for each in taken]
    assert {json.loads(said)["snapshot_id"] for (said,) in records} == {each.snapshot_id for each in taken}


@pytest.mark.slow
def test_any_reader_of_delta_sees_the_rows_and_types(system: System) -> None:
    system.generate(day(1), day(2), episodes=60)
    system.plan(day(1), day(2))
    for taken in system.drops.require_all([day(1), day(2)]):
        for table, rows in (("episodes", taken.accepted_rows), ("quarantine", taken.quarantined_rows)):
            dataset = DeltaTable(f"{system.settings.lake}/{table}").to_pyarrow_dataset()
            assert dataset.to_table(filter=pc.field("day") == taken.day).num_rows == rows
            assert dataset.schema.field("premier_date").type == pa.date32()
