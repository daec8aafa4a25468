"""The lake's drops: each day's catalogue as it was taken, in the tables `episodes` and `quarantine`.

`episodes` has the rows that validation accepted, ordered by `epid`; `quarantine` has those that it refused,
with the reasons. A day without refused rows has an empty file there.

Delta Lake has no commit over several tables. A day is committed table by table: its viewings first, then
what was refused, and **last its accepted rows, which make it visible as taken**. Whoever is killed in between
leaves nothing that counts, and taking the day again gives the same files.

What is known of a drop besides its rows (how many were read, which rules refused some, when it was taken and
for what reason) is its record: JSON under the key `episodes.drop` in the metadata of the day's file, and
under `episodes.drops` in the commit that made it the day's. The file tells what a day is now; the commits
tell all that it ever was, so that a drop is found by the `snapshot_id` which plans, the tracked state and
publications name.

A third table, `viewed_episodes`, is there only where snapshots of an older release were brought in
(`older_snapshots.py`): the episodes that such a release had recorded as viewed. Of a day that was taken with
its viewings those are in `viewings`. Which rows are accepted is decided in `planning/drop.py`; when a day is
taken, in `taking.py`.
"""

import datetime as dt
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from episodes_assets.checks.consistency import DayDrops
from episodes_assets.errors import DropMissing, LakeDamaged, LakeMissing
from episodes_assets.lake import drop_record
from episodes_assets.lake.day_file import DayWriter, LakeFile
from episodes_assets.lake.files import DAMAGED_HINT
from episodes_assets.lake.tables import LakeTable
from episodes_assets.planning.drop import (
    ACCEPTED,
    AS_FOUND,
    DROP_PART_ROWS,
    QUARANTINED,
    SCHEMA,
    ValidatedDrop,
    to_frame,
    to_table,
    whole_episodes,
)
from episodes_assets.postgres import hosts

VIEWED_SCHEMA = pa.schema({"epid": pa.int64()})
TITLES = ["epid", "series", "season", "episode", "title"]
_FILES_AT_ONCE = 8
_ID_CHARACTERS = 16
_NEVER_MISSING = {"epid": "int64", "algorithm_id": "int16"}


class DropWriter:
    """A drop that is being taken; `Drops.writer` makes it.

    Attributes:
        episodes: The file of the accepted rows.
        quarantine: The file of the refused ones.
    """

    def __init__(self, day: dt.date, reason: str, episodes: DayWriter, quarantine: DayWriter) -> None:
        self.episodes = episodes
        self.quarantine = quarantine
        self._day = day
        self._reason = reason
        self._reasons: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """Rows added so far."""
        return self.episodes.rows + self.quarantine.rows

    def add(self, validated: ValidatedDrop) -> None:
        """Add the next part of the drop, whose episodes are in no other part."""
        self.episodes.write_group(to_table(validated.accepted))
        self.quarantine.write_group(to_table(validated.quarantined, QUARANTINED))
        self._reasons.update(validated.reasons)

    def finish(self, viewed: npt.NDArray[np.int64], rows_read: int) -> drop_record.Drop:
        """Finish the files; they become the day's files by `Drops.commit`.

        Args:
            viewed: The ascending epids viewed on the day.
            rows_read: Rows that came from the input, counted by whoever read it.
        """
        quarantine = self.quarantine.finish()
        parts = (
            self.episodes.content_digest(),
            quarantine.digest,
            hashlib.sha256(viewed.tobytes()).hexdigest(),
        )
        return self.finish_as(
            {
                "snapshot_id": hashlib.sha256("".join(parts).encode()).hexdigest()[:_ID_CHARACTERS],
                "drop_rows": rows_read,
                "accepted_rows": self.episodes.rows,
                "quarantined_rows": quarantine.rows,
                "viewed_episodes": len(viewed),
                "reasons": dict(self._reasons.most_common()),
                "taken_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "reason": self._reason,
            },
            quarantine,
        )

    def finish_as(
        self, known: Mapping[str, Any], quarantine: LakeFile, viewed: LakeFile | None = None
    ) -> drop_record.Drop:
        """Finish the file of accepted rows with a record that is known already.

        Args:
            known: The fields of `Drop` that are no files.
            quarantine: The finished file of the refused rows.
            viewed: The finished file of the viewed episodes, of a release before the lake.
        """
        files = {"quarantine": quarantine.to_record(), "viewed": viewed and viewed.to_record()}
        record = {**known, **files}
        self.episodes.describe({drop_record.RECORD: json.dumps(record)})
        return drop_record.from_record(self._day, record, self.episodes.finish())


class Drops:
    """The tables of drops in a lake.

    Attributes:
        episodes: The accepted rows.
        quarantine: The refused ones.
        viewed: What releases before the lake had recorded as viewed.
    """

    def __init__(self, lake_url: str) -> None:
        self.lake_url = lake_url
        self.episodes = LakeTable(lake_url, drop_record.EPISODES)
        self.quarantine = LakeTable(lake_url, drop_record.QUARANTINE)
        self.viewed = LakeTable(lake_url, drop_record.VIEWED_EPISODES)
        self._cache: dict[LakeFile, drop_record.Drop] = {}

    @property
    def shown(self) -> str:
        """Where they are, without user names and passwords, for messages."""
        return hosts.without_user(self.lake_url)

    @property
    def tables(self) -> Sequence[LakeTable]:
        """All of them."""
        return (self.episodes, self.quarantine, self.viewed)

    def days(self) -> Collection[dt.date]:
        """The days that were taken, in order."""
        newest = self.episodes.newest()
        return list(newest.files) if newest else []

    def find(self, day: dt.date) -> drop_record.Drop | None:
        """The day's drop, or None.

        Raises:
            LakeDamaged: If its file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        return self.find_all([day]).get(day)

    def find_all(self, days: Collection[dt.date]) -> dict[dt.date, drop_record.Drop]:
        """The drops of those of some days that have one; raises as `find`."""
        newest = self.episodes.newest()
        files = [newest.files[day] for day in days if day in newest.files] if newest else []
        if unread := [file for file in files if file not in self._cache]:
            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                self._cache.update(zip(unread, pool.map(self.read_record, unread), strict=True))
        return {file.day: self._cache[file] for file in files}

    def require(self, day: dt.date) -> drop_record.Drop:
        """The day's drop; raises as `require_all`."""
        (drop,) = self.require_all([day])
        return drop

    def require_all(self, days: Sequence[dt.date]) -> list[drop_record.Drop]:
        """The drops of some days, in their order.

        Raises:
            DropMissing: If one has none.
            LakeDamaged: If a file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        found = self.find_all(days)
        for day in days:
            if day not in found:
                raise DropMissing(
                    f"the lake at {self.shown} has no drop of {day}", f"materialise input_episodes of {day}"
                )
        return [found[day] for day in days]

    def history(self) -> list[drop_record.Drop]:
        """All drops that were ever committed, in the order of their commits.

        Their files may be gone: `episodes lake vacuum` removes those that nothing names.
        """
        return [drop for commit in self.episodes.commits() for drop in drop_record.drops_of(commit)]

    def versions(self, day: dt.date) -> list[drop_record.Drop]:
        """All drops that were ever committed for the day, each once, in the order of their latest commits.

        `find` returns the current one.
        """
        found: dict[str, drop_record.Drop] = {}
        for drop in self.history():
            if drop.day == day:
                found.pop(drop.snapshot_id, None)
                found[drop.snapshot_id] = drop
        return list(found.values())

    def find_named(self, named: Mapping[dt.date, Collection[str]]) -> dict[dt.date, DayDrops]:
        """Which of the drops that databases name still exist.

        Args:
            named: Their ids, by day.

        Returns:
            For each of these days the id of the current drop, and the named ids of which all files exist.
        """
        newest = self.episodes.newest()
        history = self.history()
        ids = {drop.episodes: drop.snapshot_id for drop in history}
        drops = [drop for drop in history if drop.snapshot_id in named.get(drop.day, ())]
        has_episodes = self.episodes.present([drop.episodes for drop in drops])
        has_quarantine = self.quarantine.present([drop.quarantine for drop in drops])
        existing: defaultdict[dt.date, set[str]] = defaultdict(set)
        for drop, *has_files in zip(drops, has_episodes, has_quarantine, strict=True):
            if all(has_files):
                existing[drop.day].add(drop.snapshot_id)
        files = newest.files if newest else {}
        current = {day: ids.get(files[day]) for day in named if day in files}
        return {day: DayDrops(current.get(day), existing[day]) for day in named}

    def count_rows(self, drops: Sequence[drop_record.Drop]) -> list[tuple[int, int]]:
        """The accepted and the refused rows in the files of some drops, by the files' own footers.

        Raises:
            LakeDamaged: If a file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """

        def count(drop: drop_record.Drop) -> tuple[int, int]:
            with (
                self.episodes.open(drop.episodes) as episodes,
                self.quarantine.open(drop.quarantine) as quarantine,
            ):
                return int(episodes.metadata.num_rows), int(quarantine.metadata.num_rows)

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            return list(pool.map(count, drops))

    @contextmanager
    def writer(self, day: dt.date, *, reason: str = "") -> Iterator[DropWriter]:
        """Take a day's drop part by part; what a failure leaves of it is removed.

        Args:
            day: The day.
            reason: Why it is taken, for the record.

        Raises:
            SystemFailure: If it cannot be written: a full disk, a missing right and the like.
        """
        with (
            self.episodes.writer(day, ACCEPTED) as episodes,
            self.quarantine.writer(day, QUARANTINED) as quarantine,
        ):
            yield DropWriter(day, reason, episodes, quarantine)

    def commit(self, drops: Sequence[drop_record.Drop], environment: str) -> None:
        """Make drops the current ones of their days, which are distinct: their accepted rows last.

        Raises:
            WrongEnvironment: If the lake belongs to another environment.
            LakeOvertaken: If others keep committing in between.
            SystemFailure: If the lake cannot be written.
        """
        if not drops:
            return
        viewed = [drop.viewed for drop in drops if drop.viewed]
        if viewed:
            self.viewed.commit(VIEWED_SCHEMA, lambda _: viewed, environment=environment, facts={})
        refused = [drop.quarantine for drop in drops]
        self.quarantine.commit(QUARANTINED, lambda _: refused, environment=environment, facts={})
        accepted = [drop.episodes for drop in drops]
        facts = {drop_record.RECORDS: json.dumps([drop_record.to_record(drop) for drop in drops])}
        self.episodes.commit(ACCEPTED, lambda _: accepted, environment=environment, facts=facts)
        self._cache.update({drop.episodes: drop for drop in drops})
        self.settle([drop.day for drop in drops], environment)

    def settle(self, days: Collection[dt.date], environment: str) -> None:
        """Make `quarantine` agree with `episodes` on some days, after a race of two processes.

        Of two that take a day at once, the last to commit to `episodes` may be the first in `quarantine`.
        """

        def missing_files(kept: Mapping[dt.date, LakeFile]) -> list[LakeFile]:
            found = self.find_all(days).values()
            return [drop.quarantine for drop in found if kept.get(drop.day) != drop.quarantine]

        newest = self.quarantine.newest()
        if missing_files(newest.files if newest else {}):
            self.quarantine.commit(QUARANTINED, missing_files, environment=environment, facts={})

    def read_drop(self, drop: drop_record.Drop, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The accepted rows in parts, ordered by epid, every episode in one part.

        Args:
            drop: The drop.
            columns: Which; `epid` among them.

        Yields:
            The columns, `epid` as int64 and `algorithm_id` as int16; at least one part.

        Raises:
            LakeDamaged: If the file is not the one that was written.
            SystemFailure: If the lake cannot be reached.
        """
        exact = {name: dtype for name, dtype in _NEVER_MISSING.items() if name in columns}
        with _open_whole(self.episodes, drop.episodes) as file:
            # The file's own row groups need not end between episodes.
            rows = (file.read_row_group(n, columns) for n in range(file.num_row_groups))
            batches = (batch for table in rows for batch in table.to_batches())
            empty = file.schema_arrow.empty_table().select(columns)
            for part in whole_episodes(batches, DROP_PART_ROWS) if file.metadata.num_rows else [empty]:
                yield to_frame(part).astype(exact)

    def read_titles(self, drop: drop_record.Drop, epids: npt.NDArray[np.int64]) -> pa.Table:
        """What the accepted rows of some episodes call them.

        Args:
            drop: The drop.
            epids: Which episodes; those that it lacks are left out.

        Returns:
            `epid`, `series`, `season`, `episode` and `title`, one row for each episode, by epid: of several
            rows the first.

        Raises:
            LakeDamaged: If the file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        wanted = pa.array(epids)
        parts = [ACCEPTED.empty_table().select(TITLES)]
        with self.episodes.open(drop.episodes) as file:
            for group in range(file.num_row_groups):
                # Texts take most of the time, and are read only where one is wanted.
                is_wanted = pc.is_in(file.read_row_group(group, ["epid"])["epid"], value_set=wanted)
                if pc.any(is_wanted).as_py():
                    parts.append(file.read_row_group(group, TITLES).select(TITLES).filter(is_wanted))
        found = pa.concat_tables(parts)
        return found.filter(pa.array(np.diff(found["epid"].to_numpy(), prepend=-1) != 0))

    def read_quarantine(self, drop: drop_record.Drop) -> pd.DataFrame:
        """The refused rows with their `reasons`, and `as_found`: what could not be read, as JSON.

        Raises:
            LakeDamaged: If the file is not the one that was written.
            SystemFailure: If the lake cannot be reached.
        """
        with _open_whole(self.quarantine, drop.quarantine) as file:
            table = file.read()
        rows = to_frame(table.select(SCHEMA.names))
        return rows.assign(**{name: table[name].to_pandas() for name in ("reasons", AS_FOUND)})

    def first_refused(self, drop: drop_record.Drop, limit: int) -> list[tuple[int, str]]:
        """The first refused rows by epid: their epids, and the rules that they broke.

        Args:
            drop: The drop.
            limit: How many at most; a row whose epid could not be read is left out.

        Raises:
            LakeDamaged: If the file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        with self.quarantine.open(drop.quarantine) as file:
            first = next(file.iter_batches(limit, columns=["epid", "reasons"]), None)
        rows = first.to_pylist() if first is not None else []
        return [(row["epid"], row["reasons"]) for row in rows if row["epid"] is not None]

    def read_viewed(self, drop: drop_record.Drop) -> npt.NDArray[np.int64]:
        """The ascending epids viewed on the day, by what a release before the lake had recorded.

        Raises:
            LakeMissing: If the drop was taken with the viewings, which are gone.
            LakeDamaged: If the file is not the one that was written.
            SystemFailure: If the lake cannot be reached.
        """
        if drop.viewed is None:
            raise LakeMissing(
                f"the lake at {self.shown} has a drop of {drop.day}, but no viewings",
                f"materialise input_viewings of {drop.day}, or restore the lake from a backup",
            )
        with _open_whole(self.viewed, drop.viewed) as file:
            epids: npt.NDArray[np.int64] = file.read()["epid"].to_numpy()
        return epids

    def verify_environment(self, environment: str) -> None:
        """Refuse tables of another environment; see `LakeTable.verify_environment`."""
        for table in self.tables:
            table.verify_environment(environment)

    def read_record(self, file: LakeFile) -> drop_record.Drop:
        """The drop whose accepted rows are in a file, as the file itself says it.

        Raises:
            LakeDamaged: If the file is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        with self.episodes.open(file) as opened:
            found = (opened.metadata.metadata or {}).get(drop_record.RECORD.encode())
        try:
            return drop_record.from_record(file.day, json.loads(found or ""), file)
        except (ValueError, TypeError, KeyError) as error:
            path = f"{self.episodes.shown}/{file.path}"
            raise LakeDamaged(f"{path} does not say what it was taken from", DAMAGED_HINT) from error


@contextmanager
def _open_whole(table: LakeTable, file: LakeFile) -> Iterator[pq.ParquetFile]:
    """Open a file, after comparing the digest of all its bytes."""
    if not table.is_whole(file):
        raise LakeDamaged(f"{table.shown}/{file.path} was cut or changed", DAMAGED_HINT)
    with table.open(file) as opened:
        yield opened
