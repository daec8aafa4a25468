"""Our own pages: templates, what all of them are given, times and numbers as they show them, small plots.

What a page shows is decided in the module of that page.
"""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import EpisodesError
from episodes_assets.failures import explain

WIDTH = 600
HEIGHT = 60
AWAY = 503
Endpoint = Callable[[Request], Awaitable[Response]]


def explaining_errors(
    endpoint: Endpoint,
    statuses: Mapping[type[EpisodesError], int],
    show: Callable[[Request, EpisodesError, int], Response],
) -> Endpoint:
    """An endpoint that answers an error whose cause is known with a page that explains it.

    Args:
        endpoint: The endpoint.
        statuses: The status of the answer by the kind of error; `AWAY` for any other.
        show: Makes the answer from the request, the error and the status.
    """

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as raised:
            error = explain(raised)
            if error is None:
                raise
            return show(request, error, statuses.get(type(error), AWAY))

    return answer


@dataclass(frozen=True)
class Sparkline:
    """A sparkline as SVG points, in a picture of `WIDTH` by `HEIGHT`.

    Attributes:
        line: The points of its `polyline`.
        area: The points of the `polygon` between it and the lower edge.
        top: The greatest number, which touches the upper edge.
        latest: The last number.
    """

    line: str
    area: str
    top: float
    latest: float


def draw(numbers: Sequence[float]) -> Sparkline:
    """Draw at least two numbers, none below 0, the oldest at the left."""
    top = max(numbers)
    step = WIDTH / (len(numbers) - 1)
    points = [
        f"{place * step:.1f},{HEIGHT - (HEIGHT - 2) * (number / top if top else 0):.1f}"
        for place, number in enumerate(numbers)
    ]
    line = " ".join(points)
    return Sparkline(line, f"0,{HEIGHT} {line} {WIDTH},{HEIGHT}", top, numbers[-1])


@dataclass(frozen=True)
class Plot:
    """Numbers over days as SVG points, in a picture of `WIDTH` by `HEIGHT`.

    Attributes:
        lines: The points of a `polyline` for each run of numbers in which none is missing.
        lowest: The least number, which touches the lower edge; None when all are missing.
        highest: The greatest one, which touches the upper edge; None when all are missing.
    """

    lines: Sequence[str]
    lowest: float | None
    highest: float | None


def plot(numbers: Mapping[dt.date, float | None]) -> Plot:
    """Plot finite numbers by day, each day as far from the next as it is in the calendar.

    Args:
        numbers: By day, the oldest first; None, or a day that is left out, interrupts the line.
    """
    given = {day: number for day, number in numbers.items() if number is not None}
    if not given:
        return Plot([], None, None)
    first, lowest, highest = min(numbers), min(given.values()), max(given.values())
    step = WIDTH / max((max(numbers) - first).days, 1)
    # Each taken from the half of it: the difference of two numbers may be greater than any number.
    rise = highest / 2 - lowest / 2

    def point(day: dt.date) -> str:
        share = (given[day] / 2 - lowest / 2) / rise if rise else 0.5
        return f"{(day - first).days * step:.1f},{HEIGHT - 2 - (HEIGHT - 4) * share:.1f}"

    lines: list[list[str]] = []
    before = None
    for day in given:
        if before is None or day - before != ONE_DAY:
            lines.append([])
        lines[-1].append(point(day))
        before = day
    # A line of one point would not be seen: it is drawn twice, which makes a dot of its round cap.
    return Plot([" ".join(line if len(line) > 1 else line * 2) for line in lines], lowest, highest)


FOLDER = Path(__file__).parent
TEMPLATES = Jinja2Templates(directory=FOLDER / "templates")
STATIC = FOLDER / "static"


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **context: Any,  # noqa: ANN401  whatever the template shows
) -> Response:
    """A page from a template, never cached; `user` in it is the request's identity."""
    return TEMPLATES.TemplateResponse(
        request,
        template,
        {"user": request.user, **context},
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


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
