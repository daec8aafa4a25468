"""`/healthz` answers in time whatever is away, and knows a daemon that lives without evaluating anything."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus
from dagster._daemon.types import DaemonHeartbeat
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from starlette.applications import Starlette
from starlette.testclient import TestClient

from episodes_assets.accounts import pool as pools
from episodes_assets.accounts.pool import AccountsAccess, AccountsPool
from episodes_assets.dashboard import health
from episodes_assets.dashboard.app import create_application
from episodes_assets.dashboard.auth import credentials
from episodes_assets.dashboard.dagster_ui import open_dagster_ui
from episodes_assets.dashboard.health import DaemonSilent, SensorTicks, health_routes
from episodes_assets.dashboard.site import Metrics
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.dashboard.served import HOST, Dashboard, metrics_of
from episodes_assets_tests.support.stalling_proxy import StallingProxy, stalling_proxy
from episodes_assets_tests.support.system import System

pytestmark = [pytest.mark.process, pytest.mark.long]

# Of the machine, on top of what is promised.
SLACK_SECONDS = 3.0


@contextmanager
def accounts_through_a_proxy(dashboard: Dashboard) -> Iterator[tuple[AccountsAccess, StallingProxy]]:
    direct = conninfo_to_dict(dashboard.system.dsn(Purpose.DASHBOARD))
    with stalling_proxy(f"{direct['host']}/.s.PGSQL.5432") as proxy:
        dsn = make_conninfo(dashboard.system.dsn(Purpose.DASHBOARD), host="127.0.0.1", port=proxy.port)
        with AccountsPool(dsn, dashboard.system.settings.environment) as pool:
            yield AccountsAccess(pool), proxy


@contextmanager
def asked_through_a_proxy(dashboard: Dashboard) -> Iterator[tuple[TestClient, StallingProxy]]:
    with accounts_through_a_proxy(dashboard) as (accounts, proxy):
        routes = health_routes(accounts, dashboard.ui)
        # One event loop for all requests, as in a server.
        with TestClient(Starlette(routes=routes)) as client:
            assert client.get("/healthz").status_code == 200
            time.sleep(health.CACHE_SECONDS)
            yield client, proxy


@contextmanager
def whole_dashboard_through_a_proxy(dashboard: Dashboard) -> Iterator[tuple[TestClient, StallingProxy]]:
    with accounts_through_a_proxy(dashboard) as (accounts, proxy):
        metrics = Metrics(metrics_of(dashboard.system, dashboard.ui))
        site = replace(dashboard.site, accounts=accounts, metrics=metrics)
        application = create_application(site, dashboard.ui)
        with TestClient(application, base_url=f"http://{HOST}", follow_redirects=False) as client:
            yield client, proxy


def status_in_time(client: TestClient) -> int:
    began = time.monotonic()
    status = client.get("/healthz").status_code
    assert time.monotonic() - began < health.LONGEST_SECONDS + SLACK_SECONDS
    time.sleep(health.CACHE_SECONDS)
    return status


def test_a_database_that_refuses_connections(dashboard: Dashboard) -> None:
    with asked_through_a_proxy(dashboard) as (client, proxy):
        proxy.close()
        assert status_in_time(client) == 503


def test_a_database_that_never_answers(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_through_a_proxy(dashboard) as (client, proxy):
        proxy.stall()
        assert status_in_time(client) == 503
        monkeypatch.setattr(health, "LONGEST_SECONDS", 0.2)
        # Looks that nobody waits for any more do not pile up.
        assert [status_in_time(client) for _ in range(health.CHECKS_AT_ONCE)] == [503] * health.CHECKS_AT_ONCE
        monkeypatch.setattr(health, "LONGEST_SECONDS", 5.0)
        proxy.resume()
        deadline = time.monotonic() + 30
        while status_in_time(client) != 200:
            assert time.monotonic() < deadline


CREDENTIALS = ({"Cookie": "episodes_session=unknown"}, {"Authorization": "Bearer unknown"})


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "is silent"])
def test_a_credential_makes_nobody_wait(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, *, is_silent: bool
) -> None:
    """Whose it is, the accounts would have to say; as soon as they answer, they do."""
    monkeypatch.setattr(health, "LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(credentials, "ANSWER_SECONDS", 0.3)

    def ask(path: str, credential: dict[str, str]) -> int:
        began = time.monotonic()
        status = client.get(path, headers=credential).status_code
        assert time.monotonic() - began < 0.3 + SLACK_SECONDS, path
        return status

    with whole_dashboard_through_a_proxy(dashboard) as (client, proxy):
        assert [ask("/runs", each) for each in CREDENTIALS] == [401, 401]
        if is_silent:
            proxy.stall()
        else:
            proxy.close()
        for credential in CREDENTIALS:
            found = [ask(path, credential) for path in ("/healthz", "/login", "/runs")]
            assert found == [503, 200, 503], credential
        # Those that nobody waits for any more do not pile up.
        monkeypatch.setattr(credentials, "ANSWER_SECONDS", 0.02)
        before = threading.active_count()
        requests = 2 * (pools.THREADS + pools.ABANDONED_THREADS)
        assert {ask("/runs", CREDENTIALS[0]) for _ in range(requests)} == {503}
        assert threading.active_count() <= before + pools.THREADS + pools.ABANDONED_THREADS
        if is_silent:
            monkeypatch.setattr(credentials, "ANSWER_SECONDS", 5.0)
            proxy.resume()
            deadline = time.monotonic() + 30
            while client.get("/runs", headers=CREDENTIALS[0]).status_code != 401:
                assert time.monotonic() < deadline


@pytest.mark.slow
def test_sensors_that_nobody_evaluates(system: System) -> None:
    with open_dagster_ui(None) as ui:
        instance = ui.workspace.instance
        ticks = SensorTicks(ui.workspace)
        assert ticks.require_recent()
        ticks._since -= 1_000
        assert ticks.require_recent()  # no daemon has ever reported to this database: none is expected
        now = time.time()
        instance.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", "a daemon"))
        with pytest.raises(DaemonSilent, match=r"no sensor was evaluated for 10\d\d s"):
            ticks.require_recent()
        ticks._since += 1_000
        assert not ticks.require_recent()  # this process is as young as the daemon may be
        ticks._since -= 1_000
        (sensor, *others) = [sensor for sensor, _ in ticks._running()]
        assert len(others) == 5
        tick = TickData(
            instigator_origin_id=sensor.get_remote_origin_id(),
            instigator_name=sensor.name,
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus.SKIPPED,
            timestamp=now - health.LEAST_SECONDS + 20,
            selector_id=sensor.selector_id,
        )
        instance.create_tick(tick)
        ticks.require_recent()
        for each in (sensor, *others):
            instance.stop_sensor(each.get_remote_origin_id(), each.selector_id, each)
        instance.purge_ticks(sensor.get_remote_origin_id(), sensor.selector_id, before=now)
        ticks.require_recent()  # all are switched off
        instance.start_sensor(sensor)
        ticks.require_recent()  # since just now
