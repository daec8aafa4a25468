"""The immutable copies of each day's input: Parquet files in a folder or at an fsspec URL.

`day=2018-03-01/manifest.json` names the files of the day's snapshot. It is written last, by rename,
so a day either has a whole snapshot or none. Refreshing a day adds files under another snapshot id
and lets the manifest name those; no file is ever written twice.
"""

import datetime as dt
import hashlib
import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.errors import SnapshotDamaged, SnapshotMissing
from episodes_assets.stores import drop_table

EPISODES = "episodes.parquet"
VIEWED = "viewed.parquet"
QUARANTINE = "quarantine.parquet"


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot's manifest says.

    Attributes:
        day: The day, `YYYY-MM-DD`.
        snapshot_id: Follows from the content: equal input, equal id.
        drop_rows: Rows in the drop; always `accepted_rows + quarantined_rows`.
        accepted_rows: Rows that passed validation.
        quarantined_rows: Rows that did not.
        viewed_episodes: Distinct episodes viewed on the day.
        reasons: Quarantined rows by broken rule; a row may break several.
        files: The SHA-256 of each file.
        taken_at: When it was taken, ISO 8601, UTC.
    """

    day: str
    snapshot_id: str
    drop_rows: int
    accepted_rows: int
    quarantined_rows: int
    viewed_episodes: int
    reasons: dict[str, int]
    files: dict[str, str]
    taken_at: str


class SnapshotStore:
    """Snapshots below a folder or an fsspec URL, such as `s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        filesystem, root = fsspec.core.url_to_fs(self.url)
        return filesystem, root.rstrip("/")

    def find(self, day: dt.date) -> Snapshot | None:
        """The day's snapshot, or None."""
        filesystem, _ = self._place
        path = self._path(day, "manifest.json")
        if not filesystem.exists(path):
            return None
        return Snapshot(**json.loads(filesystem.cat_file(path)))

    def require(self, day: dt.date) -> Snapshot:
        """The day's snapshot.

        Raises:
            SnapshotMissing: If it has none.
        """
        snapshot = self.find(day)
        if snapshot is None:
            raise SnapshotMissing(
                f"{day} has no snapshot below {self.url}", f"materialise input_episodes of {day}"
            )
        return snapshot

    def write(
        self,
        day: dt.date,
        *,
        accepted: pd.DataFrame,
        quarantined: pd.DataFrame,
        reasons: dict[str, int],
        viewed: npt.NDArray[np.int64],
    ) -> Snapshot:
        """Take the day's snapshot; from then on `find` answers with it."""
        contents = {
            EPISODES: _parquet(drop_table.to_table(accepted)),
            QUARANTINE: _parquet(drop_table.to_table(quarantined)),
            VIEWED: _parquet(pa.table({"epid": pa.array(viewed, pa.int64())})),
        }
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        snapshot = Snapshot(
            day=day.isoformat(),
            snapshot_id=hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16],
            drop_rows=len(accepted) + len(quarantined),
            accepted_rows=len(accepted),
            quarantined_rows=len(quarantined),
            viewed_episodes=len(viewed),
            reasons=reasons,
            files=files,
            taken_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
        for name, content in contents.items():
            self._write_once(self._path(day, snapshot.snapshot_id, name), content)
        manifest = json.dumps(asdict(snapshot), indent=2).encode()
        self._replace(self._path(day, "manifest.json"), manifest)
        return snapshot

    def read_drop(self, snapshot: Snapshot, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The accepted rows, `epid` as int64 and `algorithm_id` as int16.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        frame = drop_table.to_frame(self._read(snapshot, EPISODES, columns))
        return frame.astype({"epid": "int64", "algorithm_id": "int16"})

    def read_viewed(self, snapshot: Snapshot) -> npt.NDArray[np.int64]:
        """The ascending epids viewed on the day.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        epids: npt.NDArray[np.int64] = self._read(snapshot, VIEWED)["epid"].to_numpy()
        return epids

    def read_quarantine(self, snapshot: Snapshot) -> pd.DataFrame:
        """The refused rows with their `reasons`.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        table = self._read(snapshot, QUARANTINE)
        rows = drop_table.to_frame(table.select(drop_table.SCHEMA.names))
        return rows.assign(reasons=table["reasons"].to_pandas())

    def _path(self, day: dt.date, *parts: str) -> str:
        return "/".join([self._place[1], f"day={day}", *parts])

    def _read(self, snapshot: Snapshot, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        path = self._path(dt.date.fromisoformat(snapshot.day), snapshot.snapshot_id, name)
        mend = f"restore it from a backup, or refresh input_episodes of {snapshot.day}"
        try:
            content = self._place[0].cat_file(path)
        except FileNotFoundError as error:
            raise SnapshotDamaged(f"{path} is gone", mend) from error
        if hashlib.sha256(content).hexdigest() != snapshot.files[name]:
            raise SnapshotDamaged(f"{path} is not the file that was written", mend)
        return pq.read_table(io.BytesIO(content), columns=columns)

    def _write_once(self, path: str, content: bytes) -> None:
        if not self._place[0].exists(path):
            self._replace(path, content)

    def _replace(self, path: str, content: bytes) -> None:
        filesystem, _ = self._place
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.part"
        filesystem.pipe_file(temporary, content)
        filesystem.mv(temporary, path)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
