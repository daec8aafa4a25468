"""What a materialisation shows in the UI: tables of days, and counts over time as small SVGs.

Any browser shows the SVGs by themselves. What a step does is `steps`.
"""

import base64
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from episodes_assets.planning.throughput import MOST_POINTS, FinishedBy

_TYPES = {int: "int", float: "float"}
DAYS_SHOWN = 31


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows with equal keys as a table; empty as a table without columns."""
    columns = [
        dg.TableColumn(name, type=_TYPES.get(type(value), "string"))
        for name, value in (rows[0].items() if rows else ())
    ]
    return dg.MetadataValue.table(
        records=[dg.TableRecord({k: _cell(v) for k, v in row.items()}) for row in rows],
        schema=dg.TableSchema(columns=columns),
    )


def counts_table(counts: Iterable[tuple[str, int]], of: str, counted: str) -> dg.TableMetadataValue:
    """Counts by name as a table, in their order.

    Args:
        counts: Names, each with its count.
        of: The heading of the names.
        counted: The heading of the counts.
    """
    return table([{of: name, counted: count} for name, count in counts])


def days_table(
    context: dg.AssetExecutionContext,
    rows: Sequence[Mapping[str, Any]],
    *,
    row_counts: Sequence[int],
    counted: str = "dagster/row_count",
    asset: str | None = None,
) -> dict[str, Any]:
    """Metadata with a row for each day of a step.

    Dagster keeps all of a step's metadata with the event of each of its days. So a long range shows its
    last `DAYS_SHOWN` days there, and each day by itself its own row. The numbers of a day's row stand in
    place of the whole range's of the same name: with its event, a partition shows its own.

    Args:
        context: Of the step.
        rows: With equal keys, `day` among them, in order.
        row_counts: How many rows each of the days has, for `dagster/row_count`.
        counted: A second name under which the counts are shown.
        asset: The asset of the days, for a step that makes several.
    """
    shown = {"days in this run": len(rows), "days": table(rows[-DAYS_SHOWN:])}
    if len(rows) == 1:
        return {"dagster/row_count": row_counts[0], counted: row_counts[0], **shown}
    for row, count in zip(rows, row_counts, strict=True):
        numbers = {name: value for name, value in row.items() if type(value) is int}
        context.add_asset_metadata(
            {"dagster/row_count": count, counted: count, **numbers, "this day": table([row])},
            asset_key=asset,
            partition_key=str(row["day"]),
        )
    return shown


def place(shown: str) -> dict[str, Any]:
    """Where a table of the lake is.

    Args:
        shown: Its folder or URL, without user names and passwords.
    """
    uri = shown if "://" in shown else Path(shown).absolute().as_uri()
    return {"lake": dg.MetadataValue.path(shown), "dagster/uri": uri}


def image(svg: str, name: str) -> dg.MarkdownMetadataValue:
    """An SVG that the UI shows in its place."""
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{name}](data:image/svg+xml;base64,{encoded})")


def links(pages: Iterable[tuple[str, str]]) -> dg.MarkdownMetadataValue:
    """Pages of the dashboard, each by its text and its path; the text is of our own words and numbers."""
    return dg.MetadataValue.md("\n".join(f"- [{text}]({path})" for text, path in pages))


def _cell(value: object) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


WIDTH, HEIGHT = 560, 160
LEFT, RIGHT, TOP, BOTTOM = 70, 10, 12, 24
_RIGHT_EDGE, _BOTTOM_EDGE = WIDTH - RIGHT, HEIGHT - BOTTOM


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

    def x(at: dt.datetime) -> int:
        return LEFT + round((_RIGHT_EDGE - LEFT) * (at - began).total_seconds() / span)

    # A step function: between two points nothing is known.
    steps = "".join(f"H{x(point.at)}V{_y(point.jobs, most)}" for point in points)
    path = f"<path fill='none' stroke='#4f43dd' d='M{LEFT} {_BOTTOM_EDGE}{steps}'/>"
    return _framed(path, most, f"{began:%Y-%m-%d %H:%M:%S} UTC", f"{ended:%H:%M:%S}")


def counts_by_day(counts: Mapping[dt.date, int]) -> str:
    """An SVG with a bar for each day from the first to the last, of at most `MOST_POINTS` days.

    Args:
        counts: By day; a day without one has no bar.
    """
    days = sorted(counts)[-MOST_POINTS:]
    if not days:
        return f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}'/>"
    most = max(*(counts[day] for day in days), 1)
    step = (_RIGHT_EDGE - LEFT) / ((days[-1] - days[0]).days + 1)
    bars = "".join(
        f"M{LEFT + round(step * ((day - days[0]).days + 0.5))} {_BOTTOM_EDGE}V{_y(counts[day], most)}"
        for day in days
    )
    path = f"<path stroke='#4f43dd' stroke-width='{max(int(step * 0.8), 1)}' d='{bars}'/>"
    return _framed(path, most, str(days[0]), str(days[-1]))


def _y(count: float, most: int) -> int:
    return _BOTTOM_EDGE - round((_BOTTOM_EDGE - TOP) * count / most)


def _framed(path: str, most: int, first: str, last: str) -> str:
    """The SVG with its axes: counts from 0 to `most`, times from `first` to `last`."""
    # Of a grey that is read on a light page and on a dark one.
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}'"
        " font-size='11' fill='gray'>"
        f"<path stroke='gray' stroke-opacity='.4'"
        f" d='M{LEFT} {TOP}H{_RIGHT_EDGE}M{LEFT} {_BOTTOM_EDGE}H{_RIGHT_EDGE}'/>"
        f"{path}"
        f"<text y='{TOP + 4}'>{most:,}</text><text y='{_BOTTOM_EDGE}'>0</text>"
        f"<text x='{LEFT}' y='{HEIGHT - 6}'>{first}</text>"
        f"<text x='{_RIGHT_EDGE}' y='{HEIGHT - 6}' text-anchor='end'>{last}</text></svg>"
    )
