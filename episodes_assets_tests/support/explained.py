"""What the product explains of a system, with the rights that the web server has."""

import datetime as dt

from episodes_assets.explanation.explaining import Explanation, explain
from episodes_assets.explanation.records import Records
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results.episode import read_episode
from episodes_assets_tests.support.system import System

PREMIERE, START = "2018-02-01", "2018-02-20"


def watch(system: System, date: dt.date, *epids: int) -> None:
    """Somebody watches each of these episodes on a date, as often as it is named."""
    system.insert_viewings([(epid, 1, f"{date} 12:00+00", 60, True) for epid in epids])


def records_of(system: System, day: dt.date, epid: int) -> Records:
    """All that is on record of an episode."""
    with (
        connect_to_read(system.dsn(Purpose.QUEUE), Database.QUEUE) as queue,
        connect_to_read(system.dsn(Purpose.RESULTS_READER), Database.RESULTS) as results,
    ):
        return read_episode(
            queue,
            results,
            system.settings.lake,
            day,
            epid,
            today=dt.datetime.now(dt.UTC).date(),
            quarantine_limit=system.settings.quarantine_limit,
        )


def explained(system: System, day: dt.date, epid: int, algorithm_id: int | None = 0) -> Explanation:
    """Why a row is there, or not."""
    (found,) = explain(records_of(system, day, epid), algorithm_id)
    return found


def said(found: Explanation, title: str) -> str:
    """What a section says, in lines."""
    return "\n".join(line for section in found.sections if section.title == title for line in section.lines)
