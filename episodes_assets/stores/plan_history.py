"""The plans that a day has had: a superseded one loses its jobs and keeps its row."""

import datetime as dt
import uuid
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.postgres.connect import Connection


@dataclass(frozen=True)
class RecordedPlan:
    """A plan of a day, current or superseded."""

    plan_id: int
    plan_uid: uuid.UUID
    jobs: int
    checksum: str
    snapshot_id: str
    viewings_version: int | None
    viewings_digest: str | None
    code_version: str
    planned_at: dt.datetime
    fanned_out_at: dt.datetime | None
    superseded_at: dt.datetime | None


def read_plans(connection: Connection, day: dt.date) -> list[RecordedPlan]:
    """All plans that a day has had, in the order in which they were made."""
    with connection.cursor(row_factory=class_row(RecordedPlan)) as cursor:
        cursor.execute(
            """
            SELECT plan_id, plan_uid, jobs, checksum, snapshot_id, viewings_version, viewings_digest,
                code_version, planned_at, fanned_out_at, superseded_at
            FROM ledger.plans WHERE day = %s ORDER BY plan_id
            """,
            [day],
        )
        return cursor.fetchall()


def read_viewings_versions(connection: Connection) -> set[PinnedVersion]:
    """The versions of the lake's viewings that any plan names, current or superseded."""
    found = connection.execute(
        "SELECT DISTINCT viewings_version, viewings_digest FROM ledger.plans"
        " WHERE viewings_version IS NOT NULL"
    ).fetchall()
    return {PinnedVersion(*each) for each in found}


def read_snapshot_ids(connection: Connection) -> set[str]:
    """The drops that any plan was made from, current or superseded."""
    found = connection.execute("SELECT DISTINCT snapshot_id FROM ledger.plans").fetchall()
    return {snapshot_id for (snapshot_id,) in found}
