"""Snapshots as releases before the lake wrote them."""

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

from episodes_assets.planning.drop import QUARANTINED, to_table, validate_drop
from episodes_assets_tests.support.drops import drop
from episodes_assets_tests.support.older_release import put_snapshot


def older(root: Path, day: dt.date, *epids: int, viewed: tuple[int, ...] = (3, 5), **said: Any) -> str:
    """A snapshot of some episodes, and of one row that was refused; its id."""
    parts = validate_drop(drop(*({"epid": epid} for epid in (*epids, -1))))
    return put_snapshot(
        root,
        day,
        accepted=to_table(parts.accepted),
        quarantined=to_table(parts.quarantined, QUARANTINED),
        viewed=viewed,
        said={"reasons": {"epid_negative": 1}, **said},
    )


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
