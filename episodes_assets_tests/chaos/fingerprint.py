"""What a system holds, without what may differ between two ways to the same end: ids, times, who did it."""

import datetime as dt
from typing import Any

from deltalake import DeltaTable

from episodes_assets_tests.support.system import System

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
    """State, ledger, outcomes, published rows, manifests, and the days that the lake has.

    Files that no day names, such as those of a killed run, are left out: no reader looks at them.
    """
    found = {name: system.query(*source) for name, source in _CONTENT.items()}
    viewings = system.viewings.newest()
    drops = system.drops
    kept = drops.find_all(drops.days()).values()
    return found | {
        "files": [
            *(file.path for file in (viewings.files.values() if viewings else ())),
            # The file says when it was taken, so its own name tells nothing.
            *((drop.day, drop.snapshot_id, drop.reason, drop.quarantine.path) for drop in kept),
        ]
    }


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
    """Whatever a reader can find after a kill is whole: plans, state, published days, the lake."""
    for what, (database, statement) in _HALF_DONE.items():
        assert system.query(database, statement) == [], what
    drops, viewings = system.drops, system.viewings
    taken = viewings.newest()
    for drop in drops.find_all(drops.days()).values():
        assert drops.episodes.is_whole(drop.episodes), drop
        assert drops.quarantine.is_whole(drop.quarantine), drop
        assert taken is not None
        assert viewings.is_whole(taken.files[drop.day]), drop


def forget_day(system: System, day: dt.date) -> None:
    """Undo all that a day has left, so that it can be run as if for the first time."""
    system.forget_plans(day)
    for table, column in (
        ("state.tracked_days", "day"),
        ("state.tracked_episodes", "tracked_on"),
        ("published.days", "day"),
        ("published.history", "day"),  # a day with a history and no plan has been damaged
        ("published.results", "day"),
    ):
        system.query("results", f"DELETE FROM {table} WHERE {column} = %s", [day])
    for each in system.drops.tables:
        if each.newest() is not None:
            DeltaTable(f"{system.settings.lake}/{each.name}").delete(f"day = '{day}'")
