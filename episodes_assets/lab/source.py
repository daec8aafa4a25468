"""The source of a lab: its databases, through roles that can only read, and the lake's immutable files.

Before the first row, each database is queried whether the role could write anything
(`postgres/write_rights.py`), and a role that could is refused. There is one session with each of the two
databases, in a read-only transaction. What is taken from here is decided in `take.py`.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from episodes_assets.errors import DropMissing, LakeMissing, NotPublished, SourceDisagrees
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.opening import OpenedLake
from episodes_assets.lake.versions import PinnedVersion, TableVersion
from episodes_assets.lake.viewings import Viewings, require_day
from episodes_assets.ledger.copies import read_current_plans
from episodes_assets.postgres import write_rights
from episodes_assets.postgres.admission import READ_ADMISSION, require_admission
from episodes_assets.postgres.arrow import RepeatableRead, bounded_session
from episodes_assets.postgres.connect import describe
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.copies import read_publications
from episodes_assets.results.repairs import repair_command

APPLICATION = "episodes lab"


@dataclass(frozen=True)
class PlannedDay:
    """A published day: its current plan, and the publication that was made from it.

    Attributes:
        day: The day.
        plan_id: The plan.
        plan_uid: The plan, unique also where its number is given again.
        jobs: How many jobs it has.
        checksum: Of those jobs.
        snapshot_id: The drop they were planned from.
        code_version: Of the planning code.
        planned_at: When it was planned.
        fanned_out_at: When its jobs were handed to the fleet.
        tracked_checksum: Of the tracked episodes they were planned from; None when nothing was tracked.
        viewings: The version of the lake's viewings they were computed from.
        rows: Rows that were published.
        published_checksum: Of those rows.
        left_out: Jobs that a decision left out.
        published_at: When.
    """

    day: dt.date
    plan_id: int
    plan_uid: uuid.UUID
    jobs: int
    checksum: str
    snapshot_id: str
    code_version: str
    planned_at: dt.datetime
    fanned_out_at: dt.datetime | None
    tracked_checksum: str | None
    viewings: PinnedVersion
    rows: int
    published_checksum: str
    left_out: int
    published_at: dt.datetime


@dataclass(frozen=True)
class Source:
    """Where a lab is taken from.

    Attributes:
        environment: This process's own, which is the source's.
        queue_dsn: Its `queue`, as the reader.
        results_dsn: Its `results`, as the reader.
        lake: Its lake.
    """

    environment: str
    queue_dsn: str
    results_dsn: str
    lake: OpenedLake

    @cached_property
    def viewings(self) -> Viewings:
        """The lake's viewings."""
        return self.lake.viewings()

    @cached_property
    def drops(self) -> Drops:
        """The lake's drops."""
        return self.lake.drops()

    @contextmanager
    def connect(self) -> Iterator[tuple[RepeatableRead, RepeatableRead]]:
        """One session with `queue` and one with `results`, whose roles cannot write.

        Raises:
            RoleCanWrite: If one of them could.
            WrongEnvironment: If a database belongs to another environment than this process.
            SchemaTooOld: If the schema of one is of an older release.
            SchemaTooNew: If the schema of one is of a newer release.
            DatabaseUnreachable: If there is no connection to be had.
        """
        with bounded_session(self.queue_dsn, APPLICATION) as queue:
            self._admit(queue, self.queue_dsn, Purpose.QUEUE_READER)
            with bounded_session(self.results_dsn, APPLICATION) as results:
                self._admit(results, self.results_dsn, Purpose.RESULTS_READER)
                yield queue, results

    def _admit(self, database: RepeatableRead, dsn: str, purpose: Purpose) -> None:
        described = describe(dsn)
        version = int(database.read("SELECT current_setting('server_version_num') AS it")["it"][0].as_py())
        (found,) = database.read(write_rights.find_rights(version)).to_pylist()
        write_rights.require_no_rights(found["role"], found["rights"], described, purpose.setting)
        admission = [column[0].as_py() for column in database.read(READ_ADMISSION).columns]
        require_admission(admission, purpose.database, self.environment, described)

    def version_of(self, planned: PlannedDay) -> TableVersion:
        """The version of the viewings that a day was computed from, which must have the day.

        Raises:
            LakeMissing: If the lake lacks it.
            LakeReplaced: If the lake is another one.
        """
        version = self.viewings.at(*planned.viewings, by=f"the plan of {planned.day}")
        require_day(version, planned.day, self.viewings.shown)
        return version

    def drop_of(self, planned: PlannedDay) -> Drop:
        """The drop that a day was planned from.

        Raises:
            DropMissing: If the lake lacks it.
        """
        found = self.drops.find(planned.day)
        if found is None or found.snapshot_id != planned.snapshot_id:
            named = [
                each for each in self.drops.versions(planned.day) if each.snapshot_id == planned.snapshot_id
            ]
            if not named:
                raise DropMissing(
                    f"the lake at {self.drops.shown} does not have the drop {planned.snapshot_id} that"
                    f" {planned.day} was planned from",
                    "restore the lake from a backup, or let EPISODES_LAKE_URL name it",
                )
            found = named[-1]
        return found


def read_days(queue: RepeatableRead, results: RepeatableRead, days: Sequence[dt.date]) -> list[PlannedDay]:
    """The plans and publications of some days, in their order.

    Args:
        queue: To `queue`.
        results: To `results`.
        days: The days, each once.

    Raises:
        NotPublished: If one is not published.
        SourceDisagrees: If one is being worked anew, or its plan is not what was published.
        LakeMissing: If one was published before there was a lake.
    """
    publications = {row["day"]: row for row in read_publications(results, days).to_pylist()}
    plans = {row["day"]: row for row in read_current_plans(queue, days).to_pylist()}
    return [_planned(day, plans.get(day), publications.get(day)) for day in days]


def each_day(planned: Sequence[PlannedDay], *sessions: RepeatableRead) -> Iterator[PlannedDay]:
    """The days one after the other, with the sessions that are idle while something is done for each.

    The server ends a session that is idle for too long, and all days together may take longer than that.

    Args:
        planned: The days.
        sessions: Those that are to be kept alive.
    """
    for each in planned:
        for session in sessions:
            session.keep_alive()
        yield each


def _planned(
    day: dt.date, plan: Mapping[str, Any] | None, publication: Mapping[str, Any] | None
) -> PlannedDay:
    if publication is None:
        raise NotPublished(f"{day} is not published", "take a day that is: `episodes jobs status` lists them")
    # First, as publications of releases before the lake also lack the `plan_uid`.
    if publication["viewings_version"] is None and (plan is None or plan["viewings_version"] is None):
        raise LakeMissing(
            f"{day} was published before there was a lake, so its viewings are nowhere",
            f"take a later day, or work it anew by `episodes run {day} --rework` at the source",
        )
    if plan is None or plan["plan_uid"] != publication["plan_uid"]:
        raise SourceDisagrees(
            f"{day} is being worked anew: what is published of it is of another plan than the current one",
            f"take it when that is published; `episodes jobs status {day}` shows how far it is, and"
            f" `episodes run {day}` works it to its end",
        )
    named, was = ((of["viewings_version"], of["viewings_digest"]) for of in (plan, publication))
    if publication["viewings_version"] is not None and named != was:
        raise SourceDisagrees(
            f"the plan of {day} names other viewings than it was published from: something else writes to the"
            " source's databases",
            f"stop it, then run `{repair_command(day, day)}` at the source",
        )
    same = ("plan_id", "jobs", "checksum", "snapshot_id", "code_version", "planned_at", "fanned_out_at")
    return PlannedDay(
        day=day,
        **{name: plan[name] for name in same},
        plan_uid=uuid.UUID(plan["plan_uid"]),
        tracked_checksum=plan["tracked_checksum"],
        viewings=PinnedVersion(plan["viewings_version"], plan["viewings_digest"]),
        rows=publication["rows"],
        published_checksum=publication["checksum"],
        left_out=publication["left_out"],
        published_at=publication["published_at"],
    )
