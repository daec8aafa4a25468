"""Publishing a planned day, and reading what the ledger has of it."""

from typing import Any

from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.publications import PublishedDay
from episodes_assets.results.publish import publish_day
from episodes_assets_tests.support.system import System, day


def publish(system: System) -> tuple[PublishedDay, bool]:
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        return publish_day(queue, results, system.viewings, day(1), "1")


def read_jobs(queue: Connection) -> Any:
    import pandas as pd

    rows = queue.execute("SELECT epid, algorithm_id, window_start FROM ledger.jobs ORDER BY 1, 2").fetchall()
    frame = pd.DataFrame(rows, columns=["epid", "algorithm_id", "window_start"])
    return frame.astype({"window_start": "datetime64[s]", "algorithm_id": "int16"})
