"""Profiles in the queue database: asking for them, claiming and storing them, reading and pruning them.

They travel through this database because workers can write nowhere else. A row is asked for by an operator or
by a step, is claimed for a bounded time by whoever takes the profile, and expires when nobody does. Every
statement is one transaction or makes its own; a claim names its token (a fencing token), so that what comes
late changes nothing. Workers may claim and store, and never ask. How a profile is taken is `profiling/`.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from psycopg import sql
from psycopg.rows import class_row

from episodes_assets.errors import ProfileMissing, ProfilerUnavailable
from episodes_assets.failures import storable
from episodes_assets.ledger.workers import Worker, read_workers
from episodes_assets.postgres.connect import AsyncConnection, Connection
from episodes_assets.postgres.locks import lock_row
from episodes_assets.profiling.engines import Sampling
from episodes_assets.profiling.stacks import Profile, unpack

MOST_BATCHES = 20
# So many profiles, of all kinds, wait or are being taken at once.
MOST_OPEN = 40
# A request that nobody has begun with for so long is over.
EXPIRES_AFTER = dt.timedelta(minutes=10)
# Beyond its seconds, for attaching and storing; after that another may claim it.
_GRACE = dt.timedelta(minutes=1)
_LOCKS = sql.Identifier("ledger", "locks")
_LOCK = "profiles"


class Kind(StrEnum):
    """What is profiled."""

    STEP = "step"
    BATCH = "batch"
    WORKER = "worker"


class State(StrEnum):
    """What has become of a profile."""

    WAITING = "waits"
    RUNNING = "is being taken"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "never taken"


@dataclass(frozen=True)
class ProfileRow:
    """A profile without its stacks.

    Attributes:
        profile_id: Its number.
        kind: What is profiled.
        subject: The asset of a step, or the worker; None of a batch that nobody has begun.
        day: Of a batch, the day it has to be of, if that was said.
        run_id: Of the run that asked for it, if one did.
        reason: Why, if a step asks for it by itself.
        requested_by: By whom.
        requested_at: When.
        rate: Samples a second.
        claimed_by: Who takes it; None as long as nobody does.
        finished_at: When it was finished.
        engine: What took it.
        samples: How many samples it has; None if it has none.
        problem: Why it has none.
        state: What has become of it.
    """

    profile_id: int
    kind: str
    subject: str | None
    day: dt.date | None
    run_id: str | None
    reason: str
    requested_by: str
    requested_at: dt.datetime
    rate: int
    claimed_by: str | None
    finished_at: dt.datetime | None
    engine: str | None
    samples: int | None
    problem: str | None
    state: str

    @property
    def seconds(self) -> float:
        """The time that its samples stand for."""
        return (self.samples or 0) / self.rate

    @property
    def title(self) -> str:
        """What was profiled, in words."""
        of = f" of {self.day}" if self.day else ""
        if self.kind == Kind.BATCH:
            return f"micro-batch{of}{f' by {self.claimed_by}' if self.claimed_by else ''}"
        return f"{self.kind} {self.subject}{of}"


@dataclass(frozen=True)
class Claim:
    """A profile that is to be taken.

    Attributes:
        profile_id: Its number.
        token: Of the claim, a fencing token.
        sampling: How.
    """

    profile_id: int
    token: uuid.UUID
    sampling: Sampling


@dataclass(frozen=True)
class Seen:
    """What came of taking a profile.

    Attributes:
        engine: What took it; empty if nothing did.
        packed: The profile, packed; None if there is none.
        samples: How many samples it has.
        problem: Why there is none; empty if there is one.
    """

    engine: str = ""
    packed: bytes | None = None
    samples: int = 0
    problem: str = ""


def request_batches(
    connection: Connection,
    batches: int,
    sampling: Sampling,
    *,
    requested_by: str,
    reason: str = "",
    day: dt.date | None = None,
    run_id: str | None = None,
    not_within: dt.timedelta | None = None,
) -> list[int]:
    """Ask the fleet for profiles of its next micro-batches, wherever they run.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        batches: How many.
        sampling: How.
        requested_by: By whom.
        reason: Why, if a step asks for them by itself.
        day: Only of this day.
        run_id: Of the run that asks.
        not_within: Whether nothing is asked for if the same one has asked within this time.

    Returns:
        Their numbers; none if that one had asked.

    Raises:
        ProfilerUnavailable: If that is too many at once.
    """
    if not 1 <= batches <= MOST_BATCHES:
        raise ProfilerUnavailable(
            f"{batches} micro-batches cannot be profiled at once", f"ask for 1 to {MOST_BATCHES}"
        )
    with connection.transaction():
        _require_room(connection, batches)
        rows = connection.execute(
            """
            INSERT INTO ledger.profiles (kind, day, run_id, reason, requested_by, expires_at, rate,
                most_seconds)
            SELECT 'batch', %(day)s, %(run_id)s, %(reason)s, %(requested_by)s, now() + %(expires_after)s,
                %(rate)s, %(seconds)s
            FROM generate_series(1, %(batches)s)
            WHERE NOT EXISTS (
                SELECT FROM ledger.profiles
                WHERE requested_at > now() - %(not_within)s::interval AND kind = 'batch'
                    AND requested_by = %(requested_by)s
            )
            RETURNING profile_id
            """,
            {
                "day": day,
                "run_id": run_id,
                "reason": reason,
                "requested_by": requested_by,
                "expires_after": EXPIRES_AFTER,
                "rate": sampling.rate,
                "seconds": sampling.seconds,
                "batches": batches,
                "not_within": not_within,
            },
        ).fetchall()
    return [number for (number,) in rows]


def request_worker(connection: Connection, name: str, sampling: Sampling, *, requested_by: str) -> int:
    """Ask a worker that lives for a profile of what it computes, now.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        name: The worker, as `find_worker` takes it.
        sampling: How.
        requested_by: By whom.

    Returns:
        Its number.

    Raises:
        ProfilerUnavailable: If no such worker lives, or too much is profiled already.
    """
    worker = find_worker(read_workers(connection), name)
    with connection.transaction():
        _require_room(connection, 1)
        row = connection.execute(
            """
            INSERT INTO ledger.profiles (kind, subject, reason, requested_by, expires_at, rate, most_seconds)
            VALUES ('worker', %s, '', %s, now() + %s, %s, %s)
            RETURNING profile_id
            """,
            [worker.name, requested_by, EXPIRES_AFTER, sampling.rate, sampling.seconds],
        ).fetchone()
    return int(row[0]) if row else 0


def find_worker(living: Sequence[Worker], name: str) -> Worker:
    """A worker by its name, by its process id, or as `worker-N`: the N-th that was started of the living.

    Raises:
        ProfilerUnavailable: If there is no such worker, or there are several.
    """
    by_age = sorted(living, key=lambda worker: (worker.started_at, worker.name))
    found = [each for each in by_age if name in (each.name, str(each.pid))]
    if not found and name.startswith("worker-") and name[7:].isdecimal() and len(name) < 12:
        found = by_age[int(name[7:]) - 1 : int(name[7:])] if int(name[7:]) else []
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.name for each in by_age[:10])
    raise ProfilerUnavailable(
        f"{'several workers are' if found else 'no worker that lives is'} called {name!r}",
        f"name one of: {known}" if known else "start one with `episodes worker`",
    )


def _require_room(connection: Connection, more: int) -> None:
    """Refuse a request beyond `MOST_OPEN`; call it in the transaction that makes it."""
    lock_row(connection, _LOCKS, _LOCK)
    row = connection.execute(
        "SELECT count(*) FROM ledger.profiles WHERE finished_at IS NULL AND expires_at > now()"
    ).fetchone()
    if row and row[0] + more > MOST_OPEN:
        raise ProfilerUnavailable(
            f"{row[0]} profiles are waited for already", "wait until they are there, or have expired"
        )


def begin_step(
    connection: Connection,
    step: str,
    sampling: Sampling,
    *,
    run_id: str,
    requested_by: str,
    reason: str,
    day: dt.date | None,
    claimed_by: str,
    not_within: dt.timedelta | None = None,
) -> Claim | None:
    """Record that a step takes a profile of itself.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        step: Its asset.
        sampling: How.
        run_id: Its run.
        requested_by: Who asked for it.
        reason: Why, if it does so by itself.
        day: Its day, if it has only one.
        claimed_by: Its process.
        not_within: Whether nothing is to be taken if the same one has asked for the step within this time.

    Returns:
        The claim; None if it had one.
    """
    token = uuid.uuid4()
    with connection.transaction():
        lock_row(connection, _LOCKS, _LOCK)
        row = connection.execute(
            """
            INSERT INTO ledger.profiles (kind, subject, day, run_id, reason, requested_by, expires_at, rate,
                most_seconds, claim, claimed_by, claimed_at)
            SELECT 'step', %(step)s, %(day)s, %(run_id)s, %(reason)s, %(requested_by)s,
                now() + make_interval(secs => %(seconds)s) + %(grace)s, %(rate)s, %(seconds)s, %(token)s,
                %(claimed_by)s, now()
            WHERE NOT EXISTS (
                SELECT FROM ledger.profiles
                WHERE requested_at > now() - %(not_within)s::interval AND kind = 'step'
                    AND subject = %(step)s AND requested_by = %(requested_by)s
            )
            RETURNING profile_id
            """,
            {
                "step": step,
                "day": day,
                "run_id": run_id,
                "reason": reason,
                "requested_by": requested_by,
                "rate": sampling.rate,
                "seconds": sampling.seconds,
                "grace": _GRACE,
                "token": token,
                "claimed_by": claimed_by,
                "not_within": not_within,
            },
        ).fetchone()
    return None if row is None else Claim(int(row[0]), token, sampling)


_STORE = """
    UPDATE ledger.profiles SET finished_at = now(), engine = nullif(%(engine)s, ''),
        samples = CASE WHEN %(packed)s::bytea IS NOT NULL THEN %(samples)s::bigint END,
        problem = nullif(%(problem)s, ''), stacks = %(packed)s
    WHERE profile_id = %(profile_id)s AND claim = %(token)s AND finished_at IS NULL
"""


def store(connection: Connection, claim: Claim, seen: Seen) -> bool:
    """Store what came of a profile; returns whether the claim still held."""
    return connection.execute(_STORE, _stored(claim, seen)).rowcount == 1


async def store_as_worker(connection: AsyncConnection, claim: Claim, seen: Seen) -> bool:
    """Store what came of a profile; returns whether the claim still held."""
    return (await connection.execute(_STORE, _stored(claim, seen))).rowcount == 1


def _stored(claim: Claim, seen: Seen) -> dict[str, object]:
    return {
        "profile_id": claim.profile_id,
        "token": claim.token,
        "engine": seen.engine,
        "packed": seen.packed,
        "samples": seen.samples,
        "problem": storable(seen.problem),
    }


async def claim_profile(
    connection: AsyncConnection, kind: Kind, worker: str, day: dt.date | None = None
) -> Claim | None:
    """Claim the oldest profile that is wanted of a worker; None if none is.

    Args:
        connection: To `queue`, as a worker.
        kind: Of its next micro-batch, or of the worker by name.
        worker: The worker's name.
        day: Of the micro-batch.
    """
    token = uuid.uuid4()
    cursor = await connection.execute(
        """
        UPDATE ledger.profiles SET claim = %(token)s, claimed_by = %(worker)s, claimed_at = now()
        WHERE profile_id = (
            SELECT profile_id FROM ledger.profiles
            WHERE finished_at IS NULL AND kind = %(kind)s AND expires_at > now()
                AND (claim IS NULL OR claimed_at < now() - make_interval(secs => most_seconds) - %(grace)s)
                AND (subject IS NULL OR subject = %(worker)s)
                AND (day IS NULL OR day = %(day)s)
            ORDER BY profile_id LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        RETURNING profile_id, rate, most_seconds
        """,
        {"token": token, "worker": worker, "kind": kind, "day": day, "grace": _GRACE},
    )
    row = await cursor.fetchone()
    return None if row is None else Claim(row[0], token, Sampling(row[1], row[2]))


def withdraw(connection: Connection, run_id: str) -> int:
    """Take back what a run has asked for and nobody has begun; returns how many."""
    return connection.execute(
        "DELETE FROM ledger.profiles WHERE run_id = %s AND finished_at IS NULL AND claim IS NULL", [run_id]
    ).rowcount


_READ = f"""
    SELECT profile_id, kind, subject, day, run_id, reason, requested_by, requested_at, rate,
        claimed_by, finished_at, engine, samples, problem,
        CASE
            WHEN finished_at IS NOT NULL THEN
                CASE WHEN problem IS NULL THEN '{State.DONE}' ELSE '{State.FAILED}' END
            WHEN claimed_at > now() - make_interval(secs => most_seconds) - %(grace)s THEN '{State.RUNNING}'
            WHEN expires_at < now() THEN '{State.EXPIRED}'
            ELSE '{State.WAITING}'
        END AS state
    FROM ledger.profiles
"""  # noqa: S608  of our own words


def read_profiles(connection: Connection, most: int) -> list[ProfileRow]:
    """The profiles that were asked for last, the newest first."""
    return _read(connection, "ORDER BY requested_at DESC, profile_id DESC LIMIT %(most)s", most=most)


def read_profiles_of_run(connection: Connection, run_id: str) -> list[ProfileRow]:
    """The profiles that a run has taken or asked for, in order."""
    return _read(connection, "WHERE run_id = %(run_id)s ORDER BY profile_id", run_id=run_id)


def read_profiles_by_id(connection: Connection, numbers: Sequence[int]) -> list[ProfileRow]:
    """Profiles by their numbers, in order; those that are not there are left out."""
    return _read(connection, "WHERE profile_id = ANY (%(ids)s::bigint[]) ORDER BY profile_id", ids=[*numbers])


def _read(connection: Connection, which: str, **parameters: object) -> list[ProfileRow]:
    with connection.cursor(row_factory=class_row(ProfileRow)) as cursor:
        cursor.execute(_READ + which, {"grace": _GRACE, **parameters})
        return cursor.fetchall()


def read_profile(connection: Connection, number: int) -> tuple[ProfileRow, Profile | None]:
    """A profile, with what was seen if it is finished.

    Raises:
        ProfileMissing: If there is none of the number.
    """
    rows = read_profiles_by_id(connection, [number])
    packed = connection.execute(
        "SELECT stacks FROM ledger.profiles WHERE profile_id = %s", [number]
    ).fetchone()
    if not rows or packed is None:
        raise ProfileMissing(
            f"there is no profile {number}", "see `episodes profile list`, or the page Profiles"
        )
    return rows[0], None if packed[0] is None else unpack(packed[0], rows[0].rate)


def prune_profiles(connection: Connection, keep_days: int) -> int:
    """Delete profiles that were asked for long ago; returns how many."""
    return connection.execute(
        "DELETE FROM ledger.profiles WHERE requested_at < now() - make_interval(days => %s)", [keep_days]
    ).rowcount
