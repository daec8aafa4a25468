"""Progress with its throughput: what was finished in the last minute counts, of each day by itself."""

import pytest

from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.progress import (
    FleetProgress,
    durations_by_algorithm,
    finished_over_time,
    read_fleet_progress,
    slowest_batches,
)
from episodes_assets.planning.throughput import MOST_POINTS
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.plans import finish
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.long


def progress(system: System) -> FleetProgress:
    with connect(system.dsn(Purpose.QUEUE)) as queue:
        return read_fleet_progress(queue)


def test_the_throughput_of_each_day_and_of_all(system: System) -> None:
    for number in (1, 2):
        system.insert_drop(day(number), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(100)])
        system.insert_viewings([(epid, 1, f"{day(number)} 12:00+00", 1, True) for epid in range(100)])
    system.plan(day(1), day(2))
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        for number in (1, 2):
            fan_out_day(queue, day(number))
    found = progress(system)
    assert [(each.jobs_per_second, each.ends_at) for each in found.days] == [(0, None), (0, None)]
    assert (found.workers, found.ends_at) == (0, None)

    finish(system, 30, ago=1000, seconds=10)
    assert progress(system).jobs_per_second == 0
    finish(system, 20, ago=5, seconds=15)  # 20 jobs in the 20 seconds since they were begun
    finish(system, 50, ago=0, seconds=10, number=2)
    found = progress(system)
    assert [each.jobs_per_second for each in found.days] == pytest.approx([1, 5], rel=0.05)
    first, second = found.days
    assert (first.counts.succeeded, first.counts.waiting) == (50, 50)
    assert first.ends_at is not None
    assert second.ends_at is not None
    assert (first.ends_at - found.now).total_seconds() == pytest.approx(50, rel=0.05)
    assert (second.ends_at - found.now).total_seconds() == pytest.approx(10, rel=0.05)
    assert found.jobs_per_second == pytest.approx(6, rel=0.05)

    finish(system, 50, ago=0, seconds=10)
    done, _ = progress(system).days
    assert (done.jobs_per_second, done.ends_at) == (0, None)


@pytest.mark.slow
def test_durations_and_jobs_over_time_are_told_from_what_was_written(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(1000)])
    system.plan(day(1))
    ((plan_id,),) = system.query("queue", "SELECT plan_id FROM ledger.plans")
    for number in range(100):
        finish(system, 9 if number else 1, ago=1000 - 10 * number, seconds=1 + number / 100)
    with connect(system.dsn(Purpose.QUEUE)) as queue:
        points = finished_over_time(queue, [plan_id])
        (own,) = durations_by_algorithm(queue, [plan_id])
        slow = slowest_batches(queue, [plan_id], 2)
        assert finished_over_time(queue, [plan_id + 1]) == []
    assert 10 < len(points) <= MOST_POINTS
    assert (points[0].jobs, points[-1].jobs) == (0, 892)
    assert points == sorted(points, key=lambda point: (point.at, point.jobs))
    assert (own.jobs, own.batches, own.seconds, own.median) == (892, 100, 100, 1)
    assert [(each.jobs, each.epid, each.seconds) for each in slow] == [(9, None, 1.99), (9, None, 1.98)]
    system.query("queue", "UPDATE ledger.batches SET seconds = 60 WHERE jobs = 1")
    with connect(system.dsn(Purpose.QUEUE)) as queue:
        (alone,) = slowest_batches(queue, [plan_id], 1)
    assert (alone.jobs, alone.epid, alone.algorithm_id, alone.seconds) == (1, 0, 0, 60)
