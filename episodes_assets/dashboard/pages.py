"""Our own pages: templates, what all of them are given, times and numbers as they show them, sparklines.

What a page shows is its own module's.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

WIDTH = 600
HEIGHT = 60


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
