"""Backfills from the UI, as the daemon carries them out: what was worked is recorded, and nothing else."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import dagster as dg
import pytest

from episodes_assets.days import ONE_DAY, days_between
from episodes_assets_tests.defs.launchpad import Launchpad, opened_ui
from episodes_assets_tests.support.system import System, day, failure

pytestmark = [pytest.mark.process, pytest.mark.slow]

GRAPH = (
    "input_episodes",
    "input_viewings",
    "tracked_episodes",
    "episode_jobs",
    "job_outcomes",
    "published_results",
)
PLANNING = GRAPH[:4]
TODAY = dt.datetime.now(dt.UTC).date()

TABLES = {
    "tracked_episodes": ("results", "SELECT day FROM state.tracked_days"),
    "episode_jobs": ("queue", "SELECT day FROM ledger.plans WHERE superseded_at IS NULL"),
    "job_outcomes": (
        "queue",
        (
            "SELECT DISTINCT day FROM ledger.plans JOIN ledger.outcomes USING (plan_id)"
            " WHERE superseded_at IS NULL"
        ),
    ),
    "published_results": ("results", "SELECT day FROM published.days"),
}
ROWS = {
    "tracked_episodes": ("results", "SELECT total FROM state.tracked_days WHERE day = %s"),
    "episode_jobs": ("queue", "SELECT jobs FROM ledger.plans WHERE day = %s AND superseded_at IS NULL"),
    "job_outcomes": (
        "queue",
        (
            "SELECT count(*) FROM ledger.plans JOIN ledger.outcomes USING (plan_id)"
            " WHERE day = %s AND superseded_at IS NULL"
        ),
    ),
    "published_results": ("results", "SELECT rows FROM published.days WHERE day = %s"),
}


@pytest.fixture
def ui(system: System) -> Iterator[Launchpad]:
    with opened_ui() as opened:
        yield opened


def worked(system: System, asset: str) -> set[dt.date]:
    """The days that the databases or the lake hold for an asset."""
    if asset == "input_viewings":
        newest = system.viewings.newest()
        return {each for each in newest.files if each >= day(1)} if newest else set()
    if asset == "input_episodes":
        return {*system.drops.days()}
    return {row[0] for row in system.query(*TABLES[asset])}


def rows_of(system: System, asset: str, of: dt.date) -> int:
    if asset == "input_viewings":
        newest = system.viewings.newest()
        return newest.files[of].rows if newest else 0
    if asset == "input_episodes":
        return system.drops.require(of).accepted_rows
    database, statement = ROWS[asset]
    ((rows,),) = system.query(database, statement, [of])
    return int(rows)


def agree(system: System, expected: Mapping[str, Sequence[dt.date]]) -> None:
    """Dagster's partitions, the databases and the events' metadata say the same of each asset."""
    with dg.DagsterInstance.get() as instance:
        for asset in GRAPH:
            days = set(expected.get(asset, []))
            key = dg.AssetKey(asset)
            assert instance.get_materialized_partitions(key) == {str(each) for each in days}, asset
            assert worked(system, asset) == days, asset
            for each in days:
                event = instance.fetch_materializations(
                    dg.AssetRecordsFilter(asset_key=key, asset_partitions=[str(each)]), limit=1
                ).records[0]
                materialization = event.asset_materialization
                assert materialization is not None
                shown = materialization.metadata["dagster/row_count"].value
                assert shown == rows_of(system, asset, each), (asset, each)


def insert_days(system: System, first: dt.date, last: dt.date) -> None:
    """Drops that grow, so that no two days have equal figures."""
    for number, each in enumerate(days_between(first, last), 1):
        system.insert_drop(each, [(epid, 0, "2018-02-01", each) for epid in range(number * 3)])


@pytest.mark.parametrize(
    ("first", "last", "following"),
    [
        (3, 5, "no drop"),
        pytest.param(3, 3, "its input", marks=pytest.mark.slow),
        pytest.param(3, 3, "no drop", marks=pytest.mark.slow),
        pytest.param(3, 3, "a drop", marks=pytest.mark.slow),
        pytest.param(3, 5, "a drop", marks=pytest.mark.slow),
        pytest.param(3, 5, "its input", marks=pytest.mark.slow),
    ],
)
def test_a_backfill_works_and_records_the_days_that_were_asked_for(
    system: System, ui: Launchpad, first: int, last: int, following: str
) -> None:
    insert_days(system, day(first - 1), day(last + (following != "no drop")))
    system.plan(day(first - 1))
    ahead: dict[str, list[dt.date]] = {asset: [day(first - 1)] for asset in PLANNING}
    if following == "its input":
        assert system.materialize(day(last + 1), select=["input_episodes"]).success
        for asset in ("input_episodes", "input_viewings"):
            ahead[asset].append(day(last + 1))
    asked = list(days_between(day(first), day(last)))
    with system.workers():
        status, runs = ui.backfill(GRAPH, [str(each) for each in asked])
    assert status == "COMPLETED_SUCCESS", [run.tags for run in runs]
    assert len(runs) <= 3
    agree(system, {asset: [*ahead.get(asset, []), *asked] for asset in GRAPH})


@pytest.mark.parametrize(
    "assets",
    [
        GRAPH[2:4],
        GRAPH[4:],
        *(pytest.param(some, marks=pytest.mark.slow) for some in (PLANNING, GRAPH[2:3], GRAPH[3:4])),
    ],
    ids="+".join,
)
def test_a_backfill_of_some_assets_works_those(
    system: System, ui: Launchpad, assets: tuple[str, ...]
) -> None:
    insert_days(system, day(1), day(4))
    system.plan(day(1))
    asked = [day(2), day(3)]
    ahead = {asset: [day(1)] for asset in PLANNING}
    # What the assets build on is there, also of the day after.
    needed = GRAPH[: GRAPH.index(assets[0])]
    if needed:
        assert system.materialize(day(2), day(4), select=needed).success
        ahead |= {asset: [day(1), *asked, day(4)] for asset in needed}
    with system.workers() if "job_outcomes" in assets else nullcontext():
        status, _ = ui.backfill(assets, [str(each) for each in asked])
    assert status == "COMPLETED_SUCCESS"
    done = {asset: sorted({*ahead.get(asset, []), *(asked if asset in assets else [])}) for asset in GRAPH}
    agree(system, done)


def test_a_backfill_up_to_the_last_day_of_the_calendar(system: System, ui: Launchpad) -> None:
    asked = [TODAY - 2 * ONE_DAY, TODAY - ONE_DAY]
    insert_days(system, *asked)
    with system.workers():
        status, _ = ui.backfill(GRAPH, [str(each) for each in asked])
    assert status == "COMPLETED_SUCCESS"
    agree(system, dict.fromkeys(GRAPH, asked))


@pytest.mark.parametrize(
    ("asset", "refusal"),
    [
        ("tracked_episodes", "no drop of 2018-03-04"),
        ("episode_jobs", "no drop of 2018-03-04"),
        ("job_outcomes", "2018-03-04 has no planned jobs"),
        ("published_results", "2018-03-04 has no planned jobs"),
    ],
)
def test_a_day_without_what_it_builds_on_is_refused_before_anything_is_written(
    system: System, asset: str, refusal: str
) -> None:
    """Whoever asks for it: a step cannot tell Dagster that it left a day out."""
    insert_days(system, day(1), day(3))
    system.plan(day(1))
    needed = GRAPH[2 : GRAPH.index(asset)]
    assert system.materialize(day(2), day(3), select=["input_episodes", *needed[:2]]).success
    if asset == "published_results":
        system.finish_jobs()
        system.query("queue", "UPDATE ledger.plans SET fanned_out_at = now()")
    before = system.fingerprint()
    refused = system.materialize(day(2), day(4), select=[asset])
    assert refusal in failure(refused)
    assert system.fingerprint() == before
    with dg.DagsterInstance.get() as instance:
        recorded = instance.get_materialized_partitions(dg.AssetKey(asset))
    assert str(day(4)) not in recorded
