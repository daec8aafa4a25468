"""A typed view for each algorithm, made from the columns the algorithm declares."""

from collections.abc import Iterable

from psycopg import sql

from episodes_assets.algorithms.declaration import Declaration, Metric
from episodes_assets.databases.connections import Connection

_SQL_TYPES = {Metric.INTEGER: "bigint", Metric.REAL: "double precision"}


def create_views(admin: Connection, algorithms: Iterable[Declaration]) -> None:
    """Make `published.<algorithm>` for each algorithm: the key, the window, a column per metric.

    One that cannot be used is not among them, and keeps the view that it has.
    """
    with admin.transaction():
        for algorithm in algorithms:
            name = sql.Identifier("published", algorithm.name)
            metrics = [
                sql.SQL("(metrics ->> {key})::{type} AS {column}").format(
                    key=sql.Literal(column),
                    type=sql.SQL(_SQL_TYPES[metric]),
                    column=sql.Identifier(column),
                )
                for column, metric in algorithm.columns.items()
            ]
            admin.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(name))
            admin.execute(
                sql.SQL(
                    "CREATE VIEW {view} AS SELECT day, epid, window_start, window_end,"
                    " covered_from, {metrics} FROM published.results WHERE algorithm_id = {id}"
                ).format(
                    view=name,
                    metrics=sql.SQL(", ").join(metrics),
                    id=sql.Literal(algorithm.algorithm_id),
                )
            )
