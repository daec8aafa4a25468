"""The code location: the sum of assets, jobs, schedules, sensors and resources.

Each of them is defined in `defs/`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from episodes_assets.defs.assets.episode_jobs import episode_jobs
from episodes_assets.defs.assets.input import take_input
from episodes_assets.defs.assets.job_outcomes import each_open_day_progresses, job_outcomes
from episodes_assets.defs.assets.published_results import published_results
from episodes_assets.defs.assets.tracked_episodes import tracked_episodes
from episodes_assets.defs.jobs import (
    cancel_jobs,
    correct_day,
    plan_day,
    prune_message_log,
    publish_day,
    retry_held_jobs,
    rework_days,
    waive_held_jobs,
)
from episodes_assets.defs.resources import InputDatabase, Lake, QueueDatabase, ResultsDatabase
from episodes_assets.defs.schedules import daily_plan, nightly_pruning
from episodes_assets.defs.sensors import (
    alert_of_stalls,
    fan_out,
    freshness,
    publish_finished_days,
    report_progress,
)

# Steps store what they make by themselves. Dagster's own IO manager takes a folder to write to from
# whoever launches a run; this one takes no configuration.
nothing_stored = dg.IOManagerDefinition(lambda _: dg.InMemoryIOManager(), config_schema={})  # type: ignore[no-untyped-call]

ASSETS = (take_input, tracked_episodes, episode_jobs, job_outcomes, published_results)


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Build the definitions afresh.

    Args:
        resource_overrides: Resources by name, in place of those that read the settings.
    """
    resources: dict[str, Any] = {
        "input_database": InputDatabase(),
        "queue_database": QueueDatabase(),
        "results_database": ResultsDatabase(),
        "lake": Lake(),
        "io_manager": nothing_stored,
    }
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[each_open_day_progresses],
        jobs=[
            plan_day,
            publish_day,
            correct_day,
            rework_days,
            retry_held_jobs,
            waive_held_jobs,
            cancel_jobs,
            prune_message_log,
        ],
        schedules=[daily_plan, nightly_pruning],
        sensors=[fan_out, publish_finished_days, alert_of_stalls, freshness, report_progress],
        resources={**resources, **(resource_overrides or {})},
        # The five steps of a day wait for each other; a process for each would cost more than it does.
        executor=dg.in_process_executor,
    )


defs = build_defs()
