"""Gates of `published_results`: consumers read the outcomes, and those of yesterday by the stated hour."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.days import ONE_DAY
from episodes_assets.gates.verdicts import Verdict, judge_days

PUBLISHED_ROWS_ARE_THE_OUTCOMES = "published_rows_are_the_outcomes"
YESTERDAY_IS_PUBLISHED = "yesterday_is_published"

# Who publishes a day within a week of its end works day by day; a replay of the past does not.
LIVE_WITHIN = dt.timedelta(days=7)


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
    return judge_days(
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
        mend="something else writes to the schema `published` of the results database; stop it, run `UPDATE "
        "published.days SET checksum = '' WHERE day = '{day}'` there, and materialise published_results of "
        "{day} again, which replaces its rows",
        facts={
            "rows": sum(each.published.rows for each in days),
            "by the manifest": sum(each.manifest.rows for each in days),
            "outcomes": sum(each.outcomes.rows for each in days),
        },
    )


@dataclass(frozen=True)
class Publications:
    """What the manifest says about being in time.

    Attributes:
        newest: The newest published day; None when nothing is published.
        has_due: Whether the day that is due is published.
        is_live: Whether any day was ever published within `LIVE_WITHIN` of its end.
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
    only ever replayed the past promises nothing and is not judged.

    Args:
        due: The latest day that is due.
        hour: The hour (UTC) by which it was due.
        publications: What the manifest says.
    """
    facts = {
        "due": str(due),
        "by": f"{due + ONE_DAY} {hour:02}:00 UTC",
        "newest published day": str(publications.newest or "none"),
    }
    if publications.has_due:
        passed, message = True, f"{due} is published"
    elif not publications.is_live:
        passed, message = True, "not judged: no day was ever published within a week of its end"
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
