"""Locks by name, as rows of a table that only those who need them may change.

They are not advisory locks: whoever may connect can take one of those, and `pg_locks` shows everybody which
are used. To lock a row takes the right to change it. The connection's `lock_timeout` bounds waits
(`lock_waits.py`).
"""

from typing import Any

import psycopg
from psycopg import sql

LEDGER = sql.Identifier("ledger", "locks")
RESULTS = sql.Identifier("state", "locks")
ACCOUNTS = sql.Identifier("dashboard", "locks")


def lock(connection: psycopg.Connection[Any], table: sql.Identifier, *names: str) -> None:
    """Hold locks until the transaction ends; who wants one of them waits.

    Args:
        connection: In a transaction.
        table: One of those above.
        names: Of the locks. They are taken in one order, so that there is no deadlock.

    Raises:
        psycopg.errors.LockNotAvailable: If one was not to be had in time.
    """
    ordered = sorted(set(names))
    insert = "INSERT INTO {} (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
    connection.execute(sql.SQL(insert).format(table), [ordered])
    hold = "SELECT FROM {} WHERE name = ANY (%s) ORDER BY name FOR UPDATE"
    connection.execute(sql.SQL(hold).format(table), [ordered])
