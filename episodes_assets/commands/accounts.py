"""Getting at the dashboard's accounts from a command; each change goes on record."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from episodes_assets.accounts import audit
from episodes_assets.accounts.identity import system_user_name
from episodes_assets.commands.databases import ready_databases
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.settings import load_settings


@contextmanager
def accounts() -> Iterator[Connection]:
    """A connection to the accounts.

    Raises:
        BadSetting: If DSNs are configured, but not the dashboard's.
        WrongEnvironment: If they belong to another environment.
        DatabaseUnreachable: If there is no connection to be had.
    """
    settings = load_settings()
    dsn = ready_databases(settings).require(Purpose.DASHBOARD)
    with connect_to_write(dsn, Database.DAGSTER, settings.environment, autocommit=True) as connection:
        yield connection


@contextmanager
def recorded(what: str, **detail: object) -> Iterator[Connection]:
    """A connection to change the accounts with; the change and its record in the audit log are one.

    Args:
        what: What is done.
        detail: To whom, and how.
    """
    with accounts() as connection, connection.transaction():
        yield connection
        audit.record(
            connection,
            who=f"cli:{system_user_name()}",
            way=None,
            what=what,
            detail=detail,
            address=socket.gethostname(),
            outcome="done",
        )
