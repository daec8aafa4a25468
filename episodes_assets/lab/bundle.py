"""A bundle: the folder between taking a piece of a source and loading it into a lab.

```
manifest.json                what it holds, for people as well; written last: a bundle without it is not whole
sample.parquet               the chosen episodes, where not all were taken
lake/episodes, quarantine, viewings/day=…/….parquet     day files as the lake has them
state/tracked_episodes.parquet, tracked_days.parquet    the accumulated state and its chain of checksums
ledger/DAY/jobs.parquet, chunks, outcomes, waived, batches
```

While it is written, `taking.json` lists the files that are finished, and `key` has the key of the pseudonyms
and of the sample. Each file is renamed to its name when it is complete (atomic) and listed after that; files
that are not listed are written again. So taking can be killed at any moment and resumed, with the same
bundle in the end. One of another request takes its place as long as the source's databases were not read to
their end, or once it was found to be too large. The key is overwritten and deleted as soon as it is no longer
needed.

What is taken is decided in `take.py`; this module does not depend on the content of the files.
"""

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.errors import AlreadyRunning, BadLab, BundleDamaged, BundleIncomplete, EpisodesError
from episodes_assets.lab import manifest as manifests
from episodes_assets.lab.manifest import (
    ANOTHER_FOLDER,
    FORMAT,
    KEY,
    LOCK,
    MANIFEST,
    TAKE_ANEW,
    TAKING,
    manifest_to_text,
    parse_manifest,
)
from episodes_assets.lab.pseudonyms import KEY_BYTES, new_key
from episodes_assets.lake.day_file import CheckedFile, sync
from episodes_assets.private_files import make_folder, open_file, private_opener, try_lock

LAKE = "lake"
PART = ".part"
# A bundle has these beside its manifest, and nothing else.
_CONTENT = (LAKE, "ledger", "state", "sample.parquet")
# Keys of the record of a bundle that is being taken: all but the lake is read; it would have too many rows.
DATABASES, TOO_LARGE = "databases", "too_large"


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle.

    Attributes:
        rows: Its rows.
        size: Its bytes.
        sha256: Of its bytes.
    """

    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A whole bundle.

    Attributes:
        folder: Where it is.
        manifest: What it holds.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def files(self) -> dict[str, BundleFile]:
        """Its files by their paths from the folder."""
        return {path: BundleFile(**record) for path, record in self.manifest["files"].items()}

    def read(self, path: str) -> pa.Table:
        """The rows of a file.

        Raises:
            BundleDamaged: If it cannot be read.
        """
        place = self.folder / path
        try:
            with CheckedFile(place, page_checksum_verification=True) as opened:
                return opened.read(use_threads=False)
        except FileNotFoundError as error:
            raise _damaged(place, "is gone") from error
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _damaged(place, "was cut or changed") from error
        except OSError as error:
            if "CRC checksum" not in str(error):
                raise
            raise _damaged(place, "was changed") from error

    def find_faults(self) -> Iterator[tuple[str, BundleFile, str]]:
        """Compare the bytes of each file with what was written.

        Yields:
            Each file, and what is wrong with it; nothing when it is whole.
        """
        for path, file in sorted(self.files.items()):
            yield path, file, _fault(self.folder / path, file)


def _fault(path: Path, file: BundleFile) -> str:
    try:
        with path.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size != file.size:
                return "was cut or changed"
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "is gone"
    return "" if digest == file.sha256 else "was changed"


def _damaged(path: Path, what: str) -> BundleDamaged:
    return BundleDamaged(f"{path} {what}", TAKE_ANEW)


def open_bundle(folder: Path) -> Bundle:
    """A complete bundle, by its manifest; its files are not read.

    Raises:
        BadLab: If there is no bundle, or one of a newer release.
        BundleIncomplete: If it is not complete.
        BundleDamaged: If its manifest is not the one that was written.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if (folder / TAKING).exists():
            raise BundleIncomplete(
                f"the bundle in {folder} is not complete",
                f"run the same `episodes lab take … --to {folder}` again: it resumes",
            ) from error
        raise BadLab(
            f"there is no bundle in {folder}", "check the path, or make one with `episodes lab take`"
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "was changed") from error
    return Bundle(folder, parse_manifest(text, path))


@dataclass
class BundleWriter:
    """A bundle that is being taken, by one process at a time; `begin_bundle` makes it.

    Attributes:
        folder: Where it is.
        record: What is on record from the beginning on, such as the request and the time.
        files: The files that are finished, by their paths from the folder.
    """

    folder: Path
    record: dict[str, Any]
    files: dict[str, BundleFile] = field(default_factory=dict)

    @property
    def lake_url(self) -> str:
        """Where the day files go: a lake without a log."""
        return str(self.folder / LAKE)

    def key(self) -> bytes:
        """The key of the pseudonyms and the sample.

        Raises:
            BundleDamaged: If it is gone before everything that needs it was finished.
        """
        try:
            key = bytes.fromhex((self.folder / KEY).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise _lost_key(self.folder) from error
        if len(key) != KEY_BYTES:
            raise _lost_key(self.folder)
        return key

    def delete_key(self) -> None:
        """Overwrite the key and delete it; idempotent."""
        manifests.delete_key(self.folder)
        sync(self.folder)

    def note(self, **facts: object) -> None:
        """Add to the record."""
        self.record.update(facts)
        self._write_record()

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write rows as a file, and list it."""
        self.write_batches(path, table.schema, [table])

    def write_batches(self, path: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write rows as a file part by part, and list it."""
        target = self.folder / path
        make_folder(target.parent)
        part = target.with_name(f"{target.name}{PART}")
        with (
            open(part, "wb", opener=private_opener) as handle,
            pq.ParquetWriter(handle, schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for table in tables:
                writer.write_table(table)
        part.replace(target)
        self.list_file(path)

    def list_file(self, path: str, *, rows: int | None = None) -> None:
        """List a file that is complete, with the digest of its bytes."""
        target = self.folder / path
        sync(target, target.parent)
        if rows is None:
            rows = pq.read_metadata(target).num_rows
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.files[path] = BundleFile(rows, target.stat().st_size, digest)
        self._write_record()

    def unlist(self, under: str) -> None:
        """Have the files below a folder written again."""
        self.files = {path: file for path, file in self.files.items() if not path.startswith(under)}
        self._write_record()

    def finish(self, manifest: Mapping[str, Any]) -> Bundle:
        """Write the manifest, which makes the bundle complete."""
        record = {
            "format": FORMAT,
            **manifest,
            "files": {path: vars(self.files[path]) for path in sorted(self.files)},
        }
        self.delete_key()
        _replace(self.folder / MANIFEST, manifest_to_text(record))
        clean_up(self.folder)
        return open_bundle(self.folder)

    def _write_record(self) -> None:
        record = {**self.record, "files": {path: vars(file) for path, file in self.files.items()}}
        _replace(self.folder / TAKING, json.dumps(record))


def _lost_key(folder: Path) -> BundleDamaged:
    return BundleDamaged(
        f"the key of the bundle in {folder} is gone before it was complete",
        f"remove {folder} and take it again",
    )


def _replace(path: Path, text: str) -> None:
    """Write a file by rename, and flush it to disk."""
    part = path.with_name(f"{path.name}{PART}")
    with open_file(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def clean_up(folder: Path) -> None:
    """Remove the files that only an unfinished bundle has."""
    for part in folder.rglob(f"*{PART}"):
        part.unlink(missing_ok=True)
    for name in (TAKING, LOCK):
        (folder / name).unlink(missing_ok=True)
    sync(folder)


@contextmanager
def begin_bundle(
    folder: Path,
    request: Mapping[str, Any],
    begin: Callable[[], Mapping[str, Any]],
    instead: str = ANOTHER_FOLDER,
) -> Iterator[BundleWriter | Bundle]:
    """A bundle to write: a new one, or one whose taking was interrupted.

    If what is to be taken is refused, a folder that was made for it is removed again.

    Args:
        folder: Where it is to be; made if it is missing.
        request: What is to be taken. One that was begun with another is begun anew, unless the source's
            databases were read for it already.
        begin: Returns what to record at the beginning; called for a new one.
        instead: What to do where the folder cannot be used, for the message.

    Yields:
        The bundle as it is; a complete one if taking was interrupted after its last file.

    Raises:
        BadLab: If the folder has something else in it, or a bundle of another request that can be finished.
        AlreadyRunning: If another process writes to it.
    """
    if folder.exists() and not folder.is_dir():
        raise BadLab(f"{folder} is not a folder", "name a folder that is missing or empty")
    is_new = not folder.exists()
    names = set() if is_new else {path.name for path in folder.iterdir()}
    own = {MANIFEST, TAKING, KEY, LOCK, *(f"{name}{PART}" for name in (MANIFEST, TAKING, KEY))}
    if MANIFEST in names and TAKING not in names:
        raise BadLab(
            f"{folder} has a complete bundle already",
            f"load it with `episodes lab load {folder} --name NAME`, or name another folder",
        )
    if TAKING not in names and names - own:
        raise BadLab(f"{folder} is not empty", instead)
    make_folder(folder)
    with open_file(folder / LOCK, "a+") as lock:
        if not try_lock(lock):
            raise AlreadyRunning(
                f"another process takes a bundle into {folder}", "let it finish, or interrupt it"
            )
        found = (
            _resume(folder, request, begin, instead) if TAKING in names else _begin(folder, request, begin)
        )
        try:
            yield found
        except EpisodesError:
            if is_new and isinstance(found, BundleWriter) and not found.record.get(DATABASES):
                manifests.discard(folder)  # it has nothing that would not be taken again
            raise


def _begin(folder: Path, request: Mapping[str, Any], begin: Callable[[], Mapping[str, Any]]) -> BundleWriter:
    _replace(folder / KEY, new_key().hex())
    writer = BundleWriter(folder, {"format": FORMAT, "request": dict(request), **begin()})
    writer.note()
    return writer


def _resume(
    folder: Path, request: Mapping[str, Any], begin: Callable[[], Mapping[str, Any]], instead: str
) -> BundleWriter | Bundle:
    try:
        record = json.loads((folder / TAKING).read_text(encoding="utf-8"))
        files = {path: BundleFile(**each) for path, each in record.pop("files").items()}
        begun, number = record["request"], record["format"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleDamaged(f"{folder / TAKING} was changed", instead) from error
    is_read = bool(record.get(DATABASES))
    if (begun, number) != (json.loads(json.dumps(request)), FORMAT):
        if is_read and not record.get(TOO_LARGE):
            raise BadLab(
                f"the bundle in {folder} was begun with other options, or by another release",
                f"give the same options to finish it, or {instead}",
            )
        return _begin_anew(folder, request, begin)
    if (folder / MANIFEST).exists():
        clean_up(folder)
        return open_bundle(folder)
    record.pop(TOO_LARGE, None)
    kept = {path: file for path, file in files.items() if not _fault(folder / path, file)}
    _remove_unlisted(folder, kept)
    if not is_read and not (folder / KEY).exists():  # it was being begun anew
        _replace(folder / KEY, new_key().hex())
    return BundleWriter(folder, record, kept)


def _begin_anew(
    folder: Path, request: Mapping[str, Any], begin: Callable[[], Mapping[str, Any]]
) -> BundleWriter:
    """Give up what was begun. The record is replaced first, so that the two are never mixed."""
    writer = BundleWriter(folder, {"format": FORMAT, "request": dict(request), **begin()})
    writer.note()
    writer.delete_key()
    _replace(folder / KEY, new_key().hex())
    _remove_unlisted(folder, ())
    return writer


def _remove_unlisted(folder: Path, listed: Container[str]) -> None:
    """Remove the files of a bundle that are not finished, or were begun for another request."""
    for path in folder.glob(f"*{PART}"):
        path.unlink()
    for name in _CONTENT:
        for path in [folder / name, *(folder / name).rglob("*")]:
            if path.is_file() and str(path.relative_to(folder)) not in listed:
                path.unlink()


def path_of(*parts: object) -> str:
    """A path below the folder, as it is listed."""
    return str(PurePosixPath(*map(str, parts)))
