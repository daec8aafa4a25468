"""Who launched a run or a backfill: a tag that Dagster's storage sets, whatever tags were sent along.

The web server says who is signed in while it answers a request. Elsewhere a run belongs to the user of the
operating system whose process makes it. Whoever holds Dagster's own DSN can write any tag: this records
what people do in the dashboard and at the command line, and is no defence against holders of that DSN.

Writing the tag is `storage`, which takes a second to import and is not needed to read it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.storage.tags import SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

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


def is_request() -> bool:
    """Whether a request is being handled, whose sender launches the runs that are made now."""
    return _CURRENT.get() is not None


def stamped(tags: Mapping[str, str], by: str) -> dict[str, str]:
    """The tags with the launcher's name, in place of one that was sent along."""
    return {**tags, LAUNCHED_BY: by}


def note(made: str) -> None:
    """Keep the id of a run or backfill with the request that made it."""
    if (launches := _CURRENT.get()) is not None:
        launches.ids.append(made)


def by_this_process(tags: Mapping[str, str]) -> str:
    """Who launches a run with these tags: the sender of the request being handled, or this process's user."""
    if (launches := _CURRENT.get()) is not None:
        return launches.by
    user = operating_system_user()
    for kind, tag in (("schedule", SCHEDULE_NAME_TAG), ("sensor", SENSOR_NAME_TAG)):
        if tag in tags:
            return f"{user}, {kind} {tags[tag]}"
    return user
