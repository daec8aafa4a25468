"""The check of `job_outcomes`."""

import dagster as dg

from episodes_assets.checks.ledger import EVERY_JOB_HAS_ONE_OUTCOME

CHECKS = [
    dg.AssetCheckSpec(
        EVERY_JOB_HAS_ONE_OUTCOME,
        asset="job_outcomes",
        blocking=True,
        description="Each job of the plan is accounted for once: jobs = outcomes + waived jobs.",
    )
]
