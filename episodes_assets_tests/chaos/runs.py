"""What the processes of `run_process` do: a Dagster run, a sensor's tick; and what came of it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from episodes_assets.definitions import defs
from episodes_assets_tests.support.system import System, failure


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        success: Whether it succeeded.
        message: What its first failed step says.
        is_plain: Whether that is an error that says what to do, not a traceback.
    """

    success: bool
    message: str
    is_plain: bool


def run_days(
    system: System,
    first: dt.date,
    last: dt.date | None = None,
    select: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    rework: bool = False,
) -> RunEnd:
    """A Dagster run over a day or a range."""
    result = system.materialize(first, last, select=select, config=config, rework=rework)
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return RunEnd(
        success=result.success,
        message=failure(result),
        is_plain=bool(failures) and all(each.user_failure_data is not None for each in failures),
    )


def tick(sensor: str) -> list[str]:
    """Evaluate a sensor once; the partition keys it requests runs for."""
    with (
        dg.DagsterInstance.get() as instance,
        dg.build_sensor_context(
            instance=instance, resources=defs.resources, repository_def=defs.get_repository_def()
        ) as context,
    ):
        result = defs.resolve_sensor_def(sensor).evaluate_tick(context)
    return [str(request.partition_key) for request in result.run_requests or []]
