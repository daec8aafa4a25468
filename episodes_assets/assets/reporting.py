"""What a materialisation shows in the UI, and how a foreseen failure looks there."""

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pandas as pd

from episodes_assets.errors import HostUnreachable
from episodes_assets.failures import explain
from episodes_assets.settings import load_settings

_TYPES = {int: "int", float: "float"}
TEAM = ["team:media-analytics"]


OUTAGE_RETRIES = 3
DAYS_SHOWN = 31


@contextmanager
def plain_failures(retries_for_other_reasons: int = 0) -> Iterator[None]:
    """Turn an error whose cause is known into a failed step that says what to do.

    Other errors are defects and pass. Only a database or an object store that went away is worth another
    try: it may be restarting. What a step had committed by then, it finds done.

    Args:
        retries_for_other_reasons: How often the step may be retried besides. Dagster counts all retries of a
            step together, and those leave none for an outage otherwise.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as raised:
        error = explain(raised)
        if error is None:
            raise
        retries = dg.OpExecutionContext.get().retry_number
        limit = OUTAGE_RETRIES + retries_for_other_reasons
        if isinstance(error, HostUnreachable) and retries < limit:
            dg.OpExecutionContext.get().log.warning(f"{error.what}; trying again")
            seconds = load_settings().retry_seconds * 2 ** min(retries, OUTAGE_RETRIES - 1)
            raise dg.RetryRequested(max_retries=limit, seconds_to_wait=seconds) from raised
        raise dg.Failure(
            description=str(error),
            metadata={"what happened": error.what, "what to do": error.mend},
            allow_retries=False,
        ) from raised


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since then, to the millisecond."""
        return round(time.perf_counter() - self._began, 3)


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
        counted: Another name to show them by as well.
        asset: Whose they are, of a step that makes several.
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


def image(svg: str, name: str) -> dg.MarkdownMetadataValue:
    """An SVG that the UI shows in its place."""
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{name}](data:image/svg+xml;base64,{encoded})")


def preview(frame: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """The rows of a small frame as Markdown."""
    text = frame.astype("object").where(frame.notna(), "").astype("str")
    lines = [list(text.columns), ["---"] * len(text.columns), *text.to_numpy().tolist()]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _cell(value: object) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
