"""Reading the accumulated state back, to compare it with its manifest."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from psycopg.rows import dict_row

from episodes_assets.checks.results import StateDay
from episodes_assets.planning.episode_set import EpisodeIds, state_checksum
from episodes_assets.postgres.arrow import read_arrow
from episodes_assets.postgres.connect import Connection

_NONE: EpisodeIds = np.array([], dtype=np.int64)
_DAYS = """
    WITH added AS (
        -- All but the newest days. The index on tracked_on, or its order, would fetch each row by itself.
        SELECT tracked_on + 0 AS tracked_on, count(epid) AS episodes FROM state.tracked_episodes
        WHERE tracked_on + 0 <= %(last)s GROUP BY 1
    ), chain AS (
        SELECT day, newly_tracked, total, checksum, previous_checksum,
            lag(total) OVER earlier AS total_before, lag(checksum) OVER earlier AS checksum_before
        FROM state.tracked_days WHERE day <= %(last)s WINDOW earlier AS (ORDER BY day)
    ), stored AS (
        -- Episodes of an import may be tracked on days that the manifest does not know.
        SELECT coalesce(chain.day, added.tracked_on) AS day, coalesce(episodes, 0) AS newly_stored,
            sum(coalesce(episodes, 0)) OVER (ORDER BY coalesce(chain.day, added.tracked_on)) AS stored
        FROM chain FULL JOIN added ON tracked_on = chain.day
    )
    SELECT chain.*, newly_stored::bigint, stored::bigint FROM chain JOIN stored USING (day)
    WHERE day = ANY (%(days)s) ORDER BY day
"""
_EPISODES = """
    SELECT epid, tracked_on FROM state.tracked_episodes
    WHERE tracked_on = ANY ({days}::date[]) ORDER BY tracked_on, epid
"""


def read_state_days(connection: Connection, dsn: str, days: Sequence[dt.date]) -> list[StateDay]:
    """What is recorded and stored of some days, in order; nothing of a day that has no manifest.

    Args:
        connection: To `results`.
        dsn: The same database, for whole columns.
        days: Which.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_DAYS, {"days": list(days), "last": max(days)})
        rows: list[dict[str, Any]] = cursor.fetchall()
    episodes = _episodes_by_day(dsn, days)
    return [
        StateDay(
            **row,
            stored_checksum=state_checksum(row["previous_checksum"] or "", episodes.get(row["day"], _NONE)),
        )
        for row in rows
    ]


def _episodes_by_day(dsn: str, days: Sequence[dt.date]) -> dict[dt.date, EpisodeIds]:
    table = read_arrow(dsn, _EPISODES, days=list(days))
    tracked_on = table["tracked_on"].to_numpy().astype("datetime64[D]")
    present, first = np.unique(tracked_on, return_index=True)
    parts = np.split(table["epid"].to_numpy(), first[1:])
    return dict(zip(present.tolist(), parts, strict=False))
