"""Other engines read the lake as it is, and come to the same results."""

import json
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from episodes_assets_tests.system import System, day, failure


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
