"""Reading published rows and the ledger's outcomes back, to compare them with each other."""

import datetime as dt
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter

from psycopg.rows import class_row

from episodes_assets.checks.results import LIVE_WITHIN, PublicationDay, Publications, Rows
from episodes_assets.ledger.plans import require_current
from episodes_assets.ledger.verify import OUTCOME_LINES
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.publications import PublishedDay

# The lines of `published.publish_day`, whose checksum is the manifest's: the same columns, in COPY's text
# format, in the same order.
_PUBLISHED = """
    COPY (
        SELECT day, epid, algorithm_id, window_start, window_end, covered_from, metrics
        FROM published.results WHERE day = ANY (%(which)s) ORDER BY day, epid, algorithm_id
    ) TO STDOUT
"""
_DAY = itemgetter(slice(10))  # YYYY-MM-DD
_NO_ROWS = Rows(0, hashlib.sha256().hexdigest())


def read_publication(
    queue: Connection, results: Connection, manifests: Sequence[PublishedDay]
) -> list[PublicationDay]:
    """What is published of some days and what their outcomes are, in the order of their manifests.

    Args:
        queue: To `queue`.
        results: To `results`.
        manifests: Of the days.

    Raises:
        PlanOvertaken: If the plan of one of them was replaced meanwhile.
    """
    with ThreadPoolExecutor(1) as thread:  # two servers, or two processes of one
        reading = thread.submit(_read_lines, results, _PUBLISHED, [day.day for day in manifests])
        outcomes = _read_lines(queue, OUTCOME_LINES, [day.plan_id for day in manifests])
        published = reading.result()
    require_current(queue, [day.plan_id for day in manifests])
    return [
        PublicationDay(
            day=each.day,
            manifest=Rows(each.rows, each.checksum),
            published=published.get(each.day, _NO_ROWS),
            outcomes=outcomes.get(each.day, _NO_ROWS),
        )
        for each in manifests
    ]


def read_publications(results: Connection, due: dt.date) -> Publications:
    """What the manifest says about being in time.

    Args:
        results: To `results`.
        due: The latest day that is to be published.
    """
    with results.cursor(row_factory=class_row(Publications)) as cursor:
        cursor.execute(
            """
            SELECT max(day) AS newest, coalesce(bool_or(day = %s), false) AS has_due,
                coalesce(bool_or(published_at < (day + 1)::timestamp AT TIME ZONE 'UTC' + %s), false)
                    AS is_live
            FROM published.days
            """,
            [due, LIVE_WITHIN],
        )
        found = cursor.fetchone()
    assert found is not None  # noqa: S101  an aggregate has one row
    return found


def _read_lines(connection: Connection, statement: str, which: Sequence[object]) -> dict[dt.date, Rows]:
    """The rows and the checksum of each day's lines."""
    found = {}
    with (
        _iso_dates(connection),
        connection.cursor() as cursor,
        cursor.copy(statement, {"which": which}) as copy,
    ):
        for day, lines in groupby(map(bytes, copy), _DAY):
            rows, digest = 0, hashlib.sha256()
            for line in lines:
                rows += 1
                digest.update(line)
            found[dt.date.fromisoformat(day.decode())] = Rows(rows, digest.hexdigest())
    return found


@contextmanager
def _iso_dates(connection: Connection) -> Iterator[None]:
    """Let the block read dates as `publish_day` writes them, whatever the server's setting."""
    with connection.transaction():
        connection.execute("SET LOCAL datestyle = 'ISO'")
        yield
