"""A bundle's manifest as text: what it holds, with a digest of its own. It loads nothing that takes time.

What it says is written by `take.py`; the files that it names are in `bundle.py`.
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
    """A manifest from its text, after a look at its own digest.

    Raises:
        BadLab: If it is of a newer release.
        BundleDamaged: If it is not the one that was written.
    """
    try:
        said = json.loads(text)
        number, digest = int(said["format"]), said.pop("digest")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleDamaged(f"{path} was changed", TAKE_ANEW) from error
    if number > FORMAT:
        raise BadLab(
            f"{path} has format {number}, this release knows it up to {FORMAT}", "upgrade this release"
        )
    if digest != digest_of_manifest(said):
        raise BundleDamaged(f"{path} was changed", TAKE_ANEW)
    return {**said, "digest": digest}


def digest_of_manifest(said: Mapping[str, Any]) -> str:
    """The digest of a manifest that has none yet."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def manifest_as_text(said: Mapping[str, Any]) -> str:
    """A manifest as it is written."""
    return json.dumps({**said, "digest": digest_of_manifest(said)}, indent=2) + "\n"
