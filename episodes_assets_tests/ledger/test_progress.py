"""Progress with its throughput: what was finished in the last minute counts, of each day by itself."""

import pytest

from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.progress import FleetProgress, read_fleet_progress
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
