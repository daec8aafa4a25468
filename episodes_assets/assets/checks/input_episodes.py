"""The checks of `input_episodes`."""

import datetime as dt
from collections.abc import Mapping, Sequence

import dagster as dg

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import GateClosed
from episodes_assets.gates import snapshots as gates
from episodes_assets.gates.bands import HISTORY_DAYS
from episodes_assets.gates.verdicts import Verdict
from episodes_assets.stores.snapshot_manifest import EPISODES, QUARANTINE, VIEWED, Snapshot
from episodes_assets.stores.snapshots import SnapshotStore

CHECKS = [
    dg.AssetCheckSpec(
        gates.SNAPSHOT_IS_COMPLETE,
        asset="input_episodes",
        blocking=True,
        description="The rows read from the drop are those in the snapshot's files.",
    ),
    dg.AssetCheckSpec(
        gates.QUARANTINE_IS_SMALL,
        asset="input_episodes",
        blocking=True,
        description=f"At most {gates.QUARANTINE_WARNING_SHARE:.0%} of the drop is refused; above "
        "EPISODES_QUARANTINE_LIMIT nothing is built on it.",
    ),
    dg.AssetCheckSpec(
        gates.DROP_SIZE_IS_USUAL,
        asset="input_episodes",
        description=f"Accepted rows are {gates.LEAST_DROP:g} to {gates.MOST_DROP:g} times the median of the "
        f"{HISTORY_DAYS} days before.",
    ),
]


def judge(store: SnapshotStore, taken: Sequence[Snapshot], quarantine_limit: float) -> list[Verdict]:
    """The verdicts on the snapshots of a step's days, which are in order."""
    rows = [_rows(snapshot, stored) for snapshot, stored in zip(taken, store.count_rows(taken), strict=True)]
    days = [each.day for each in rows]
    before = [days[0] - number * ONE_DAY for number in range(1, HISTORY_DAYS + 1)]
    accepted = {day: snapshot.accepted_rows for day, snapshot in store.find_all(before).items()}
    accepted |= {each.day: each.accepted for each in rows}
    return [
        gates.snapshot_is_complete(rows),
        gates.quarantine_is_small(rows, quarantine_limit),
        gates.drop_size_is_usual(accepted, days),
    ]


def refuse_large_quarantine(snapshots: Sequence[Snapshot], limit: float) -> None:
    """Keep a step from building on a drop that `quarantine_is_small` stopped in a run of its own.

    Raises:
        GateClosed: If too much of a drop was refused.
    """
    for snapshot in snapshots:
        if gates.refused_share(snapshot.quarantined_rows, snapshot.drop_rows) > limit:
            raise GateClosed(
                f"{snapshot.quarantined_rows:,} of the {snapshot.drop_rows:,} rows of the drop of "
                f"{snapshot.day} were refused, more than {limit:.0%}",
                "have it mended at its source and materialise input_episodes with `refresh`, or raise "
                "EPISODES_QUARANTINE_LIMIT to accept it as it is",
            )


def _rows(snapshot: Snapshot, stored: Mapping[str, int]) -> gates.SnapshotRows:
    return gates.SnapshotRows(
        day=dt.date.fromisoformat(snapshot.day),
        read=snapshot.drop_rows,
        accepted=snapshot.accepted_rows,
        quarantined=snapshot.quarantined_rows,
        viewed=snapshot.viewed_episodes,
        accepted_stored=stored[EPISODES],
        quarantined_stored=stored[QUARANTINE],
        viewed_stored=stored[VIEWED],
    )
