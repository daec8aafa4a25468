"""Checks of `tracked_episodes` and `published_results`: the state and its chain, published rows, freshness.

The accumulated state must match its manifest; published rows must match the outcomes, and those of yesterday
must be there by the stated hour. What is compared is read by `results/verify.py`.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.checks.verdicts import Verdict, repair_hint, verdict_of_days
from episodes_assets.days import ONE_DAY

PUBLISHED_ROWS_ARE_THE_OUTCOMES = "published_rows_are_the_outcomes"
YESTERDAY_IS_PUBLISHED = "yesterday_is_published"
# Who publishes a day within a week of its end works day by day; a replay of the past does not. So many of the
# newest published days are looked at: an outage, and what is caught up after it, may be long.
LIVE_WITHIN = dt.timedelta(days=7)
LIVE_DAYS = 366


@dataclass(frozen=True)
class Rows:
    """How many rows there are, and the checksum of all of them."""

    rows: int
    checksum: str


@dataclass(frozen=True)
class PublicationDay:
    """A published day, counted in three places.

    Attributes:
        day: The day.
        manifest: What the manifest says.
        published: What consumers read.
        outcomes: The outcomes in the ledger, as they are to be published.
    """

    day: dt.date
    manifest: Rows
    published: Rows
    outcomes: Rows

    @property
    def is_exact(self) -> bool:
        """Whether all three agree."""
        return self.manifest == self.published == self.outcomes


def published_rows_are_the_outcomes(days: Sequence[PublicationDay]) -> Verdict:
    """Whether the rows read back are the ledger's outcomes and what the manifest says."""
    return verdict_of_days(
        PUBLISHED_ROWS_ARE_THE_OUTCOMES,
        [
            {
                "day": str(each.day),
                "rows": each.published.rows,
                "by the manifest": each.manifest.rows,
                "outcomes": each.outcomes.rows,
                "checksum": each.published.checksum[:16],
                "manifest's checksum": each.manifest.checksum[:16],
                "outcomes' checksum": each.outcomes.checksum[:16],
            }
            for each in days
            if not each.is_exact
        ],
        fault="the published rows are not the outcomes",
        hint=repair_hint("published", "results"),
        facts={
            "rows": sum(each.published.rows for each in days),
            "by the manifest": sum(each.manifest.rows for each in days),
            "outcomes": sum(each.outcomes.rows for each in days),
        },
    )


@dataclass(frozen=True)
class Publications:
    """What is on record about being in time.

    Attributes:
        newest: The newest published day; None when nothing is published.
        has_due: Whether the day that is due is published.
        is_live: Whether any of the newest `LIVE_DAYS` published days was first published within `LIVE_WITHIN`
            of its end, whenever its rows were replaced since.
    """

    newest: dt.date | None
    has_due: bool
    is_live: bool


def due_day(now: dt.datetime, hour: int) -> dt.date:
    """The latest day that is to be published by now.

    Args:
        now: The time, with its zone.
        hour: The hour (UTC) by which a day is to be published after its end.
    """
    return (now.astimezone(dt.UTC) - dt.timedelta(hours=hour)).date() - ONE_DAY


def yesterday_is_published(due: dt.date, hour: int, publications: Publications) -> Verdict:
    """Whether the latest day that is due is published; a warning if not.

    It asks for that very day: an older day that was published again says nothing about it. A system that
    only ever replayed past days is not checked.

    Args:
        due: The latest day that is due.
        hour: The hour (UTC) by which it was due.
        publications: What is on record.
    """
    facts = {
        "due": str(due),
        "by": f"{due + ONE_DAY} {hour:02}:00 UTC",
        "newest published day": str(publications.newest or "none"),
    }
    if publications.has_due:
        passed, message = True, f"{due} is published"
    elif not publications.is_live:
        passed = True
        message = (
            f"not checked: none of the newest {LIVE_DAYS} published days was first published within a week of"
            " its end"
        )
    else:
        passed = False
        message = (
            f"{due} was to be published by {facts['by']} and is not: see in the UI whether its drop has "
            f"arrived and which of its runs failed, and by `episodes jobs status {due}` how far its jobs are"
        )
    offending = () if passed else ({"day": str(due), **facts},)
    return Verdict(
        YESTERDAY_IS_PUBLISHED,
        passed=passed,
        message=message,
        facts=facts,
        offending=offending,
        is_error=False,
    )


STATE_ONLY_GROWS = "state_only_grows_and_matches_its_manifest"


@dataclass(frozen=True)
class StateDay:
    """A day of the state: its manifest, the one before it, and what is stored.

    Attributes:
        day: The day.
        newly_tracked: Episodes it added, by its manifest.
        total: Episodes tracked as of the day, by its manifest.
        checksum: Of them, by its manifest.
        previous_checksum: What its manifest was built on; None at the beginning of a history.
        total_before: The total of the day before; None at the beginning.
        checksum_before: The checksum of the day before; None at the beginning.
        newly_stored: Episodes stored with this day.
        stored: Episodes stored with this day or an earlier one.
        stored_checksum: What the stored episodes make of `previous_checksum`.
    """

    day: dt.date
    newly_tracked: int
    total: int
    checksum: str
    previous_checksum: str | None
    total_before: int | None
    checksum_before: str | None
    newly_stored: int
    stored: int
    stored_checksum: str

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; nothing on an ordinary day."""
        found = {
            "stored episodes are not those of the manifest": (
                (self.newly_stored, self.stored, self.stored_checksum)
                != (self.newly_tracked, self.total, self.checksum)
            ),
            "fewer than the day before": self.total < (self.total_before or 0),
            "built on another yesterday": self.previous_checksum != self.checksum_before,
        }
        return [fault for fault, is_found in found.items() if is_found]


def state_only_grows(days: Sequence[StateDay], wanted: Sequence[dt.date]) -> Verdict:
    """Whether the state as of each day is what was recorded, and holds all of the day before.

    Args:
        days: What is stored of the days.
        wanted: The days there should be.
    """
    found = {each.day for each in days}
    offending: list[dict[str, object]] = [
        {
            "day": str(each.day),
            "fault": "; ".join(each.faults),
            "stored": each.stored,
            "by the manifest": each.total,
            "the day before": each.total_before or 0,
        }
        for each in days
        if each.faults
    ]
    offending += [
        {"day": str(day), "fault": "not in the manifest", "stored": 0, "by the manifest": 0}
        for day in wanted
        if day not in found
    ]
    return verdict_of_days(
        STATE_ONLY_GROWS,
        sorted(offending, key=lambda row: str(row["day"])),
        fault="the tracked episodes are not what was recorded",
        hint=repair_hint("state", "results"),
        facts={
            "stored": days[-1].stored if days else 0,
            "by the manifest": days[-1].total if days else 0,
            "days compared": len(days),
        },
    )
