"""The immutable copies of each day's input: Parquet files in a folder or at an fsspec URL.

`day=2018-03-01/manifest.json` names the files of the day's snapshot. It is written last, by rename,
so a day either has a whole snapshot or none. Refreshing a day adds files under another snapshot id
and lets the manifest name those; no file is ever written twice.
"""

import datetime as dt
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.databases import doors
from episodes_assets.errors import SnapshotDamaged, SnapshotMissing
from episodes_assets.settings import load_settings
from episodes_assets.stores import drop_table
from episodes_assets.stores.episode_parts import DROP_PART_ROWS, whole_episodes
from episodes_assets.stores.hashed_parquet import HashedParquet
from episodes_assets.validation.drop import ValidatedDrop

EPISODES = "episodes.parquet"
VIEWED = "viewed.parquet"
QUARANTINE = "quarantine.parquet"

# Looks at a URL wait for each other's round trips otherwise.
_LOOKS_AT_ONCE = 8

_NEVER_MISSING = {"epid": "int64", "algorithm_id": "int16"}


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot's manifest says.

    Attributes:
        day: The day, `YYYY-MM-DD`.
        snapshot_id: Follows from the content: equal input, equal id.
        drop_rows: Rows read from the drop, counted before validation.
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
    """Snapshots below a folder or an fsspec URL, such as `s3://bucket/prefix`.

    Outside production, using one raises HostNotAllowed when its host is not listed.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        doors.require_allowed_url(load_settings(), self.url)
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

    def find_all(self, days: Sequence[dt.date]) -> dict[dt.date, Snapshot]:
        """The snapshots of those of some days that have one."""
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            found = pool.map(self.find, days)
            return {day: each for day, each in zip(days, found, strict=True) if each is not None}

    def require_all(self, days: Sequence[dt.date]) -> list[Snapshot]:
        """The snapshots of some days, in their order.

        Raises:
            SnapshotMissing: If one has none.
        """
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            return list(pool.map(self.require, days))

    def count_rows(self, snapshots: Sequence[Snapshot]) -> list[dict[str, int]]:
        """The rows in each file of some snapshots, by the files' own footers.

        Raises:
            SnapshotDamaged: If a file is gone or is not Parquet.
        """
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            return list(pool.map(self._count_rows, snapshots))

    def _count_rows(self, snapshot: Snapshot) -> dict[str, int]:
        rows = {}
        for name in snapshot.files:
            path, mend = self._file(snapshot, name)
            try:
                with self._place[0].open(path, "rb") as handle:
                    rows[name] = int(pq.read_metadata(handle).num_rows)
            except FileNotFoundError as error:
                raise SnapshotDamaged(f"{path} is gone", mend) from error
            except pa.ArrowInvalid as error:
                raise SnapshotDamaged(f"{path} is not a Parquet file", mend) from error
        return rows

    @contextmanager
    def new(self, day: dt.date) -> Iterator["SnapshotWriter"]:
        """Take a day's snapshot part by part; `SnapshotWriter.finish` makes it the day's.

        What was written is removed when the block ends without that.
        """
        filesystem, _ = self._place
        folder = self._path(day, f"{uuid.uuid4().hex}.part")
        filesystem.makedirs(folder, exist_ok=True)
        try:
            writer = SnapshotWriter(self, day, filesystem, folder)
            with closing(writer):
                yield writer
        finally:
            with suppress(FileNotFoundError):  # object stores have no empty folders
                filesystem.rm(folder, recursive=True)

    def read_drop(self, snapshot: Snapshot, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The accepted rows in parts, ordered by epid, every episode in one part.

        Args:
            snapshot: The snapshot.
            columns: Which; `epid` among them.

        Yields:
            The columns, `epid` as int64 and `algorithm_id` as int16; at least one part.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        exact = {name: dtype for name, dtype in _NEVER_MISSING.items() if name in columns}
        with self._open(snapshot, EPISODES) as file:
            # The file's own row groups need not end between episodes.
            rows = (file.read_row_group(n, columns) for n in range(file.num_row_groups))
            batches = (batch for table in rows for batch in table.to_batches())
            empty = file.schema_arrow.empty_table().select(columns)
            for part in whole_episodes(batches, DROP_PART_ROWS) if file.metadata.num_rows else [empty]:
                yield drop_table.to_frame(part).astype(exact)

    def read_viewed(self, snapshot: Snapshot) -> npt.NDArray[np.int64]:
        """The ascending epids viewed on the day.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        with self._open(snapshot, VIEWED) as file:
            epids: npt.NDArray[np.int64] = file.read()["epid"].to_numpy()
        return epids

    def read_quarantine(self, snapshot: Snapshot) -> pd.DataFrame:
        """The refused rows with their `reasons`.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        with self._open(snapshot, QUARANTINE) as file:
            table = file.read()
        rows = drop_table.to_frame(table.select(drop_table.SCHEMA.names))
        return rows.assign(reasons=table["reasons"].to_pandas())

    def _path(self, day: dt.date, *parts: str) -> str:
        return "/".join([self._place[1], f"day={day}", *parts])

    def _file(self, snapshot: Snapshot, name: str) -> tuple[str, str]:
        """Where a snapshot's file is, and what to do when it is damaged."""
        path = self._path(dt.date.fromisoformat(snapshot.day), snapshot.snapshot_id, name)
        return path, f"restore it from a backup, or refresh input_episodes of {snapshot.day}"

    @contextmanager
    def _open(self, snapshot: Snapshot, name: str) -> Iterator[pq.ParquetFile]:
        path, mend = self._file(snapshot, name)
        try:
            handle = self._place[0].open(path, "rb")
        except FileNotFoundError as error:
            raise SnapshotDamaged(f"{path} is gone", mend) from error
        with handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != snapshot.files[name]:
                raise SnapshotDamaged(f"{path} is not the file that was written", mend)
            with pq.ParquetFile(handle) as file:
                yield file

    def _is_whole(self, path: str, digest: str) -> bool:
        try:
            with self._place[0].open(path, "rb") as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest() == digest
        except FileNotFoundError:
            return False

    def _adopt(self, snapshot: Snapshot, folder: str) -> None:
        """Make the files in a folder a snapshot's, and the snapshot its day's."""
        filesystem, _ = self._place
        day = dt.date.fromisoformat(snapshot.day)
        filesystem.makedirs(self._path(day, snapshot.snapshot_id), exist_ok=True)
        for name in snapshot.files:
            path = self._path(day, snapshot.snapshot_id, name)
            if not self._is_whole(path, snapshot.files[name]):
                filesystem.mv(f"{folder}/{name}", path)
        manifest = json.dumps(asdict(snapshot), indent=2).encode()
        filesystem.pipe_file(f"{folder}/manifest.json", manifest)
        filesystem.mv(f"{folder}/manifest.json", self._path(day, "manifest.json"))


class SnapshotWriter:
    """A snapshot that is being taken; `SnapshotStore.new` makes it."""

    def __init__(self, store: SnapshotStore, day: dt.date, filesystem: Any, folder: str) -> None:  # noqa: ANN401
        self._store = store
        self._day = day
        self._folder = folder
        self._files = {
            name: HashedParquet(filesystem.open(f"{folder}/{name}", "wb"), schema)
            for name, schema in (
                (EPISODES, drop_table.SCHEMA),
                (QUARANTINE, drop_table.SCHEMA.append(pa.field("reasons", pa.string()))),
                (VIEWED, pa.schema({"epid": pa.int64()})),
            )
        }
        self._reasons: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return self._files[EPISODES].rows + self._files[QUARANTINE].rows

    def add(self, validated: ValidatedDrop) -> None:
        """Add the next part of the drop, whose episodes are in no other part."""
        self._files[EPISODES].write(drop_table.to_table(validated.accepted))
        self._files[QUARANTINE].write(drop_table.to_table(validated.quarantined))
        self._reasons.update(validated.reasons)

    def finish(self, viewed: npt.NDArray[np.int64], rows_read: int) -> Snapshot:
        """Let `SnapshotStore.find` answer with this snapshot from now on.

        Args:
            viewed: The ascending epids viewed on the day.
            rows_read: Rows that came from the drop, counted by whoever read it.
        """
        self._files[VIEWED].write(pa.table({"epid": pa.array(viewed, pa.int64())}))
        accepted, quarantined = self._files[EPISODES].rows, self._files[QUARANTINE].rows
        self.close()
        files = {name: file.digest for name, file in self._files.items()}
        snapshot = Snapshot(
            day=self._day.isoformat(),
            snapshot_id=hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16],
            drop_rows=rows_read,
            accepted_rows=accepted,
            quarantined_rows=quarantined,
            viewed_episodes=len(viewed),
            reasons=dict(self._reasons.most_common()),
            files=files,
            taken_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
        self._store._adopt(snapshot, self._folder)  # noqa: SLF001  two halves of one store
        return snapshot

    def close(self) -> None:
        """Close the files; once is enough."""
        for file in self._files.values():
            file.close()
