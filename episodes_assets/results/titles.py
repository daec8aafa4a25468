"""What published episodes are called: every statement that writes `published.episodes`.

The published rows name episodes by number. For whoever looks at them, what the catalogue calls an episode is
kept beside them, once, as the last published day's drop has it: of each day by itself it would be as much as
all the results. It is only displayed, so it is written after a day is published and not as a part of that,
and its absence makes nothing wrong. Writing it is idempotent, and comes to the same in whatever order days
are published.
"""

import datetime as dt
import json
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from episodes_assets.lake.drops import Drops
from episodes_assets.postgres.connect import Connection

_ROWS_AT_ONCE = 50_000


def record_titles(results: Connection, drops: Drops, days: Collection[dt.date]) -> None:
    """Keep what the drops of some published days call the episodes that were published.

    Days are looked at from the last one back, each only for episodes that no later one of them has named. So
    the drop of the last day is mostly the only one that is read.

    Args:
        results: To `results`, as the publisher.
        drops: The lake's.
        days: Published days.

    Raises:
        LakeDamaged: If the file of a drop is gone, was cut or changed.
        SystemFailure: If the lake cannot be reached.
    """
    named: npt.NDArray[np.int64] = np.array([], dtype=np.int64)
    for day in sorted(days, reverse=True):
        unnamed = np.setdiff1d(_read_published(results, day), named, assume_unique=True)
        drop = drops.find(day) if unnamed.size else None
        if drop is not None:
            titles = drops.read_titles(drop, unnamed)
            _write(results, day, titles)
            named = np.union1d(named, titles["epid"].to_numpy())


def _read_published(results: Connection, day: dt.date) -> npt.NDArray[np.int64]:
    """The ascending ids of the episodes that a day has results of."""
    rows = results.execute(
        "SELECT DISTINCT epid FROM published.results WHERE day = %s ORDER BY epid", [day]
    ).fetchall()
    return np.array([epid for (epid,) in rows], dtype=np.int64)


def _write(results: Connection, day: dt.date, titles: pa.Table) -> None:
    """Write titles where none of a later day stands; ordered by epid, so that no two writers deadlock."""
    with results.transaction():
        for begin in range(0, titles.num_rows, _ROWS_AT_ONCE):
            results.execute(
                """
                INSERT INTO published.episodes AS known (epid, series, season, episode, title, day)
                SELECT epid, series, season, episode, title, %(day)s
                FROM json_to_recordset(%(titles)s::json)
                    AS titles (epid bigint, series text, season integer, episode integer, title text)
                ON CONFLICT (epid) DO UPDATE SET series = excluded.series, season = excluded.season,
                    episode = excluded.episode, title = excluded.title, day = excluded.day
                WHERE known.day <= excluded.day
                    AND (known.series, known.season, known.episode, known.title, known.day) IS DISTINCT FROM
                        (excluded.series, excluded.season, excluded.episode, excluded.title, excluded.day)
                """,
                # As arrays, the driver would take as long for them as for all the rest.
                {"day": day, "titles": json.dumps(titles.slice(begin, _ROWS_AT_ONCE).to_pylist())},
            )
