"""Which published days are outdated, by the log of the lake's commits."""

from pathlib import Path

from deltalake import DeltaTable

from episodes_assets.checks.lake import OutdatedDay
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.recompute import read_outdated
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, rows_of, take


def test_a_day_is_outdated_also_if_the_log_lost_the_commit_that_took_it_again(
    results: Connection, tmp_path: Path
) -> None:
    lake = Viewings(str(tmp_path))
    take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    newest = lake.newest()
    assert newest is not None
    results.execute(
        "INSERT INTO published.days (day, jobs, rows, left_out, decision, checksum, plan_id, plan_checksum,"
        " code_version, algorithm_versions, viewings_version, viewings_digest)"
        " VALUES (%s, 1, 1, 0, '', 'c', 1, 'c', '1', '{}', %s, %s)",
        [FIRST, *newest.pinned],
    )
    take(lake, rows_of(FIRST + ONE_DAY, (1, 1)), days=[FIRST + ONE_DAY])
    assert read_outdated(results, lake, FIRST) == []
    lost = take(lake, rows_of(FIRST, (1, 1), (2, 1)), days=[FIRST])
    take(lake, rows_of(FIRST + ONE_DAY, (1, 1)), days=[FIRST + ONE_DAY])
    outdated = [OutdatedDay(FIRST, [FIRST])]
    assert read_outdated(results, lake, FIRST) == outdated
    DeltaTable(str(tmp_path / "viewings")).create_checkpoint()
    (tmp_path / "viewings" / "_delta_log" / f"{lost:020}.json").unlink()
    assert read_outdated(results, Viewings(str(tmp_path)), FIRST) == outdated
