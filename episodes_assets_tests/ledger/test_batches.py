"""Throughput counts each job once, over the time that its batch took; durations are told as written."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from episodes_assets.ledger.batches import (
    durations_by_algorithm,
    finished_over_time,
    read_throughput,
    slowest_batches,
)
from episodes_assets.planning.throughput import MOST_POINTS
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.plans import finish, record
from episodes_assets_tests.support.system import System, day

BUCKET, BUCKETS = 10.0, 6
Batch = tuple[int, float, float]  # jobs, seconds since it ended, seconds that it took


def throughput(system: System, batches: list[Batch]) -> list[float]:
    """Of these batches and no others; nothing of them stays."""
    with connect(system.dsn(Purpose.QUEUE)) as queue:
        plan, _ = record(queue, *range(1, len(batches) + 1))
        for position, (jobs, ago, seconds) in enumerate(batches):
            queue.execute(
                "INSERT INTO ledger.batches VALUES (%s, %s, 0, %s, %s, '{0}', '{1}', '{1}', 'w',"
                " now() - make_interval(secs => %s))",
                [plan.plan_id, position, jobs, seconds, ago],
            )
        found = read_throughput(queue, bucket_seconds=BUCKET, buckets=BUCKETS)
        queue.rollback()
    return found


def test_a_batch_counts_over_the_time_it_took(system: System) -> None:
    assert throughput(system, [(100, 5, 20)]) == pytest.approx([0, 0, 0, 2.5, 5, 2.5], abs=1e-3)
    # Half of it before all that is looked at; one that ended before it; one that took no time; one that is
    # not over yet by this server's clock.
    assert throughput(system, [(100, 55, 10), (100, 61, 10)]) == pytest.approx([5, 0, 0, 0, 0, 0], abs=1e-3)
    assert throughput(system, [(100, 15, 0), (10, -1, 0)]) == pytest.approx([0, 0, 0, 0, 10, 1], abs=1e-3)
    assert throughput(system, []) == [0] * BUCKETS


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 30), st.floats(0, 29)), max_size=8))
def test_each_job_counts_once(system: System, batches: list[Batch]) -> None:
    rates = throughput(system, batches)
    assert sum(rates) * BUCKET == pytest.approx(sum(jobs for jobs, _, _ in batches), rel=1e-3, abs=1e-3)


@pytest.mark.long
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
