"""What the result of a check is (`Verdict`), and the band of counts that are usual for a day.

A verdict covers all days of a step, with its numbers and one message. Usual is a band around the median of
the days before. Which numbers a check compares is in `lake`, `ledger` and `results`; turning a verdict into
Dagster's result is `defs/steps.py`.
"""

import datetime as dt
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from episodes_assets.days import days_before

Number = int | float | str
DAYS_NAMED = 3


@dataclass(frozen=True)
class Verdict:
    """What a check says of the days of a step.

    Attributes:
        check: Its name, which is the asset check's.
        passed: Whether all days are as they should be.
        message: What was found and, if it failed, what to do.
        facts: The numbers behind it, by what a person would call them.
        offending: A row for each day that is not as it should be, `day` first.
        is_error: Whether a failure is one; else it is a warning.
    """

    check: str
    passed: bool
    message: str
    facts: Mapping[str, Number] = field(default_factory=dict)
    offending: Sequence[Mapping[str, object]] = ()
    is_error: bool = True

    @property
    def blocks(self) -> bool:
        """Whether nothing may be built on these days."""
        return not self.passed and self.is_error


def repair_hint(schema: str, database: str) -> str:
    """What to do about rows that something else has changed, as a clause for `verdict_of_days`.

    Args:
        schema: Whose rows.
        database: Where.
    """
    return (
        f"something else writes to the schema `{schema}` of the {database} database; stop it, then run "
        "`episodes run {day} --repair --reason WHY` (in the UI: launch the job repair_days for {day})"
    )


def verdict_of_days(
    check: str,
    offending: Sequence[Mapping[str, object]],
    *,
    fault: str,
    hint: str,
    facts: Mapping[str, Number],
    is_error: bool = True,
) -> Verdict:
    """The verdict of a check that looks at each day by itself.

    Args:
        check: Its name.
        offending: A row for each day that is not as it should be, `day` first.
        fault: What is wrong with them, as a clause that the days are put after.
        hint: What to do, as a clause; `{day}` stands for the first of them.
        facts: The numbers behind it.
        is_error: Whether a failure is one; else it is a warning.
    """
    if not offending:
        return Verdict(check, passed=True, message="as it should be", facts=facts, is_error=is_error)
    days = [str(row["day"]) for row in offending]
    message = f"{fault} on {name_days(days)}: {hint.format(day=days[0])}"
    return Verdict(check, passed=False, message=message, facts=facts, offending=offending, is_error=is_error)


def name_days(days: Sequence[str] | Sequence[dt.date]) -> str:
    """Some days in a sentence, the first few by name."""
    named = ", ".join(str(day) for day in days[:DAYS_NAMED])
    more = len(days) - DAYS_NAMED
    return f"{named} and {more:,} more days" if more > 0 else named


HISTORY_DAYS = 14
LEAST_HISTORY = 3
NOT_ENOUGH = "not enough history"


@dataclass(frozen=True)
class Band:
    """The counts that are usual.

    Attributes:
        usual: The median of the days before.
        low: The least that is usual, included.
        high: The most that is usual, included.
    """

    usual: float
    low: float
    high: float

    def holds(self, count: float) -> bool:
        """Whether a count is usual."""
        return self.low <= count <= self.high


def usual_band(earlier: Sequence[int], low: float, high: float) -> Band | None:
    """The band that earlier counts allow.

    Args:
        earlier: Counts of earlier days.
        low: The least that is usual, as a part of their median.
        high: The most that is usual, as a multiple of their median.

    Returns:
        None when fewer than `LEAST_HISTORY` days, or days with nothing, cannot say what is usual.
    """
    if len(earlier) < LEAST_HISTORY:
        return None
    median = statistics.median(earlier)
    return Band(median, median * low, median * high) if median else None


def count_is_usual(
    check: str,
    counts: Mapping[dt.date, int],
    days: Sequence[dt.date],
    *,
    what: str,
    low: float,
    high: float,
    hint: str,
) -> Verdict:
    """Whether each day's count is about that of the two weeks before it; a warning if not.

    Args:
        check: Its name.
        counts: The counts of the days, and of the days before them that have one.
        days: The days to check, in order.
        what: What is counted.
        low: The least that is usual, as a part of the median.
        high: The most that is usual, as a multiple of the median.
        hint: What to do, as a clause; `{day}` stands for the first unusual day.
    """
    bands = {day: usual_band(_before(counts, day), low, high) for day in days}
    checked = {day: band for day, band in bands.items() if band is not None}
    offending = [
        {"day": str(day), what: counts[day], "usual": band.usual, "least": band.low, "most": band.high}
        for day, band in checked.items()
        if not band.holds(counts[day])
    ]
    facts: dict[str, Number] = {what: counts[days[-1]], "days compared": len(checked)}
    last = bands[days[-1]]
    if last is None:
        facts["history"] = NOT_ENOUGH
    else:
        facts |= {"usual": last.usual, "least": last.low, "most": last.high}
    fault = f"unusually few or many {what}"
    return verdict_of_days(check, offending, fault=fault, hint=hint, facts=facts, is_error=False)


def _before(counts: Mapping[dt.date, int], day: dt.date) -> list[int]:
    return [counts[each] for each in days_before(day, HISTORY_DAYS) if each in counts]
