"""What a lake in a folder holds, as another engine sees it, whatever the product says."""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

# By table and partition: the file, the SHA-256 of its bytes, its rows. Of a drop, its id and its quarantine.
Contents = dict[str, list[tuple[str, str, str, int]]]
_LOG = "_delta_log"


def contents(lake: Path | str) -> Contents:
    """The files of the newest version of each table, all of which must be whole.

    Args:
        lake: A folder, or an object store's URL.
    """
    found: Contents = {}
    filesystem, root = pafs.FileSystem.from_uri(str(lake))
    if isinstance(filesystem, pafs.LocalFileSystem):
        root = str(lake)
    selected = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    for name in sorted({each.path.removeprefix(f"{root}/").partition("/")[0] for each in selected}):
        try:
            table = DeltaTable(f"{lake}/{name}")
        except TableNotFoundError:
            continue
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        files = sorted((str(each["partition.day"]), each["path"], each["num_records"]) for each in actions)
        assert len({day for day, _, _ in files}) == len(files), f"a day of {name} is there twice"
        found[name] = []
        for day, path, rows in files:
            with filesystem.open_input_stream(f"{root}/{name}/{path}") as stream:
                content = stream.read()
            digest = hashlib.sha256(content).hexdigest()
            assert digest.startswith(Path(path).name.partition(".")[0]), f"{path} is not whole"
            if name == "episodes":  # which says when it was taken: the same content makes another file
                said = json.loads(pq.read_metadata(pa.BufferReader(content)).metadata[b"episodes.drop"])
                path, digest = said["snapshot_id"], said["quarantine"]["path"]
            found[name].append((day, path, digest, rows))
    return found


def files_below(folder: Path) -> set[str]:
    """All files, by their paths from the folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def named_files(lake: Path) -> set[str]:
    """The files that any version of any table has, and the log that says so."""
    named = set()
    for log in lake.glob(f"*/{_LOG}"):
        name = log.parent.name
        entries = [path for path in log.iterdir() if path.suffix in {".json", ".parquet"}]
        named |= {f"{name}/{_LOG}/{path.name}" for path in entries}
        for number in range(sum(path.suffix == ".json" for path in entries)):
            actions = pa.table(DeltaTable(str(log.parent), number).get_add_actions(flatten=True))
            named |= {f"{name}/{path}" for path in actions["path"].to_pylist()}
    return named


def let_be_old(folder: Path, days: int = 30) -> None:
    """Let everything in it be written so many days ago."""
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


@dataclass(frozen=True)
class Copies:
    """Folders as they were at one moment, to begin from again.

    Attributes:
        folders: The folders.
        place: Where the copies are.
    """

    folders: dict[str, Path]
    place: Path

    @classmethod
    def of(cls, folders: dict[str, Path], place: Path) -> "Copies":
        """Copy them; one that is not there is none later either."""
        for name, folder in folders.items():
            if folder.exists():
                shutil.copytree(folder, place / name)
        return cls(folders, place)

    def restore(self) -> None:
        """Let the folders be as they were."""
        for name, folder in self.folders.items():
            shutil.rmtree(folder, ignore_errors=True)
            if (self.place / name).exists():
                shutil.copytree(self.place / name, folder)
