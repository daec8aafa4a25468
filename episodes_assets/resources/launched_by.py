"""Who launched a run or a backfill: a tag that the storage sets, whatever tags were sent along.

The web server says who is signed in while it answers a request. Elsewhere a run belongs to the user of the
operating system whose process makes it. Whoever holds Dagster's own DSN can write any tag: this records what
people do in the dashboard and at the command line, and is no defence against holders of that DSN.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG
from dagster_postgres.run_storage import PostgresRunStorage

from episodes_assets.accounts.identity import operating_system_user

LAUNCHED_BY = "episodes/launched_by"
_NOT_RECORDED = "unknown: the run does not say who launched it"


@dataclass(frozen=True)
class Launches:
    """What one request launches.

    Attributes:
        by: The name of whoever sent it.
        ids: Of the runs and backfills it made.
    """

    by: str
    ids: list[str] = field(default_factory=list)


_CURRENT: ContextVar[Launches | None] = ContextVar("launches", default=None)


@contextmanager
def launching_as(name: str) -> Iterator[Launches]:
    """Record this name with each run and backfill that is made within the block."""
    launches = Launches(name)
    token = _CURRENT.set(launches)
    try:
        yield launches
    finally:
        _CURRENT.reset(token)


def launched_by(run: dg.DagsterRun) -> str:
    """Who launched a run."""
    return run.tags.get(LAUNCHED_BY, _NOT_RECORDED)


class LaunchRecordingRunStorage(PostgresRunStorage):
    """Dagster's run storage, which records with each run and each backfill who launched it."""

    def add_run(self, dagster_run: dg.DagsterRun) -> dg.DagsterRun:
        """Add a run."""
        by = self._from_backfill(dagster_run.tags) or _by_this_process(dagster_run.tags)
        added = super().add_run(dagster_run.with_tags(_stamped(dagster_run.tags, by)))
        _note(added.run_id)
        return added

    def add_backfill(self, partition_backfill: PartitionBackfill) -> None:
        """Add a backfill, whose runs the daemon makes later."""
        tags = _stamped(partition_backfill.tags or {}, _by_this_process({}))
        super().add_backfill(partition_backfill._replace(tags=tags))
        _note(partition_backfill.backfill_id)

    def dispose(self) -> None:
        """Close the connections that are kept; Dagster's own storage keeps none."""
        self._engine.dispose()
        super().dispose()

    def _from_backfill(self, tags: Mapping[str, str]) -> str | None:
        """Who launched the backfill that a run belongs to."""
        if _CURRENT.get() is not None or BACKFILL_ID_TAG not in tags:
            return None
        backfill = self.get_backfill(tags[BACKFILL_ID_TAG])
        return None if backfill is None else (backfill.tags or {}).get(LAUNCHED_BY)


def _stamped(tags: Mapping[str, str], by: str) -> dict[str, str]:
    return {**tags, LAUNCHED_BY: by}


def _note(made: str) -> None:
    if (launches := _CURRENT.get()) is not None:
        launches.ids.append(made)


def _by_this_process(tags: Mapping[str, str]) -> str:
    if (launches := _CURRENT.get()) is not None:
        return launches.by
    user = operating_system_user()
    for kind, tag in (("schedule", SCHEDULE_NAME_TAG), ("sensor", SENSOR_NAME_TAG)):
        if tag in tags:
            return f"{user}, {kind} {tags[tag]}"
    return user
