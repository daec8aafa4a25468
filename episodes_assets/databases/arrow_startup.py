"""Settings that act while ADBC connects, before ours are pinned.

The driver reads the names of all types then: where `quote_all_identifiers` is on, it knows none of them,
and all columns are bytes to it. And what a server says at debug levels is written on stderr by libpq, past
all that protects a terminal. So both are looked at by another driver first, and are set by `options=` where
they are not as they should be. Not otherwise: poolers refuse `options=`.
"""

import os

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.databases.connections import connect

# What each has to be, and which values do as well.
_WANTED = {
    "quote_all_identifiers": ("off", {"off"}),
    "client_min_messages": ("error", {"info", "notice", "warning", "error"}),
}


def with_startup_options(dsn: str) -> str:
    """The DSN to hand to ADBC: the same one, or one with `options` for what is set otherwise from outside.

    Raises:
        BadSetting: If the DSN cannot be read.
        DatabaseUnreachable: If the server does not answer or refuses.
    """
    with connect(dsn, read_only=True, is_ours=False) as connection:
        # What a session began with, whatever it has set since.
        found: dict[str, str] = dict(
            connection.execute(
                "SELECT name, reset_val FROM pg_catalog.pg_settings WHERE name = ANY (%s)", [list(_WANTED)]
            ).fetchall()
        )
    changes = [f"-c {name}={wanted}" for name, (wanted, do) in _WANTED.items() if found.get(name) not in do]
    if not changes:
        return dsn
    given = str(conninfo_to_dict(dsn).get("options") or os.environ.get("PGOPTIONS", ""))
    return make_conninfo(dsn, options=" ".join([given, *changes]).strip())
