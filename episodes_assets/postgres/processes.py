"""Dagster's processes as Dagster's database knows them: which live, and of which release.

Each process that opens Dagster's storage has a row in `public.processes`: the daemon, the web server, the
code location, each run, each command. The row names the process's sessions, which stay open while it
works; so `pg_stat_activity` says whether it lives, whatever ended it, and no thread has to send
heartbeats. The code location opens the storage anew for each tick, and then its row says when. Workers
are not among them, as they do not reach this database: theirs is `ledger/workers.py`. Which schemas an
older process keeps from being finished is asked by `episodes db finish`.
"""

import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from psycopg.rows import class_row

from episodes_assets.postgres import admission
from episodes_assets.postgres.connect import Connection, describe
from episodes_assets.postgres.databases import Database

# Sensors tick every few seconds.
ALIVE_FOR = dt.timedelta(seconds=30)
_REGISTERED_FOR_SECONDS = 10.0
# A clock that was put back leaves rows from the future; a longer lead is no sign of life.
_AHEAD = dt.timedelta(minutes=1)
_WORDS = 3
# A container's process has the number that one before it had, and perhaps its host's name.
_STARTED = secrets.token_hex(4)
# Where the drained code locations are, in Dagster's key-value storage (`defs/draining.py`).
DRAINS_KEY = "episodes/drained_code_locations"
# Only sessions of Dagster's role here: those of other roles and databases may have any name. To be put after
# a row's `session`.
_HAS_A_SESSION = """EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name = session AND datname = current_database() AND usename = session_user
)"""

_registered: dict[tuple[int, str], float] = {}


@dataclass(frozen=True)
class Process:
    """A process of Dagster's.

    Attributes:
        host: Its machine.
        pid: Its process there.
        program: What it runs, as `dagster-daemon run`.
        release: The release it runs.
        is_connected: Whether it has a session with the database.
        silent_for: Since it last opened Dagster's storage.
    """

    host: str
    pid: int
    program: str
    release: str
    is_connected: bool
    silent_for: dt.timedelta

    def __str__(self) -> str:
        seen = "" if self.is_connected else f", seen {self.silent_for.total_seconds():.0f} s ago"
        return f"`{self.program}` of release {self.release} on {self.host} (pid {self.pid}{seen})"


def session_name() -> str:
    """What this process calls its sessions with Dagster's database.

    PostgreSQL cuts names off at 63 bytes, and names of hosts are as long; so theirs is a hash here.
    """
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]
    return f"episodes {os.getpid()}@{host}-{_STARTED}"


def program(arguments: Sequence[str]) -> str:
    """What a process runs, without options and paths.

    Args:
        arguments: As `sys.argv` has them.
    """
    name, *words = arguments or [""]
    path = Path(name)
    name = (
        path.parent.name.replace("episodes_assets", "episodes") if path.name == "__main__.py" else path.name
    )
    return " ".join([name, *takewhile(lambda word: word.replace("_", "").isalpha(), words)][:_WORDS])


def register(connection: Connection, environment: str) -> None:
    """Record that this process lives and what its release knows; again only after some seconds.

    Args:
        connection: To `dagster` in autocommit mode, as Dagster, admitted.
        environment: This process's own.

    Raises:
        SchemaTooNew: If meanwhile nothing of this release may go on any more.
    """
    described = describe(connection.info.dsn)
    key = (os.getpid(), f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}")
    if time.monotonic() - _registered.get(key, -_REGISTERED_FOR_SECONDS) < _REGISTERED_FOR_SECONDS:
        return
    connection.execute(
        f"""
        WITH forgotten AS (
            DELETE FROM public.processes
            WHERE (seen_at < now() - interval '30 days' OR seen_at > now() + %(ahead)s)
                AND session <> %(session)s AND NOT {_HAS_A_SESSION}
        )
        INSERT INTO public.processes (session, host, pid, program, release, knows)
        VALUES (%(session)s, %(host)s, %(pid)s, %(program)s, %(release)s, %(knows)s)
        ON CONFLICT (session) DO UPDATE SET host = excluded.host, pid = excluded.pid,
            program = excluded.program, release = excluded.release, knows = excluded.knows, seen_at = now()
        """,  # noqa: S608  literals alone
        {
            "session": session_name(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "program": program(sys.argv),
            "release": importlib.metadata.version("episodes-assets"),
            "knows": json.dumps({each: admission.needed_version(each) for each in Database}),
            "ahead": _AHEAD,
        },
    )
    # Whoever closes the window looks at the rows afterwards: either this is refused, or it is seen.
    admission.verify_admission(connection, Database.DAGSTER, environment, described)
    _registered[key] = time.monotonic()


def read_older(connection: Connection, versions: Mapping[Database, str]) -> list[Process]:
    """The living processes whose release does not know some versions.

    Args:
        connection: To `dagster`.
        versions: By database.
    """
    with connection.cursor(row_factory=class_row(Process)) as cursor:
        cursor.execute(
            f"""
            SELECT host, pid, program, release, is_connected, silent_for
            FROM public.processes CROSS JOIN LATERAL (
                SELECT now() - seen_at AS silent_for, {_HAS_A_SESSION} AS is_connected
            ) AS life
            WHERE (is_connected OR silent_for > -%(ahead)s AND silent_for < %(alive_for)s) AND EXISTS (
                SELECT FROM jsonb_each_text(%(versions)s) AS needed
                WHERE coalesce(knows ->> needed.key, '') COLLATE "C" < needed.value
            )
            ORDER BY program, host, pid
            """,  # noqa: S608  literals alone
            {"alive_for": ALIVE_FOR, "ahead": _AHEAD, "versions": json.dumps(dict(versions))},
        )
        return cursor.fetchall()


def read_drained(connection: Connection) -> list[str]:
    """The code locations that are drained, each as a message names it.

    They do not open Dagster's storage meanwhile, so they are not among the living processes.

    Args:
        connection: To `dagster`.
    """
    found = connection.execute(
        """
        SELECT location, drain ->> 'since', drain ->> 'by'
        FROM dagster.kvs CROSS JOIN LATERAL jsonb_each(kvs.value::jsonb) AS drains (location, drain)
        WHERE kvs.key = %s ORDER BY location
        """,
        [DRAINS_KEY],
    ).fetchall()
    return [
        f"code location {location}, drained since {since} by {by}, whose release is seen after"
        " `episodes drain --resume`"
        for location, since, by in found
    ]
