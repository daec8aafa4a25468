"""A process of another environment writes nowhere, and a stamp changes on an explicit word only."""

from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from episodes_assets.cli import demo
from episodes_assets.defs.resources import QueueDatabase, ResultsDatabase
from episodes_assets.errors import NotProvisioned, WrongEnvironment
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision import targets
from episodes_assets.postgres.provision.init import provision
from episodes_assets.postgres.provision.targets import replace_stamp
from episodes_assets.settings import load_settings
from episodes_assets.worker.main import run_worker
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System, day, failure
from episodes_assets_tests.support.workers import worker_config


def stamps(system: System) -> list[str]:
    found = [system.query(database, "SELECT environment FROM environment_stamp") for database in Database]
    return [row[0] for (row,) in found]


def contents(system: System) -> dict[str, Any]:
    """Everything that a process could write to in the four databases."""
    count = "SELECT (SELECT count(*) FROM episodes), (SELECT count(*) FROM viewings)"
    dagster = "SELECT count(*), (SELECT count(*) FROM dagster.event_logs) FROM dagster.runs"
    return {
        **system.fingerprint(),
        "input": system.query("input", count),
        "messages": system.query("queue", "SELECT count(*) FROM pgqueuer"),
        "dagster": system.query("dagster", dagster),
    }


@pytest.mark.long
def test_a_process_of_another_environment_writes_nowhere(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in (1, 2)])
    system.plan(day(1))
    system.hold_jobs("epid = 1")
    before = contents(system)
    drop, state = tmp_path / "drop.csv", tmp_path / "state.csv"
    drop.write_text(
        "batch_date,epid,algorithm_id,series,season,episode,title,premier_date,start_date\n"
        "2018-03-01,9,0,s,1,1,t,2018-01-01,2018-02-01\n"
    )
    state.write_text("epid,tracked_on\n1,2018-02-28\n")
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "staging")
    embedded = Dsns(system.dsns.by_purpose, is_embedded=True)
    monkeypatch.setattr(demo, "ready_databases", lambda _: embedded)
    for command in (
        ["input", "generate", "--days", "1"],
        ["input", "load", "--episodes", str(drop)],
        ["state", "import", str(state), "--as-of", "2018-02-28"],
        ["jobs", "retry", "2018-03-01"],
        ["run", "2018-03-01"],
        ["backfill", "2018-03-01", "2018-03-02"],
        ["demo"],
    ):
        error = refusal(*command)
        assert isinstance(error, WrongEnvironment)
        assert "belongs to 'development', this process to 'staging'" in str(error)
    for opened in (
        QueueDatabase(settings=system.settings).connect,
        ResultsDatabase(settings=system.settings).connect,
        dg.DagsterInstance.get,
    ):
        with pytest.raises(WrongEnvironment), opened():
            pass
    with pytest.raises(WrongEnvironment):
        run_worker(worker_config(system, "staging"))
    assert contents(system) == before
    # Reading is not writing.
    assert "1" in output("jobs", "status")[0]
    assert "Not of environment 'staging'" in output("db", "status")[1]


def test_dagster_makes_no_table_in_a_database_that_is_not_its_own(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = "SELECT tablename FROM pg_tables WHERE schemaname IN ('public', 'dagster') ORDER BY 1"
    system.query("dagster", "DROP OWNED BY episodes_dagster")
    system.query("dagster", "GRANT CREATE, USAGE ON SCHEMA dagster TO episodes_dagster")
    system.query("dagster", "GRANT SELECT ON environment_stamp, episodes_schema_version TO episodes_dagster")
    system.query("dagster", "GRANT SELECT, INSERT, UPDATE, DELETE ON processes TO episodes_dagster")
    ours = [("environment_stamp",), ("episodes_schema_version",), ("processes",)]
    assert system.query("dagster", tables) == ours
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "staging")
    with pytest.raises(WrongEnvironment, match="belongs to 'development'"):
        dg.DagsterInstance.get()
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "development")
    system.query("dagster", "ALTER TABLE environment_stamp RENAME TO gone")
    with pytest.raises(NotProvisioned, match="run `episodes db init`"):
        dg.DagsterInstance.get()
    system.query("dagster", "ALTER TABLE gone RENAME TO environment_stamp")
    assert system.query("dagster", tables) == ours
    with dg.DagsterInstance.get():
        assert len(system.query("dagster", tables)) > len(ours)


@pytest.mark.long
def test_an_input_of_other_systems_is_read_and_not_written(system: System, tmp_path: Path) -> None:
    system.query("input", "DROP TABLE environment_stamp, episodes_schema_version")
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    error = refusal("input", "generate", "--days", "1")
    assert isinstance(error, NotProvisioned)
    assert "it may be other systems' and is only read" in str(error)
    system.plan(day(1))
    assert len(system.jobs(day(1))) == 1
    assert "not ours to see" in output("db", "status")[0]


def test_a_stamp_changes_on_an_explicit_word(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> str:
        before = stamps(system)
        error = refusal("db", "stamp", *arguments)
        assert stamps(system) == before
        return str(error)

    assert "EPISODES_ADMIN_DSN is not set" in refused("staging", "--from", "development")
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["queue"])
    system.query("results", "UPDATE environment_stamp SET environment = 'production'")
    # All or none: dagster, input and queue would come before results.
    assert "is stamped 'production', not 'development'" in refused("staging", "--from", "development")
    assert "is invalid" in refused("No Name", "--from", "development")
    said, hint = output("db", "stamp", "development", "--from", "production", "--database", "results")
    assert "results: stamp of" in said
    assert "changed from production to development" in said
    assert hint == ""
    assert stamps(system) == ["development"] * 4
    said, hint = output("db", "stamp", "staging", "--from", "development", "--database", "queue",
                        "--database", "input", "--database", "queue")  # fmt: skip
    assert said.count("changed from development to staging") == 2
    assert "set EPISODES_ENVIRONMENT=staging" in hint
    assert stamps(system) == ["development", "staging", "staging", "development"]
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "staging")
    with QueueDatabase(settings=system.settings).connect():
        pass
    # Not even between our look and our word.
    with connect(system.admin["queue"]) as admin:
        assert not replace_stamp(admin, "production", "development")
    # By default all four, but for an input of other systems, which has no stamp.
    system.query("queue", "UPDATE environment_stamp SET environment = 'development'")
    system.query("input", "DROP TABLE environment_stamp")
    said, _ = output("db", "stamp", "staging", "--from", "development")
    assert said.count("changed from development to staging") == 3
    assert "has no stamp and is left as it is" in said
    assert "has no environment stamp" in str(
        refusal("db", "stamp", "staging", "--from", "development", "--database", "input")
    )


def test_a_stamp_that_changes_since_we_looked_leaves_all_as_they_were(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["queue"])

    def replace_all_but_the_last(connection: Connection, old: str, new: str) -> bool:
        if connection.info.dbname.startswith("results"):
            system.query("results", "UPDATE environment_stamp SET environment = 'production'")
        return replace_stamp(connection, old, new)

    monkeypatch.setattr(targets, "replace_stamp", replace_all_but_the_last)
    error = refusal("db", "stamp", "staging", "--from", "development")
    assert "is stamped 'production', not 'development'" in str(error)
    assert stamps(system) == [*["development"] * 3, "production"]


@pytest.mark.long
def test_init_of_another_environment_changes_no_role(
    tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(load_settings(), tcp_environment, lambda _: None)
    changed = {p: d.replace(f":p-{p}'", ":other'") for p, d in tcp_environment.by_purpose.items()}
    with monkeypatch.context() as patch:
        patch.setenv("EPISODES_ENVIRONMENT", "staging")
        with pytest.raises(WrongEnvironment):
            provision(load_settings(), Dsns(changed, is_embedded=False), lambda _: None)
    for purpose in Purpose:
        psycopg.connect(tcp_environment.require(purpose)).close()


@pytest.mark.long
def test_the_lake_changes_its_stamp_with_all_its_tables(system: System) -> None:
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    tables = [*system.drops.tables[:2], system.viewings]
    assert "belongs to 'development'" in str(
        refusal("db", "stamp", "staging", "--from", "production", "--lake")
    )
    said, _ = output("db", "stamp", "staging", "--from", "development", "--lake")
    assert said.count("changed from development to staging") == 3
    assert [table.environment() for table in tables] == ["staging"] * 3
    refused = failure(system.materialize(day(1), select=["input_episodes"]))
    assert "belongs to 'staging', this process to 'development'" in refused
