"""What the catalog says of tables is what they are: compared with the databases and with a lake."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.defs import tables
from episodes_assets.defs.assets import ASSETS, EXTERNAL
from episodes_assets.defs.metadata import place
from episodes_assets.defs.tables import Table
from episodes_assets_tests.support.system import System, day

IN_POSTGRES = [
    tables.JOBS,
    tables.OUTCOMES,
    tables.TRACKED_EPISODES,
    tables.RESULTS,
    *map(tables.view_of, get_registry().by_id.values()),
]
_COLUMNS = """
    SELECT column_name::text, data_type::text, is_nullable = 'YES' FROM information_schema.columns
    WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""
_CONSTRAINTS = """
    SELECT pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = %s::regclass AND contype IN ('p', 'u') ORDER BY contype
"""


def said(table: Table) -> list[tuple[str, str, bool]]:
    return [(each.name, each.type, each.constraints.nullable) for each in table.schema.columns]


def test_tables_of_the_databases(system: System) -> None:
    for table in IN_POSTGRES:
        database, schema, name = table.name.split(".")
        found = system.query(database, _COLUMNS, [schema, name])
        assert [each[:2] for each in said(table)] == [each[:2] for each in found], table.name
        keys = [key.replace('"', "") for (key,) in system.query(database, _CONSTRAINTS, [f"{schema}.{name}"])]
        if keys:  # a view has none, and of its columns each may be missing to PostgreSQL
            assert said(table) == found
            assert table.schema.constraints.other == keys
            unique = {f"({each.name})" for each in table.schema.columns if each.constraints.unique}
            assert unique == {key.split(" ", 2)[-1] for key in keys if "," not in key}
        else:
            assert name in {algorithm.name for algorithm in get_registry().by_id.values()}


def test_tables_of_the_lake(system: System) -> None:
    good = [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(100)]
    system.insert_drop(day(1), [*good, (None, None, None, None)])
    at = f"{day(1)} 10:00+00"
    system.insert_viewings([(1, 7, at, 60, True), (None, None, at, None, None)])
    result = system.materialize(day(1), select=["input_episodes"])
    drops = system.drops
    for asset, table, kept in (
        ("input_episodes", tables.EPISODES, drops.episodes),
        ("input_episodes", tables.QUARANTINE, drops.quarantine),
        ("input_viewings", tables.VIEWINGS, system.viewings),
    ):
        newest = kept.newest()
        assert newest is not None
        found = [("day", "date32[day]"), *((field.name, str(field.type)) for field in newest.schema)]
        assert [each[:2] for each in said(table)] == found, table.name
        rows = pq.read_table(Path(kept.shown, newest.files[day(1)].path), partitioning=None)
        assert rows.num_rows > 0
        whole = [name for name, _, is_nullable in said(table) if not is_nullable and name != "day"]
        assert {name: rows[name].null_count for name in whole} == dict.fromkeys(whole, 0)
        if table is not tables.QUARANTINE:
            (event,) = [
                event.materialization
                for event in result.get_asset_materialization_events()
                if event.asset_key == dg.AssetKey(asset)
            ]
            assert event.metadata["dagster/uri"].value == Path(kept.shown).as_uri()


def test_a_column_without_a_meaning_is_a_defect() -> None:
    schema = pa.schema({"epid": pa.int64(), "added": pa.int64()})
    with pytest.raises(ValueError, match="columns of episodes without a meaning"):
        tables._lake_table("episodes", schema, {"epid": "The episode."}, set())


def test_every_asset_names_its_table_and_describes_each_column() -> None:
    specs = [spec for asset in ASSETS for spec in asset.specs]
    for spec in [*specs, *EXTERNAL]:
        assert spec.metadata["dagster/table_name"]
        for column in spec.metadata["dagster/column_schema"].columns if spec in specs else []:
            assert column.description, (spec.key, column.name)


def test_where_a_table_of_the_lake_is_is_said_as_a_uri() -> None:
    assert place("s3://bucket/lake/viewings")["dagster/uri"] == "s3://bucket/lake/viewings"
    assert place("/data/my lake/viewings")["dagster/uri"] == "file:///data/my%20lake/viewings"
