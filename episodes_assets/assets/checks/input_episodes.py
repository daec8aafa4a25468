"""The checks of `input_episodes`."""

from collections.abc import Sequence

import dagster as dg

from episodes_assets.checks import lake
from episodes_assets.checks.verdicts import HISTORY_DAYS, Verdict
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import GateClosed
from episodes_assets.lake.drops import Drop, Drops

CHECKS = [
    dg.AssetCheckSpec(
        lake.DROP_IS_COMPLETE,
        asset="input_episodes",
        blocking=True,
        description="The rows read from the drop are those in the lake's files.",
    ),
    dg.AssetCheckSpec(
        lake.QUARANTINE_IS_SMALL,
        asset="input_episodes",
        blocking=True,
        description=f"At most {lake.QUARANTINE_WARNING_SHARE:.0%} of the drop is refused; above "
        "EPISODES_QUARANTINE_LIMIT nothing is built on it.",
    ),
    dg.AssetCheckSpec(
        lake.DROP_SIZE_IS_USUAL,
        asset="input_episodes",
        description=f"Accepted rows are {lake.LEAST_DROP:g} to {lake.MOST_DROP:g} times the median of the "
        f"{HISTORY_DAYS} days before.",
    ),
]


def judge(drops: Drops, taken: Sequence[Drop], quarantine_limit: float) -> list[Verdict]:
    """The verdicts on the drops of a step's days, which are in order."""
    rows = [_rows(drop, stored) for drop, stored in zip(taken, drops.count_rows(taken), strict=True)]
    days = [each.day for each in rows]
    before = [days[0] - number * ONE_DAY for number in range(1, HISTORY_DAYS + 1)]
    accepted = {day: drop.accepted_rows for day, drop in drops.find_all(before).items()}
    accepted |= {each.day: each.accepted for each in rows}
    return [
        lake.drop_is_complete(rows),
        lake.quarantine_is_small(rows, quarantine_limit),
        lake.drop_size_is_usual(accepted, days),
    ]


def refuse_large_quarantine(drops: Sequence[Drop], limit: float) -> None:
    """Keep a step from building on a drop that `quarantine_is_small` stopped in a run of its own.

    Raises:
        GateClosed: If too much of a drop was refused.
    """
    for drop in drops:
        if lake.refused_share(drop.quarantined_rows, drop.drop_rows) > limit:
            raise GateClosed(
                f"{drop.quarantined_rows:,} of the {drop.drop_rows:,} rows of the drop of "
                f"{drop.day} were refused, more than {limit:.0%}",
                "have it mended at its source and materialise input_episodes with `refresh`, or raise "
                "EPISODES_QUARANTINE_LIMIT to accept it as it is",
            )


def _rows(drop: Drop, stored: tuple[int, int]) -> lake.DropRows:
    accepted, quarantined = stored
    return lake.DropRows(
        day=drop.day,
        read=drop.drop_rows,
        accepted=drop.accepted_rows,
        quarantined=drop.quarantined_rows,
        accepted_stored=accepted,
        quarantined_stored=quarantined,
    )
