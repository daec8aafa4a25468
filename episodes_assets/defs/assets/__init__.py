"""The asset graph: one asset in each module, with its checks and what its materialisation shows.

A check is evaluated within the asset's own step, one event for a whole range of days. When a blocking check
fails, the step fails before its days count as materialised, so neither the same run nor a later run of the
backfill continues with them. The rules of the checks are in `checks/`.
"""

from episodes_assets.defs.assets import (
    episode_jobs,
    external,
    job_outcomes,
    published_results,
    tracked_episodes,
)
from episodes_assets.defs.assets import input as taken_input

ASSETS = (
    taken_input.take_input,
    tracked_episodes.tracked_episodes,
    episode_jobs.episode_jobs,
    job_outcomes.job_outcomes,
    published_results.published_results,
)
EXTERNAL = (*external.INPUT_TABLES, *external.consumers_views())
CHECKS = (job_outcomes.each_open_day_progresses,)
