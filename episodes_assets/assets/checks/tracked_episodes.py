"""The check of `tracked_episodes`."""

import dagster as dg

from episodes_assets.checks.results import STATE_ONLY_GROWS

CHECKS = [
    dg.AssetCheckSpec(
        STATE_ONLY_GROWS,
        asset="tracked_episodes",
        blocking=True,
        description="The stored episodes are those of the manifest, never fewer than the day before, and "
        "the chain of checksums is unbroken.",
    )
]
