"""What a system holds, without what may differ between two ways to the same end: ids, times, who did it."""

import datetime as dt
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from episodes_assets_tests.system import System

Fingerprint = dict[str, list[Any]]

_CONTENT: dict[str, tuple[str, str]] = {
    "tracked episodes": ("results", "SELECT epid, tracked_on FROM state.tracked_episodes ORDER BY 1"),
    "tracked days": (
        "results",
        (
            "SELECT day, origin, newly_tracked, total, checksum, previous_checksum, snapshot_id, code_version"
            " FROM state.tracked_days ORDER BY 1"
        ),
    ),
    "plans": (
        "queue",
        (
            "SELECT day, jobs, checksum, snapshot_id, code_version, fanned_out_at IS NOT NULL"
            " FROM ledger.plans WHERE superseded_at IS NULL ORDER BY 1"
        ),
    ),
    "jobs": (
        "queue",
        (
            "SELECT day, position, chunk, epid, algorithm_id, window_start, state, error"
            " FROM ledger.job_states JOIN ledger.plans USING (plan_id) ORDER BY 1, 2"
        ),
    ),
    "chunks": (
        "queue",
        (
            "SELECT day, chunk, first_position, chunks.jobs, succeeded, held, priority, claim IS NULL"
            " FROM ledger.chunks JOIN ledger.plans USING (plan_id) ORDER BY 1, 2"
        ),
    ),
    "outcomes": (
        "queue",
        (
            "SELECT day, position, covered_from, metrics::text, algorithm_version"
            " FROM ledger.outcomes JOIN ledger.plans USING (plan_id) ORDER BY 1, 2"
        ),
    ),
    "published days": (
        "results",
        ("SELECT day, jobs, rows, checksum, plan_checksum, code_version FROM published.days ORDER BY 1"),
    ),
    "published rows": (
        "results",
        (
            "SELECT day, epid, algorithm_id, window_start, window_end, covered_from, metrics::text"
            " FROM published.results ORDER BY 1, 2, 3"
        ),
    ),
}

# Each finds days that are half done.
_HALF_DONE: dict[str, tuple[str, str]] = {
    "published rows and their manifest differ": (
        "results",
        (
            "SELECT day FROM published.days FULL JOIN"
            " (SELECT day, count(*) AS found FROM published.results GROUP BY day) AS there USING (day)"
            " WHERE rows IS DISTINCT FROM coalesce(found, 0)"
        ),
    ),
    "tracked episodes and their manifest differ": (
        "results",
        (
            "SELECT day FROM state.tracked_days FULL JOIN (SELECT tracked_on AS day, count(*) AS found"
            " FROM state.tracked_episodes GROUP BY tracked_on) AS there USING (day)"
            " WHERE newly_tracked IS DISTINCT FROM coalesce(found, 0)"
        ),
    ),
    "a plan lacks jobs or chunks": (
        "queue",
        (
            "SELECT day FROM ledger.plans WHERE superseded_at IS NULL AND ("
            " jobs <> (SELECT count(*) FROM ledger.jobs WHERE jobs.plan_id = plans.plan_id) OR"
            " jobs <> (SELECT sum(chunks.jobs) FROM ledger.chunks WHERE chunks.plan_id = plans.plan_id))"
        ),
    ),
    "a day is handed out in part": (
        "queue",
        (
            "SELECT day FROM ledger.plans JOIN ledger.chunks USING (plan_id) WHERE superseded_at IS NULL"
            " AND (fanned_out_at IS NULL) <> (message_id IS NULL)"
        ),
    ),
}


def fingerprint(system: System) -> Fingerprint:
    """State, ledger, outcomes, published rows, manifests, and the files of the snapshots.

    What a killed run had begun to write of a snapshot is left out: no reader looks at it.
    """
    found = {name: system.query(*source) for name, source in _CONTENT.items()}
    folder = Path(system.settings.snapshots)
    found_files = folder.glob("day=*/**/*")
    files = sorted(path for path in found_files if path.is_file() and path.parent.suffix != ".part")
    return found | {"files": [(str(path.relative_to(folder)), _content(path)) for path in files]}


def assert_same(found: Fingerprint, expected: Fingerprint) -> None:
    """Fail with the first few differences of the first part that differs."""
    for name, rows in expected.items():
        if found[name] == rows:
            continue
        surplus = [row for row in found[name] if row not in rows]
        missing = [row for row in rows if row not in found[name]]
        raise AssertionError(
            f"{name} differ: {len(found[name])} instead of {len(rows)}; "
            f"too many: {surplus[:3]}; missing: {missing[:3]}"
        )


def published_bytes(system: System, day: dt.date) -> bytes:
    """A day's published rows as PostgreSQL copies them out."""
    rows = system.query(
        "results",
        "SELECT string_agg(results::text, E'\\n' ORDER BY epid, algorithm_id)"
        " FROM published.results WHERE day = %s",
        [day],
    )
    return str(rows[0][0]).encode()


def assert_nothing_is_half_done(system: System) -> None:
    """Whatever a reader can find after a kill is whole: plans, state, published days, snapshots."""
    for what, (database, statement) in _HALF_DONE.items():
        assert system.query(database, statement) == [], what
    folder = Path(system.settings.snapshots)
    for manifest in folder.glob("day=*/manifest.json"):
        snapshot = system.snapshots.require(dt.date.fromisoformat(manifest.parent.name[len("day=") :]))
        for name, digest in snapshot.files.items():
            file = manifest.parent / snapshot.snapshot_id / name
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, f"{file} is not whole"


def forget_day(system: System, day: dt.date) -> None:
    """Undo all that a day has left, so that it can be run as if for the first time."""
    system.forget_plans(day)
    for table, column in (
        ("state.tracked_days", "day"),
        ("state.tracked_episodes", "tracked_on"),
        ("published.days", "day"),
        ("published.results", "day"),
    ):
        system.query("results", f"DELETE FROM {table} WHERE {column} = %s", [day])
    shutil.rmtree(Path(system.settings.snapshots) / f"day={day}", ignore_errors=True)


def _content(path: Path) -> Any:
    if path.suffix != ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "taken_at"}
