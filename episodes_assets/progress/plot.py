"""Jobs finished over time, drawn as a small SVG that any browser shows by itself."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 16, 34
# Of a grey that is read on a light page and on a dark one.
INK, GRID, LINE = "#808080", "#80808040", "#4f43dd"


@dataclass(frozen=True)
class FinishedBy:
    """How many jobs were finished by a time.

    Attributes:
        at: The time.
        jobs: All that were finished by then.
    """

    at: dt.datetime
    jobs: int


def jobs_over_time(points: Sequence[FinishedBy], planned: int) -> str:
    """An SVG of the jobs that were finished by each time, against those that were planned.

    Args:
        points: In the order of time, the first with the begin of the work and no job; at least one.
        planned: Jobs that were to be finished.
    """
    began, ended = points[0].at, points[-1].at
    span = max((ended - began).total_seconds(), 1e-3)
    most = max(planned, points[-1].jobs, 1)

    def x(at: dt.datetime) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (at - began).total_seconds() / span, 1)

    def y(jobs: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * jobs / most, 1)

    lines = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(jobs)}" y2="{y(jobs)}" stroke="{GRID}"/>'
        + _text(LEFT - 6, y(jobs) + 4, f"{jobs:,.0f}", "end")
        for jobs in (0, most / 2, most)
    ]
    # Finished in steps: nothing is claimed of the time between two of them.
    path = f"M{x(began)} {y(0)}" + "".join(f"H{x(point.at)}V{y(point.jobs)}" for point in points)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
        + "".join(lines)
        + f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>'
        + _text(LEFT, HEIGHT - 12, f"{began:%Y-%m-%d %H:%M:%S} UTC", "start")
        + _text(WIDTH - RIGHT, HEIGHT - 12, f"{ended:%H:%M:%S}, after {span:,.1f} s", "end")
        + "</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
