"""Days through Dagster: published rows do not depend on how their days were run."""

import base64
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import dagster as dg
import pytest
from deltalake import DeltaTable

from episodes_assets.defs import metadata as defs_metadata
from episodes_assets.defs.assets.job_outcomes import _refuse_held
from episodes_assets.defs.resources import InputDatabase
from episodes_assets.errors import DatabaseUnreachable, JobsHeld
from episodes_assets.ledger.held import retry_held_jobs
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process


def test_a_day_and_its_rerun(system: System) -> None:
    system.generate(day(1), day(2))
    with system.workers():
        first = system.materialize(day(1))
        assert first.success, failure(first)
        before = system.fingerprint()
        again = system.materialize(day(1))
        assert again.success
    assert system.fingerprint() == before
    rows = system.published()
    assert len(rows) == len(system.jobs(day(1))) > 50

    metadata = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in first.all_events
        if event.is_step_materialization and event.asset_key
    }
    shown = metadata["input_episodes"]
    counts = {name: shown[name].value for name in ("quarantined", "dagster/row_count")}
    assert shown["catalogue rows"].value == sum(int(str(count)) for count in counts.values())
    reasons = shown["quarantine reasons"]
    assert isinstance(reasons, dg.TableMetadataValue)
    assert "epid_missing" in {record.data["reason"] for record in reasons.records}
    by_algorithm = metadata["episode_jobs"]["jobs by algorithm"]
    assert isinstance(by_algorithm, dg.TableMetadataValue)
    assert sum(int(str(r.data["jobs"])) for r in by_algorithm.records) == len(rows)
    published = metadata["published_results"]
    top = published["top 10 by views"]
    assert isinstance(top, dg.TableMetadataValue)
    views = [int(str(r.data["views"])) for r in top.records]
    assert views == sorted(views, reverse=True)
    assert len(views) == 10
    assert all(r.data["series"] and r.data["title"] for r in top.records)
    assert published["rows by day"].value
    assert published["all rows"].value == "- [reach of 2018-03-01](/results/2018-03-01/reach)"
    refused = str(shown["quarantined rows"].value).splitlines()
    assert refused[0] == "- [-17: epid_negative](/explain/2018-03-01/-17)"
    titled = "SELECT count(*), count(title) FROM published.episodes"
    assert system.query("results", titled) == [(rows["epid"].nunique(),) * 2]
    assert all("seconds" in each for each in metadata.values())
    worked = metadata["job_outcomes"]
    plot = str(worked["jobs over time"].value).removesuffix(")")
    svg = base64.b64decode(plot.partition("data:image/svg+xml;base64,")[2]).decode()
    assert ET.fromstring(svg).tag.endswith("svg")
    assert f">{len(rows):,}<" in svg
    durations = worked["durations by algorithm"]
    assert isinstance(durations, dg.TableMetadataValue)
    assert {r.data["algorithm"]: r.data["jobs"] for r in durations.records} == {
        r.data["algorithm"]: r.data["jobs"] for r in by_algorithm.records if r.data["jobs"]
    }
    slowest = worked["slowest jobs"]
    assert isinstance(slowest, dg.TableMetadataValue)
    assert 0 < len(slowest.records) <= 10
    assert "failed jobs" not in worked


@pytest.mark.long
def test_a_day_is_published_also_where_its_titles_and_a_restore_point_cannot_be_had(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(1, 4)])
    system.plan(day(1))
    system.finish_jobs()
    (file,) = Path(system.settings.lake).glob("episodes/day=*/*.parquet")
    file.unlink()
    system.query("queue", "REVOKE EXECUTE ON FUNCTION pg_create_restore_point FROM episodes_orchestrator")
    result = system.materialize(day(1), select=["published_results"])
    assert result.success, failure(result)
    assert len(system.published()) == 3
    said = [entry.user_message for entry in system.dagster.all_logs(result.run_id)]
    assert any("the titles of published episodes are not up to date: " in each for each in said)
    assert any("no restore point in queue: permission denied" in each for each in said)
    (materialized,) = result.asset_materializations_for_node("published_results")
    top = materialized.metadata["top 10 by views"]
    assert isinstance(top, dg.TableMetadataValue)
    assert {r.data["title"] for r in top.records} == {None}


@pytest.mark.slow
def test_a_range_and_single_days_plan_the_same(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defs_metadata, "DAYS_SHOWN", 2)
    system.generate(day(1), day(6))
    planned = system.materialize(day(1), day(6), select=PLANNING)
    assert planned.success, failure(planned)
    # What is kept with each day of a long range does not grow with it.
    for event in planned.get_asset_materialization_events():
        metadata, partition = event.materialization.metadata, event.partition
        both = [metadata["days"], metadata["this day"]]
        shown = [[r.data["day"] for r in t.records] for t in both if isinstance(t, dg.TableMetadataValue)]
        assert shown == [[str(day(5)), str(day(6))], [partition]]
        assert metadata["days in this run"].value == 6
    ranged = {n: system.jobs(day(n)) for n in range(1, 7)}
    before = system.fingerprint()
    for number in range(1, 7):
        system.plan(day(number))
    assert system.fingerprint() == before
    assert all(ranged.values())


@pytest.mark.slow
def test_old_drops_may_be_deleted_upstream(system: System) -> None:
    system.generate(day(1), day(3))
    system.plan(day(1), day(3))
    jobs = [system.jobs(day(n)) for n in (1, 2, 3)]
    system.query("input", "DELETE FROM episodes")
    system.query("input", "DELETE FROM viewings")
    # A ledger that is lost is planned again from the lake alone.
    system.forget_plans()
    system.plan(day(1), day(3))
    assert [system.jobs(day(n)) for n in (1, 2, 3)] == jobs


@pytest.mark.slow
def test_a_day_with_no_drop_anywhere_fails_and_touches_nothing(system: System) -> None:
    system.generate(day(1), day(4))
    system.plan(day(1), day(2))
    system.query("input", "DELETE FROM episodes WHERE batch_date = %s", [day(3)])
    before = system.fingerprint()
    missing = failure(system.materialize(day(3)))
    assert "the drop of 2018-03-03 has not arrived in the input database" in missing
    assert "the newest one before it is of 2018-03-02 and the next one after it is of 2018-03-04" in missing
    late = failure(system.materialize(day(9)))
    assert "the drop of 2018-03-09 has not arrived" in late
    assert "where the newest one before it is of 2018-03-04: try again later" in late
    assert system.fingerprint() == before


@pytest.mark.slow
def test_a_gap_is_refused_before_anything_is_planned(system: System) -> None:
    system.generate(day(1), day(5))
    system.plan(day(1))
    result = system.materialize(day(4), select=PLANNING)
    assert not result.success
    assert "materialise tracked_episodes from 2018-03-02 to 2018-03-03 first" in failure(result)
    assert system.jobs(day(4)) == []


@pytest.mark.slow
def test_a_refresh_takes_a_new_drop_and_stops_what_was_built_on_the_old(system: System) -> None:
    system.generate(day(1), day(3))
    system.plan(day(1), day(2))
    system.insert_drop(day(1), [(999_999_999, 0, day(1), day(1))])
    system.plan(day(1))
    assert 999_999_999 not in {job[0] for job in system.jobs(day(1))}
    refreshed = system.materialize(day(1), select=PLANNING, config={"refresh": True, "reason": "r"})
    assert refreshed.success, failure(refreshed)
    assert 999_999_999 in {job[0] for job in system.jobs(day(1))}
    assert "from 2018-03-02 on" in failure(system.materialize(day(3), select=PLANNING))
    system.plan(day(2), day(3))


@pytest.mark.slow
def test_a_refresh_without_a_drop_keeps_what_was_taken(system: System) -> None:
    system.generate(day(1), day(2))
    system.plan(day(1))
    kept = system.drops.require(day(1))
    system.query("input", "DELETE FROM episodes WHERE batch_date = %s", [day(1)])
    refreshed = system.materialize(day(1), select=PLANNING, config={"refresh": True, "reason": "r"})
    assert "cannot be refreshed" in failure(refreshed)
    assert system.drops.require(day(1)) == kept


@pytest.mark.long
def test_publishing_looks_at_what_it_depends_on(system: System) -> None:
    system.generate(day(1), day(1))
    system.plan(day(1))
    result = system.materialize(day(1), select=["published_results"])
    assert "has outcomes for 0 of its" in failure(result)
    assert system.query("results", "SELECT FROM published.days") == []


@pytest.mark.slow
def test_without_workers_the_day_fails_and_says_so(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPISODES_STALL_MINUTES", "0.02")
    system.generate(day(1), day(1))
    system.plan(day(1))
    assert "see that workers run" in failure(system.materialize(day(1), select=["job_outcomes"]))


def one_job_a_day(system: System, last: int) -> None:
    for number in range(1, last + 1):
        system.insert_drop(day(number), [(number, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1), day(last))


@pytest.mark.long
def test_a_day_waits_for_its_turn_while_the_fleet_works_others(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_STALL_MINUTES", "0.01")
    one_job_a_day(system, 2)
    system.query(
        "queue",
        "UPDATE ledger.chunks SET moved_at = now() + interval '1 hour' FROM ledger.plans"
        " WHERE plans.plan_id = chunks.plan_id AND day = %s",
        [day(2)],
    )
    its_turn = threading.Timer(2, system.finish_jobs)
    its_turn.start()
    result = system.materialize(day(1), select=["job_outcomes"])
    its_turn.join()
    assert result.success, failure(result)


@pytest.mark.slow
def test_what_moves_while_it_is_looked_at_is_told_in_plain_words(system: System) -> None:
    one_job_a_day(system, 1)
    system.hold_jobs("true")
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        progress = read_progress(queue, [day(1)])
        retry_held_jobs(queue, day(1))
        with pytest.raises(
            JobsHeld, match="1 jobs were held, and have been retried, waived or planned anew meanwhile"
        ):
            _refuse_held(dg.build_asset_context(), queue, progress)


@pytest.mark.long
def test_waiting_for_the_drop_leaves_retries_for_an_outage(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_RETRY_SECONDS", "0.01")
    looks = 0

    def look(*_: object) -> str:
        nonlocal looks
        looks += 1
        if looks == 5:  # after as many retries as an outage alone may have, and one
            raise DatabaseUnreachable("the input is away")
        if looks == 6:
            system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
        return system.dsn(Purpose.INPUT)

    monkeypatch.setattr(InputDatabase, "checked_dsn", look)
    waits = {"arrival_retries": 9, "arrival_retry_seconds": 0.01}
    result = system.materialize(day(1), select=["input_episodes"], config=waits)
    assert result.success, failure(result)
    assert looks == 6


LATER_ROWS = {
    "a typing error": ("2108-03-01",),
    "infinity": ("infinity",),
    "minus infinity": ("-infinity",),
    "null": (None,),
    "a year that Python lacks": ("12018-03-01",),
    "the next day's drop": (str(day(2)),),
    "many": (str(day(2)), str(day(3)), "infinity", "2108-03-01", None, "0044-03-15 BC"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dates", LATER_ROWS.values(), ids=LATER_ROWS)
def test_a_drop_is_waited_for_whatever_is_there_of_other_days(
    system: System, monkeypatch: pytest.MonkeyPatch, dates: Sequence[str | None]
) -> None:
    system.query(
        "input", "INSERT INTO episodes (batch_date, epid) SELECT unnest(%s::date[]), 1", [list(dates)]
    )
    looks = 0

    def look(*_: object) -> str:
        nonlocal looks
        looks += 1
        if looks == 3:
            system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
        return system.dsn(Purpose.INPUT)

    monkeypatch.setattr(InputDatabase, "checked_dsn", look)
    waits = {"arrival_retries": 9, "arrival_retry_seconds": 0.01}
    result = system.materialize(day(1), select=["input_episodes"], config=waits)
    assert result.success, failure(result)
    assert looks == 3


@pytest.mark.slow
@pytest.mark.parametrize("is_known_by", ["its state", "an older version"])
def test_a_drop_that_was_there_before_is_gone_and_not_waited_for(system: System, is_known_by: str) -> None:
    system.generate(day(1), day(1))
    system.plan(day(1))
    kept = system.drops.require(day(1))
    system.query("input", "DELETE FROM episodes")
    waits = {"arrival_retries": 9, "arrival_retry_seconds": 600}
    refresh = {"refresh": True, "reason": "r", **waits}
    assert "cannot be refreshed" in failure(system.materialize(day(1), select=PLANNING, config=refresh))
    if is_known_by == "its state":
        shutil.rmtree(system.settings.lake)
    else:
        DeltaTable(f"{system.settings.lake}/episodes").delete("day = '2018-03-01'")
        system.forget_everything()
    gone = failure(system.materialize(day(1), select=PLANNING, config=waits))
    assert f"and what was taken of it ({kept.snapshot_id}) from the lake: restore the lake at" in gone


@pytest.mark.long
def test_a_very_old_day_of_a_history_that_began_of_late_may_still_arrive(system: System) -> None:
    system.insert_drop(day(400), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(400))
    missing = failure(system.materialize(day(1), select=["input_episodes"]))
    assert f"has not arrived in the input database, where the next one after it is of {day(400)}" in missing


def test_an_input_without_any_drop_says_so(system: System) -> None:
    missing = failure(system.materialize(day(1), select=["input_episodes"]))
    assert "has not arrived in the input database, which has none of any other day either" in missing


@pytest.mark.long
def test_dates_that_no_calendar_has_are_quarantined_and_text_survives(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_QUARANTINE_LIMIT", "1")
    title = "\N{CLAPPER BOARD} 'single' \"double\"\n" + "x" * 10_000
    system.insert_drop(day(1), [(1, 0, day(1), day(1)), (2, 0, "infinity", day(1))])
    system.insert_drop(day(1), [(3, 0, day(1), "-infinity"), (4, 0, "9999-12-31", day(1))])
    system.query("input", "UPDATE episodes SET title = %s", [title])
    system.plan(day(1))
    kept = system.drops.require(day(1))
    assert [part["title"].tolist() for part in system.drops.read_drop(kept, ["title"])] == [[title]]
    assert kept.reasons == {
        "premier_date_implausible": 1,
        "premier_date_missing_for_reach": 1,
        "start_date_missing": 1,
    }


@pytest.mark.long
def test_viewings_on_the_edges_in_the_future_and_of_unknown_episodes(system: System) -> None:
    system.insert_drop(day(1), [(e, 0, "2018-02-01", "2018-02-01") for e in (1, 2, 3)])
    system.insert_drop(day(2), [(e, 0, "2018-02-01", "2018-02-01") for e in (1, 2, 3)])
    system.insert_viewings(
        [
            (1, 1, "2018-03-02 00:00:00+00", 10, True),
            (2, 1, "2018-03-02 23:59:59.999999+00", -10, None),
            (2, 1, "2018-03-02 12:00:00+00", 2_000_000_000, False),
            (3, 1, "2018-03-03 00:00:00+00", 10, True),
            (3, 1, "2099-01-01 00:00:00+00", 10, True),
            (3, 1, "infinity", 10, True),
            (None, 1, "2018-03-02 12:00:00+00", 10, True),
            (777, 1, "2018-03-02 12:00:00+00", 10, True),
        ]
    )
    with system.workers():
        result = system.materialize(day(1), day(2))
        assert result.success, failure(result)
    rows = system.published().query("day == @day(2)")
    found = {row.epid: json.loads(str(row.metrics)) for row in rows.itertuples()}
    assert set(found) == {1, 2}
    assert found[1] == {"views": 1, "viewers": 1, "seconds_watched": 10, "completed_views": 1}
    assert found[2] == {"views": 2, "viewers": 1, "seconds_watched": 86_400, "completed_views": 0}
    assert rows["covered"].astype("str").tolist() == ["2018-03-02"] * 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_days_at_once_publish_what_single_days_publish(system: System) -> None:
    days = 30
    system.generate(day(1), day(days), episodes=60)
    with system.workers(2):
        ranged = system.cli("backfill", "2018-03-01", str(day(days)), timeout=170)
        assert ranged.returncode == 0, ranged.stderr
        rows = system.published()
        assert rows["day"].nunique() == days
        before = system.fingerprint()
        again = system.cli("backfill", "2018-03-01", str(day(days)), timeout=170)
        assert again.returncode == 0, again.stderr
        assert system.fingerprint() == before
        # From nothing again, day by day.
        system.forget_everything()
        for number in range(1, days + 1):
            result = system.materialize(day(number))
            assert result.success, failure(result)
    assert system.published().equals(rows)


@pytest.mark.slow
def test_a_lake_elsewhere_than_in_the_home(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_LAKE_URL", f"file://{tmp_path}/elsewhere")
    system.generate(day(1), day(1))
    system.plan(day(1))
    for table in ("episodes", "quarantine", "viewings"):
        assert list((tmp_path / "elsewhere" / table / "day=2018-03-01").glob("*.parquet"))
    with system.workers():
        assert system.materialize(day(1), select=["job_outcomes", "published_results"]).success
