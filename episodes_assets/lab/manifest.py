"""A bundle's manifest as text, with a digest of its own. It loads nothing that takes long to import.

Its content is put together in `take.py`; the files that it lists are written and read in `bundle.py`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from episodes_assets.errors import BadLab, BundleDamaged

FORMAT = 1
MANIFEST = "manifest.json"
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
