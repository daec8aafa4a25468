"""Connections: what holds nothing up, and what is said of those that cannot be made."""

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.postgres.connect import connect, connect_to_read, unreachable
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets_tests.support.own_server import OwnServer
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process


def test_who_reads_leaves_no_transaction_open_and_cannot_write(system: System) -> None:
    """An old snapshot keeps the server from cleaning up, and some steps read for hours."""
    with connect_to_read(system.dsn(Purpose.RESULTS), Database.RESULTS) as connection:
        connection.execute("SELECT * FROM state.tracked_days")
        assert connection.info.transaction_status is TransactionStatus.IDLE
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM published.days")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
            connection.execute("DELETE FROM published.days")


@pytest.mark.parametrize("text", ["", "\n", ". SQLSTATE: 57P01"])
def test_a_driver_that_says_nothing(text: str) -> None:
    error = unreachable("postgresql://me:secret@db.example/queue", ValueError(text))
    assert str(error).startswith("cannot reach me@db.example/queue (ValueError): ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGTZ", "Nowhere/Else"),
        ("PGCLIENTENCODING", "KLINGON"),
        ("PGCLIENTENCODING", "MULE_INTERNAL"),
        ("PGDATESTYLE", "nonsense"),
        ("PGSSLMODE", "bogus"),
        ("PGSSLMODE", "require"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREAUTH", "none"),
        ("PGGSSENCMODE", "require"),
        ("PGGEQO", "perhaps"),
        ("PGOPTIONS", "-c nonsense=1"),
        ("PGOPTIONS", "-c port=1"),
    ],
)
def test_a_variable_that_ends_the_session_is_named(
    tcp_server: OwnServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PGAPPNAME", "mine")
    named = ", ".join(sorted([variable, "PGAPPNAME"]))
    with (
        pytest.raises(
            DatabaseUnreachable, match=rf"orrect or unset what the environment sets \({named}\)"
        ) as no,
        connect(tcp_server.admin_dsn),
    ):
        pass
    said = str(no.value)
    assert tcp_server.password not in said
    assert "see that the server is up" not in said or "; else see that" in said
