"""What Dagster's instance has on record of the runs of a day."""

import dagster as dg
import pytest

from episodes_assets.defs.jobs import publish_day
from episodes_assets.defs.runs import PARTITION, failed_attempts
from episodes_assets_tests.support.system import day

STATUS = dg.DagsterRunStatus


@pytest.mark.parametrize(
    ("statuses", "count"),
    [
        ([STATUS.FAILURE, STATUS.FAILURE, STATUS.CANCELED], 3),
        ([STATUS.CANCELED], 1),
        ([STATUS.FAILURE, STATUS.STARTED], 2),  # killed: it is not in flight
        ([STATUS.FAILURE, STATUS.SUCCESS, STATUS.CANCELED], 1),
        ([STATUS.FAILURE, STATUS.SUCCESS], 0),
        ([], 0),
    ],
)
def test_publications_that_ended_without_success_are_counted(
    statuses: list[dg.DagsterRunStatus], count: int
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for number, status in enumerate(statuses):
            run = dg.DagsterRun(
                publish_day.name, run_id=f"run-{number}", status=status, tags={PARTITION: str(day(1))}
            )
            instance.add_run(run)
        found = failed_attempts(instance, [day(1), day(2)], [])
        assert {each: failed.count for each, failed in found.items()} == ({day(1): count} if count else {})
        assert failed_attempts(instance, [day(1)], [day(1)]) == {}
