"""The databases go away in the middle of draining, planning and publishing, and come back."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.settings import load_settings
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import assert_same, fingerprint, forget_day
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import run_days
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.faults import Instant
from episodes_assets_tests.support.lake_contents import Copies
from episodes_assets_tests.support.own_server import OwnServer, own_server
from episodes_assets_tests.support.run_process import Halt, counted, halted_at, own_process
from episodes_assets_tests.support.system import System, day

OURS = (Database.INPUT, Database.QUEUE, Database.RESULTS)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_server() as own:
        yield own


@pytest.fixture
def on_own_server(system: System, server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A system whose input, queue and results are on the server that goes away; Dagster's own stays."""
    monkeypatch.setenv("EPISODES_ADMIN_DSN", server.admin_dsn)
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", server.address)
    dsns = Dsns(
        {p: f"postgresql://own_{p}:secret@{server.address}/own_{p.database}" for p in Purpose},
        is_embedded=False,
    )
    provision(load_settings(), dsns, lambda _: None)
    kept = {p: system.dsns.require(p) for p in Purpose if p.database is Database.DAGSTER}
    dsns = replace(dsns, by_purpose={**dsns.by_purpose, **kept})
    for purpose in Purpose:
        monkeypatch.setenv(purpose.setting, dsns.require(purpose))
    admin = {d.value: make_conninfo(server.admin_dsn, dbname=f"own_{d.value}") for d in OURS}
    yield System(home=system.home, dsns=dsns, admin=admin)
    with psycopg.connect(server.admin_dsn, autocommit=True) as connection:
        for database in Database:
            connection.execute(f"DROP DATABASE own_{database.value} WITH (FORCE)")


@pytest.mark.slow
def test_runs_say_that_the_database_went_away_and_end_well_when_run_again(
    on_own_server: System, server: OwnServer, chaos: Chaos, tmp_path: Path
) -> None:
    system = on_own_server
    folder = system.settings.lake
    system.generate(day(1), day(2), episodes=60)
    system.insert_drop(day(2), [(epid, 0, day(2), day(2)) for epid in (7, 8)])  # newly tracked that day
    with fleet(system, 1, EPISODES_HEARTBEAT_SECONDS="2") as workers:
        with own_process(run_days, system, day(1)) as run:
            assert run.result().success
        before = Copies.of({"lake": Path(folder)}, tmp_path / "before")
        with own_process(counted, folder, run_days, system, day(2)) as counting:
            instants, _ = counting.result()
        calm = fingerprint(system)
        pids = list(workers.workers)
        for instant in some_of_each_asset(instants, chaos):
            forget_day(system, day(2))
            before.restore()
            comes_back_at_once = chaos.random.random() < 0.5
            how = "and comes back at once" if comes_back_at_once else "and stays away"
            with chaos.attack(Promise.OUTAGE, f"the database crashes in {instant.asset} {how}"):
                halt = Halt.new()
                with own_process(halted_at, instant, halt, folder, run_days, system, day(2)) as run:
                    assert halt.reached.wait(60), f"{instant} was not reached"
                    server.crash()
                    if comes_back_at_once:
                        server.start()
                    halt.go_on.set()
                    end = run.result()
                if not comes_back_at_once:
                    server.start()
                assert end.success or end.is_plain, f"{instant}: {end.message}"
                with own_process(run_days, system, day(2)) as again:
                    end = again.result()
                assert end.success, end.message
                assert_same(fingerprint(system), calm)
        assert all(workers.workers[pid].poll() is None for pid in pids)


def some_of_each_asset(instants: list[Instant], chaos: Chaos) -> list[Instant]:
    """In the long form four instants of each asset, in the short one an instant of one of them."""
    assets = list(dict.fromkeys(instant.asset for instant in instants))
    found = []
    for asset in chaos.pick(long=assets, short=[chaos.random.choice(assets)]):
        own = [instant for instant in instants if instant.asset == asset]
        found += chaos.random.sample(own, min(chaos.pick(short=1, long=4), len(own)))
    return found


@pytest.mark.slow
def test_workers_come_back_by_themselves(
    on_own_server: System, server: OwnServer, chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = on_own_server
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "100")
    system.generate(day(1), day(1), episodes=chaos.pick(short=500, long=4_000))
    with fleet(system, 2, EPISODES_HEARTBEAT_SECONDS="2") as workers:
        pids = set(workers.workers)
        with own_process(run_days, system, day(1)) as run:
            assert run.result().success
        calm = fingerprint(system)
        outages = chaos.pick(short=1, long=8)
        forget_day(system, day(1))
        system.plan(day(1))
        total = len(system.jobs(day(1)))
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
            fan_out_day(queue, day(1))
        for after in sorted(chaos.random.sample(range(1, total * 3 // 4), outages)):
            with chaos.attack(Promise.OUTAGE, "the queue and the input crash while workers drain a day"):
                eventually(lambda after=after: outcomes(system) >= after)  # type: ignore[misc]
                server.crash()
                time.sleep(chaos.random.uniform(0, 3))  # how long it is away is part of the fault
                server.start()
        with chaos.attack(Promise.OUTAGE, "the day whose draining was interrupted is published"):
            with own_process(run_days, system, day(1)) as run:
                end = run.result()
            assert end.success, end.message
            assert_same(fingerprint(system), calm)
            assert all(workers.workers[pid].poll() is None for pid in pids)


def outcomes(system: System) -> int:
    return int(system.query("queue", "SELECT count(*) FROM ledger.outcomes")[0][0])
