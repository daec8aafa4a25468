"""The key that signs what a browser keeps while a login is under way."""

from episodes_assets.accounts.random_tokens import new_token
from episodes_assets.postgres.connect import Connection


def signing_key(connection: Connection) -> str:
    """The key: random, made once, the same for every process."""
    connection.execute(
        "INSERT INTO dashboard.signing_key (key) SELECT %s"
        " WHERE NOT EXISTS (SELECT FROM dashboard.signing_key) ON CONFLICT DO NOTHING",
        [new_token()],
    )
    row = connection.execute("SELECT key FROM dashboard.signing_key").fetchone()
    assert row is not None  # noqa: S101  nobody may delete it
    return str(row[0])
