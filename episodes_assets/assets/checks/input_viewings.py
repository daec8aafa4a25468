"""The checks of `input_viewings`, and what its materialisation shows."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from episodes_assets.assets.plot import counts_by_day
from episodes_assets.assets.reporting import days_table, image
from episodes_assets.checks import lake
from episodes_assets.checks.verdicts import HISTORY_DAYS, Verdict
from episodes_assets.days import ONE_DAY
from episodes_assets.lake.taking import LateViewings, TakenDay
from episodes_assets.lake.viewings import Viewings
from episodes_assets.results.recompute import OutdatedDay

CHECKS = [
    dg.AssetCheckSpec(
        lake.VIEWINGS_ARE_COMPLETE,
        asset="input_viewings",
        blocking=True,
        description="The day's file in the lake holds the viewings that were taken.",
    ),
    dg.AssetCheckSpec(
        lake.VIEWINGS_ARE_KEPT,
        asset="input_viewings",
        description="The input has all viewings that were taken: those that are gone from there stay in the "
        "lake.",
    ),
    dg.AssetCheckSpec(
        lake.VIEWINGS_COUNT_IS_USUAL,
        asset="input_viewings",
        description=f"Viewings are {lake.LEAST_VIEWINGS:g} to {lake.MOST_VIEWINGS:g} times the median of "
        f"the {HISTORY_DAYS} days before.",
    ),
    dg.AssetCheckSpec(
        lake.LATE_VIEWINGS_ARE_PUBLISHED,
        asset="input_viewings",
        description="The days published last were computed from the viewings that the lake has now.",
    ),
]


def judge(
    viewings: Viewings,
    taken: Sequence[TakenDay],
    late: Sequence[LateViewings],
    outdated: Sequence[OutdatedDay],
) -> list[Verdict]:
    """The verdicts on the viewings of a step's days, which are in order.

    Args:
        viewings: The lake's table.
        taken: The days.
        late: Days before them that were looked at again.
        outdated: Published days that were computed from other viewings.
    """
    rows = [
        lake.ViewingsRows(
            each.day,
            each.viewings.rows,
            viewings.count(each.viewings),
        )
        for each in taken
    ]
    days = [each.day for each in taken]
    newest = viewings.newest()
    known = newest.between(days[0] - HISTORY_DAYS * ONE_DAY, days[-1]) if newest else []
    return [
        lake.viewings_are_complete(rows),
        lake.viewings_are_kept(
            {each.day: each.difference for each in late if not each.was_taken}
            | {each.day: each.difference for each in taken if not each.is_as_read},
        ),
        lake.viewings_count_is_usual({file.day: file.rows for file in known}, days),
        lake.late_viewings_are_published(
            {each.day: each.retaken for each in outdated},
            [each.day for each in outdated if each.is_of_another_lake],
        ),
    ]


def metadata(
    context: dg.AssetExecutionContext,
    viewings: Viewings,
    taken: Sequence[TakenDay],
    late: Sequence[LateViewings],
    earlier: int,
) -> dict[str, Any]:
    """What is shown of a step's days.

    Args:
        context: Of the step.
        viewings: The lake's table.
        taken: The days, in order.
        late: Days before them that were looked at again.
        earlier: Viewings that were taken of days before the history.
    """
    newest = viewings.newest()
    files = [each.viewings for each in taken]
    before = newest.between(taken[-1].day - HISTORY_DAYS * ONE_DAY, taken[-1].day) if newest else []
    return {
        "viewings": sum(file.rows for file in files),
        "bytes": sum(file.size for file in files),
        "viewings that arrived late": sum(each.difference.new for each in late if each.was_taken),
        "viewings accepted as lost": sum(each.difference.gone for each in taken if each.is_as_read),
        "viewings of earlier days": earlier,
        "viewings by day": image(counts_by_day({file.day: file.rows for file in before}), "viewings by day"),
        **days_table(
            context,
            [
                {
                    "day": str(each.day),
                    "viewings": each.viewings.rows,
                    "viewed episodes": each.drop.viewed_episodes,
                    "bytes": each.viewings.size,
                    "file": each.viewings.path,
                }
                for each in taken
            ],
            row_counts=[file.rows for file in files],
            asset="input_viewings",
        ),
        "lake version": newest.number if newest else 0,
        "lake": dg.MetadataValue.path(viewings.shown),
    }
