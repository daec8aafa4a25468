"""The stamp on each database: the environment it belongs to.

A copy of a database carries its stamp along, so a development process that is pointed at production
by mistake, or at a restored copy of it, refuses to write.
"""

from typing import Any

import psycopg

from episodes_assets.errors import NotProvisioned, WrongEnvironment


def read(connection: psycopg.Connection[Any]) -> str | None:
    """The environment a database belongs to; None when it was never stamped."""
    found = connection.execute("SELECT to_regclass('environment_stamp')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT environment FROM environment_stamp").fetchone()
    return None if row is None else str(row[0])


def verify(connection: psycopg.Connection[Any], environment: str, described: str) -> None:
    """Refuse a database of another environment.

    Raises:
        NotProvisioned: If it has no stamp.
        WrongEnvironment: If its stamp differs.
    """
    stamp = read(connection)
    if stamp is None:
        raise NotProvisioned(f"{described} has no environment stamp", "run `episodes db init`")
    if stamp != environment:
        raise WrongEnvironment(
            f"{described} belongs to {stamp!r}, this process to {environment!r}",
            "use that environment's own DSNs, or set EPISODES_ENVIRONMENT if you mean this one",
        )
