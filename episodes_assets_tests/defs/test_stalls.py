"""A day that makes no progress raises an alert that says what is stuck and what to do."""

import datetime as dt
from typing import Any

import dagster as dg
import pytest

from episodes_assets.checks.ledger import OpenDay, each_open_day_progresses, stalled_days
from episodes_assets.definitions import defs
from episodes_assets.defs.assets.job_outcomes import Every, StallClock
from episodes_assets.defs.sensors import alert_of_stalls
from episodes_assets.errors import FleetStalled
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.held import retry_held_jobs
from episodes_assets.ledger.progress import open_days
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System, day

LONG_AGO = "2018-03-01 12:00+00"


def planned(system: System, *epids: int) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in epids])
    system.plan(day(1))
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(1))


def found(system: System) -> OpenDay:
    with connect(system.dsn(Purpose.QUEUE), read_only=True) as queue:
        (only,) = open_days(queue, dt.timedelta(seconds=30))
    return only


@pytest.mark.slow
def test_an_alert_is_raised_once_and_taken_back(system: System) -> None:
    planned(system, 1, 2)
    with dg.DagsterInstance.get() as instance:
        cursor: str | None = None

        def tick() -> Any:
            nonlocal cursor
            with dg.build_sensor_context(
                instance=instance,
                cursor=cursor,
                resources=defs.resources,
                repository_def=defs.get_repository_def(),
            ) as context:
                result = alert_of_stalls(context)
            if isinstance(result, dg.SensorResult):
                cursor = result.cursor
                (event,) = result.asset_events
                return event
            return result

        assert isinstance(tick(), dg.SkipReason)
        system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}'")
        alert = tick()
        assert isinstance(alert, dg.AssetCheckEvaluation)
        assert not alert.passed
        assert "2 jobs wait in 1 messages, and no worker takes them" in str(alert.description)
        assert "see that workers run (`episodes worker`)" in str(alert.description)
        table = alert.metadata["days"]
        assert isinstance(table, dg.TableMetadataValue)
        assert [record.data["day"] for record in table.records] == ["2018-03-01"]
        assert isinstance(tick(), dg.SkipReason)
        system.finish_jobs()
        taken_back = tick()
        assert isinstance(taken_back, dg.AssetCheckEvaluation)
        assert taken_back.passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "stuck"),
    [
        ("DELETE FROM pgqueuer", "1 of their messages are missing"),
        (
            "UPDATE ledger.chunks SET claim = gen_random_uuid(), claimed_by = 'w-1', claimed_at = now()",
            "2 jobs are running and none has ended; w-1 has had its own since",
        ),
        (
            (
                "UPDATE ledger.chunks SET claim = gen_random_uuid(), claimed_by = 'w-1', claimed_at = now();"
                "UPDATE pgqueuer SET status = 'picked', heartbeat = now() - interval '1 hour'"
            ),
            "have fallen silent, among them w-1",
        ),
    ],
)
def test_what_is_stuck_is_named(system: System, fault: str, stuck: str) -> None:
    planned(system, 1, 2)
    system.query("queue", fault)
    assert stuck in found(system).what_is_stuck
    assert found(system).what_to_do


@pytest.mark.long
def test_progress_is_when_a_job_was_finished_last(system: System) -> None:
    planned(system, 1, 2)
    handed_out = found(system).moved_at
    system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}'")
    assert found(system).moved_at < handed_out
    system.query("queue", "UPDATE ledger.chunks SET moved_at = now()")
    assert found(system).moved_at > handed_out


@pytest.mark.long
def test_a_day_that_is_begun_with_and_given_back_is_stalled_while_others_move(system: System) -> None:
    planned(system, 1, 2)
    system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}', planned_at = '{LONG_AGO}'")
    system.insert_drop(day(2), [(3, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(2))
    is_other_day = "plan_id = (SELECT plan_id FROM ledger.plans WHERE day = '2018-03-02')"
    system.query("queue", f"UPDATE ledger.chunks SET succeeded = jobs, moved_at = now() WHERE {is_other_day}")
    assert not found(system).is_stalled(dt.datetime.now(dt.UTC), LIMIT)

    given_back = "UPDATE ledger.chunks SET claim = NULL, claimed_by = 'w-1', claimed_at = now()"
    system.query("queue", f"{given_back} WHERE NOT {is_other_day}")
    assert not found(system).is_stalled(dt.datetime.now(dt.UTC), LIMIT)
    system.query("queue", "UPDATE pgqueuer SET attempts = 3")
    stalled = found(system)
    assert stalled.is_stalled(dt.datetime.now(dt.UTC), LIMIT)
    assert "workers begin with its 2 jobs and give them back, w-1 last at " in stalled.describe()
    assert "read the log of that worker, which says why" in stalled.describe()
    # What was given back before a job was finished is over.
    system.query("queue", "UPDATE ledger.chunks SET moved_at = now()")
    assert found(system).times_given_back == 0


def test_held_jobs_of_an_old_day_that_are_retried_are_no_stall(system: System) -> None:
    planned(system, 1, 2)
    system.hold_jobs("true")
    system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}'")
    system.query("queue", f"UPDATE ledger.chunks SET moved_at = '{LONG_AGO}'")
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assert retry_held_jobs(queue, day(1)) == 2
    assert not found(system).is_stalled(dt.datetime.now(dt.UTC), LIMIT)


NOW = dt.datetime(2018, 3, 2, tzinfo=dt.UTC)
LIMIT = dt.timedelta(minutes=15)
LATELY, TOO_LONG_AGO = NOW - dt.timedelta(minutes=14), NOW - dt.timedelta(minutes=16)


def in_the_queue(*, moved_at: dt.datetime = TOO_LONG_AGO, **others: Any) -> OpenDay:
    """A day that waits behind others, which the fleet works."""
    facts = {
        "waiting": 2,
        "running": 0,
        "claimed_by": None,
        "claimed_at": None,
        "messages": 1,
        "lost_messages": 0,
        "silent_messages": 0,
        "fleet_moved_at": LATELY,
        "times_given_back": 0,
        "begun_at": None,
        "begun_by": None,
    }
    return OpenDay(day(1), moved_at=moved_at, **(facts | others))


@pytest.mark.parametrize(
    ("found", "is_stalled"),
    [
        (in_the_queue(), False),
        (in_the_queue(fleet_moved_at=TOO_LONG_AGO), True),
        (in_the_queue(fleet_moved_at=None), True),
        (in_the_queue(moved_at=LATELY, fleet_moved_at=None), False),
        (in_the_queue(lost_messages=1), True),
        (in_the_queue(silent_messages=1), True),
        # A worker that stopped has given it back, or all who have begun with it.
        (in_the_queue(times_given_back=1, begun_at=LATELY, begun_by="w-1"), False),
        (in_the_queue(times_given_back=3, begun_at=LATELY, begun_by="w-1"), True),
        (in_the_queue(times_given_back=3, begun_at=LATELY, begun_by="w-1", moved_at=LATELY), False),
        # Its turn has come just now, or long ago.
        (in_the_queue(running=1, claimed_by="w-1", claimed_at=LATELY), False),
        (in_the_queue(running=1, claimed_by="w-1", claimed_at=TOO_LONG_AGO), True),
        # An input that is away: claimed and given back, time and again.
        (in_the_queue(running=1, claimed_by="w-1", claimed_at=LATELY, fleet_moved_at=TOO_LONG_AGO), True),
    ],
)
def test_a_day_behind_others_is_not_stalled(found: OpenDay, *, is_stalled: bool) -> None:
    assert found.is_stalled(NOW, LIMIT) is is_stalled


def test_the_verdict_names_those_days_alone_that_are_stalled() -> None:
    found = [in_the_queue(), in_the_queue(fleet_moved_at=None), in_the_queue(moved_at=LATELY)]
    assert stalled_days(found, NOW, LIMIT) == found[1:2]
    verdict = each_open_day_progresses(found, NOW, LIMIT)
    assert verdict.blocks
    assert verdict.message == found[1].describe()
    assert [row["day"] for row in verdict.offending] == [str(day(1))]
    assert verdict.facts == {"days with unfinished jobs": 3}
    assert each_open_day_progresses(found[:1], NOW, LIMIT).passed


@pytest.mark.slow
def test_what_the_fleet_does_for_other_days_is_seen(system: System) -> None:
    planned(system, 1, 2)
    system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}'")
    assert found(system).is_stalled(dt.datetime.now(dt.UTC), LIMIT)
    system.insert_drop(day(2), [(3, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(2))
    system.query(
        "queue",
        "UPDATE ledger.chunks SET succeeded = chunks.jobs, moved_at = now() FROM ledger.plans"
        " WHERE plans.plan_id = chunks.plan_id AND day = %s",
        [day(2)],
    )
    assert not found(system).is_stalled(dt.datetime.now(dt.UTC), LIMIT)


class Clock:
    """A clock that a test sets, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_timer_is_due_once_in_its_seconds() -> None:
    clock = Clock()
    timer = Every(10, clock)
    due = []
    for clock.now in (100, 109, 110, 111, 119, 120, 145, 146, 155):
        due.append(timer.is_due())
    assert due == [False, False, True, False, False, True, True, False, True]


def test_a_wait_asks_what_is_stuck_only_when_nothing_finishes() -> None:
    clock = Clock()
    asked: list[float] = []
    stalled: list[OpenDay] = []

    def find() -> list[OpenDay]:
        asked.append(clock.now)
        return stalled

    stall = StallClock(LIMIT, find, clock)
    minute = 60
    stall.refuse_stall(0)
    clock.now += 14 * minute
    stall.refuse_stall(0)
    clock.now += 2 * minute
    stall.refuse_stall(1)  # one was finished
    clock.now += 15 * minute
    stall.refuse_stall(1)
    assert asked == []
    clock.now += minute
    stall.refuse_stall(1)  # the fleet works other days
    clock.now += 14 * minute
    stall.refuse_stall(1)
    assert len(asked) == 1
    clock.now += 2 * minute
    stalled.append(in_the_queue(fleet_moved_at=None))
    with pytest.raises(FleetStalled, match="no job finished for 15 minutes; of 2018-03-01 2 jobs wait in"):
        stall.refuse_stall(1)
    assert len(asked) == 2
