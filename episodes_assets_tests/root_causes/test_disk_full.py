"""A full disk: of the lake, of the home, of what is exported, of the databases, of Dagster's own."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psycopg
import pyarrow as pa
import pytest

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.errors import DiskFull
from episodes_assets.failures import explain_connection, explain_server_log
from episodes_assets.lake import viewings as lake_viewings
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres import cluster, embedded, postmaster
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.settings import load_settings
from episodes_assets_tests.root_causes.disk import Disk
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.failed_steps import assert_plain, step_failure, the_error
from episodes_assets_tests.support.own_server import OwnServer, own_server
from episodes_assets_tests.support.system import System, day, throwaway

pytestmark = pytest.mark.process

NewDisk = Callable[[int], Disk]


@pytest.mark.slow
def test_the_disk_of_the_lake(system: System, disk: NewDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    small = disk(4)
    monkeypatch.setenv("EPISODES_LAKE_URL", str(small.path / "lake"))
    system.generate(day(1), day(2))
    system.plan(day(1))
    before = system.viewings.newest()
    small.fill()
    said = the_error(system.cli("run", "2018-03-02", "--workers", "0"))
    assert "the disk is full" in said
    assert f"{small.path}/lake/viewings" in said
    assert "free space there" in said
    assert said == f"error: {step_failure(system, 2)}"
    # Nothing half done is seen, and freeing space is all it takes.
    small.free()
    assert system.viewings.newest() == before
    assert system.drops.find(day(2)) is None
    system.plan(day(2))


@pytest.mark.slow
def test_the_disk_on_which_viewings_are_ordered(
    tmp_path: Path, disk: NewDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a day that memory does not hold; its file lies on another disk."""
    small = disk(256)
    monkeypatch.setattr(tempfile, "tempdir", str(small.path))
    monkeypatch.setattr(lake_viewings, "IN_MEMORY_VIEWINGS", 1_000)
    monkeypatch.setattr(lake_viewings, "SORT_MEMORY", "64MB")
    lake, rows = Viewings(str(tmp_path / "lake")), 1_500_000
    random = np.random.default_rng(1)
    columns = {
        "epid": random.permutation(rows),
        "viewer_id": random.integers(0, 2**62, rows),
        "viewed_at": pa.array(random.integers(0, 86_400_000_000, rows), pa.timestamp("us", "UTC")),
        "seconds_watched": random.integers(0, 2**62, rows),
        "completed": pa.nulls(rows, pa.bool_()),
        "completed_as_found": pa.nulls(rows, pa.string()),
    }
    table = pa.table(columns, schema=lake_viewings.schema_of(pa.int64()))
    small.fill(leave=1 << 20)
    with pytest.raises(DiskFull) as raised:
        lake.write(day(1), table.to_reader(max_chunksize=50_000))
    assert_plain(str(raised.value))
    assert f"the disk is full ({small.path}/episodes-sort-" in str(raised.value)
    assert "No space left on device" in str(raised.value)
    assert "free space there" in str(raised.value)
    assert [path for path in small.path.iterdir() if path != small.filler] == []
    assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file()] == []
    small.free()
    assert lake.write(day(1), table.to_reader(max_chunksize=50_000)).file.rows == rows


@pytest.mark.slow
def test_the_disk_of_the_home(system: System, disk: NewDisk) -> None:
    small = disk(1)
    system.generate(day(1), day(1))
    (small.path / "home").mkdir()
    small.fill()
    home = {"EPISODES_HOME": str(small.path / "home"), "DAGSTER_HOME": ""}
    said = the_error(system.cli("run", "2018-03-01", "--workers", "1", env=home))
    assert f"the disk is full ({small.path}/home/lake/viewings: No space left" in said


@pytest.mark.long
def test_the_disk_of_the_embedded_server(disk: NewDisk, tmp_path: Path) -> None:
    """Root's copy of the programs is made, then the data, and there is no room for them; then there is."""
    small = disk(120)
    with pytest.MonkeyPatch.context() as patch:
        # For an ordinary user the data lie in the home itself.
        home = tmp_path / "home" if os.geteuid() == 0 else small.path / "home"
        patch.setattr(cluster, "SYSTEM_FOLDER", small.path)
        throwaway(home)
        if os.geteuid() == 0:
            small.fill(leave=1 << 20)
            assert_no_room(home)
            small.free()
            cluster.find_cluster(home)
        small.fill(leave=20 << 20)
        assert_no_room(home)
        small.free()
        server = embedded.start(home)
        with connect(server.dsn(embedded.ADMINISTRATOR, "postgres")) as connection:
            connection.execute("SELECT 1")
        postmaster.stop(cluster.find_cluster(home).data)


def assert_no_room(home: Path) -> None:
    with pytest.raises(DiskFull) as raised:
        embedded.start(home)
    assert_plain(str(raised.value))
    assert "the disk of the database server is full (the embedded PostgreSQL in" in str(raised.value)


@pytest.mark.slow
def test_the_disk_of_an_export(system: System, disk: NewDisk) -> None:
    system.generate(day(1), day(1), episodes=400)
    system.plan(day(1))
    small = disk(1)
    small.fill()
    for name in ("state.csv", "state.parquet"):
        file = small.path / name
        said = the_error(system.cli("state", "export", str(file), "--as-of", "2018-03-01"))
        why = "cannot be written (No space left on device): free space there, then run it again"
        assert said == f"error: {file} {why}"


@pytest.mark.slow
def test_a_full_disk_behind_standard_output(system: System) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            episodes_argv("db", "status"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 1, result.stderr
    assert "error: the disk is full (No space left on device)" in result.stderr


@contextlib.contextmanager
def on_disk(small: Disk, system: System, which: set[Database]) -> Iterator[tuple[System, OwnServer]]:
    """Some of a system's databases on a server whose data lies on a small disk."""
    with own_server(small.path) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPISODES_ADMIN_DSN", server.admin_dsn)
        patch.setenv("EPISODES_ALLOWED_HOSTS", server.address)
        dsns = Dsns(
            {p: f"postgresql://own_{p}:secret@{server.address}/own_{p.database}" for p in Purpose},
            is_embedded=False,
        )
        with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
            # Segments of the write-ahead log are made beforehand: the data's files meet the end first.
            admin.execute("ALTER SYSTEM SET min_wal_size = '64MB'")
            admin.execute("ALTER SYSTEM SET max_wal_size = '64MB'")
            admin.execute("ALTER SYSTEM SET autovacuum = off")
            admin.execute("SELECT pg_reload_conf()")
        provision(load_settings(), dsns, lambda _: None)
        kept = {p: system.dsns.require(p) for p in Purpose if p.database not in which}
        dsns = replace(dsns, by_purpose={**dsns.by_purpose, **kept})
        for purpose in Purpose:
            patch.setenv(purpose.setting, dsns.require(purpose))
        yield replace(system, dsns=dsns), server


@pytest.mark.slow
def test_the_disk_of_the_queue_and_the_results(system: System, disk: NewDisk) -> None:
    small = disk(220)
    system.generate(day(1), day(1), episodes=2_000)
    with on_disk(small, system, {Database.QUEUE, Database.RESULTS}) as (own, server):
        small.fill()
        said = the_error(own.cli("run", "2018-03-01", "--workers", "0"))
        assert "the disk of the database server is full" in said
        assert f"@{server.address}/own_" in said
        assert "No space left on device" in said
        assert "free space on that disk" in said
        assert said == f"error: {step_failure(own, 1)}"
        small.free()
        own.plan(day(1))


def end_of(connection: psycopg.Connection[Any]) -> psycopg.OperationalError:
    """What ends a session."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return error
    raise AssertionError("it goes on")


def write_ahead(server: OwnServer, *, megabytes: int) -> None:
    with connect(server.admin_dsn, autocommit=True) as connection:
        for _ in range(megabytes // 4):  # all at once, so that no other process comes first
            connection.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 4000000))")


@pytest.mark.long
def test_the_disk_of_the_write_ahead_log(system: System, disk: NewDisk) -> None:
    """The server panics: all sessions end, and the one that it happened to is told why."""
    small = disk(120)
    with own_server(small.path) as server:
        others = psycopg.connect(server.admin_dsn, autocommit=True)
        with contextlib.closing(others):
            others.execute("SELECT 1")
            small.fill(leave=1 << 20)  # the server's log needs some
            with pytest.raises(DiskFull) as raised:
                write_ahead(server, megabytes=120)
            assert_plain(str(raised.value))
            assert "the disk of the database server is full" in str(raised.value)
            assert "No space left on device" in str(raised.value)
            lost = explain_connection(end_of(others), "it")
        # They are not told; the server's log is.
        assert str(lost).startswith("cannot reach it (")
        assert "its log says why" in str(lost)
        log = server.data / "log"
        eventually(lambda: not (server.data / "postmaster.pid").exists(), 30)
        why = explain_server_log(log.read_text(), "the server")
        assert isinstance(why, DiskFull)
        assert "(the server: could not write to file" in str(why)
        small.free()
        server.start()


@pytest.mark.slow
def test_the_disk_of_dagsters_own_database(system: System, disk: NewDisk) -> None:
    small = disk(220)
    system.generate(day(1), day(1))
    with on_disk(small, system, {Database.DAGSTER}) as (own, server):
        with dg.DagsterInstance.get():  # makes its tables
            pass
        small.fill()
        said = the_error(own.cli("run", "2018-03-01", "--workers", "0"))
        assert "the disk of the database server is full" in said
        assert f"@{server.address}/own_dagster" in said or "Dagster's own database" in said
        assert "No space left on device" in said
        small.free()


@pytest.mark.slow
def test_a_worker_whose_log_cannot_be_written_works_on(system: System, disk: NewDisk) -> None:
    small = disk(1)
    system.generate(day(1), day(1))
    (small.path / "logs").mkdir()
    (system.home / "logs").symlink_to(small.path / "logs")
    small.fill()
    result = system.cli("run", "2018-03-01", "--workers", "1", env=dict(os.environ))
    assert result.returncode == 0, result.stderr
