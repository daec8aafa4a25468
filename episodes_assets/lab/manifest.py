"""What a bundle's folder says of it, and giving the folder up. It loads nothing that takes long to import.

A manifest has a digest of its own. Its content is put together in `take.py`; the files that it lists are
written and read in `bundle.py`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from episodes_assets.errors import BadLab, BundleDamaged

FORMAT = 1
MANIFEST = "manifest.json"
# Files that are there only while the bundle is being taken.
TAKING, KEY, LOCK = "taking.json", "key", "lock"
ANOTHER_FOLDER = "name another folder"
TAKE_ANEW = "copy the bundle once more, or take it again into another folder"


def parse_manifest(text: str, path: Path) -> Mapping[str, Any]:
    """A manifest from its text, whose digest is compared.

    Raises:
        BadLab: If it is of a newer release.
        BundleDamaged: If it is not the one that was written.
    """
    try:
        record = json.loads(text)
        number, digest = int(record["format"]), record.pop("digest")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleDamaged(f"{path} was changed", TAKE_ANEW) from error
    if number > FORMAT:
        raise BadLab(
            f"{path} has format {number}, this release reads it up to {FORMAT}", "upgrade this release"
        )
    if digest != digest_of_manifest(record):
        raise BundleDamaged(f"{path} was changed", TAKE_ANEW)
    return {**record, "digest": digest}


def digest_of_manifest(record: Mapping[str, Any]) -> str:
    """The digest of a manifest that has none yet."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def manifest_to_text(record: Mapping[str, Any]) -> str:
    """A manifest as it is written."""
    return json.dumps({**record, "digest": digest_of_manifest(record)}, indent=2) + "\n"


def read_begun(folder: Path) -> Mapping[str, Any]:
    """The record of a bundle that may not be complete: `request` and `taken_at`; empty if there is none."""
    for name in (MANIFEST, TAKING):
        with suppress(OSError, ValueError):
            record = json.loads((folder / name).read_text(encoding="utf-8"))
            if isinstance(record, dict) and {"request", "taken_at"} <= record.keys():
                return record
    return {}


def delete_key(folder: Path) -> None:
    """Overwrite a bundle's key and delete it; idempotent."""
    path = folder / KEY
    with suppress(FileNotFoundError):
        with path.open("r+b") as file:
            file.write(b"0" * path.stat().st_size)
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def discard(folder: Path) -> None:
    """Delete a bundle, its key first. If that is interrupted, what is left is no complete bundle.

    Raises:
        OSError: If something cannot be removed.
    """
    delete_key(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in [each for each in folder.iterdir() if each.name not in (TAKING, LOCK)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in (TAKING, LOCK):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
