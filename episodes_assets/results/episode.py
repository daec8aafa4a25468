"""What `results` has of one episode on one day; and all that is on record of it, put together.

For whoever asks why a row of the results is what it is: `explanation/` concludes from these records. Each
statement is bounded by one day and one episode, however long the history is. It loads neither pandas nor
pandera, and no statement here writes.
"""

import datetime as dt
from dataclasses import replace

from psycopg.rows import class_row

from episodes_assets.days import ONE_DAY
from episodes_assets.explanation.causes import Cause
from episodes_assets.explanation.diagnosis import decide, window_start
from episodes_assets.explanation.records import (
    PlanRecord,
    PublicationRecord,
    PublishedRow,
    Records,
    RepairRecord,
    StateRecord,
    TrackedRecord,
    Unknown,
    ViewingsRecord,
)
from episodes_assets.lake.episode import EpisodeInLake
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger.episode import read_jobs, read_open_jobs, read_plans
from episodes_assets.postgres.connect import Connection, one_snapshot
from episodes_assets.results.publications import PublishedDay, find_day, read_history
from episodes_assets.results.repairs import read_repairs


def find_tracked(results: Connection, epid: int) -> TrackedRecord | None:
    """Since when an episode is tracked, and what the day is that added it; None when it never was."""
    with results.cursor(row_factory=class_row(TrackedRecord)) as cursor:
        cursor.execute(
            """
            SELECT tracked_on, origin, snapshot_id
            FROM (SELECT tracked_on FROM state.tracked_episodes WHERE epid = %s OFFSET 0) AS tracked
            LEFT JOIN LATERAL (
                SELECT origin, snapshot_id FROM state.tracked_days WHERE day = tracked_on OFFSET 0
            ) AS manifest ON true
            """,
            [epid],
        )
        return cursor.fetchone()


def read_state(results: Connection, day: dt.date) -> StateRecord:
    """Where the tracked history begins, and what it says of the day before a day."""
    with results.cursor(row_factory=class_row(StateRecord)) as cursor:
        cursor.execute(
            """
            SELECT first.day AS first, origin AS first_origin, (
                SELECT checksum FROM state.tracked_days WHERE day = %s
            ) AS yesterday
            FROM (SELECT day, origin FROM state.tracked_days ORDER BY day LIMIT 1) AS first
            """,
            [day - ONE_DAY],
        )
        return cursor.fetchone() or StateRecord()


def read_published_rows(results: Connection, day: dt.date, epid: int) -> list[PublishedRow]:
    """The published rows of an episode on a day, by algorithm."""
    with results.cursor(row_factory=class_row(PublishedRow)) as cursor:
        cursor.execute(
            """
            SELECT algorithm_id, window_start, window_end, covered_from, metrics
            FROM published.results WHERE day = %s AND epid = %s ORDER BY algorithm_id
            """,
            [day, epid],
        )
        return cursor.fetchall()


def read_episode(
    queue: Connection,
    results: Connection,
    lake_url: str,
    day: dt.date,
    epid: int,
    *,
    today: dt.date,
    quarantine_limit: float,
) -> Records:
    """All that is on record of an episode on a day.

    What is published is of one moment, what the ledger has of another, and the tracked state of a third.

    Args:
        queue: To `queue`, in no transaction.
        results: To `results`, in no transaction, as a role that may read the tracked state.
        lake_url: The lake, on a host that may be reached.
        day: Any date.
        epid: Any id, whether an episode has it or not.
        today: The current UTC date.
        quarantine_limit: The share of a drop refused above which nothing is built on it.

    Raises:
        DatabaseUnreachable: If a database cannot be reached. What the lake does not tell is `Unknown`
        instead.
    """
    # A run writes the lake, then the tracked state, then the plan, and last what is published, each in a
    # transaction of its own. They are read in the opposite order: what is found was made from something that
    # is read after it, and that stays. What a run writes between two reads then looks as it was the moment
    # before its last transaction, for instance computed and not published yet. Read in the run's order, a day
    # that is planned anew and published meanwhile would seem to be published from a plan that nobody knows.
    # One transaction for all of `results` would not do either: a plan could be newer than the tracked state
    # that it is compared with, and seem to be made from other records.
    with one_snapshot(results):
        published = read_published_rows(results, day, epid)
        manifest = find_day(results, day)
        publications = read_history(results, day)
        repairs = read_repairs(results, day)
    with one_snapshot(queue):
        plans = read_plans(queue, day)
        plan = next((each for each in plans if each.superseded_at is None), None)
        jobs = read_jobs(queue, plan.plan_id, epid) if plan else []
        open_jobs = read_open_jobs(queue, day)
    with one_snapshot(results):
        tracked = find_tracked(results, epid)
        state = read_state(results, day)
    # Outside of all transactions: an object store may take its time.
    lake = EpisodeInLake(lake_url, epid)
    made_from = plan or manifest
    records = Records(
        day=day,
        epid=epid,
        today=today,
        quarantine_limit=quarantine_limit,
        drops=lake.read_drops(day, made_from.snapshot_id if made_from else None),
        tracked=tracked,
        state=state,
        plans=plans,
        jobs=jobs,
        open_jobs=open_jobs,
        manifest=_publication(manifest) if manifest else None,
        publications=[_publication(each) for each in publications],
        published=published,
        repairs=[
            RepairRecord(each.what, each.reason, each.repaired_by, each.repaired_at) for each in repairs
        ],
    )
    if made_from is None:
        return records
    viewings = _read_viewings(records, lake, made_from)
    records = replace(records, viewings=viewings)
    if any(decide(records, each) is Cause.NOT_VIEWED for each in records.algorithm_ids):
        late = lake.count_newest_viewings(day)
        records = replace(records, viewings=replace(viewings, late=late))
    return records


def _publication(each: PublishedDay) -> PublicationRecord:
    return PublicationRecord(
        published_at=each.published_at,
        rows=each.rows,
        left_out=each.left_out,
        decision=each.decision,
        plan_id=each.plan_id,
        plan_uid=each.plan_uid,
        snapshot_id=each.snapshot_id,
        viewings_version=each.viewings_version,
        viewings_digest=each.viewings_digest,
        code_version=each.code_version,
    )


def _read_viewings(
    records: Records, lake: EpisodeInLake, made_from: PlanRecord | PublishedDay
) -> ViewingsRecord:
    """The episode's viewings since the earliest of its windows, in the version that the day was made from."""
    if made_from.viewings_version is None:
        gone = Unknown("it was planned by a release before the lake, which names no version of it")
        return ViewingsRecord(None, lake.was_listed_as_viewed(made_from.snapshot_id), gone)
    day = records.day
    pinned = PinnedVersion(made_from.viewings_version, made_from.viewings_digest)
    found = lake.count_viewings(pinned, _first_date(records), day)
    on_the_day = lake.count_viewings(pinned, day, day) if isinstance(found, Unknown) else found
    is_viewed = on_the_day if isinstance(on_the_day, Unknown) else day in on_the_day
    return ViewingsRecord(pinned.number, is_viewed, found)


def _first_date(records: Records) -> dt.date:
    """The first date that any job of the episode looked at, or would have."""
    windows = [job.window_start for job in records.jobs] + [
        found
        for row in records.accepted
        if (found := window_start(row, was_tracked_before=records.was_tracked_before)) is not None
    ]
    return min([*windows, records.day])
