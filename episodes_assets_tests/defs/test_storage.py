"""Dagster's storage by any DSN that libpq reads."""

import dagster as dg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import create_engine, make_url

from episodes_assets.defs.storage import to_sqlalchemy_url
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db.example port=5433 user=me password='p@ :/%' dbname=d sslmode=require",
        "postgresql://me:p%40ss@db.example/d?application_name=mine",
        "postgresql://me@[2001:db8::1]:5432/d",
        "host=a,b port=1,2 dbname=d target_session_attrs=read-write",
        "host=/run/postgresql dbname=d",
        "",
    ],
)
def test_the_driver_is_told_what_the_dsn_says(dsn: str) -> None:
    engine = create_engine(make_url(to_sqlalchemy_url(dsn)))
    told = engine.dialect.create_connect_args(engine.url)[1]
    assert {name: str(value) for name, value in told.items()} == conninfo_to_dict(dsn)
    assert "p@" not in repr(engine.url)


def test_one_port_is_that_of_each_host() -> None:
    engine = create_engine(make_url(to_sqlalchemy_url("host=a,b port=5433")))
    told = engine.dialect.create_connect_args(engine.url)[1]
    assert told == {"host": "a,b", "port": "5433,5433"}


def test_dagster_works_by_keys_and_values(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = make_conninfo(system.dsn(Purpose.DAGSTER), application_name="mine")
    assert "://" not in dsn
    monkeypatch.setenv(Purpose.DAGSTER.setting, dsn)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []
