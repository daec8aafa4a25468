"""Locks by name as rows of a table, bounded waits for any lock, and who holds one that is not acquired.

They are not advisory locks: whoever may connect can take one of those, and `pg_locks` shows everybody which
are used. To lock a row takes the right to change it. Several are taken in one order, so that there is no
deadlock. Every connection of ours has a `lock_timeout`, which bounds all waits. Which locks are taken when
is each caller's to say; locks between processes of one home are `private_files`'.
"""

import datetime as dt
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from episodes_assets.errors import LockHeld
from episodes_assets.postgres.session import SessionKind, pin

log = logging.getLogger(__name__)
# Longer than any transaction of ours that others wait for: publishing a day, writing a plan.
LOCK_SECONDS = 120.0
# All later statements on a table, reads too, queue behind one that waits to change it.
SCHEMA_LOCK_SECONDS = 15.0
# How often holders are looked up while a statement runs. Shorter than a third of the shortest wait.
POLL_SECONDS = 4.0
_CONNECT_SECONDS = 5
_FIND_HOLDERS = """
    SELECT pid, usename::text AS role, application_name AS application, state, xact_start AS since
    FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(%s)) ORDER BY pid
"""


@dataclass(frozen=True)
class Holder:
    """A session that another one waits for.

    Attributes:
        pid: Of its server process.
        role: As whom it is connected.
        application: Its `application_name`.
        state: What it does; None if our role may not see it.
        since: When its transaction began; None if our role may not see it.
    """

    pid: int
    role: str | None
    application: str | None
    state: str | None
    since: dt.datetime | None

    def __str__(self) -> str:
        since = ""
        if self.since is not None:
            since = f", {self.state} since {self.since.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"pid {self.pid} (role {self.role}, application {self.application!r}{since})"


def lock_settings(seconds: float) -> dict[str, str]:
    """The session setting that limits how long a statement waits for a lock."""
    return {"lock_timeout": f"{seconds * 1000:.0f}ms"}


def limit_transaction(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Limit how long each statement of the current transaction waits for a lock."""
    for setting in lock_settings(seconds).items():
        connection.execute("SELECT set_config(%s, %s, true)", setting)


class LockWatch:
    """Looks up which sessions hold the locks for which the statements of a connection wait.

    When `lock_timeout` has ended a wait, the server no longer knows the holder. So a thread looks it up
    meanwhile, over a connection of its own, which it opens only when a statement takes seconds.

    Args:
        dsn: Of the connection.
        connection: To watch.
    """

    def __init__(self, dsn: str, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._dsn = dsn
        self._connection = connection
        self._pid = connection.info.backend_pid
        self._ended = threading.Event()
        self._holders: Sequence[Holder] = ()
        self._polls_without_holder = 0
        self._thread = threading.Thread(target=self._poll, name="lock watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ended.set()

    @property
    def holders(self) -> Sequence[Holder]:
        """The sessions for which the connection waits, or waited a moment ago."""
        return self._holders

    def explain(self, described: str) -> LockHeld | None:
        """The error for a lock that was not acquired; None when it was not this connection that waited.

        Args:
            described: How to name the database.
        """
        if not self.holders:
            return None
        pids = " and ".join(f"pg_terminate_backend({each.pid})" for each in self.holders)
        return LockHeld(
            f"a lock in {described} was not acquired in time: it is held by {name_holders(self.holders)}",
            f"let that end, or end it as an administrator with SELECT {pids}; then run this again",
        )

    def _poll(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            found: Sequence[Holder] = ()
            if self._connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):  # the time limit is reported without a holder then
                    found = self._find_holders()
            self._remember(found)

    def _remember(self, found: Sequence[Holder]) -> None:
        """Keep the last holders for one more poll, as `lock_timeout` may just have ended the wait."""
        self._polls_without_holder = 0 if found else self._polls_without_holder + 1
        if found and found != self._holders:
            log.warning("waiting for a lock that is held by %s", name_holders(found))
        if found or self._polls_without_holder > 1:
            self._holders = found

    def _find_holders(self) -> Sequence[Holder]:
        with (
            psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="episodes lock watch",
            ) as other,
            other.cursor(row_factory=class_row(Holder)) as cursor,
        ):
            pin(other, SessionKind.INPUT)
            return cursor.execute(_FIND_HOLDERS, [self._pid]).fetchall()


def name_holders(holders: Sequence[Holder]) -> str:
    """Some holders in a sentence."""
    return " and ".join(map(str, holders))


LEDGER = sql.Identifier("ledger", "locks")
RESULTS = sql.Identifier("state", "locks")
ACCOUNTS = sql.Identifier("dashboard", "locks")


def lock_row(connection: psycopg.Connection[Any], table: sql.Identifier, *names: str) -> None:
    """Take locks, and hold them until the transaction ends.

    Args:
        connection: In a transaction.
        table: One of those above.
        names: Of the locks. They are taken in one order everywhere, which prevents deadlocks.

    Raises:
        psycopg.errors.LockNotAvailable: If one is not acquired in time.
    """
    ordered = sorted(set(names))
    insert = "INSERT INTO {} (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
    connection.execute(sql.SQL(insert).format(table), [ordered])
    hold = "SELECT FROM {} WHERE name = ANY (%s) ORDER BY name FOR UPDATE"
    connection.execute(sql.SQL(hold).format(table), [ordered])
