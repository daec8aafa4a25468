"""A DSN as SQLAlchemy reads it: always a URL, which names the driver as well."""

from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, CreateEnginePlugin, Engine

from episodes_assets.postgres import session
from episodes_assets.postgres.session import SessionKind

_PLUGIN = "episodes_session_settings"


class SessionSettingsPlugin(CreateEnginePlugin):
    """Pins the settings of each session of an engine whose URL names it.

    Dagster makes engines from its storage's URL in several places, and makes some of them anew later.
    """

    def update_url(self, url: URL) -> URL:
        """Called by SQLAlchemy, which has taken the plugin's name off."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Called by SQLAlchemy."""
        event.listen(engine, "connect", _pin)


def _pin(connection: Any, _record: object) -> None:  # noqa: ANN401  psycopg2 ships no types
    connection.set_client_encoding("UTF8")  # it keeps by itself how text is decoded
    with connection.cursor() as cursor:
        cursor.execute(session.statement(SessionKind.DAGSTER))
    if not connection.autocommit:
        connection.commit()


plugins.register(_PLUGIN, __name__, SessionSettingsPlugin.__name__)


def to_sqlalchemy_url(dsn: str) -> str:
    """The same database for SQLAlchemy with psycopg2, which Dagster's storage works with.

    Sessions of an engine that is made from it have their settings pinned.

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
        query={**parts, "plugin": _PLUGIN},
    )
    return url.render_as_string(hide_password=False)
