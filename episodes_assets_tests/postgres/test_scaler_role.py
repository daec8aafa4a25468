"""The role that an autoscaler gets: it sees how many jobs are left, and nothing else of the queue.

That it comes into no other database is tested with the other roles, in `test_role_limits.py`.
"""

import psycopg
import pytest
from psycopg import sql

from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

EVERY_RELATION = """
    SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
        AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
DENIED = psycopg.errors.InsufficientPrivilege


def test_it_sees_one_number(system: System) -> None:
    with psycopg.connect(system.dsns.require(Purpose.SCALER), autocommit=True) as scaler:
        assert scaler.execute("SELECT jobs FROM ledger.backlog").fetchone() == (0,)
        relations = scaler.execute(EVERY_RELATION).fetchall()
        assert ("ledger", "jobs") in relations
        readable = []
        for schema, name in relations:
            try:
                scaler.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(schema, name)))
            except DENIED:
                continue
            readable.append((schema, name))
        assert readable == [("ledger", "backlog")]


def test_it_writes_nothing(system: System) -> None:
    with psycopg.connect(system.dsns.require(Purpose.SCALER), autocommit=True) as scaler:
        scaler.execute("SET default_transaction_read_only = off")
        for statement in (
            "CREATE TABLE ledger.mine ()",
            "CREATE TABLE public.mine ()",
            "DELETE FROM ledger.backlog",
        ):
            with pytest.raises(psycopg.Error):
                scaler.execute(statement)
