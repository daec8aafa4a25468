"""The accumulated state in `results`: each tracked episode once, and what each day added.

Each day records the checksum of all that is tracked, and that of the day before on which it was built (a hash
chain). Dagster does not check that yesterday was materialised when a self-dependent asset runs;
`state_before` does, and it refuses a chain that is broken. Which episodes a day adds is decided in
`planning/jobs.py`; a state is carried from one system to another by `copies`.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from psycopg.rows import class_row

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import StateGap
from episodes_assets.planning.episode_set import (
    EpisodeIds,
    TrackedEpisodes,
    find_broken_day,
    find_unchained_day,
    state_checksum,
)
from episodes_assets.postgres import arrow, locks
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.repairs import RepairDecision, record_repair, repair_command

_NONE: EpisodeIds = np.array([], dtype=np.int64)
# In place of the checksum that a day was built on, once an earlier day has taken some of its episodes.
_CHANGED_SINCE = ""
# A step over years of days is one writer for minutes.
_WRITER_LOCK_SECONDS = 1800.0


@dataclass(frozen=True)
class TrackedDay:
    """A day of the state: what it added and what there is as of its end.

    Attributes:
        day: The day.
        origin: `beginning` of a history, an ordinary `day`, or an `import`.
        newly_tracked: Episodes it added.
        total: Episodes tracked as of the day.
        checksum: Of all episodes tracked as of the day, chained from day to day.
        previous_checksum: The checksum of the day before that it was built on; empty once an earlier day has
            taken some of its episodes.
        snapshot_id: The drop it came from.
    """

    day: dt.date
    origin: str
    newly_tracked: int
    total: int
    checksum: str
    previous_checksum: str | None
    snapshot_id: str | None


_COLUMNS = "day, origin, newly_tracked, total, checksum, previous_checksum, snapshot_id"


@contextmanager
def only_writer(lock: Connection) -> Iterator[None]:
    """Lock the state for one writer, so that neither a day nor its yesterday changes meanwhile.

    Should the lock be lost with its connection, `record_day` still refuses another yesterday.

    Args:
        lock: To `results`, and used for nothing else meanwhile: it is in a transaction for as long as the
            block lasts, and each day is one of its own.
    """
    with lock.transaction():
        locks.limit_transaction(lock, _WRITER_LOCK_SECONDS)
        lock.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        locks.lock_row(lock, locks.RESULTS, "state")
        yield


def read_day(connection: Connection, day: dt.date) -> TrackedDay | None:
    """The manifest of a day; None when it was never materialised."""
    with connection.cursor(row_factory=class_row(TrackedDay)) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM state.tracked_days WHERE day = %s", [day])  # noqa: S608
        return cursor.fetchone()


def built_on_another_past(connection: Connection, tracked: TrackedDay) -> bool:
    """Whether yesterday has changed since a day was built on it."""
    if tracked.origin != "day":
        return False
    yesterday = read_day(connection, tracked.day - ONE_DAY)
    return yesterday is None or yesterday.checksum != tracked.previous_checksum


def read_named_drops(connection: Connection) -> set[tuple[dt.date, str]]:
    """The drops that the days of the history came from: days and ids."""
    found = connection.execute(
        "SELECT day, snapshot_id FROM state.tracked_days WHERE snapshot_id IS NOT NULL"
    ).fetchall()
    return {(day, snapshot_id) for day, snapshot_id in found}


def latest_day(connection: Connection) -> TrackedDay | None:
    """The newest day of the history; None when there is no history."""
    with connection.cursor(row_factory=class_row(TrackedDay)) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM state.tracked_days ORDER BY day DESC LIMIT 1")  # noqa: S608
        return cursor.fetchone()


def state_before(connection: Connection, day: dt.date) -> TrackedDay | None:
    """The manifest of the day before, on which a day builds; None when the day begins the history.

    The chain of the whole history up to then is checked, so for a range of days it suffices to call this for
    its first and its last day.

    Raises:
        StateGap: If yesterday is missing or was built on another past, or if the day lies before the
            beginning.
    """
    row = connection.execute("SELECT day, origin FROM state.tracked_days ORDER BY day LIMIT 1").fetchone()
    if row is None:
        return None
    first, origin = row
    if day < first or (day == first and origin == "import"):
        raise StateGap(
            f"{day} lies before the beginning of the tracked history",
            f"the history begins with {'the state imported as of ' if origin == 'import' else ''}"
            f"{first}; choose a later day, or start anew in an empty results database",
        )
    if day == first:
        return None
    _require_unbroken(connection, day - ONE_DAY)
    yesterday = read_day(connection, day - ONE_DAY)
    if yesterday is None:
        latest = connection.execute(
            "SELECT max(day) FROM state.tracked_days WHERE day < %s", [day]
        ).fetchone()
        resume = (latest[0] if latest else first) + ONE_DAY
        raise StateGap(
            f"the tracked episodes of {day - ONE_DAY} are missing",
            f"materialise tracked_episodes from {resume} to {day - ONE_DAY} first",
        )
    return yesterday


def _require_unbroken(connection: Connection, until: dt.date) -> None:
    """The rule of `find_unchained_day`, in the database."""
    broken = connection.execute(
        """
        SELECT min(day) FROM (
            SELECT day, origin, previous_checksum, lag(checksum) OVER (ORDER BY day) AS expected
            FROM state.tracked_days WHERE day <= %s
        ) AS chain
        WHERE origin = 'day' AND previous_checksum IS DISTINCT FROM expected
        """,
        [until],
    ).fetchone()
    if broken and broken[0]:
        raise _built_on_another(broken[0])


def _built_on_another(day: dt.date) -> StateGap:
    return StateGap(
        f"the tracked episodes of {day} were built on another {day - ONE_DAY}",
        f"materialise tracked_episodes from {day} on",
    )


def read_tracked(dsn: str, until: TrackedDay | None) -> TrackedEpisodes:
    """The episodes tracked as of the end of a day; those of each earlier day can be taken from them.

    Of one day at most 134 million can be read, since a value of PostgreSQL has at most 1 GB.

    Args:
        dsn: The results database.
        until: The day as `state_before` has it; None for none tracked.

    Raises:
        StateGap: If another run has changed the day or an earlier one since, or if they do not have the
            checksums in the manifests of their days.
    """
    if until is None:
        return TrackedEpisodes(_NONE, np.array([], dtype="datetime64[D]"))
    manifest, found = _read_snapshot(dsn, until.day)
    last = (manifest[-1]["day"], manifest[-1]["checksum"]) if manifest else None
    if last != (until.day, until.checksum) or find_unchained_day(manifest):
        raise StateGap(
            f"another run has changed the tracked episodes up to {until.day} meanwhile",
            f"let that run end, then materialise {until.day + ONE_DAY} again",
        )
    return TrackedEpisodes(*_unpack_as_recorded(manifest, found))


def read_as_recorded(dsn: str, until: dt.date) -> tuple[EpisodeIds, npt.NDArray[np.datetime64]]:
    """The episodes tracked as of the end of a day, which must be those that the manifests describe.

    Args:
        dsn: The results database.
        until: The day.

    Returns:
        The episodes, in the order of their days, and the day of each.

    Raises:
        StateGap: If the day has no manifest, if it or an earlier one was built on another past, or if the
            episodes do not have the checksums in the manifests of their days.
    """
    manifest, found = _read_snapshot(dsn, until)
    if not manifest or manifest[-1]["day"] != until:
        raise StateGap(
            f"there are no tracked episodes as of {until}", f"materialise tracked_episodes of {until} first"
        )
    if unchained := find_unchained_day(manifest):
        raise _built_on_another(unchained)
    return _unpack_as_recorded(manifest, found)


_MANIFEST: LiteralString = """
    SELECT day, origin, previous_checksum, checksum FROM state.tracked_days
    WHERE day <= {until}::date ORDER BY day
"""


def _read_snapshot(dsn: str, until: dt.date) -> tuple[list[dict[str, Any]], pa.Table]:
    """The manifests up to a day, and what `TRACKED` returns, in one snapshot.

    What another run records meanwhile is in both or in neither.
    """
    with arrow.repeatable_read(dsn, is_ours=True) as results:
        return results.read(_MANIFEST, until=until).to_pylist(), results.read(TRACKED, until=until)


# One value for a day: a row for each episode costs the driver more than all the rest. `+ 0` avoids the index
# on tracked_on, which would fetch nearly all rows one by one.
TRACKED: LiteralString = """
    SELECT tracked_on + 0 AS tracked_on, string_agg(int8send(epid), '') AS epids
    FROM state.tracked_episodes WHERE tracked_on + 0 <= {until}::date GROUP BY 1 ORDER BY 1
"""


def unpack_tracked(days: pa.Table) -> tuple[EpisodeIds, npt.NDArray[np.datetime64]]:
    """The episodes that the statement `TRACKED` returns, in the order of their days, and the day of each."""
    added = [np.frombuffer(epids.as_buffer(), ">i8") for epids in days["epids"]]
    epids = np.concatenate([_NONE, *added], dtype=np.int64)
    tracked_on = days["tracked_on"].to_numpy().astype("datetime64[D]")
    return epids, np.repeat(tracked_on, [len(each) for each in added])


def _unpack_as_recorded(
    manifest: Sequence[Mapping[str, Any]], found: pa.Table
) -> tuple[EpisodeIds, npt.NDArray[np.datetime64]]:
    """What `unpack_tracked` makes of them, unless they do not have the checksums in the manifests.

    Args:
        manifest: Of all days up to the last one, an unbroken chain.
        found: What `TRACKED` returns.
    """
    epids, tracked_on = unpack_tracked(found)
    row = find_broken_day(epids, tracked_on, manifest)
    if row is not None:
        raise StateGap(
            f"the episodes tracked on {row['day']} are not those that its manifest says:"
            " something else writes to the schema `state`",
            "what was imported is in no drop: restore `results` from a backup, or import anew"
            if row["origin"] == "import"
            else f"stop it, then run `{repair_command(row['day'], manifest[-1]['day'])}`",
        )
    return epids, tracked_on


def record_day(
    connection: Connection,
    day: dt.date,
    newly_tracked: EpisodeIds,
    *,
    yesterday: TrackedDay | None,
    snapshot_id: str,
    code_version: str,
    repair: RepairDecision | None = None,
) -> tuple[TrackedDay, bool]:
    """Record the episodes that a day adds, in place of those it added before.

    A day is determined by its drop, its yesterday and the code. While those are the recorded ones it is not
    written again; if its rows are damaged, the check finds that. A repair compares with the stored rows
    instead, and records what it has replaced if it was damaged: a day that was built on another yesterday, or
    from another drop, is only out of date.

    Later days that were built on another version of this one stay as they are, but for episodes that are this
    day's now; `state_before` refuses to build on them.

    Args:
        connection: To `results`, while there is an `only_writer`.
        day: The day.
        newly_tracked: The episodes it adds.
        yesterday: What it is built on, as `state_before` has it.
        snapshot_id: The drop it comes from.
        code_version: Of the code that says which episodes it adds.
        repair: The decision to replace what is damaged; None for no repair.

    Returns:
        The day as it is to be stored, and whether anything was written.

    Raises:
        StateGap: If yesterday has changed since it was read, or the day's manifest is damaged and this is no
            repair.
    """
    previous = None if yesterday is None else yesterday.checksum
    checksum = state_checksum(previous or "", newly_tracked)
    recorded = TrackedDay(
        day=day,
        origin="beginning" if yesterday is None else "day",
        newly_tracked=len(newly_tracked),
        total=(yesterday.total if yesterday else 0) + len(newly_tracked),
        checksum=checksum,
        previous_checksum=previous,
        snapshot_id=snapshot_id,
    )
    with connection.transaction():
        is_recorded = _follows_from(connection, recorded, code_version)
        if is_recorded and not repair:
            if read_day(connection, day) != recorded:
                raise StateGap(
                    f"the tracked episodes of {day} are not those that its drop and its yesterday give:"
                    " something else writes to the schema `state`",
                    f"stop it, then run `{repair_command(day, day)}`",
                )
            return recorded, False
        _require_still(connection, yesterday)
        if repair and _is_stored(connection, recorded):
            return recorded, False
        is_damaged = is_recorded or _is_damaged(connection, recorded)
        _replace_episodes(connection, recorded, newly_tracked)
        upsert_day(connection, recorded, code_version)
        if repair and is_damaged:
            record_repair(connection, day, "tracked episodes", repair)
    return recorded, True


def _follows_from(connection: Connection, recorded: TrackedDay, code_version: str) -> bool:
    """Whether a day is recorded as one of the same drop, yesterday and code."""
    row = connection.execute(
        """
        SELECT (origin, snapshot_id, previous_checksum, code_version) IS NOT DISTINCT FROM
            (%(origin)s::text, %(snapshot_id)s::text, %(previous_checksum)s::text, %(code_version)s::text)
        FROM state.tracked_days WHERE day = %(day)s
        """,
        {**vars(recorded), "code_version": code_version},
    ).fetchone()
    return row == (True,)


def _is_stored(connection: Connection, recorded: TrackedDay) -> bool:
    """Whether a day's stored manifest and episodes are those that were computed."""
    since = "tracked_on <= %s" if recorded.previous_checksum is None else "tracked_on = %s"
    stored = connection.execute(
        f"SELECT epid FROM state.tracked_episodes WHERE {since} ORDER BY epid",  # noqa: S608
        [recorded.day],
    ).fetchall()
    epids = np.array([epid for (epid,) in stored], dtype=np.int64)
    return (
        read_day(connection, recorded.day) == recorded
        and len(epids) == recorded.newly_tracked
        and state_checksum(recorded.previous_checksum or "", epids) == recorded.checksum
    )


def _is_damaged(connection: Connection, to_be: TrackedDay) -> bool:
    """Whether something else has changed a day that is recorded as one of another yesterday, drop or code.

    Episodes of one that was built on another yesterday may be an earlier day's by now.
    """
    stored = read_day(connection, to_be.day)
    if stored is None:  # it is new, unless there is a later one
        latest = latest_day(connection)
        return latest is not None and latest.day > to_be.day
    if stored.previous_checksum == _CHANGED_SINCE:
        return False
    if (stored.origin, stored.previous_checksum) != (to_be.origin, to_be.previous_checksum):
        return stored.checksum == to_be.checksum
    before = to_be.total - to_be.newly_tracked
    return stored.total != before + stored.newly_tracked or not _is_stored(connection, stored)


def _require_still(connection: Connection, yesterday: TrackedDay | None) -> None:
    """Refuse to build on a yesterday that has changed (TOCTOU); lock it until the transaction ends."""
    if yesterday is None:
        return
    row = connection.execute(
        "SELECT checksum FROM state.tracked_days WHERE day = %s FOR SHARE", [yesterday.day]
    ).fetchone()
    if row != (yesterday.checksum,):
        raise StateGap(
            f"another run has changed the tracked episodes of {yesterday.day} meanwhile",
            f"let that run end, then materialise tracked_episodes from {yesterday.day + ONE_DAY} on",
        )


def _replace_episodes(connection: Connection, recorded: TrackedDay, newly_tracked: EpisodeIds) -> None:
    parameters = {"day": recorded.day, "epids": newly_tracked.tolist()}
    if recorded.origin == "beginning":  # before it, nothing is tracked
        connection.execute("DELETE FROM state.tracked_episodes WHERE tracked_on < %s", [recorded.day])
    connection.execute(
        """
        DELETE FROM state.tracked_episodes
        WHERE tracked_on = %(day)s AND NOT EXISTS (
            SELECT FROM unnest(%(epids)s::bigint[]) AS kept (epid) WHERE kept.epid = tracked_episodes.epid
        )
        """,
        parameters,
    )
    _unchain_later_days(connection, recorded, newly_tracked)
    # An episode that a later day had added is new here: it moves to this day.
    connection.execute(
        """
        INSERT INTO state.tracked_episodes (epid, tracked_on)
        SELECT epid, %(day)s FROM unnest(%(epids)s::bigint[]) AS epid
        ON CONFLICT (epid) DO UPDATE SET tracked_on = excluded.tracked_on
            WHERE tracked_episodes.tracked_on > excluded.tracked_on
        """,
        parameters,
    )


def _unchain_later_days(connection: Connection, recorded: TrackedDay, newly_tracked: EpisodeIds) -> None:
    """Have the later days from which a day takes episodes made anew.

    Even if the day becomes again what it was before, when all checksums are again as recorded (ABA problem).
    A repair does not change what a day is, and takes from later ones only what was never theirs.
    """
    stored, latest = read_day(connection, recorded.day), latest_day(connection)
    is_repaired = stored is not None and stored.checksum == recorded.checksum
    if is_repaired or latest is None or latest.day <= recorded.day:
        return
    connection.execute(
        """
        WITH changed AS MATERIALIZED (
            SELECT DISTINCT tracked_on FROM unnest(%(epids)s::bigint[]) AS new (epid)
            CROSS JOIN LATERAL (
                SELECT tracked_on FROM state.tracked_episodes WHERE tracked_episodes.epid = new.epid OFFSET 0
            ) AS moved
            WHERE tracked_on > %(day)s
        )
        UPDATE state.tracked_days SET previous_checksum = %(mark)s FROM changed WHERE day = tracked_on
        """,
        {"day": recorded.day, "epids": newly_tracked.tolist(), "mark": _CHANGED_SINCE},
    )


def upsert_day(connection: Connection, recorded: TrackedDay, code_version: str) -> None:
    """Write the manifest of a day, in place of the one that it had; call it in a transaction.

    Args:
        connection: To `results`, while there is an `only_writer`.
        recorded: The manifest.
        code_version: Of the code that has made it.
    """
    connection.execute(
        """
        INSERT INTO state.tracked_days (day, origin, newly_tracked, total, checksum,
            previous_checksum, snapshot_id, code_version)
        VALUES (%(day)s, %(origin)s, %(newly_tracked)s, %(total)s, %(checksum)s,
            %(previous_checksum)s, %(snapshot_id)s, %(code_version)s)
        ON CONFLICT (day) DO UPDATE SET origin = excluded.origin,
            newly_tracked = excluded.newly_tracked, total = excluded.total,
            checksum = excluded.checksum, previous_checksum = excluded.previous_checksum,
            snapshot_id = excluded.snapshot_id, code_version = excluded.code_version,
            recorded_at = now()
        """,
        {**vars(recorded), "code_version": code_version},
    )
