"""A DSN as asyncpg reads it: always a URL, and without what only libpq knows."""

from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

_KNOWN = (
    "host", "port", "user", "password", "dbname", "passfile", "options", "application_name",
    "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname",
    "gsslib",
)  # fmt: skip


def to_asyncpg_url(dsn: str) -> str:
    """The same database for asyncpg.

    It takes any other string than a URL for the name of a database, and what it does not know for a setting
    of the server, which then refuses the connection.

    Args:
        dsn: A libpq URL or connection string.
    """
    parts = conninfo_to_dict(dsn)
    return "postgresql://?" + urlencode({name: str(parts[name]) for name in _KNOWN if name in parts})
