"""Bringing the snapshots of an older release into the lake.

Before drops were kept in the lake, each day's was a snapshot: a folder `day=2018-03-01/<snapshot_id>` with
`episodes.parquet`, `quarantine.parquet`, `viewed.parquet` and a `manifest.json`, below a folder or at an
fsspec URL; the day's own `manifest.json` named the one that was the day's. What is here reads them and never
changes them. Until all are in, which a mark in the lake says at the end, steps and commands refuse to use its
drops: it would be half a history. `lake/drops.py` has what is made of them.
"""

import datetime as dt
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.days import parse_date
from episodes_assets.errors import BadDay, NotBroughtIn, SnapshotDamaged
from episodes_assets.failures import explain, reason
from episodes_assets.lake.day_file import DayWriter
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import VIEWED_SCHEMA, Drops
from episodes_assets.planning.drop import ACCEPTED, QUARANTINED
from episodes_assets.postgres import hosts

_EPISODES, _QUARANTINE, _VIEWED = "episodes.parquet", "quarantine.parquet", "viewed.parquet"
# In the order in which a snapshot's id was made from them.
_FILES = (_EPISODES, _QUARANTINE, _VIEWED)
_MANIFEST = "manifest.json"
_MANIFEST_FIELDS = (
    "snapshot_id",
    "drop_rows",
    "accepted_rows",
    "quarantined_rows",
    "viewed_episodes",
    "reasons",
    "taken_at",
)
# Where snapshots were brought in from, in the properties of the table `episodes`.
_BROUGHT_IN = "episodes.snapshots_brought_in"
_COMMITTED_TOGETHER = 50
_READS_AT_ONCE = 8
_ID_CHARACTERS = 16
_HINT = "restore it from a backup, then run `episodes db init` again"


@dataclass(frozen=True)
class _Snapshot:
    """A snapshot of an older release.

    Attributes:
        day: The day.
        folder: Where its files are.
        manifest: The fields of `Drop` that are no files, from its manifest.
        digests: The SHA-256 of each file by the manifest; empty if it has none, so that only its id, a digest
            of all files, can be compared.
        is_current: Whether it is the day's current one.
    """

    day: dt.date
    folder: str
    manifest: Mapping[str, Any]
    digests: Mapping[str, str]
    is_current: bool

    @property
    def snapshot_id(self) -> str:
        """Its id."""
        return str(self.manifest["snapshot_id"])


class OlderSnapshots:
    """The snapshots that an older release has left below a folder or an fsspec URL.

    Whether their host may be reached is decided before, in `opening.py`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def shown(self) -> str:
        """The URL without user names and passwords, for messages."""
        return hosts.without_user(self.url)

    def require_brought_in(self, drops: Drops) -> None:
        """Refuse to work with a lake that lacks them: it would be half a history.

        Raises:
            NotBroughtIn: If there are some that `bring_in` has not brought in to the end.
            SystemFailure: If they cannot be read.
        """
        if not self._are_in(drops) and self._days():
            raise NotBroughtIn(
                f"the snapshots that an older release has left below {self.shown} are not in the lake at "
                f"{drops.shown} yet",
                "run `episodes db init`, which brings them in",
            )

    def bring_in(self, drops: Drops, environment: str, report: Callable[[str], None]) -> int:
        """Bring all versions of all days into the lake, each day's in the order in which they were taken.

        What is in already is left alone, so that what was interrupted goes on where it was. Nothing is
        written to the snapshots.

        Args:
            drops: The lake's.
            environment: This process's.
            report: Called with the progress, as one line.

        Returns:
            How many snapshots were brought in.

        Raises:
            SnapshotDamaged: If a snapshot or a manifest cannot be read, or is not what was written.
            WrongEnvironment: If the lake belongs to another environment.
            SystemFailure: If the snapshots or the lake cannot be reached.
        """
        if self._are_in(drops):
            return 0
        days = self._days()
        if not days:
            return 0
        drops.verify_environment(environment)
        with self._explaining_errors():
            with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
                versions = list(pool.map(self._versions, days))
            known = {(drop.day, drop.snapshot_id) for drop in drops.history()}
            # A wave has at most one version of each day, since a commit has one file of a day.
            waves = (
                [each for each in wave if each and (each.day, each.snapshot_id) not in known]
                for wave in itertools.zip_longest(*versions)
            )
            total = sum(len(each) for each in versions)
            done = sum((each.day, each.snapshot_id) in known for each in itertools.chain(*versions))
            brought = 0
            for group in (group for wave in waves for group in _groups(wave)):
                drops.commit([self._copy(each, drops) for each in group], environment)
                brought += len(group)
                report(f"lake: {done + brought:,} of {total:,} older snapshots brought in")
        # Completes commits that were interrupted between the two tables.
        drops.settle(days, environment)
        drops.episodes.set_property(_BROUGHT_IN, self._mark(drops), ACCEPTED, environment)
        return brought

    def _are_in(self, drops: Drops) -> bool:
        return self.shown in (drops.episodes.find_property(_BROUGHT_IN) or "").split("\n")

    def _mark(self, drops: Drops) -> str:
        before = drops.episodes.find_property(_BROUGHT_IN)
        return f"{before}\n{self.shown}" if before else self.shown

    @cached_property
    def _place(self) -> tuple[Any, str]:
        filesystem, root = fsspec.core.url_to_fs(self.url)
        return filesystem, root.rstrip("/")

    def _days(self) -> list[dt.date]:
        """The days that have a folder."""
        with self._explaining_errors():
            found = []
            for name in self._folders(self._place[1]):
                if name.startswith("day="):
                    try:
                        found.append(parse_date(name.removeprefix("day=")))
                    except BadDay:
                        continue  # no folder of ours
            return sorted(found)

    def _folders(self, path: str) -> list[str]:
        filesystem, _ = self._place
        try:
            entries = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return []
        names = [entry["name"] for entry in entries if entry["type"] == "directory"]
        return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in names]

    def _versions(self, day: dt.date) -> list[_Snapshot]:
        """All snapshots of a day, in the order in which they were taken; the day's own is the last."""
        folder = f"{self._place[1]}/day={day}"
        current = self._read_manifest(f"{folder}/{_MANIFEST}")
        found = {}
        for name in self._folders(folder):
            if len(name) != _ID_CHARACTERS:
                continue  # what a killed process has left
            is_current = current is not None and current["snapshot_id"] == name
            manifest = self._read_manifest(f"{folder}/{name}/{_MANIFEST}")
            manifest = current if is_current else manifest
            if manifest is None and (manifest := self._without_manifest(f"{folder}/{name}", name)) is None:
                continue  # its files were never complete
            digests = manifest.pop("files", {})
            found[name] = _Snapshot(day, f"{folder}/{name}", manifest, digests, is_current)
        if current is not None and current["snapshot_id"] not in found:
            raise SnapshotDamaged(f"{folder}/{current['snapshot_id']} is gone", _HINT)
        return sorted(found.values(), key=lambda each: (each.is_current, each.manifest["taken_at"]))

    def _read_manifest(self, path: str) -> dict[str, Any] | None:
        try:
            manifest = json.loads(self._place[0].cat_file(path))
            kept = {name: manifest[name] for name in _MANIFEST_FIELDS}
            files = {name: manifest["files"][name] for name in _FILES}
            dt.datetime.fromisoformat(manifest["taken_at"])
            return {**kept, "reason": manifest.get("reason", ""), "files": files}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SnapshotDamaged(f"{path} is not a manifest ({error})", _HINT) from error

    def _without_manifest(self, folder: str, name: str) -> dict[str, Any] | None:
        """A manifest from the files themselves, for a snapshot of a release that wrote none."""
        filesystem, _ = self._place
        paths = {each: f"{folder}/{each}" for each in _FILES}
        if not all(filesystem.exists(path) for path in paths.values()):
            return None
        rows = {}
        for each, path in paths.items():
            with self._open(path) as file:
                rows[each] = int(file.metadata.num_rows)
        with self._open(paths[_QUARANTINE]) as file:
            texts = file.read(["reasons"], use_threads=False)["reasons"].to_pylist()
        taken = filesystem.modified(paths[_EPISODES])
        return {
            "snapshot_id": name,
            "drop_rows": rows[_EPISODES] + rows[_QUARANTINE],
            "accepted_rows": rows[_EPISODES],
            "quarantined_rows": rows[_QUARANTINE],
            "viewed_episodes": rows[_VIEWED],
            "reasons": dict(Counter(rule for text in texts for rule in text.split(", ")).most_common()),
            "taken_at": taken.astimezone(dt.UTC).isoformat(timespec="seconds"),
            "reason": "",
        }

    @contextmanager
    def _open(self, path: str) -> Iterator[pq.ParquetFile]:
        """A snapshot's file, to be read in this thread.

        A thread of Arrow's may refer to a file of Python's after the read, and aborts a process that ends
        then (SIGABRT).
        """
        try:
            with (
                self._place[0].open(path, "rb") as handle,
                pq.ParquetFile(handle, pre_buffer=False) as file,
            ):
                yield file
        except FileNotFoundError as error:
            raise SnapshotDamaged(f"{path} is gone", _HINT) from error
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
            raise SnapshotDamaged(f"{path} cannot be read ({reason(error)})", _HINT) from error

    def _copy(self, snapshot: _Snapshot, drops: Drops) -> Drop:
        """Copy a snapshot's rows to files of the lake, after comparing its digests."""
        self._require_whole(snapshot)
        day = snapshot.day
        with drops.writer(day) as writer, drops.viewed.writer(day, VIEWED_SCHEMA) as other:
            for name, file, schema in (
                (_EPISODES, writer.episodes, ACCEPTED),
                (_QUARANTINE, writer.quarantine, QUARANTINED),
                (_VIEWED, other, VIEWED_SCHEMA),
            ):
                self._copy_rows(f"{snapshot.folder}/{name}", file, schema)
            quarantine, viewed = writer.quarantine.finish(), other.finish()
            drop = writer.finish_as(snapshot.manifest, quarantine, viewed)
        recorded = (drop.accepted_rows, drop.quarantined_rows, drop.viewed_episodes)
        if recorded != (drop.episodes.rows, quarantine.rows, viewed.rows):
            raise SnapshotDamaged(f"{snapshot.folder} holds other rows than its manifest says", _HINT)
        return drop

    def _copy_rows(self, path: str, writer: DayWriter, schema: pa.Schema) -> None:
        with self._open(path) as file:
            for number in range(file.num_row_groups):
                writer.write_group(_as(file.read_row_group(number, use_threads=False), schema))

    def _require_whole(self, snapshot: _Snapshot) -> None:
        digests = {}
        for name in _FILES:
            path = f"{snapshot.folder}/{name}"
            try:
                with self._place[0].open(path, "rb") as handle:
                    digests[name] = hashlib.file_digest(handle, "sha256").hexdigest()
            except FileNotFoundError as error:
                raise SnapshotDamaged(f"{path} is gone", _HINT) from error
            if digests[name] != snapshot.digests.get(name, digests[name]):
                raise SnapshotDamaged(f"{path} is not the file that was written", _HINT)
        made = hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:_ID_CHARACTERS]
        if made != snapshot.snapshot_id:
            raise SnapshotDamaged(f"{snapshot.folder} does not hold the files that were written", _HINT)

    @contextmanager
    def _explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if (cause := explain(error, f"the snapshots below {self.shown}")) is None:
                raise
            raise cause from error


def _groups(wave: Sequence[_Snapshot]) -> Iterator[Sequence[_Snapshot]]:
    """The snapshots of a wave in groups that are committed together."""
    return (wave[at : at + _COMMITTED_TOGETHER] for at in range(0, len(wave), _COMMITTED_TOGETHER))


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with a schema's columns: earlier releases had fewer, and other types of some."""
    columns: Sequence[pa.ChunkedArray | pa.Array] = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
