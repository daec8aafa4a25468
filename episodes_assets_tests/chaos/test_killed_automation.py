"""Sensor ticks and the daemon are killed; after the next tick all is as if nothing had happened."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import assert_same, fingerprint, forget_day
from episodes_assets_tests.chaos.fleet import fleet
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import run_days, tick
from episodes_assets_tests.support.dagster_processes import code_server, daemon
from episodes_assets_tests.support.run_process import counted, killed_at, own_process
from episodes_assets_tests.support.system import System, day


@pytest.mark.long
def test_a_fan_out_tick_killed_at_each_statement(system: System, chaos: Chaos) -> None:
    system.generate(day(1), day(2), episodes=40)
    system.plan(day(1), day(2))
    with own_process(counted, system.settings.lake, tick, "fan_out") as counting:
        instants, _ = counting.result()
    calm = messages(system)
    assert len(calm) == len(system.query("queue", "SELECT 1 FROM ledger.chunks"))
    for instant in chaos.sample(instants, short=6):
        take_back(system)
        with chaos.attack(Promise.TICKS, "SIGKILL at each statement of a tick that hands out two days"):
            with own_process(killed_at, instant, system.settings.lake, tick, "fan_out") as killed:
                assert killed.was_killed(), f"{instant} was not reached"
            with own_process(tick, "fan_out") as following:
                following.result()
            assert messages(system) == calm


@pytest.mark.slow
def test_a_publishing_tick_killed_at_each_statement(system: System, chaos: Chaos) -> None:
    system.generate(day(1), day(2), episodes=40)
    system.plan(day(1), day(2))
    with own_process(tick, "fan_out") as handing_out:
        handing_out.result()
    system.finish_jobs()
    name = "publish_finished_days"
    with own_process(counted, system.settings.lake, tick, name) as counting:
        instants, calm = counting.result()
    assert calm == ["2018-03-01", "2018-03-02"]
    for instant in chaos.sample(instants, short=2):
        with chaos.attack(Promise.TICKS, "SIGKILL at each statement of a tick that asks for publication"):
            with own_process(killed_at, instant, system.settings.lake, tick, name) as killed:
                assert killed.was_killed(), f"{instant} was not reached"
            with own_process(tick, name) as following:
                assert following.result() == calm
    publish = ["job_outcomes", "published_results"]
    with own_process(run_days, system, day(1), day(2), publish) as run:
        assert run.result().success
    with own_process(tick, name) as following:
        assert following.result() == []


def test_a_killed_daemon(system: System, chaos: Chaos) -> None:
    if not chaos.is_long:
        pytest.skip("make chaos does")
    days = [day(n) for n in range(1, 5)]
    system.generate(days[0], days[-1], episodes=150)
    with fleet(system, 1):
        with own_process(run_days, system, days[0], days[-1]) as run:
            assert run.result().success
        calm = fingerprint(system)
        for of in days:
            forget_day(system, of)
        with code_server(system) as workspace:
            system.plan(days[0], days[-1])
            with chaos.attack(
                Promise.TICKS, "SIGKILL to the daemon, again and again, while days are in flight"
            ) as attack:
                attack.times = 0
                while published(system) < len(days):
                    assert attack.times < 60, "the days are never published"
                    with daemon(workspace) as process:
                        # Long enough now and then for a tick and for the run that it asks for.
                        deadline = time.monotonic() + chaos.random.uniform(4, 20)
                        while published(system) < len(days) and time.monotonic() < deadline:
                            time.sleep(0.1)
                        process.kill()
                        attack.times += 1
                assert_same(fingerprint(system), calm)
                assert system.query("queue", "SELECT count(*) FROM pgqueuer") == [(0,)]


def messages(system: System) -> Sequence[Any]:
    """The chunks that live messages carry, with whether the ledger knows the message."""
    return system.query(
        "queue",
        "SELECT day, chunk, message_id = id FROM pgqueuer"
        " JOIN ledger.chunks ON convert_from(payload, 'utf8')::jsonb ->> 'chunk' = chunk::text"
        " JOIN ledger.plans ON plans.plan_id = chunks.plan_id"
        " AND convert_from(payload, 'utf8')::jsonb ->> 'plan_id' = plans.plan_id::text"
        " ORDER BY 1, 2, 3",
    )


def take_back(system: System) -> None:
    """Leave the planned days as if they had not been handed out."""
    system.query("queue", "DELETE FROM pgqueuer")
    system.query("queue", "UPDATE ledger.chunks SET message_id = NULL")
    system.query("queue", "UPDATE ledger.plans SET fanned_out_at = NULL")


def published(system: System) -> int:
    return int(system.query("results", "SELECT count(*) FROM published.days")[0][0])
