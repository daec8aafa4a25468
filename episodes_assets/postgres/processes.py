"""Dagster's processes as Dagster's database knows them: which live, and of which release.

Each process that opens Dagster's storage has a row in `public.processes`: the daemon, the web server, the
code location, each run, each command. The row names the process's sessions, which stay open while it
works; so `pg_stat_activity` says whether it lives, whatever ended it, and no thread has to send
heartbeats. The code location opens the storage anew for each tick, and then its row says when. Workers
are not among them, as they do not reach this database: theirs is `ledger/workers.py`. Which schemas an
older process keeps from being finished is asked by `episodes db finish`.
"""

import datetime as dt
import importlib.metadata
import json
import os
import re
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
_LONGEST_NAME = 63  # of a session
_WORDS = 3
_ODD = re.compile(r"[^\w.-]", re.ASCII)

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
    """What this process calls its sessions with Dagster's database."""
    return f"episodes {os.getpid()}@{_ODD.sub('-', socket.gethostname())}"[:_LONGEST_NAME]


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
        """
        WITH forgotten AS (
            DELETE FROM public.processes
            WHERE seen_at < now() - interval '30 days' AND session <> %(session)s
                AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = session)
        )
        INSERT INTO public.processes (session, host, pid, program, release, knows)
        VALUES (%(session)s, %(host)s, %(pid)s, %(program)s, %(release)s, %(knows)s)
        ON CONFLICT (session) DO UPDATE SET host = excluded.host, pid = excluded.pid,
            program = excluded.program, release = excluded.release, knows = excluded.knows, seen_at = now()
        """,
        {
            "session": session_name(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "program": program(sys.argv),
            "release": importlib.metadata.version("episodes-assets"),
            "knows": json.dumps({each: admission.needed_version(each) for each in Database}),
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
            """
            SELECT host, pid, program, release, is_connected, silent_for
            FROM public.processes CROSS JOIN LATERAL (
                SELECT now() - seen_at AS silent_for, EXISTS (
                    SELECT FROM pg_stat_activity WHERE application_name = session
                ) AS is_connected
            ) AS life
            WHERE (is_connected OR silent_for < %(alive_for)s) AND EXISTS (
                SELECT FROM jsonb_each_text(%(versions)s) AS needed
                WHERE coalesce(knows ->> needed.key, '') COLLATE "C" < needed.value
            )
            ORDER BY program, host, pid
            """,
            {"alive_for": ALIVE_FOR, "versions": json.dumps(dict(versions))},
        )
        return cursor.fetchall()
