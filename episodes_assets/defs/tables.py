"""What is known of the assets' tables before anything runs: their names and columns, for Dagster's catalog.

The columns of the lake's tables are those of the Arrow schemas that they are written with, and those of
consumers' views follow from what an algorithm declares; only what they mean is said here. PostgreSQL's tables
are made by migrations: `test_tables.py` compares what is said here with a database.

What a single materialisation shows is `metadata`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow as pa

from episodes_assets.algorithms.declaration import VIEW_COLUMNS, Declaration
from episodes_assets.lake.viewings import schema_of
from episodes_assets.planning import drop, viewings
from episodes_assets.postgres.databases import Database


@dataclass(frozen=True)
class Table:
    """A table as the catalog shows it.

    Attributes:
        name: With its schema and database, or with the lake.
        schema: Its columns, with what each means.
    """

    name: str
    schema: dg.TableSchema

    @property
    def metadata(self) -> dict[str, Any]:
        """As metadata of the asset that it holds."""
        return {"dagster/table_name": self.name, "dagster/column_schema": self.schema}


@dataclass(frozen=True)
class _Column:
    name: str
    type: str
    description: str
    is_nullable: bool = False
    is_unique: bool = False

    @property
    def shown(self) -> dg.TableColumn:
        constraints = dg.TableColumnConstraints(nullable=self.is_nullable, unique=self.is_unique)
        return dg.TableColumn(self.name, self.type, self.description, constraints)


def _table(name: str, columns: Collection[_Column], *constraints: str) -> Table:
    shown = [column.shown for column in columns]
    return Table(name, dg.TableSchema(shown, dg.TableConstraints(other=list(constraints))))


_DAY = "The day, which is also the table's partition."


def _lake_table(name: str, schema: pa.Schema, meanings: Mapping[str, str], whole: Collection[str]) -> Table:
    """A table of the lake.

    Args:
        name: Its folder there.
        schema: The columns without `day`.
        meanings: What each of them means.
        whole: Those in which no value is missing.

    Raises:
        ValueError: If `meanings` are of other columns.
    """
    if meanings.keys() != {*schema.names}:
        raise ValueError(f"columns of {name} without a meaning, or meanings without a column")
    columns = [
        _Column(field.name, str(field.type), meanings[field.name], is_nullable=field.name not in whole)
        for field in schema
    ]
    return _table(f"lake.{name}", [_Column("day", str(pa.date32()), _DAY), *columns])


_DROP = {
    "epid": "The episode.",
    "algorithm_id": "The algorithm that the row asks for.",
    "series": "Name of the series; only displayed.",
    "season": "Number of the season; only displayed.",
    "episode": "Number in the season; only displayed.",
    "title": "Title of the episode; only displayed.",
    "premier_date": "When the episode premiered; algorithm `reach` catches up from there.",
    "start_date": "From when on the row is due.",
}
EPISODES = _lake_table("episodes", drop.ACCEPTED, _DROP, {"epid", "algorithm_id", "start_date"})
QUARANTINE = _lake_table(
    "quarantine",
    drop.QUARANTINED,
    {
        **_DROP,
        "reasons": "The rules that the row broke, comma-separated; docs/bad-input.md explains each.",
        drop.AS_FOUND: "What could not be read, by column, as a JSON object.",
    },
    {"reasons"},
)
VIEWINGS = _lake_table(
    "viewings",
    schema_of(pa.int64()),
    {
        "epid": "The episode; missing where the input has none, or something that is no number of 64 bits.",
        "viewer_id": "The viewer; text where the input has text.",
        "viewed_at": "When, to the microsecond.",
        "seconds_watched": "Seconds, as the input has them; algorithms get 0 to 86,400.",
        "completed": "Whether it was watched to the end; missing where the input's value cannot be read.",
        viewings.UNREADABLE: "The input's value of `completed`, if it cannot be read.",
    },
    {"viewed_at"},
)

TRACKED_EPISODES = _table(
    f"{Database.RESULTS}.state.tracked_episodes",
    [
        _Column("epid", "bigint", "The episode.", is_unique=True),
        _Column("tracked_on", "date", "The day that began to track it: as of a day, all up to it."),
    ],
    "PRIMARY KEY (epid)",
)

_PLAN = _Column("plan_id", "bigint", "The plan; `ledger.plans` has its day and what it was made from.")
_POSITION = _Column("position", "integer", "Number of the job in its plan, from 0.")
JOBS = _table(
    f"{Database.QUEUE}.ledger.jobs",
    [
        _PLAN,
        _POSITION,
        _Column("epid", "bigint", "The episode that is analysed."),
        _Column("algorithm_id", "smallint", "The algorithm that analyses it."),
        _Column("window_start", "date", "First day of the window, which ends with the plan's day."),
    ],
    "PRIMARY KEY (plan_id, position)",
)

_COVERED_FROM = "First date of the window from which on viewings are complete; missing where none is."
_METRICS = "Values of the algorithm's columns by name."
OUTCOMES = _table(
    f"{Database.QUEUE}.ledger.outcomes",
    [
        _PLAN,
        _POSITION,
        _Column("covered_from", "date", _COVERED_FROM, is_nullable=True),
        _Column("metrics", "jsonb", _METRICS),
        _Column("algorithm_version", "text", "Version of the algorithm that computed them."),
        _Column("worker", "text", "The worker that computed them."),
        _Column("finished_at", "timestamp with time zone", "When the job was finished."),
    ],
    "PRIMARY KEY (plan_id, position)",
)

_VIEWED = {
    "day": _Column("day", "date", "The day that the window ends with."),
    "epid": _Column("epid", "bigint", "The episode."),
    "window_start": _Column("window_start", "date", "First day of the window."),
    "window_end": _Column("window_end", "date", "Last day of the window, included."),
    "covered_from": _Column("covered_from", "date", _COVERED_FROM, is_nullable=True),
}
RESULTS = _table(
    f"{Database.RESULTS}.published.results",
    [
        _VIEWED["day"],
        _VIEWED["epid"],
        _Column("algorithm_id", "smallint", "The algorithm; `published.<its name>` shows its rows typed."),
        _VIEWED["window_start"],
        _VIEWED["window_end"],
        _VIEWED["covered_from"],
        _Column("metrics", "jsonb", _METRICS),
    ],
    "PRIMARY KEY (day, epid, algorithm_id)",
)


def view_of(algorithm: Declaration) -> Table:
    """The view in which consumers read an algorithm's results."""
    return _table(
        f"{Database.RESULTS}.published.{algorithm.name}",
        [
            *(_VIEWED[name] for name in VIEW_COLUMNS),
            *(
                _Column(name, metric.column_type, "", is_nullable=name in algorithm.may_be_missing)
                for name, metric in algorithm.columns.items()
            ),
        ],
        "one row for each day and epid",
    )
