"""The stamp on each database: the environment it belongs to.

A copy of a database carries its stamp along, so a development process that is pointed at production
by mistake, or at a restored copy of it, refuses to write.
"""

from typing import Any

import psycopg

from episodes_assets.errors import NotProvisioned, WrongEnvironment


def read(connection: psycopg.Connection[Any]) -> str | None:
    """The environment a database belongs to; None when it was never stamped."""
    found = connection.execute("SELECT to_regclass('public.environment_stamp')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT environment FROM public.environment_stamp").fetchone()
    return None if row is None else str(row[0])


def judge(stamp: str | None, environment: str, described: str) -> None:
    """Refuse a database of another environment.

    Args:
        stamp: What the database is stamped with; None when it is not.
        environment: The process's own.
        described: How to name the database in the message.

    Raises:
        NotProvisioned: If it has no stamp.
        WrongEnvironment: If its stamp differs.
    """
    if stamp is None:
        raise NotProvisioned(f"{described} has no environment stamp", "run `episodes db init`")
    if stamp != environment:
        raise WrongEnvironment(
            f"{described} belongs to {stamp!r}, this process to {environment!r}",
            "use that environment's own DSNs, or set EPISODES_ENVIRONMENT if you mean this one",
        )


def write_first(connection: psycopg.Connection[Any], environment: str) -> None:
    """Stamp a database that has no stamp; one that has keeps it."""
    connection.execute(
        "INSERT INTO public.environment_stamp (environment) VALUES (%s) ON CONFLICT DO NOTHING", [environment]
    )


def replace(connection: psycopg.Connection[Any], old: str, new: str) -> bool:
    """Put another stamp in place of `old`.

    Returns:
        Whether `old` was what it was stamped with; if not, nothing is changed.
    """
    changed = connection.execute(
        "UPDATE public.environment_stamp SET environment = %s, stamped_at = now() WHERE environment = %s",
        [new, old],
    )
    return changed.rowcount == 1
