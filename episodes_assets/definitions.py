"""The code location: `build_defs()` puts together what the modules of `defs/` list.

Whatever else Dagster is to load is listed there, in the module of its kind.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from episodes_assets.defs import jobs, schedules, sensors
from episodes_assets.defs.assets import ASSETS, CHECKS, EXTERNAL
from episodes_assets.defs.resources import build_resources
from episodes_assets.settings import Settings, load_settings


def build_defs(
    resource_overrides: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> dg.Definitions:
    """Build the definitions afresh.

    Args:
        resource_overrides: Resources by name, in place of those that are made from the settings.
        settings: What steps, sensors and the other resources go by. By default the process's own, which are
            read anew whenever a run or a tick begins, so that the definitions load whatever they say.

    Raises:
        ValueError: If `resource_overrides` has settings, which would reach the steps and no connection.
    """
    if "settings" in (resource_overrides or {}):
        raise ValueError("other settings are given as build_defs(settings=...), to the connections as well")
    resources = build_resources(load_settings if settings is None else lambda: settings)
    return dg.Definitions(
        assets=[*ASSETS, *EXTERNAL],
        asset_checks=CHECKS,
        jobs=jobs.JOBS,
        schedules=schedules.SCHEDULES,
        sensors=sensors.SENSORS,
        resources={**resources, **(resource_overrides or {})},
        # The five steps of a day wait for each other; a process for each would cost more than it does.
        executor=dg.in_process_executor,
    )


defs = build_defs()
