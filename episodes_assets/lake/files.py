"""The files of a table: where they lie, and how they are written, read, verified and removed.

A table lies in a folder of this machine or in an object store's bucket. Its data files are named by their
digests (content-addressed, `day_file.py`), so each can be verified by itself. A file comes to its place as a
whole, so no reader sees half of one. Which files belong to which day and version is in the table's log
(`tables.py`); which may be removed is `upkeep.py`.
"""

import datetime as dt
import hashlib
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from episodes_assets import failures
from episodes_assets.errors import BadSetting, EpisodesError, HostUnreachable, LakeDamaged
from episodes_assets.lake import day_file
from episodes_assets.postgres import hosts
from episodes_assets.private_files import make_folder, private_opener

DAMAGED_HINT = "restore the lake from a backup; `episodes lake verify` looks at every file"
_PART = ".part"
# Where an object store has files that are being uploaded; by its name, other engines leave it out.
_UPLOADS = "_uploads"
# Colours and arrows in errors of several lines.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|↳")
# What errors of both object store clients contain if it is the store's; the last is a missing permission.
_STORE_FAILED = ("Generic ", "AWS Error", "The operation lacked ")
# An error of the operating system in the text of an error of Rust's.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# The temporary name under which Delta writes an entry of its log.
_UNFINISHED_ENTRY = re.compile(r"_delta_log/[^/]+#\d+")
_SYNCED_AT_ONCE = 8
_umask_lock = threading.Lock()


@dataclass(frozen=True)
class Place:
    """Where a table is.

    Attributes:
        uri: For Delta's library.
        filesystem: Its files by their paths from its folder.
        folder: Its folder on this machine; None in an object store.
    """

    uri: str
    filesystem: pafs.FileSystem
    folder: Path | None = None


class TableFiles:
    """The files of a table below a folder or at an object store's URL.

    Args:
        lake_url: The lake: a folder, or a URL such as `s3://bucket/prefix`. Access to an object store is
            configured by the environment, as its own tools expect it (`AWS_ACCESS_KEY_ID` and the like).
        name: The table's folder in the lake.

    Using one raises BadSetting when the URL cannot hold a lake. Whether its host may be reached is decided
    before, in `opening.py`.
    """

    def __init__(self, lake_url: str, name: str) -> None:
        self.name = name
        self.lake_url = lake_url

    @property
    def shown(self) -> str:
        """Where it is, without user names and passwords, for messages."""
        return f"{hosts.without_user(self.lake_url).rstrip('/')}/{self.name}"

    @cached_property
    def _place(self) -> Place:
        return find_place(self.lake_url, self.name)

    @property
    def _folder(self) -> Path | None:
        return self._place.folder

    @property
    def _filesystem(self) -> pafs.FileSystem:
        return self._place.filesystem

    @contextmanager
    def writer(
        self, day: dt.date, schema: pa.Schema, encodings: Mapping[str, str] | None = None
    ) -> Iterator[day_file.DayWriter]:
        """Write a day's file; what a failure leaves of it no reader ever sees.

        It is removed, or by `vacuum` where the process was killed or an upload interrupted.

        Args:
            day: The day.
            schema: The columns without `day`.
            encodings: Parquet's encodings by column, in place of dictionaries for all.

        Raises:
            SystemFailure: If it cannot be written: a full disk, a missing right and the like.
        """
        with self._explaining_errors(), tempfile.TemporaryDirectory(prefix="episodes-lake-") as elsewhere:
            # In the table's folder, to be renamed (atomic); for an object store elsewhere, to be uploaded.
            folder = make_folder(self._folder / f"day={day}") if self._folder else Path(elsewhere)
            part = folder / f"{uuid.uuid4().hex}{_PART}"
            writer = day_file.DayWriter(day, part, schema, encodings or {}, self._put)
            try:
                yield writer
            finally:
                try:
                    writer.close()
                finally:
                    part.unlink(missing_ok=True)

    def _put(self, part: Path, path: str) -> None:
        """Move a finished file to its place; idempotent, since a file of that name has the same content."""
        if self._folder is not None:
            target = self._folder / path
            # An older version may name it already; other files are synced before their commit.
            is_there = target.exists()
            if is_there:
                day_file.sync(part)
            part.replace(target)
            if is_there:
                day_file.sync(target.parent)
            return
        # Arrow completes an upload that an exception ends, with what was written by then. So it goes
        # elsewhere, and the store copies it to its place, as a whole or not at all. Also if it is there: it
        # may be cut, and vacuum compares the time at which it was written.
        upload = f"{_UPLOADS}/{part.name}"
        with part.open("rb") as source, self._filesystem.open_output_stream(upload) as stream:
            while block := source.read(1 << 23):
                stream.write(block)
        self._filesystem.copy_file(upload, path)
        with suppress(OSError):  # vacuum lists what is left, also where this process may not delete
            self._filesystem.delete_file(upload)

    def adopt(self, source: Path, file: day_file.LakeFile) -> None:
        """Put a copy of a file into its place that was written for another lake; no day's yet.

        Raises:
            LakeDamaged: If it is not the file that was written.
            SystemFailure: If it cannot be read or written.
        """
        with self._explaining_errors(file), tempfile.TemporaryDirectory(prefix="episodes-lake-") as elsewhere:
            folder = make_folder((self._folder / file.path).parent) if self._folder else Path(elsewhere)
            part = folder / f"{uuid.uuid4().hex}{_PART}"
            digest = hashlib.sha256()
            try:
                with source.open("rb") as opened, open(part, "wb", opener=private_opener) as copied:
                    while block := opened.read(1 << 22):
                        digest.update(block)
                        copied.write(block)
                if not digest.hexdigest().startswith(file.digest):
                    raise LakeDamaged(f"{source} was cut or changed", DAMAGED_HINT)
                self._put(part, file.path)
            finally:
                part.unlink(missing_ok=True)

    def _sync(self, folder: Path, files: Collection[day_file.LakeFile]) -> None:
        """Flush files to disk, many at once."""
        paths = [folder / each.path for each in files]
        with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
            list(pool.map(day_file.sync, paths))
            list(pool.map(day_file.sync, {path.parent for path in paths}))
        day_file.sync(folder)

    @contextmanager
    def _private(self) -> Iterator[None]:
        """Make what Delta writes on this machine private to its owner, whatever the umask."""
        if self._folder is None:
            yield
            return
        with _umask_lock:  # the umask is the whole process's
            before = os.umask(0o077)
            try:
                yield
            finally:
                os.umask(before)

    @contextmanager
    def open(
        self, file: day_file.LakeFile, metadata: pq.FileMetaData | None = None
    ) -> Iterator[pq.ParquetFile]:
        """A day's file, whose footer and pages are checked against their checksums as they are read.

        Args:
            file: The file.
            metadata: Of its footer, if that was read before.

        Raises:
            LakeDamaged: If it is gone, was cut or changed, also while the block reads it.
            SystemFailure: If the lake cannot be reached.
        """
        with self._explaining_errors(file):
            try:
                info = self._filesystem.get_file_info(file.path)
                if info.size != file.size:
                    said = "is gone" if info.type == pafs.FileType.NotFound else "was cut or changed"
                    raise LakeDamaged(f"{self.shown}/{file.path} {said}", DAMAGED_HINT)
                with day_file.CheckedFile(
                    file.path,
                    metadata=metadata or self._read_metadata(file),
                    filesystem=self._filesystem,
                    page_checksum_verification=True,
                    pre_buffer=self._folder is None,
                ) as opened:
                    yield opened
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise LakeDamaged(
                    f"{self.shown}/{file.path} was changed ({failures.reason(error)})", DAMAGED_HINT
                ) from error

    def _read_metadata(self, file: day_file.LakeFile) -> pq.FileMetaData:
        with self._filesystem.open_input_file(file.path) as opened:
            footer = day_file.read_footer(opened, file.size)
        if file.footer_digest and day_file.digest_of_footer(footer) != file.footer_digest:
            raise LakeDamaged(f"{self.shown}/{file.path} was changed (its footer differs)", DAMAGED_HINT)
        return pq.read_metadata(pa.BufferReader(footer))

    def schema_of_file(self, file: day_file.LakeFile) -> pa.Schema:
        """The columns of a day's file.

        Raises:
            LakeDamaged: If it is gone, was cut or changed.
            SystemFailure: If the lake cannot be reached.
        """
        with self.open(file) as opened:
            return opened.schema_arrow

    def is_whole(self, file: day_file.LakeFile) -> bool:
        """Whether a file's bytes are those that were written.

        Raises:
            LakeDamaged: If it is gone.
            SystemFailure: If the lake cannot be reached.
        """
        with self._explaining_errors(file):
            try:
                stream = self._filesystem.open_input_stream(file.path)
            except FileNotFoundError as error:
                raise LakeDamaged(f"{self.shown}/{file.path} is gone", DAMAGED_HINT) from error
            digest = hashlib.sha256()
            with stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
            return digest.hexdigest().startswith(file.digest)

    def present(self, files: Sequence[day_file.LakeFile]) -> list[bool]:
        """Which of some files exist with their size."""
        with self._explaining_errors():
            found = self._filesystem.get_file_info([file.path for file in files])
            return [info.size == file.size for info, file in zip(found, files, strict=True)]

    def unnamed(self, named: Collection[str], older_than: dt.timedelta) -> list[tuple[str, int]]:
        """The paths and sizes in bytes of data files that are not in `named` and not newer than some age.

        Files that a killed process has left are among them, also in Delta's log.
        """
        before = dt.datetime.now(dt.UTC) - older_than
        with self._explaining_errors():
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

    def remove_if_older(self, path: str, older_than: dt.timedelta) -> bool:
        """Remove a data file, unless it was written again meanwhile; returns whether.

        Whether a version has it is for the caller to know (`upkeep.remove_unnamed`).

        Raises:
            SystemFailure: If the lake cannot be reached, or the file cannot be removed.
        """
        with self._explaining_errors():
            (info,) = self._filesystem.get_file_info([path])
            if info.mtime is None or info.mtime >= dt.datetime.now(dt.UTC) - older_than:
                return False
            self._filesystem.delete_file(path)
            return True

    @contextmanager
    def _explaining_errors(self, file: day_file.LakeFile | None = None) -> Iterator[None]:
        """Turn errors of Delta, Arrow and the object store into ours."""
        where = f"{self.shown}/{file.path}" if file else self.shown
        try:
            yield
        except OSError as error:
            if "libpq" in str(error):
                raise  # of the input database, which is read in the block
            if "CRC checksum" in str(error):
                raise LakeDamaged(f"{where} was changed (a page's checksum differs)", DAMAGED_HINT) from error
            raise self._explain(error, where) from error
        except DeltaError as error:
            raise self._explain(error, where) from error

    def _explain(self, error: OSError | DeltaError, where: str) -> EpisodesError:
        said = str(error)
        # Errors of native code have their errno in the text only.
        number = _OS_ERROR.search(said) if self._folder is not None else None
        raised = OSError(int(number[1]), os.strerror(int(number[1]))) if number else error
        if cause := failures.explain(raised, where):
            return cause
        if self._folder is None and any(text in said for text in _STORE_FAILED):
            lines = [_DECORATION.sub("", line).strip() for line in said.splitlines()]
            lines = [line for line in lines if line]
            return HostUnreachable(
                f"the object store of {where} does not answer, or refuses ({lines[-1]})",
                "see that it is up, that the bucket is there, and that the environment has its credentials",
            )
        return LakeDamaged(f"{where} cannot be read ({failures.reason(error)})", DAMAGED_HINT)


def find_place(lake_url: str, name: str) -> Place:
    """Where a table of a lake is.

    Raises:
        BadSetting: If the URL cannot hold a lake. Delta's library might take it for a table that was never
            written to.
    """

    def refusal(reason: str) -> BadSetting:
        return BadSetting(
            f"{hosts.LAKE} = {hosts.without_user(lake_url)!r} cannot hold a lake ({reason})",
            "name a folder, or a URL such as s3://bucket/prefix",
        )

    try:
        parts = urlsplit(lake_url)
    except ValueError as error:
        raise refusal(str(error)) from error
    if parts.scheme and (parts.query or parts.fragment):
        raise refusal("it has a query or a fragment")
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise refusal("it is on another host")
    if parts.scheme in ("", "file"):
        folder = Path(parts.path if parts.scheme else lake_url).absolute() / name
        return Place(str(folder), pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem()), folder)
    uri = f"{lake_url.rstrip('/')}/{name}"
    try:
        store, path = pafs.FileSystem.from_uri(uri)
    except ValueError as error:
        raise refusal(failures.reason(error)) from error
    return Place(uri, pafs.SubTreeFileSystem(path, store))
