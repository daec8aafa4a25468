"""The log of a Delta Lake table, partitioned by day: versions, and commits that replace days.

Delta Lake's protocol gives what a folder of files lacks: a commit of many files at once, versions that stay
readable, and readers in Spark, Trino, Polars and DuckDB (https://delta.io). What is ours on top of it:

- **A commit is a compare-and-set.** It is made on top of the version that was looked at or not at all, then
  looked at again: two processes that take the same day at once do not both add it (optimistic concurrency).
- **Files are named by the SHA-256 of their bytes.** The same content taken twice is one file and no new
  version, and a file can be verified without asking anything else.
- **A version is known by its content.** A lake that was lost and grew again, or was restored to an earlier
  moment and went on, gives the same numbers to other content. So whoever names a version keeps its digest
  beside the number, and it is compared whenever that version is opened.
- **Nothing expires.** Delta's clean-up of old versions and files is switched off in the table's properties.
- **A table belongs to an environment.** Its stamp is one of its properties, so a copy carries it along, and
  processes of another environment do not write to it.

The files themselves are in `files.py`; what the columns mean, `viewings.py` and `drops.py` know.
"""

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from episodes_assets.errors import LakeDamaged, LakeMissing, LakeOvertaken, LakeReplaced, WrongEnvironment
from episodes_assets.lake import versions
from episodes_assets.lake.day_file import LakeFile, sync
from episodes_assets.lake.files import DAMAGED_HINT, TableFiles
from episodes_assets.private_files import make_folder

_MOST_COMMITS = 20
_MOST_VERSIONS = 64
_ENTRIES_READ = 32  # at once
STAMP = "episodes.environment"
_KEPT_FOR_EVER = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# An unreachable object store is given up before a worker's time limit takes it for a job that hangs.
_STORE_TIMEOUTS = {"connect_timeout": "5s", "timeout": "60s", "max_retries": "3", "retry_timeout": "20s"}


class LakeTable(TableFiles):
    """A table by its log: versions, commits and properties; with the arguments of `TableFiles`."""

    def __init__(self, lake_url: str, name: str) -> None:
        super().__init__(lake_url, name)
        self._table: DeltaTable | None = None
        self._seen = (-1, b"")
        self._versions: dict[int, versions.TableVersion] = {}

    @cached_property
    def _options(self) -> dict[str, str] | None:
        return dict(_STORE_TIMEOUTS) if self._folder is None else None

    def _load(self) -> DeltaTable:
        """The table at its newest version; only new entries of its log are read each time."""
        table, self._table = self._table, None  # after an error it is read anew
        number, entry = self._seen
        is_same = table is not None and self._log_entry(number) == entry
        if table is not None and is_same:
            table.update_incremental()
        else:
            # There was none, or another lake has been put into the place of the one that was seen.
            self._versions.clear()
            table = DeltaTable(self._place.uri, storage_options=self._options)
        if table.version() != number or not is_same:
            self._seen = (table.version(), self._log_entry(table.version()))
        self._table = table
        return table

    def _find(self) -> DeltaTable | None:
        """As `_load`; None when the table was never written to."""
        try:
            return self._load()
        except TableNotFoundError:
            if self._folder is not None:
                # To Delta, a log that this user may not read does not exist.
                with suppress(FileNotFoundError, NotADirectoryError):
                    next((self._folder / "_delta_log").iterdir(), None)
            return None

    def _read_entry(self, number: int) -> bytes | None:
        """The log's entry of a commit; None if there is none, or only in a checkpoint."""
        try:
            with self._filesystem.open_input_stream(f"_delta_log/{number:020}.json") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def _log_entry(self, number: int) -> bytes:
        """The SHA-256 of the log's entry of a commit."""
        return hashlib.sha256(self._read_entry(number) or b"").digest()

    def newest(self) -> versions.TableVersion | None:
        """The newest version; None when the table was never written to.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        with self._explaining_errors():
            table = self._find()
            return None if table is None else self._describe(table)

    def at(self, version: int, digest: str | None = None, by: str = "") -> versions.TableVersion:
        """A version that a plan or a publication has recorded.

        Args:
            version: Its number.
            digest: Of its content, as it was recorded; None if it was not: then nothing is compared.
            by: What has recorded it, for the error; empty to leave that out.

        Raises:
            LakeMissing: If there is no such version, or no such table.
            LakeReplaced: If the version has other content than was recorded: the lake is another one.
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        known = self._versions.get(version)
        if known is not None and digest in (None, known.digest):
            return known
        # A cached one with another digest may be of a lake that has been replaced since.
        self._versions.pop(version, None)
        found = self._open(version, by)
        if digest not in (None, found.digest):
            raise LakeReplaced(
                f"the lake at {self.shown} is not the one that {by or 'what names it'} was made from: "
                f"its version {version} has other files",
                "restore that lake, or let EPISODES_LAKE_URL name it",
            )
        return found

    def _open(self, version: int, by: str) -> versions.TableVersion:
        with self._explaining_errors():
            try:
                return self._describe(DeltaTable(self._place.uri, version, self._options))
            except DeltaError as error:
                newest = self.newest()
                if newest is not None and version <= newest.number:
                    raise
                raise LakeMissing(
                    f"{self.shown} has no version {version}"
                    + (f", which {by} was made from" if by else "")
                    + (f", its newest is {newest.number}" if newest else ": it is empty"),
                    "see that EPISODES_LAKE_URL names the lake that was written to, or restore it",
                ) from error

    def _describe(self, table: DeltaTable) -> versions.TableVersion:
        number = table.version()
        if number not in self._versions:
            # `pa.table` would ask first whether it is of pandas, and load that.
            actions = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
            names = ("partition.day", "path", "num_records", "size_bytes")
            rows = sorted(zip(*(actions[name].to_pylist() for name in names), strict=True))
            self._require_sound(number, rows)
            columns = pa.schema(table.schema().to_arrow())
            version = versions.TableVersion(
                number,
                pa.schema([field for field in columns if field.name != "day"]),
                {day: LakeFile(day, path, count, size) for day, path, count, size in rows},
                versions.covered_from_text(table.metadata().configuration.get(versions.COVERED)),
            )
            said = self._commit_info(number)
            # One that changed no file records no digest.
            if said is not None and (not said or said.get(versions.DIGEST, version.digest) != version.digest):
                raise LakeDamaged(
                    f"{self.shown}: version {number} is not what its log's entry says that it is",
                    DAMAGED_HINT,
                )
            self._versions[number] = version
            if len(self._versions) > _MOST_VERSIONS:
                del self._versions[next(iter(self._versions))]
        return self._versions[number]

    def digests(self, numbers: Collection[int]) -> dict[int, str]:
        """The digests of some versions' content, from one read of the log; missing versions are left out.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        newest = self.newest()
        wanted = {number for number in numbers if newest is not None and number <= newest.number}
        recorded: dict[int, str | None] = {}
        for commit in self.commits(min(wanted)) if wanted else ():
            # One that put no file, such as a change of the stamp, has what the one before has, if known.
            before = None if commit.days is None else recorded.get(commit.number - 1)
            recorded[commit.number] = commit.facts.get(versions.DIGEST, before)
        return {number: recorded.get(number) or self.at(number).digest for number in sorted(wanted)}

    def commits(self, first: int = 0) -> list[versions.Commit]:
        """The commits of the table's history from one version on, in order.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        return list(self.latest_commits(first))[::-1]

    def latest_commits(self, first: int = 0) -> Iterator[versions.Commit]:
        """The commits of the table's history down to one version, the latest first.

        Of the log no more is read than what is asked for, some entries at a time. Each entry is read by its
        number: Delta's `history` counts down from the version that was loaded, so that all numbers are others
        when somebody has committed since, or an entry says nothing of its commit.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        with self._explaining_errors():
            table = self._find()
        upto = -1 if table is None else table.version()
        while upto >= first:
            numbers = range(upto, max(upto - _ENTRIES_READ, first - 1), -1)
            with self._explaining_errors(), ThreadPoolExecutor(_ENTRIES_READ) as pool:
                entries = list(pool.map(self._commit_info, numbers))
            for number, said in zip(numbers, entries, strict=True):
                if said:
                    yield versions.read_commit(number, said)
            if all(said is None for said in entries):
                return  # a log is cleaned up from its beginning
            upto = numbers[-1] - 1

    def _commit_info(self, number: int) -> Mapping[str, Any] | None:
        """What the log's entry of a commit says of it; None if there is no entry, or only in a checkpoint.

        Empty for an entry that was emptied, as by a crash of the machine: Delta reads it without an error.
        """
        entry = self._read_entry(number)
        if entry is None:
            return None
        try:
            actions = [json.loads(line) for line in entry.splitlines()]
        except ValueError as error:
            said = f"{self.shown}: its log's entry of version {number} cannot be read"
            raise LakeDamaged(said, DAMAGED_HINT) from error
        return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})

    def _require_sound(self, number: int, rows: Collection[tuple[Any, ...]]) -> None:
        """Refuse inconsistent entries of the log, which Delta does not check."""
        files = Counter(day for day, *_ in rows)
        for day, path, count, size in rows:
            if not path.startswith(f"day={day}/") or count is None or size is None or files[day] > 1:
                said = f"{self.shown}: what its log says of {day} in version {number} does not add up"
                raise LakeDamaged(said, DAMAGED_HINT)

    def environment(self) -> str | None:
        """The environment that the table belongs to; None when it was never written to."""
        return self.find_property(STAMP)

    def find_property(self, name: str) -> str | None:
        """A property of the table; None if it is not set, or the table was never written to."""
        with self._explaining_errors():
            table = self._find()
            return None if table is None else table.metadata().configuration.get(name)

    def set_property(self, name: str, value: str, schema: pa.Schema, environment: str) -> None:
        """Set a property of the table, which is made with a schema if it is missing.

        Raises:
            WrongEnvironment: If the table belongs to another environment.
            SystemFailure: If the lake cannot be written.
        """
        with self._explaining_errors():
            table = self._open_or_make(schema, environment)
            self._require_environment(table, environment)
            self._set_property(table, name, value)

    def _set_property(self, table: DeltaTable, name: str, value: str) -> None:
        with self._private():
            table.alter.set_table_properties({name: value}, raise_if_not_exists=False)

    def verify_environment(self, environment: str) -> None:
        """Refuse a table of another environment; one that was never written to belongs to none yet.

        As with the databases, a copy carries its stamp along. Reading needs none: a development process may
        replay production's days.

        Raises:
            WrongEnvironment: If its stamp differs.
        """
        with self._explaining_errors():
            table = self._find()
            if table is not None:
                self._require_environment(table, environment)

    def _require_environment(self, table: DeltaTable, environment: str) -> None:
        stamp = table.metadata().configuration.get(STAMP)
        if stamp != environment:
            raise WrongEnvironment(
                f"the lake at {self.shown} belongs to {stamp!r}, this process to {environment!r}",
                "set EPISODES_LAKE_URL to a lake of your own, or EPISODES_ENVIRONMENT if you mean this one",
            )

    def change_stamp(self, old: str, new: str, *, dry_run: bool = False) -> bool:
        """Change the environment that the table belongs to, for an explicit command.

        Args:
            old: The environment that it must be stamped with.
            new: The environment that it is stamped with afterwards.
            dry_run: Only check whether it can be changed.

        Returns:
            Whether it was ever written to; otherwise there is nothing to change.

        Raises:
            WrongEnvironment: If it is stamped with something else than `old`.
        """
        with self._explaining_errors():
            table = self._find()
            if table is None:
                return False
            self._require_environment(table, old)
            if not dry_run:
                self._set_property(table, STAMP, new)
        return True

    def _put(self, part: Path, path: str) -> None:
        # What the newest version has is left alone: workers may be reading it, and vacuum does not remove it.
        if self._folder is not None or not self._has_whole(path):
            super()._put(part, path)

    def _has_whole(self, path: str) -> bool:
        """Whether the newest version has a file, whose bytes are those that were written."""
        newest = self.newest()
        file = next((each for each in newest.files.values() if each.path == path), None) if newest else None
        return file is not None and all(self.present([file])) and self.is_whole(file)

    def commit(
        self,
        schema: pa.Schema,
        choose: Callable[[Mapping[dt.date, LakeFile]], Collection[LakeFile]],
        *,
        environment: str,
        facts: Mapping[str, str],
    ) -> versions.TableVersion:
        """Replace the files of some days in one commit, on top of what others have committed meanwhile.

        Args:
            schema: The columns without `day`; the table is made with them when there is none.
            choose: Called with the newest version's files; returns the files to commit. It is called again
                after each race that was lost.
            environment: This process's; a table that is made gets it.
            facts: What is kept of the commit in the table's history; `choose` may change it.

        Returns:
            The version that has them: the newest one as it is when each of the days has its file already.

        Raises:
            WrongEnvironment: If the table belongs to another environment.
            LakeOvertaken: If others keep committing in between.
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be written.
        """
        with self._explaining_errors():
            for _ in range(_MOST_COMMITS):
                table = self._open_or_make(schema, environment)
                self._require_environment(table, environment)
                newest = self._describe(table)
                files = [each for each in choose(newest.files) if newest.files.get(each.day) != each]
                if not files:
                    return newest
                try:
                    after = replace(newest, files={**newest.files, **{each.day: each for each in files}})
                    own = {
                        versions.DIGEST: after.digest,
                        versions.DAYS: " ".join(str(each.day) for each in files),
                    }
                    self._commit(table, newest.schema, files, {**facts, **own})
                except CommitFailedError:
                    if self._load().version() == newest.number:  # no race: it cannot be written
                        raise
                else:
                    return self._describe(self._load())
        raise LakeOvertaken(f"others keep writing to {self.shown}", "try again when they are done")

    def _open_or_make(self, schema: pa.Schema, environment: str) -> DeltaTable:
        try:
            return self._load()
        except TableNotFoundError:
            if self._folder is not None:
                make_folder(self._folder)
            columns = pa.schema([pa.field("day", pa.date32()), *schema])
            # Of two processes that make it at once, one fails and uses the other's.
            with suppress(CommitFailedError), self._private():
                DeltaTable.create(
                    self._place.uri,
                    columns,
                    mode="ignore",
                    partition_by=["day"],
                    name=self.name,
                    storage_options=self._options,
                    configuration={**_KEPT_FOR_EVER, STAMP: environment},
                    raise_if_key_not_exists=False,
                )
            if self._folder is not None:
                log = self._folder / "_delta_log"
                sync(log / f"{0:020}.json", log, self._folder, *self._folder.parents[:2])
            return self._load()

    def _commit(
        self, table: DeltaTable, schema: pa.Schema, files: Collection[LakeFile], facts: Mapping[str, str]
    ) -> None:
        if self._folder is not None:
            # After a crash of the machine there must be no version without its files.
            self._sync(self._folder, files)
        now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(
                each.path,
                each.size,
                {"day": each.day.isoformat()},
                now,
                data_change=True,
                stats=json.dumps({"numRecords": each.rows}),
            )
            for each in files
        ]
        number = table.version() + 1
        with self._private():
            table.create_write_transaction(
                actions,
                "overwrite",
                pa.schema([pa.field("day", pa.date32()), *schema]),
                ["day"],
                partition_filters=[("day", "in", [each.day.isoformat() for each in files])],
                commit_properties=CommitProperties(custom_metadata=dict(facts), max_commit_retries=0),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
        if self._folder is not None:
            # A database may name this version from now on, so a crash of the machine must not lose it.
            log = self._folder / "_delta_log"
            sync(log / f"{number:020}.json", log)
