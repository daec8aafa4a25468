"""Times and numbers as our pages say them."""

import datetime as dt


def clock(moment: dt.datetime) -> str:
    """A moment within the last hours: `14:05:09 UTC`."""
    return f"{moment.astimezone(dt.UTC):%H:%M:%S} UTC"


def span(seconds: float) -> str:
    """A length of time, in one or two units: `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    whole = max(round(seconds), 0)
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours_left} h"
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {seconds_left} s" if minutes else f"{whole} s"


def between(earlier: dt.datetime, later: dt.datetime) -> str:
    """How long it is from one moment to another, as `span`."""
    return span((later - earlier).total_seconds())


def end(moment: dt.datetime, now: dt.datetime) -> str:
    """When something will be finished: `14:05 UTC, in 3 min 5 s`; with the date when it is not today."""
    moment = moment.astimezone(dt.UTC)
    day = "" if moment.date() == now.astimezone(dt.UTC).date() else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:%H:%M} UTC, in {between(now, moment)}"


def number(value: float) -> str:
    """A count or a rate: thousands separated, one decimal below 10 unless it is whole."""
    return f"{value:,.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def jobs(count: int) -> str:
    """`1 job`, `2,000 jobs`."""
    return "1 job" if count == 1 else f"{count:,} jobs"
