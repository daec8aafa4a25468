"""Published days to damage, repairs as people launch them, and what is stored before and after."""

from typing import Any

import dagster as dg

from episodes_assets.definitions import defs
from episodes_assets_tests.support.runs import QUIET
from episodes_assets_tests.support.system import System, day, failure

WHY = "somebody wrote to the database"


def stored(system: System) -> dict[str, Any]:
    """What consumers read, byte by byte, and what it is made from."""
    return {
        "published": system.published().to_csv(),
        "state": system.query("results", "SELECT epid, tracked_on FROM state.tracked_episodes ORDER BY epid"),
        "days": system.query(
            "results", "SELECT day, total, checksum, previous_checksum FROM state.tracked_days ORDER BY day"
        ),
        "jobs": [system.jobs(day(number)) for number in (1, 2, 3)],
    }


def repairs(system: System) -> list[tuple[Any, ...]]:
    return system.query("results", "SELECT day, what, reason FROM published.repairs ORDER BY repair_id")


def launch_repair(reason: str, number: int = 2) -> dg.ExecuteInProcessResult:
    """Launch the job as its launchpad does, with its reason filled in."""
    job = defs.resolve_job_def("repair_days")
    config: dict[str, Any] = dict(job.get_run_config_for_partition_key(str(day(number))))
    config["ops"]["tracked_episodes"]["config"]["reason"] = reason
    with dg.DagsterInstance.get() as instance:
        return job.execute_in_process(
            instance=instance,
            partition_key=str(day(number)),
            run_config={**config, **QUIET},
            raise_on_error=False,
        )


def publish_three_days(system: System) -> System:
    """Work and publish three days; then viewings of the second arrive."""
    system.generate(day(1), day(3), episodes=60)
    with system.workers():
        result = system.materialize(day(1), day(3))
        assert result.success, failure(result)
    system.query(
        "input",
        "INSERT INTO viewings SELECT epid, viewer_id + 1, viewed_at, seconds_watched + 1, completed"
        " FROM viewings WHERE viewed_at >= '2018-03-02' AND viewed_at < '2018-03-03' ON CONFLICT DO NOTHING",
    )
    return system


def take_late_viewings(system: System) -> None:
    """Let the lake have them, as a version that nothing was computed from."""
    refresh = {"refresh": True, "reason": "they were late"}
    result = system.materialize(day(2), select=["input_episodes"], config=refresh)
    assert result.success, failure(result)
    newest = system.viewings.newest()
    named = system.query("queue", "SELECT max(viewings_version) FROM ledger.plans")
    assert newest is not None
    assert newest.number > named[0][0]
