"""A day is a daily partition key: `YYYY-MM-DD`, UTC, the first one 2018-03-01.

Parsing and ranges of days only; how days depend on each other is `defs/partitions.py`.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from episodes_assets.errors import BadDay

FIRST_DAY = date(2018, 3, 1)
ONE_DAY = timedelta(days=1)


def parse_day(text: str, today: date | None = None) -> date:
    """Read a day that can be materialised.

    Args:
        text: `YYYY-MM-DD`.
        today: The current UTC date; by default the clock's.

    Raises:
        BadDay: If it is misspelt, before 2018-03-01, or not over yet.
    """
    day = parse_date(text)
    if day < FIRST_DAY:
        raise BadDay(f"{text} is before the first day", f"choose a day from {FIRST_DAY} on")
    latest = (today or datetime.now(UTC).date()) - ONE_DAY
    if day > latest:
        raise BadDay(f"{text} is not over yet", f"the latest day that can be run is {latest} (UTC)")
    return day


def parse_date(text: str) -> date:
    """Read any date spelt `YYYY-MM-DD`.

    Raises:
        BadDay: If it is spelt otherwise or does not exist.
    """
    try:
        parsed = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        parsed = None
    if parsed is None or parsed.isoformat() != text:
        raise BadDay(f"{text!r} is not a day", "spell it YYYY-MM-DD, as in 2018-03-01")
    return parsed


def parse_range(first: str, last: str, today: date | None = None) -> tuple[date, date]:
    """Read an inclusive range of days.

    Raises:
        BadDay: If either end is not a day that can be materialised, or they are swapped.
    """
    start, end = parse_day(first, today), parse_day(last, today)
    if end < start:
        raise BadDay(f"{last} comes before {first}", "give the earlier day first")
    return start, end


def days_between(first: date, last: date) -> Iterator[date]:
    """Each day from `first` to `last`, both included."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def days_before(day: date, count: int) -> list[date]:
    """So many days before a day, the latest first."""
    return [day - number * ONE_DAY for number in range(1, count + 1)]
