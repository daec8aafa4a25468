"""The checks of `published_results`."""

import datetime as dt

import dagster as dg

from episodes_assets.checks.results import (
    PUBLISHED_ROWS_ARE_THE_OUTCOMES,
    YESTERDAY_IS_PUBLISHED,
    due_day,
    yesterday_is_published,
)
from episodes_assets.checks.verdicts import Verdict
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.verify import read_publications

CHECKS = [
    dg.AssetCheckSpec(
        PUBLISHED_ROWS_ARE_THE_OUTCOMES,
        asset="published_results",
        blocking=True,
        description="The rows read back, the outcomes in the ledger and the manifest agree.",
    ),
    dg.AssetCheckSpec(
        YESTERDAY_IS_PUBLISHED,
        asset="published_results",
        description="The day that ended last is published by EPISODES_PUBLISHED_BY_HOUR. Looked at again "
        "every minute by the sensor `freshness`.",
    ),
]


def judge_freshness(results: Connection, now: dt.datetime, hour: int) -> Verdict:
    """The verdict of `yesterday_is_published` at a time."""
    due = due_day(now, hour)
    return yesterday_is_published(due, hour, read_publications(results, due))
