"""A worker's way to the queue stalls while it holds a claim, for longer than heartbeats may stay away."""

import datetime as dt
import time
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import assert_same, fingerprint
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.stalling_proxy import HOST, StallingProxy, stalling_proxy
from episodes_assets_tests.support.system import System, day

HEARTBEAT = {"EPISODES_HEARTBEAT_SECONDS": "2"}
SETTLE_SECONDS = 0.3  # for what has passed the proxy already to arrive


@pytest.mark.slow
def test_a_stalled_worker_loses_its_jobs_and_its_late_writes_change_nothing(
    system: System, chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "20")
    system.generate(day(1), day(2), episodes=150)
    system.plan(day(1), day(2))
    direct = conninfo_to_dict(system.dsn(Purpose.WORKER))
    with stalling_proxy(f"{direct['host']}/.s.PGSQL.5432") as proxy:
        who = f"{direct['user']}:{direct['password']}"
        through_proxy = f"postgresql://{who}@{HOST}:{proxy.port}/{direct['dbname']}"
        allowed = {"EPISODES_ALLOWED_HOSTS": HOST}
        with fleet(system, 1, EPISODES_WORKER_DSN=through_proxy, **allowed, **HEARTBEAT) as cut_off:
            (pid,) = cut_off.workers
            name = cut_off.name(pid)
            work(system, day(1))
            work(system, day(2))
            calm = fingerprint(system)
            for _ in range(chaos.pick(short=1, long=12)):
                undo_work(system)
                with chaos.attack(
                    Promise.STALL, "the network stalls while a claim is held, and then delivers late"
                ):
                    hand_out(system, day(1))
                    lost = stall_with_claims(system, proxy, name, chaos)
                    with fleet(system, 1, **HEARTBEAT) as others:
                        eventually(lambda: backlog(system) == 0)
                        (other,) = others.workers
                        by_other = others.name(other)
                    before = outcomes(system)
                    assert {worker for *chunk, worker in before if tuple(chunk) in lost} == {by_other}
                    proxy.resume()
                with chaos.attack(Promise.STALL, "the worker that was cut off works on without a restart"):
                    work(system, day(2))
                    assert [row for row in outcomes(system) if row in before] == before
                    assert_same(fingerprint(system), calm)
            assert cut_off.workers[pid].poll() is None


def stall_with_claims(system: System, proxy: StallingProxy, name: str, chaos: Chaos) -> set[Any]:
    """Stall the network while the worker of that name holds claims: the plan and chunk of each."""
    after = chaos.random.randint(1, 60)
    eventually(lambda: len(outcomes(system)) >= after)
    while True:
        proxy.stall()
        time.sleep(SETTLE_SECONDS)
        claims = system.query(
            "queue",
            "SELECT plan_id, chunk FROM ledger.chunks WHERE claim IS NOT NULL AND claimed_by = %s",
            [name],
        )
        if claims:
            return set(claims)
        assert backlog(system) > 0, "the day was done before the network stalled"
        proxy.resume()


def work(system: System, of: dt.date) -> None:
    """Hand a day out and wait until all is done."""
    hand_out(system, of)
    eventually(lambda: backlog(system) == 0)


def hand_out(system: System, of: dt.date) -> None:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, of)


def backlog(system: System) -> int:
    return int(system.query("queue", "SELECT jobs FROM ledger.backlog")[0][0])


def outcomes(system: System) -> list[Any]:
    """The plan, chunk and worker of each outcome."""
    return system.query(
        "queue",
        "SELECT plan_id, chunk, worker FROM ledger.outcomes JOIN ledger.job_states USING (plan_id, position)"
        " ORDER BY plan_id, position",
    )


def undo_work(system: System) -> None:
    """Leave the plans as if they had not been handed out."""
    system.query("queue", "DELETE FROM ledger.outcomes")
    system.query("queue", "DELETE FROM ledger.job_attempts")
    system.query("queue", "UPDATE ledger.chunks SET succeeded = 0, starts = 0, message_id = NULL")
    system.query("queue", "UPDATE ledger.plans SET fanned_out_at = NULL")
