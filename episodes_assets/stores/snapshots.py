"""The immutable copies of each day's input: Parquet files in a folder or at an fsspec URL.

`day=2018-03-01/manifest.json` names the files of the day's snapshot. It is written last, by rename,
so a day either has a whole snapshot or none. Refreshing a day adds files under another snapshot id
and lets the manifest name those; no data file is ever written twice. Each version keeps a manifest of its
own beside its files. `environment.json` at the root says whose snapshots they are.
"""

import datetime as dt
import hashlib
import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from episodes_assets.databases import doors
from episodes_assets.errors import SnapshotDamaged, SnapshotMissing
from episodes_assets.failures import explain
from episodes_assets.gates.consistency import DaySnapshots
from episodes_assets.private_files import make_folder, private_opener
from episodes_assets.settings import load_settings
from episodes_assets.stores import drop_table, snapshot_stamp
from episodes_assets.stores.episode_parts import DROP_PART_ROWS, whole_episodes
from episodes_assets.stores.snapshot_manifest import EPISODES, MANIFEST, QUARANTINE, VIEWED, Snapshot
from episodes_assets.stores.snapshot_writing import SnapshotWriter
from episodes_assets.validation.drop import AS_FOUND

_PART = ".part"
_STALE_AFTER = dt.timedelta(days=1)

# Looks at a URL wait for each other's round trips otherwise.
_LOOKS_AT_ONCE = 8

_NEVER_MISSING = {"epid": "int64", "algorithm_id": "int16"}


class _PrivateFileSystem(LocalFileSystem):  # type: ignore[misc]
    """This machine's files, where folders and files are made for their owner alone, whatever the umask."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists(path):
            raise FileExistsError(path)
        make_folder(Path(self._strip_protocol(path)))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # noqa: ANN401
        if mode == "wb":
            os.close(private_opener(self._strip_protocol(path), os.O_WRONLY | os.O_CREAT))
        return super()._open(path, mode, **options)


class SnapshotStore:
    """Snapshots below a folder or an fsspec URL, such as `s3://bucket/prefix`.

    Outside production, using one raises HostNotAllowed when its host is not listed.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def shown(self) -> str:
        """The URL without user names and passwords, for messages."""
        return doors.without_user(self.url)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        doors.require_allowed_url(load_settings(), doors.SNAPSHOTS, self.url)
        filesystem, root = fsspec.core.url_to_fs(self.url)
        if type(filesystem) is LocalFileSystem:
            filesystem = _PrivateFileSystem()
        return filesystem, root.rstrip("/")

    def restamp(self, old: str, new: str, *, look_only: bool = False) -> bool:
        """Let the store belong to another environment, on an explicit word.

        Args:
            old: What it must be stamped with.
            new: What it shall be stamped with.
            look_only: Only say whether it can be.

        Returns:
            Whether it has a stamp at all; without one there is nothing to change.

        Raises:
            WrongEnvironment: If it is stamped with something else than `old`.
        """
        filesystem, root = self._place
        if snapshot_stamp.read(filesystem, root) is None:
            return False
        snapshot_stamp.verify(filesystem, root, old, self.shown)
        if not look_only:
            folder = f"{root}/{uuid.uuid4().hex}{_PART}"
            filesystem.makedirs(folder, exist_ok=True)
            snapshot_stamp.write(filesystem, root, new, folder)
            with suppress(FileNotFoundError):  # object stores have no empty folders
                filesystem.rm(folder, recursive=True)
        return True

    def find(self, day: dt.date) -> Snapshot | None:
        """The day's snapshot, or None.

        Raises:
            SnapshotDamaged: If its manifest cannot be read.
        """
        return self._read(self._path(day, MANIFEST))

    def versions(self, day: dt.date) -> list[Snapshot]:
        """All snapshots that were ever taken of a day, in the order in which they were taken.

        `find` answers with the one that is the day's now.
        """
        found = [self._read(f"{folder}/{MANIFEST}") for folder in self._folders(day, parts=False)]
        versions = {snapshot.snapshot_id: snapshot for snapshot in found if snapshot}
        # One taken before versions had manifests has none but the day's. Within a second it is the last.
        if current := self.find(day):
            versions.pop(current.snapshot_id, None)
            versions[current.snapshot_id] = current
        return sorted(versions.values(), key=lambda snapshot: snapshot.taken_at)

    def require(self, day: dt.date) -> Snapshot:
        """The day's snapshot.

        Raises:
            SnapshotMissing: If it has none.
        """
        snapshot = self.find(day)
        if snapshot is None:
            raise SnapshotMissing(
                f"{day} has no snapshot below {self.shown}", f"materialise input_episodes of {day}"
            )
        return snapshot

    def find_all(self, days: Sequence[dt.date]) -> dict[dt.date, Snapshot]:
        """The snapshots of those of some days that have one."""
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            found = pool.map(self.find, days)
            return {day: each for day, each in zip(days, found, strict=True) if each is not None}

    def find_named(self, named: Mapping[dt.date, Collection[str]]) -> dict[dt.date, DaySnapshots]:
        """Which snapshots of some days are there.

        Args:
            named: The snapshots to look for, by day.

        Returns:
            For each of these days the one that is the day's now, and those of the named that have all files.
        """
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            return dict(pool.map(lambda day: (day, self._find_named(day, named[day])), named))

    def _find_named(self, day: dt.date, named: Collection[str]) -> DaySnapshots:
        current = self.find(day)
        existing = {snapshot_id for snapshot_id in named if self._has_files(day, snapshot_id)}
        return DaySnapshots(current.snapshot_id if current else None, existing)

    def _has_files(self, day: dt.date, snapshot_id: str) -> bool:
        filesystem, _ = self._place
        try:
            paths = filesystem.ls(self._path(day, snapshot_id), detail=False)
        except FileNotFoundError:
            return False
        return {EPISODES, VIEWED, QUARANTINE} <= {path.rsplit("/", 1)[-1] for path in paths}

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
    def new(self, day: dt.date, *, environment: str, reason: str = "") -> Iterator[SnapshotWriter]:
        """Take a day's snapshot part by part; `SnapshotWriter.finish` makes it the day's.

        What was written is removed when the block ends without that, and so is what a killed process
        left of the day more than a day ago.

        Args:
            day: The day.
            environment: This process's; a store without a stamp gets it.
            reason: Why it is taken, for the manifest.

        Raises:
            WrongEnvironment: If the store belongs to another environment.
            SystemFailure: If it cannot be written: a full disk, a missing right and the like.
        """
        try:
            with self._new(day, environment, reason) as writer:
                yield writer
        except OSError as error:
            if (cause := explain(error, f"the snapshots below {self.shown}")) is None:
                raise
            raise cause from error

    @contextmanager
    def _new(self, day: dt.date, environment: str, reason: str) -> Iterator[SnapshotWriter]:
        filesystem, root = self._place
        snapshot_stamp.verify(filesystem, root, environment, self.shown)
        self._remove_stale_parts(day)
        folder = self._path(day, f"{uuid.uuid4().hex}{_PART}")
        filesystem.makedirs(folder, exist_ok=True)
        try:
            adopt = partial(self._adopt, folder=folder, environment=environment)
            writer = SnapshotWriter(day, filesystem, folder, reason, adopt)
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
        """The refused rows with their `reasons`, and `as_found`: what could not be read, as JSON.

        A snapshot of an older release lacks that; there it is missing.

        Raises:
            SnapshotDamaged: If the file is not the one that was written.
        """
        with self._open(snapshot, QUARANTINE) as file:
            table = file.read()
        rows = drop_table.to_frame(table.select(drop_table.SCHEMA.names))
        known = table.column_names
        as_found = table[AS_FOUND].to_pandas() if AS_FOUND in known else pd.Series(None, rows.index, "str")
        return rows.assign(reasons=table["reasons"].to_pandas(), **{AS_FOUND: as_found})

    def _path(self, day: dt.date, *parts: str) -> str:
        return "/".join([self._place[1], f"day={day}", *parts])

    def _file(self, snapshot: Snapshot, name: str) -> tuple[str, str]:
        """Where a snapshot's file is, and what to do when it is damaged."""
        path = self._path(dt.date.fromisoformat(snapshot.day), snapshot.snapshot_id, name)
        return path, f"restore it from a backup, or refresh input_episodes of {snapshot.day}"

    def _read(self, path: str) -> Snapshot | None:
        try:
            return Snapshot(**json.loads(self._place[0].cat_file(path)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise SnapshotDamaged(
                f"{path} is no manifest ({error})",
                "restore it from a backup, or remove it and refresh the day",
            ) from error

    def _folders(self, day: dt.date, *, parts: bool) -> list[str]:
        """The folders of a day's versions, or those of the snapshots that are being taken."""
        filesystem, _ = self._place
        filesystem.invalidate_cache()
        try:
            found = filesystem.ls(self._path(day), detail=True)
        except FileNotFoundError:
            return []
        names = [entry["name"].rstrip("/") for entry in found if entry["type"] == "directory"]
        return [name for name in names if name.endswith(_PART) is parts]

    def _remove_stale_parts(self, day: dt.date) -> None:
        """Remove what killed processes left; one that still takes a snapshot has written of late."""
        filesystem, _ = self._place
        before = dt.datetime.now(dt.UTC) - _STALE_AFTER
        for folder in self._folders(day, parts=True):
            # Somebody else may be removing it too; object stores have no empty folders.
            with suppress(FileNotFoundError):
                written = [filesystem.modified(path) for path in filesystem.find(folder) or [folder]]
                if max(written) < before:
                    filesystem.rm(folder, recursive=True)

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

    def _adopt(self, snapshot: Snapshot, folder: str, environment: str) -> None:
        """Make the files in a folder a snapshot's, and the snapshot its day's."""
        filesystem, root = self._place
        day = dt.date.fromisoformat(snapshot.day)
        snapshot_stamp.put(filesystem, root, environment, folder)
        snapshot_stamp.verify(filesystem, root, environment, self.shown)
        filesystem.makedirs(self._path(day, snapshot.snapshot_id), exist_ok=True)
        for name in snapshot.files:
            path = self._path(day, snapshot.snapshot_id, name)
            if not self._is_whole(path, snapshot.files[name]):
                filesystem.mv(f"{folder}/{name}", path)
        replaced = self.find(day)
        if replaced and not filesystem.exists(self._path(day, replaced.snapshot_id, MANIFEST)):
            # Taken before versions had manifests of their own.
            self._put_manifest(replaced, folder, self._path(day, replaced.snapshot_id, MANIFEST))
        self._put_manifest(snapshot, folder, self._path(day, snapshot.snapshot_id, MANIFEST))
        self._put_manifest(snapshot, folder, self._path(day, MANIFEST))

    def _put_manifest(self, snapshot: Snapshot, folder: str, path: str) -> None:
        """Write a manifest by rename, so that nobody ever reads a part of one."""
        filesystem, _ = self._place
        manifest = json.dumps(asdict(snapshot), indent=2).encode()
        filesystem.pipe_file(f"{folder}/{MANIFEST}", manifest)
        filesystem.mv(f"{folder}/{MANIFEST}", path)
