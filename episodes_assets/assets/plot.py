"""Counts over time, drawn as small SVGs that any browser shows by themselves."""

import datetime as dt
from collections.abc import Mapping, Sequence

from episodes_assets.planning.throughput import MOST_POINTS, FinishedBy

WIDTH, HEIGHT = 560, 160
LEFT, RIGHT, TOP, BOTTOM = 70, 10, 12, 24


def jobs_over_time(points: Sequence[FinishedBy], planned: int) -> str:
    """An SVG of the jobs that were finished by each time, against those that were planned.

    Args:
        points: In the order of time, the first with the begin of the work and no job; at least one and at
            most `MOST_POINTS`.
        planned: Jobs that were to be finished.
    """
    began, ended = points[0].at, points[-1].at
    span = max((ended - began).total_seconds(), 1e-3)
    most = max(planned, points[-1].jobs, 1)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x(at: dt.datetime) -> int:
        return LEFT + round((right - LEFT) * (at - began).total_seconds() / span)

    def y(jobs: float) -> int:
        return bottom - round((bottom - TOP) * jobs / most)

    # Finished in steps: nothing is claimed of the time between two of them.
    steps = "".join(f"H{x(point.at)}V{y(point.jobs)}" for point in points)
    # Of a grey that is read on a light page and on a dark one.
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}'"
        " font-size='11' fill='gray'>"
        f"<path stroke='gray' stroke-opacity='.4' d='M{LEFT} {TOP}H{right}M{LEFT} {bottom}H{right}'/>"
        f"<path fill='none' stroke='#4f43dd' d='M{LEFT} {bottom}{steps}'/>"
        f"<text y='{TOP + 4}'>{most:,}</text><text y='{bottom}'>0</text>"
        f"<text x='{LEFT}' y='{HEIGHT - 6}'>{began:%Y-%m-%d %H:%M:%S} UTC</text>"
        f"<text x='{right}' y='{HEIGHT - 6}' text-anchor='end'>{ended:%H:%M:%S}</text></svg>"
    )


def counts_by_day(counts: Mapping[dt.date, int]) -> str:
    """An SVG with a bar for each day from the first to the last, of at most `MOST_POINTS` days.

    Args:
        counts: By day; a day without one has no bar.
    """
    days = sorted(counts)[-MOST_POINTS:]
    if not days:
        return f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}'/>"
    most = max(max(counts[day] for day in days), 1)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    step = (right - LEFT) / ((days[-1] - days[0]).days + 1)
    width = max(round(step * 0.8), 1)
    bars = "".join(
        f"M{LEFT + round(step * (day - days[0]).days)} {bottom}"
        f"v-{round((bottom - TOP) * counts[day] / most)}h{width}V{bottom}"
        for day in days
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}'"
        " font-size='11' fill='gray'>"
        f"<path stroke='gray' stroke-opacity='.4' d='M{LEFT} {bottom}H{right}'/>"
        f"<path fill='#4f43dd' d='{bars}'/>"
        f"<text y='{TOP + 4}'>{most:,}</text><text y='{bottom}'>0</text>"
        f"<text x='{LEFT}' y='{HEIGHT - 6}'>{days[0]}</text>"
        f"<text x='{right}' y='{HEIGHT - 6}' text-anchor='end'>{days[-1]}</text></svg>"
    )
