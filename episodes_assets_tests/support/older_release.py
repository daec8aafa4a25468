"""What a release before the lake had drops leaves: snapshots, in folders, with manifests.

The days of a system are turned into it, so that the databases name snapshots as they did then.
"""

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.lake.drop_record import Drop
from episodes_assets_tests.support.system import System

FILES = ("episodes.parquet", "quarantine.parquet", "viewed.parquet")
_DROP_OF_PLANS = "UPDATE ledger.plans SET snapshot_id = %s WHERE day = %s AND snapshot_id = %s"
_DROP_OF_RESULTS = [
    f"UPDATE {table} SET snapshot_id = %s WHERE day = %s AND snapshot_id = %s"
    for table in ("state.tracked_days", "published.days", "published.history")
]


def put_snapshot(
    root: Path,
    day: dt.date,
    *,
    accepted: pa.Table,
    quarantined: pa.Table,
    viewed: Collection[int],
    said: dict[str, Any],
) -> str:
    """Write a snapshot as such a release did, and make it its day's; its id."""
    folder = root / f"day={day}" / "new"
    folder.mkdir(parents=True)
    tables = (accepted, quarantined, pa.table({"epid": pa.array(viewed, pa.int64())}))
    for name, table in zip(FILES, tables, strict=True):
        pq.write_table(table, folder / name, compression="zstd")
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    snapshot_id = hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:16]
    shutil.rmtree(root / f"day={day}" / snapshot_id, ignore_errors=True)
    manifest = {
        "day": day.isoformat(),
        "snapshot_id": snapshot_id,
        "drop_rows": accepted.num_rows + quarantined.num_rows,
        "accepted_rows": accepted.num_rows,
        "quarantined_rows": quarantined.num_rows,
        "viewed_episodes": len(viewed),
        "reasons": {},
        "files": digests,
        "taken_at": "2018-03-09T00:00:00+00:00",
        "reason": "",
        **said,
    }
    folder = folder.rename(folder.with_name(snapshot_id))
    for path in (folder / "manifest.json", folder.parent / "manifest.json"):
        path.write_text(json.dumps(manifest, indent=2))
    (root / "environment.json").write_text(json.dumps({"environment": "development"}))
    return snapshot_id


def become_older(system: System, *, with_viewings: bool) -> None:
    """Let a system be as an older release had left it.

    Args:
        system: The system, whose days lie in the lake.
        with_viewings: Whether that release had a lake already, for viewings alone.
    """
    drops = system.drops
    for drop in drops.history():
        snapshot_id = put_snapshot(
            Path(system.settings.snapshots),
            drop.day,
            accepted=_rows(system, "episodes", drop),
            quarantined=_rows(system, "quarantine", drop),
            viewed=_viewed(system, drop.day),
            said={name: asdict(drop)[name] for name in ("reasons", "taken_at", "reason")},
        )
        names = [snapshot_id, drop.day, drop.snapshot_id]
        system.query("queue", _DROP_OF_PLANS, names)
        for statement in _DROP_OF_RESULTS:
            system.query("results", statement, names)
    lake = Path(system.settings.lake)
    for table in drops.tables:
        shutil.rmtree(lake / table.name, ignore_errors=True)
    if not with_viewings:
        shutil.rmtree(lake)
        system.query("queue", "UPDATE ledger.plans SET viewings_version = NULL, viewings_digest = NULL")
        for table_of_days in ("days", "history"):
            nothing = "viewings_version = NULL, viewings_digest = NULL"
            system.query("results", f"UPDATE published.{table_of_days} SET {nothing}")


def _rows(system: System, table: str, drop: Drop) -> pa.Table:
    file = drop.episodes if table == "episodes" else drop.quarantine
    path = Path(system.settings.lake, table, file.path)
    return pq.read_table(path, partitioning=None).replace_schema_metadata(None)


def _viewed(system: System, day: dt.date) -> Sequence[int]:
    newest = system.viewings.newest()
    if newest is None or day not in newest.files:
        return []
    viewed: list[int] = system.viewings.episodes_of(newest.number, day).tolist()
    return viewed
