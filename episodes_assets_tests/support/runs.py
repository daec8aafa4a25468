"""Sensors evaluated and runs executed in the test's own process."""

from typing import Any

import dagster as dg

from episodes_assets.definitions import defs
from episodes_assets_tests.support.system import day, failure

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def tick(name: str, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    with dg.build_sensor_context(
        instance=instance, resources=defs.resources, repository_def=defs.get_repository_def()
    ) as context:
        result = defs.resolve_sensor_def(name).evaluate_tick(context)
    return list(result.run_requests or [])


def execute(instance: dg.DagsterInstance, job: str, request: dg.RunRequest) -> None:
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        run_config={**request.run_config, **QUIET},
        raise_on_error=False,
    )
    assert result.success, failure(result)


def run(instance: dg.DagsterInstance, job: str, config: dict[str, Any] | None = None) -> str:
    """Launch a job for day 1 as the launchpad does; what its failed step says."""
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=str(day(1)),
        run_config={**({"ops": {f"{job}_op": {"config": config}}} if config else {}), **QUIET},
        raise_on_error=False,
    )
    return "" if result.success else failure(result)
