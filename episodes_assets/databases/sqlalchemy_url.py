"""A DSN as SQLAlchemy reads it: always a URL, which names the driver as well."""

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL


def to_sqlalchemy_url(dsn: str) -> str:
    """The same database for SQLAlchemy with psycopg2, which Dagster's storage works with.

    The driver is named because SQLAlchemy 2.1 changed the one behind plain postgresql://.

    Args:
        dsn: A libpq URL or connection string.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    hosts = parts.get("host", "").count(",") + 1
    if "port" in parts and "," not in parts["port"]:
        # libpq takes one port for each host; SQLAlchemy wants as many as there are hosts.
        parts["port"] = ",".join([parts["port"]] * hosts)
    url = URL.create(
        "postgresql+psycopg2",
        username=parts.pop("user", None),
        password=parts.pop("password", None),
        database=parts.pop("dbname", None),
        query=parts,
    )
    return url.render_as_string(hide_password=False)
