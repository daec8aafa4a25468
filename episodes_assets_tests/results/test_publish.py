"""Publishing: all of a day or nothing of it, once however often."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from episodes_assets.checks.results import LIVE_DAYS, Publications, yesterday_is_published
from episodes_assets.days import ONE_DAY
from episodes_assets.defs.decisions import wants_publication
from episodes_assets.errors import DayIncomplete, LedgerBehind, ManifestDamaged, PlanDamaged
from episodes_assets.ledger import held, plans
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publications, publish
from episodes_assets.results.provenance import Provenance, read_provenance
from episodes_assets.results.repairs import RepairDecision, read_repairs
from episodes_assets.results.verify import read_publications
from episodes_assets_tests.support.plans import record
from episodes_assets_tests.support.system import System, day


def test_a_day_with_an_open_job_is_not_published(
    system: System, queue: Connection, results: Connection
) -> None:
    record(queue, 1, 2)
    system.finish_jobs("epid = 1")
    with pytest.raises(DayIncomplete, match="outcomes for 1 of its 2 jobs"):
        publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert publications.find_day(results, day(1)) is None


def test_publishing_twice_changes_nothing(system: System, queue: Connection, results: Connection) -> None:
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    first, changed = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert (first.rows, changed) == (2, True)
    before = system.fingerprint()
    second, changed = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert (second, changed) == (first, False)
    assert system.fingerprint() == before


def test_the_same_plan_from_a_newer_snapshot_names_it_and_touches_no_row(
    system: System, queue: Connection, results: Connection
) -> None:
    record(queue, 1, 2, snapshot_id="old")
    system.finish_jobs(views=5)
    first, _ = publish.publish_day(queue, results, system.viewings, day(1), "1")
    before = system.fingerprint()
    _, changed = record(queue, 1, 2, snapshot_id="new")
    assert not changed
    second, changed = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert not changed
    # The rows were replaced when they were; what they stand for has changed now.
    assert second == replace(first, snapshot_id="new")
    after = system.fingerprint()
    assert {name for name in after if after[name] != before[name]} == {"plans", "days", "history"}
    found = publications.read_history(results, day(1))
    assert [each.snapshot_id for each in found] == ["old", "new"]


def test_a_reader_sees_the_day_as_it_was_until_it_is_as_it_will_be(
    system: System, queue: Connection, results: Connection
) -> None:
    record(queue, 1, 2, 3)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    seen: set[tuple[int, ...]] = set()
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(system.dsn(Purpose.CONSUMER)) as consumer:
            while not stop.is_set():
                rows = consumer.execute("SELECT views FROM published.reach ORDER BY epid").fetchall()
                seen.add(tuple(views for (views,) in rows))
                consumer.rollback()

    reader = threading.Thread(target=read)
    reader.start()
    for views in (6, 7, 8):
        record(queue, 1, 2, 3, rework=True)
        system.finish_jobs(views=views)
        assert publish.publish_day(queue, results, system.viewings, day(1), "1")[1] is True
    stop.set()
    reader.join()
    assert seen <= {(views,) * 3 for views in (5, 6, 7, 8)}


def test_a_day_published_from_an_older_plan_is_replaced(
    system: System, queue: Connection, results: Connection
) -> None:
    plan, _ = record(queue, 1, 2)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    plan, _ = record(queue, 2, 3)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    found = publications.published_plans(results)
    assert {day: each.plan_id for day, each in found.items()} == {day(1): plan.plan_id}
    rows = publications.read_rows(results, day(1))
    assert rows["epid"].tolist() == [2, 3]
    assert plans.require_plan(queue, day(1)).plan_id == plan.plan_id


def test_a_plan_that_is_replaced_while_a_publication_waits_its_turn(
    system: System, queue: Connection, results: Connection
) -> None:
    old, _ = record(queue, 1, 2)
    system.finish_jobs(views=5)
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(system.dsn(Purpose.RESULTS)) as other:
            locks.lock_row(other, locks.RESULTS, f"publish {day(1)}")
            publishing = pool.submit(publish.publish_day, queue, results, system.viewings, day(1), "1")
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while system.query("results", waiting) == [(0,)]:
                assert not publishing.done()
            with connect(system.dsn(Purpose.QUEUE), autocommit=True) as planning:
                new, _ = record(planning, 2, 3)
            system.finish_jobs(views=5)
        manifest, _ = publishing.result()
    assert manifest.plan_id == new.plan_id > old.plan_id
    assert publications.read_rows(results, day(1))["epid"].tolist() == [2, 3]


def test_a_plan_of_the_same_number_is_another_plan(
    system: System, queue: Connection, results: Connection
) -> None:
    """As a ledger gave it that was restored to an earlier moment."""
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    first, _ = publish.publish_day(queue, results, system.viewings, day(1), "1")
    system.query("queue", "UPDATE ledger.plans SET plan_uid = gen_random_uuid()")
    (progress,) = read_progress(queue)
    assert progress.plan_id == first.plan_id
    assert wants_publication(
        replace(progress, is_fanned_out=True), publications.published_plans(results)[day(1)]
    )
    second, changed = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert (second.plan_uid, changed) == (plans.require_plan(queue, day(1)).plan_uid, False)
    assert second.plan_uid != first.plan_uid
    assert [each.plan_uid for each in publications.read_history(results, day(1))] == [
        first.plan_uid,
        second.plan_uid,
    ]


def test_a_ledger_that_was_restored_does_not_replace_what_was_published_since(
    system: System, queue: Connection, results: Connection
) -> None:
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    first, _ = publish.publish_day(queue, results, system.viewings, day(1), "1")
    for table in ("days", "history"):
        system.query("results", f"UPDATE published.{table} SET plan_id = plan_id + 1")
    with pytest.raises(
        LedgerBehind, match="`queue` was restored to an earlier moment: see `episodes db status`"
    ):
        publish.publish_day(queue, results, system.viewings, day(1), "1")
    plan, _ = record(queue, 1, 2, rework=True, above=first.plan_id + 1)
    assert plan.plan_id == first.plan_id + 2
    system.finish_jobs(views=5)
    assert publish.publish_day(queue, results, system.viewings, day(1), "1")[0].plan_id == plan.plan_id


def test_rows_have_the_columns_of_all_algorithms(
    system: System, queue: Connection, results: Connection
) -> None:
    record(queue, 1)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    rows = publications.read_rows(results, day(1))
    keys = ["day", "epid", "algorithm_id", "window_start", "window_end", "covered_from"]
    assert list(rows.columns[:6]) == keys
    assert rows["views"].tolist() == [5]
    assert rows["median_share"].isna().all()
    assert publications.read_rows(results, day(9)).columns.tolist() == rows.columns.tolist()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE published.days SET checksum = 'x', rows = rows - 1",
        'UPDATE published.days SET algorithm_versions = \'{"reach": ["99"]}\'',
        "UPDATE published.days SET snapshot_id = 'x'",
        "DELETE FROM published.days",
    ],
)
@pytest.mark.parametrize("code_version", ["1", "2"])
def test_a_manifest_that_something_else_changed_is_not_published_from(
    system: System, queue: Connection, results: Connection, damage: str, code_version: str
) -> None:
    """Nor put into the history, which repairs go by."""
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    history = publications.read_history(results, day(1))
    system.query("results", damage)
    with pytest.raises(ManifestDamaged, match="not what was last published"):
        publish.publish_day(queue, results, system.viewings, day(1), code_version)
    assert publications.read_history(results, day(1)) == history


CHANGE = "UPDATE ledger.outcomes SET metrics = jsonb_set(metrics, '{views}', '7') WHERE position = 1"


@pytest.mark.parametrize("is_of_an_older_release", [True, False])
def test_outcomes_that_something_else_changed_are_not_published(
    system: System, queue: Connection, results: Connection, *, is_of_an_older_release: bool
) -> None:
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    if is_of_an_older_release:  # which recorded no uid
        for table in ("days", "history"):
            system.query("results", f"UPDATE published.{table} SET plan_uid = NULL")
    before = publications.read_rows(results, day(1))
    system.query("queue", CHANGE)
    _, changed = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert not changed
    assert publications.read_rows(results, day(1)).equals(before)
    plan = plans.require_plan(queue, day(1))
    assert Provenance(plan, publications.find_last_publication(results, day(1))).has_other_outcomes(
        queue, "1"
    )


def test_a_day_is_not_published_without_more_jobs_than_before(
    system: System, queue: Connection, results: Connection
) -> None:
    """As from a queue that was restored to a moment when a job was left out that has an outcome since."""
    record(queue, 1, 2)
    system.finish_jobs("epid = 1")
    system.hold_jobs("epid = 2")
    held.waive_held_jobs(queue, day(1), reason="r", decided_by="b")
    first, _ = publish.publish_day(queue, results, system.viewings, day(1), "1")
    held.retry_held_jobs(queue, day(1))
    system.finish_jobs("epid = 2")
    whole, _ = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert (first.rows, whole.rows) == (1, 2)
    system.query("queue", "DELETE FROM ledger.outcomes WHERE position = 1")
    system.query("queue", "UPDATE ledger.chunks SET succeeded = 1")
    system.hold_jobs("epid = 2")
    held.waive_held_jobs(queue, day(1), reason="r", decided_by="b")
    with pytest.raises(LedgerBehind, match="without 0 jobs of its plan, and now 1 are left out"):
        publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert len(publications.read_rows(results, day(1))) == 2
    # So it is the ledger that a repair puts back.
    found = read_provenance(queue, results, day(1))
    assert found.describe_damage(queue, system.dsn(Purpose.QUEUE), "1") == "outcomes"


def test_a_plan_that_names_other_viewings_than_when_it_was_published_is_not_published_again(
    system: System, queue: Connection, results: Connection
) -> None:
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    history = publications.read_history(results, day(1))
    system.query("queue", "UPDATE ledger.plans SET viewings_version = 7")
    with pytest.raises(
        PlanDamaged,
        match="version 7 of the viewings, and was published from version 0: something else writes",
    ):
        publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert publications.read_history(results, day(1)) == history


def test_a_plan_is_not_published_with_viewings_that_the_lake_does_not_have(
    system: System, queue: Connection, results: Connection
) -> None:
    system.insert_viewings([(1, 1, f"{day(1)} 12:00+00", 1, True)])
    pinned = system.take_viewings(day(1), day(1))
    system.insert_viewings([(2, 1, f"{day(1)} 12:00+00", 1, True)])
    other = system.take_viewings(day(1), day(1))
    assert other.number != pinned.number
    record(queue, 1, 2, viewings=pinned)
    system.finish_jobs(views=5)
    for number in (other.number, 99):
        system.query("queue", f"UPDATE ledger.plans SET viewings_version = {number}")
        with pytest.raises(PlanDamaged, match="2018-03-01 is not published with a version of the viewings"):
            publish.publish_day(queue, results, system.viewings, day(1), "1")
        assert publications.read_history(results, day(1)) == []
    system.query("queue", f"UPDATE ledger.plans SET viewings_version = {pinned.number}")
    manifest, _ = publish.publish_day(queue, results, system.viewings, day(1), "1")
    assert (manifest.viewings_version, manifest.viewings_digest) == pinned


@pytest.mark.parametrize("is_damaged", [True, False])
def test_rows_that_are_merely_published_anew_are_not_called_damaged(
    system: System, queue: Connection, results: Connection, *, is_damaged: bool
) -> None:
    record(queue, 1, 2)
    system.finish_jobs(views=5)
    publish.publish_day(queue, results, system.viewings, day(1), "1")
    record(queue, 1, 2, rework=True)
    system.finish_jobs(views=6)
    if is_damaged:
        system.query("results", "DELETE FROM published.results WHERE epid = 1")
    why = RepairDecision("why", "who", "a run")
    _, changed = publish.publish_day(queue, results, system.viewings, day(1), "1", why)
    assert changed
    assert publications.read_rows(results, day(1))["views"].tolist() == [6, 6]
    found = [each.what for each in read_repairs(results, day(1))]
    assert found == (["published rows; not as published before: 2 rows instead of 2"] if is_damaged else [])


def put_publications(system: System, first: dt.date, last: dt.date, after: dt.timedelta, again: str) -> None:
    """Let days be published some time after their end, and their rows be replaced at a later moment."""
    columns = "jobs, rows, left_out, decision, checksum, plan_id, plan_checksum, code_version"
    values = "1, 1, 0, '', 'c', 1, 'c', '1'"
    days = f"generate_series('{first}'::timestamp, '{last}', '1 day') AS days (day)"
    system.query(
        "results",
        f"INSERT INTO published.days (day, published_at, {columns})"
        f" SELECT day, '{again}', {values} FROM {days};"
        f"INSERT INTO published.history (day, published_at, algorithm_versions, {columns})"
        f" SELECT day, moment, '{{}}', {values} FROM {days},"
        f" LATERAL (VALUES ((day + '1 day') AT TIME ZONE 'UTC' + '{after.total_seconds()}s'::interval),"
        f" ('{again}'::timestamptz)) AS published (moment)",
    )


def test_an_outage_is_noticed_although_every_day_was_worked_again_in_it(
    system: System, results: Connection
) -> None:
    """The manifests then say that each day was published long after its end."""
    last, due = dt.date(2018, 11, 12), dt.date(2018, 11, 29)
    in_time = dt.timedelta(hours=5)
    put_publications(system, dt.date(2018, 11, 1), last, in_time, "2018-11-30 12:00+00")
    found = read_publications(results, due)
    assert found == Publications(last, has_due=False, is_live=True)
    assert not yesterday_is_published(due, 8, found).passed
    assert read_publications(results, last) == Publications(last, has_due=True, is_live=True)
    # What is caught up is late; it hides the days before it only where it is longer than what is looked at.
    late = last + (LIVE_DAYS - 1) * ONE_DAY
    put_publications(system, last + ONE_DAY, late, dt.timedelta(days=8), "2020-11-30 12:00+00")
    assert read_publications(results, due).is_live
    put_publications(system, late + ONE_DAY, late + ONE_DAY, dt.timedelta(days=8), "2020-11-30 12:00+00")
    replay = read_publications(results, late + 9 * ONE_DAY)
    assert replay == Publications(late + ONE_DAY, has_due=False, is_live=False)
    assert yesterday_is_published(due, 8, replay).passed
