"""One Delta Lake table of the lake, partitioned by day: files, versions, and commits that replace days.

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

What the columns mean is no business of this module: `viewings.py` knows that.
"""

import datetime as dt
import hashlib
import json
import os
import re
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from episodes_assets import failures
from episodes_assets.databases import doors
from episodes_assets.errors import (
    EpisodesError,
    HostUnreachable,
    LakeDamaged,
    LakeMissing,
    LakeOvertaken,
    LakeReplaced,
    WrongEnvironment,
)
from episodes_assets.lake.day_file import (
    CheckedFile,
    DayWriter,
    LakeFile,
    digest_of_end,
    read_end,
    sync,
)
from episodes_assets.lake.place import Place, find_place
from episodes_assets.lake.versions import DAYS, DIGEST, Commit, TableVersion, read_commit
from episodes_assets.private_files import make_folder
from episodes_assets.settings import load_settings

_PART = ".part"
# What an error of several lines is drawn with.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|↳")
# What both clients of object stores say when it is the store: the last is a refusal for want of rights.
_STORE_FAILED = ("Generic ", "AWS Error", "The operation lacked ")
# How Rust tells an error of the operating system.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_MOST_COMMITS = 20
_MOST_VERSIONS = 64
# An entry of Delta's log is written under such a name, and is one once it is linked to its own.
_UNFINISHED_ENTRY = re.compile(r"_delta_log/[^/]+#\d+")
_SYNCED_AT_ONCE = 8
STAMP = "episodes.environment"
_KEPT_FOR_EVER = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# An object store that is away is given up before it looks like a computation that hangs.
_PATIENCE = {"connect_timeout": "5s", "timeout": "60s", "max_retries": "3", "retry_timeout": "20s"}
_umask_lock = threading.Lock()
_MEND = "restore the lake from a backup; `episodes lake verify` looks at every file"


class LakeTable:
    """A table below a folder or at an object store's URL.

    Args:
        lake_url: The lake: a folder, or a URL such as `s3://bucket/prefix`. Access to an object store is
            configured by the environment, as its own tools expect it (`AWS_ACCESS_KEY_ID` and the like).
        name: The table's folder in the lake.

    Outside production, using one raises HostNotAllowed when its host is not listed.
    """

    def __init__(self, lake_url: str, name: str) -> None:
        self.name = name
        self.lake_url = lake_url
        self._table: DeltaTable | None = None
        self._seen = (-1, b"")
        self._known: dict[int, TableVersion] = {}

    @property
    def shown(self) -> str:
        """Where it is, without user names and passwords, for messages."""
        return f"{doors.without_user(self.lake_url).rstrip('/')}/{self.name}"

    @cached_property
    def _place(self) -> Place:
        doors.require_allowed_url(load_settings(), doors.LAKE, self.lake_url)
        return find_place(self.lake_url, self.name)

    @property
    def _folder(self) -> Path | None:
        return self._place.folder

    @cached_property
    def _options(self) -> dict[str, str] | None:
        return dict(_PATIENCE) if self._folder is None else None

    def _load(self) -> DeltaTable:
        """The table at its newest version, of which only what is new is read each time."""
        table, self._table = self._table, None  # an error leaves none behind
        number, entry = self._seen
        is_same = table is not None and self._log_entry(number) == entry
        if table is not None and is_same:
            table.update_incremental()
        else:
            # There was none, or another lake has been put into the place of the one that was seen.
            self._known.clear()
            table = DeltaTable(self._place.uri, storage_options=self._options)
        if table.version() != number or not is_same:
            self._seen = (table.version(), self._log_entry(table.version()))
        self._table = table
        return table

    def _log_entry(self, number: int) -> bytes:
        """What the log says of a commit; empty when it has no such commit."""
        try:
            with self._filesystem.open_input_stream(f"_delta_log/{number:020}.json") as stream:
                return hashlib.sha256(stream.read()).digest()
        except FileNotFoundError:
            return b""

    @property
    def _filesystem(self) -> pafs.FileSystem:
        return self._place.filesystem

    def newest(self) -> TableVersion | None:
        """The newest version; None when the table was never written to.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        with self._plainly():
            try:
                table = self._load()
            except TableNotFoundError:
                return None
            return self._describe(table)

    def at(self, version: int, digest: str | None = None, by: str = "what names it") -> TableVersion:
        """A version that was recorded somewhere.

        Args:
            version: Its number.
            digest: Of its content, as it was recorded; None where it was not, and nothing is compared.
            by: What names it, for the error.

        Raises:
            LakeMissing: If there is no such version, or no such table.
            LakeReplaced: If the version has other content than was recorded: the lake is another one.
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        known = self._known.get(version)
        if known is not None and digest in (None, known.digest):
            return known
        # One with another digest may be of a lake that has been replaced since.
        self._known.pop(version, None)
        found = self._open(version)
        if digest not in (None, found.digest):
            raise LakeReplaced(
                f"the lake at {self.shown} is not the one that {by} was made from: "
                f"its version {version} has other files",
                "restore that lake, or let EPISODES_LAKE_URL name it",
            )
        return found

    def _open(self, version: int) -> TableVersion:
        with self._plainly():
            try:
                return self._describe(DeltaTable(self._place.uri, version, self._options))
            except DeltaError as error:
                newest = self.newest()
                if newest is not None and version <= newest.number:
                    raise
                raise LakeMissing(
                    f"{self.shown} has no version {version}"
                    + (f", its newest is {newest.number}" if newest else ": it is empty"),
                    "see that EPISODES_LAKE_URL names the lake that was written to, or restore it",
                ) from error

    def _describe(self, table: DeltaTable) -> TableVersion:
        number = table.version()
        if number not in self._known:
            actions = pa.table(table.get_add_actions(flatten=True))
            names = ("partition.day", "path", "num_records", "size_bytes")
            rows = sorted(zip(*(actions[name].to_pylist() for name in names), strict=True))
            self._require_sound(number, rows)
            columns = pa.schema(table.schema().to_arrow())
            version = TableVersion(
                number,
                pa.schema([field for field in columns if field.name != "day"]),
                {day: LakeFile(day, path, count, size) for day, path, count, size in rows},
            )
            if self._recorded_digest(number) not in (None, version.digest):
                raise LakeDamaged(
                    f"{self.shown}: version {number} is not what its log's entry says that it is", _MEND
                )
            self._known[number] = version
            if len(self._known) > _MOST_VERSIONS:
                del self._known[next(iter(self._known))]
        return self._known[number]

    def digests(self, numbers: Collection[int]) -> dict[int, str]:
        """The digests of some versions' content, from one look at the log; those that it lacks are left out.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        newest = self.newest()
        wanted = {number for number in numbers if newest is not None and number <= newest.number}
        recorded, digest = {}, None
        for commit in self.commits(min(wanted)) if wanted else ():
            # One that put no file, such as a change of the stamp, has the content of the one before.
            digest = commit.facts.get(DIGEST, None if commit.days is None else digest)
            recorded[commit.number] = digest
        return {number: recorded.get(number) or self.at(number).digest for number in sorted(wanted)}

    def commits(self, first: int = 0) -> list[Commit]:
        """What the table's history says of its commits from one version on, in order.

        Raises:
            LakeDamaged: If Delta's log cannot be read.
            SystemFailure: If the lake cannot be reached.
        """
        with self._plainly():
            try:
                table = self._load()
            except TableNotFoundError:
                return []
            limit = table.version() - first + 1
            found = table.history(limit) if limit > 0 else []
        return [read_commit(each) for each in sorted(found, key=lambda each: int(each["version"]))]

    def _recorded_digest(self, number: int) -> str | None:
        """What the log's entry of a version says that its content is; None where it changed no file.

        An entry that was emptied, as by a crash of the machine, Delta reads without a word.
        """
        try:
            with self._filesystem.open_input_stream(f"_delta_log/{number:020}.json") as stream:
                actions = [json.loads(line) for line in stream.read().splitlines()]
        except FileNotFoundError:  # before a checkpoint, Delta does without it
            return None
        said = [action["commitInfo"] for action in actions if "commitInfo" in action]
        return said[0].get(DIGEST) if said else ""

    def _require_sound(self, number: int, rows: Collection[tuple[Any, ...]]) -> None:
        """Refuse a log that was changed where Delta sees no fault in it."""
        files = Counter(day for day, *_ in rows)
        for day, path, count, size in rows:
            if not path.startswith(f"day={day}/") or count is None or size is None or files[day] > 1:
                said = f"{self.shown}: what its log says of {day} in version {number} does not add up"
                raise LakeDamaged(said, _MEND)

    def environment(self) -> str | None:
        """The environment that the table belongs to; None when it was never written to."""
        return self.find_property(STAMP)

    def find_property(self, name: str) -> str | None:
        """What the table's properties say; None when they do not, or it was never written to."""
        with self._plainly():
            try:
                return self._load().metadata().configuration.get(name)
            except TableNotFoundError:
                return None

    def set_property(self, name: str, value: str, schema: pa.Schema, environment: str) -> None:
        """Let the table's properties say something; a table that is missing is made with a schema.

        Raises:
            WrongEnvironment: If the table belongs to another environment.
            SystemFailure: If the lake cannot be written.
        """
        with self._plainly():
            table = self._open_or_make(schema, environment)
            self._require_environment(table, environment)
            with self._for_its_owner():
                table.alter.set_table_properties({name: value}, raise_if_not_exists=False)

    def present(self, files: Sequence[LakeFile]) -> list[bool]:
        """Which of some files are there with all their bytes."""
        with self._plainly():
            found = self._filesystem.get_file_info([file.path for file in files])
            return [info.size == file.size for info, file in zip(found, files, strict=True)]

    def unnamed(self, named: Collection[str], older_than: dt.timedelta) -> list[tuple[str, int]]:
        """The data files that are not among some, with their bytes; what was written lately is left out.

        Files that a killed process has left are among them, also in Delta's log.
        """
        before = dt.datetime.now(dt.UTC) - older_than
        with self._plainly():
            found = self._filesystem.get_file_info(
                pafs.FileSelector("", recursive=True, allow_not_found=True)
            )
            return sorted(
                (each.path, each.size)
                for each in found
                if each.type == pafs.FileType.File
                and (not each.path.startswith("_delta_log/") or _UNFINISHED_ENTRY.fullmatch(each.path))
                and each.path not in named
                and each.mtime is not None
                and each.mtime < before
            )

    def versions_since(self, moment: dt.datetime) -> list[int]:
        """The versions that were the newest one at some time since a moment."""
        commits = self.commits()
        later = [each.number for each in commits if each.at >= moment]
        before = [each.number for each in commits if each.at < moment]
        return later + before[-1:]

    def remove_unnamed(self, path: str, older_than: dt.timedelta) -> bool:
        """Remove a data file, unless it was written again or is a day's meanwhile; whether it was removed."""
        newest = self.newest()
        with self._plainly():
            (info,) = self._filesystem.get_file_info([path])
            is_a_days = newest is not None and any(file.path == path for file in newest.files.values())
            if is_a_days or info.mtime is None or info.mtime >= dt.datetime.now(dt.UTC) - older_than:
                return False
            self._filesystem.delete_file(path)
            return True

    def verify_environment(self, environment: str) -> None:
        """Refuse a table of another environment; one that was never written to belongs to nobody yet.

        As with the databases, a copy carries its stamp along. Reading needs none: a development process may
        replay production's days.

        Raises:
            WrongEnvironment: If its stamp differs.
        """
        with self._plainly(), suppress(TableNotFoundError):
            self._require_environment(self._load(), environment)

    def _require_environment(self, table: DeltaTable, environment: str) -> None:
        stamp = table.metadata().configuration.get(STAMP)
        if stamp != environment:
            raise WrongEnvironment(
                f"the lake at {self.shown} belongs to {stamp!r}, this process to {environment!r}",
                "set EPISODES_LAKE_URL to a lake of your own, or EPISODES_ENVIRONMENT if you mean this one",
            )

    def restamp(self, old: str, new: str, *, look_only: bool = False) -> bool:
        """Let the table belong to another environment, on an explicit word.

        Args:
            old: What it must be stamped with.
            new: What it shall be stamped with.
            look_only: Only say whether it can be.

        Returns:
            Whether it was ever written to; otherwise there is nothing to change.

        Raises:
            WrongEnvironment: If it is stamped with something else than `old`.
        """
        with self._plainly():
            try:
                table = self._load()
            except TableNotFoundError:
                return False
            self._require_environment(table, old)
            if not look_only:
                with self._for_its_owner():
                    table.alter.set_table_properties({STAMP: new}, raise_if_not_exists=False)
        return True

    @contextmanager
    def writer(
        self, day: dt.date, schema: pa.Schema, encodings: Mapping[str, str] | None = None
    ) -> Iterator[DayWriter]:
        """Write a day's file; what a failure leaves of it is removed, and no reader ever sees it.

        Args:
            day: The day.
            schema: The columns without `day`.
            encodings: Parquet's encodings by column, in place of dictionaries for all.

        Raises:
            SystemFailure: If it cannot be written: a full disk, a missing right and the like.
        """
        with self._plainly(), tempfile.TemporaryDirectory(prefix="episodes-lake-") as elsewhere:
            # On one file system with its place, so that a rename puts it there; uploaded to an object store.
            folder = make_folder(self._folder / f"day={day}") if self._folder else Path(elsewhere)
            part = folder / f"{uuid.uuid4().hex}{_PART}"
            writer = DayWriter(day, part, schema, encodings or {}, self._put)
            try:
                yield writer
            finally:
                try:
                    writer.close()
                finally:
                    part.unlink(missing_ok=True)

    def _put(self, part: Path, path: str) -> None:
        """Move a finished file to where it belongs; one that is there has the same content."""
        if self._folder is not None:
            target = self._folder / path
            is_there = target.exists()
            part.replace(target)
            if is_there:  # some version names it, whatever is committed now; other files are synced then
                sync(target, target.parent)
            return
        # Again if it is there: it may be cut, and vacuum goes by when it was written.
        with part.open("rb") as source, self._filesystem.open_output_stream(path) as stream:
            while block := source.read(1 << 23):
                stream.write(block)

    def commit(
        self,
        schema: pa.Schema,
        choose: Callable[[Mapping[dt.date, LakeFile]], Collection[LakeFile]],
        *,
        environment: str,
        facts: Mapping[str, str],
    ) -> TableVersion:
        """Make files the ones of their days, all at once, on top of what others have committed meanwhile.

        Args:
            schema: The columns without `day`; the table is made with them when there is none.
            choose: Is told the newest version's files, and says which to put: it may be asked again.
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
        with self._plainly():
            for _ in range(_MOST_COMMITS):
                table = self._open_or_make(schema, environment)
                self._require_environment(table, environment)
                newest = self._describe(table)
                files = [each for each in choose(newest.files) if newest.files.get(each.day) != each]
                if not files:
                    return newest
                try:
                    after = replace(newest, files={**newest.files, **{each.day: each for each in files}})
                    own = {DIGEST: after.digest, DAYS: " ".join(str(each.day) for each in files)}
                    self._commit(table, newest.schema, files, {**facts, **own})
                except CommitFailedError:
                    if self._load().version() == newest.number:  # nobody else has: it cannot be written
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
            # Of two who make it at once, one does.
            with suppress(CommitFailedError), self._for_its_owner():
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
            # A version that names them must not outlive them in a crash of the machine.
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
        with self._for_its_owner():
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

    def _sync(self, folder: Path, files: Collection[LakeFile]) -> None:
        """Have files on disk; of many, one waits with the other."""
        paths = [folder / each.path for each in files]
        with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
            list(pool.map(sync, paths))
            list(pool.map(sync, {path.parent for path in paths}))
        sync(folder)

    @contextmanager
    def _for_its_owner(self) -> Iterator[None]:
        """Let what Delta writes on this machine be for its owner alone, whatever the umask."""
        if self._folder is None:
            yield
            return
        with _umask_lock:  # it is the whole process's
            before = os.umask(0o077)
            try:
                yield
            finally:
                os.umask(before)

    @contextmanager
    def open(self, file: LakeFile, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        """A day's file, whose end and pages are checked against their checksums as they are read.

        Args:
            file: The file.
            metadata: What its end said when it was opened before.

        Raises:
            LakeDamaged: If it is gone, was cut or changed, also while the block reads it.
            SystemFailure: If the lake cannot be reached.
        """
        with self._plainly(file):
            try:
                info = self._filesystem.get_file_info(file.path)
                if info.size != file.size:
                    said = "is gone" if info.type == pafs.FileType.NotFound else "was cut or changed"
                    raise LakeDamaged(f"{self.shown}/{file.path} {said}", _MEND)
                with CheckedFile(
                    file.path,
                    metadata=metadata or self._read_metadata(file),
                    filesystem=self._filesystem,
                    page_checksum_verification=True,
                    pre_buffer=self._folder is None,
                ) as opened:
                    yield opened
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise LakeDamaged(
                    f"{self.shown}/{file.path} was changed ({failures.reason(error)})", _MEND
                ) from error

    def _read_metadata(self, file: LakeFile) -> pq.FileMetaData:
        with self._filesystem.open_input_file(file.path) as opened:
            end = read_end(opened, file.size)
        if file.end_digest and digest_of_end(end) != file.end_digest:
            raise LakeDamaged(f"{self.shown}/{file.path} was changed (its end differs)", _MEND)
        return pq.read_metadata(pa.BufferReader(end))

    def is_whole(self, file: LakeFile) -> bool:
        """Whether a file's bytes are those that were written.

        Raises:
            LakeDamaged: If it is gone.
            SystemFailure: If the lake cannot be reached.
        """
        with self._plainly(file):
            try:
                stream = self._filesystem.open_input_stream(file.path)
            except FileNotFoundError as error:
                raise LakeDamaged(f"{self.shown}/{file.path} is gone", _MEND) from error
            digest = hashlib.sha256()
            with stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
            return digest.hexdigest().startswith(file.digest)

    @contextmanager
    def _plainly(self, file: LakeFile | None = None) -> Iterator[None]:
        """What Delta, Arrow and the object store say, as one of our errors."""
        where = f"{self.shown}/{file.path}" if file else self.shown
        try:
            yield
        except OSError as error:
            if "libpq" in str(error):
                raise  # of the input that is read from meanwhile
            if "CRC checksum" in str(error):
                raise LakeDamaged(f"{where} was changed (a page's checksum differs)", _MEND) from error
            raise self._explain(error, where) from error
        except DeltaError as error:
            raise self._explain(error, where) from error

    def _explain(self, error: OSError | DeltaError, where: str) -> EpisodesError:
        said = str(error)
        # Of an error in native code the number is in the text alone.
        number = _OS_ERROR.search(said) if self._folder is not None else None
        raised = OSError(int(number[1]), os.strerror(int(number[1]))) if number else error
        if cause := failures.explain(raised, where):
            return cause
        if self._folder is None and any(text in said for text in _STORE_FAILED):
            lines = [_DECORATION.sub("", line).strip() for line in said.splitlines()]
            told = [line for line in lines if line]
            return HostUnreachable(
                f"the object store of {where} does not answer, or refuses ({told[-1]})",
                "see that it is up, that the bucket is there, and that the environment has its credentials",
            )
        return LakeDamaged(f"{where} cannot be read ({failures.reason(error)})", _MEND)
