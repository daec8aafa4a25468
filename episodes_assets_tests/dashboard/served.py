"""A whole dashboard for tests: the real application on real databases, asked without a network."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import yaml
from starlette.routing import BaseRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from episodes_assets.accounts import sessions, users
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.pool import AccountsAccess, AccountsPool
from episodes_assets.accounts.sessions import Lifetimes
from episodes_assets.dashboard import server
from episodes_assets.dashboard.app import create_application
from episodes_assets.dashboard.auth.credentials import cookie_name
from episodes_assets.dashboard.configuration import Configuration, read_configuration
from episodes_assets.dashboard.dagster_ui import DagsterUi, open_dagster_ui
from episodes_assets.dashboard.metrics import Sources, SystemCollector
from episodes_assets.dashboard.server import ConnectionLimits
from episodes_assets.dashboard.site import Metrics, Site
from episodes_assets.lake.opening import open_lake
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System

HOST = "127.0.0.1:3000"
SOCKET = f"ws://{HOST}"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Content-Type": "application/json"}
PASSWORD = "correct horse battery"
# Whoever runs the tests, over a real connection.
THIS_USER = f"user {os.getuid()}"
LIFETIMES = Lifetimes(absolute=timedelta(hours=12), idle=timedelta(minutes=60))

T = TypeVar("T")


@dataclass(frozen=True)
class Dashboard:
    """A running dashboard with a user for each role, called as their roles are."""

    system: System
    pool: AccountsPool
    ui: DagsterUi
    site: Site
    app: ASGIApp

    @property
    def configuration(self) -> Configuration:
        return self.site.configuration

    def accounts(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function of `accounts/`."""
        with self.pool.connection() as connection:
            return function(connection, *arguments, **named)

    def session(self, role: Role, name: str | None = None, *, client: str = "") -> str:
        """A new session's token, to be shown without a network, or by a client of a real server."""
        identity = Identity(name or role.value, role, AuthMethod.PASSWORD)
        return self.accounts(sessions.start_session, identity, self.configuration.lifetimes, client=client)

    def client(self, role: Role | None = None, *, token: str | None = None) -> TestClient:
        """A browser that shows the dashboard, signed in or not."""
        scheme = "https" if self.configuration.is_secure else "http"
        client = TestClient(
            self.app,
            base_url=f"{scheme}://{HOST}",
            headers=SAME_ORIGIN,
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        if token is None and role is not None:
            token = self.session(role)
        if token is not None:
            client.cookies.set(cookie_name(is_secure=self.configuration.is_secure), token)
        return client

    def events(self, what: str) -> list[Any]:
        """Who, detail and outcome of the events of a kind, the oldest first."""
        return self.system.query(
            "dagster",
            "SELECT who, detail, outcome FROM dashboard.audit_log WHERE what = %s ORDER BY event_id",
            [what],
        )

    def again(self, *, pages: tuple[BaseRoute, ...] = (), **changes: Any) -> "Dashboard":
        """The same dashboard, served otherwise."""
        site = replace(
            self.site,
            configuration=replace(self.configuration, **changes),
            metrics=Metrics(metrics_of(self.system, self.ui)),
        )
        return replace(self, site=site, app=create_application(site, self.ui, pages=pages))


@contextmanager
def serve_dashboard(system: System, workspace: Path | None = None) -> Iterator[Dashboard]:
    """A dashboard for as long as the block lasts; without a workspace there is no code in it."""
    if workspace is None:
        workspace = system.home / "no-code.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": []}), encoding="utf-8")
    with (
        AccountsPool(system.dsn(Purpose.DASHBOARD), system.settings.environment) as pool,
        open_dagster_ui(workspace) as ui,
    ):
        with pool.connection() as connection:
            _add_users(connection)
        queue_dsn = system.dsn(Purpose.QUEUE)
        configuration = read_configuration(system.settings, host="127.0.0.1", port=3000)
        site = Site(configuration, AccountsAccess(pool), Metrics(metrics_of(system, ui)), queue_dsn)
        yield Dashboard(system, pool, ui, site, create_application(site, ui))


def metrics_of(system: System, ui: DagsterUi) -> SystemCollector:
    """Collects from all that a system has."""
    return SystemCollector(
        Sources(
            queue_dsn=system.dsn(Purpose.QUEUE),
            results_dsn=system.dsn(Purpose.RESULTS_READER),
            lake=open_lake(system.settings),
            instance=ui.workspace.instance,
            settings=system.settings,
        )
    )


@contextmanager
def serving(
    app: ASGIApp, configuration: Configuration, limits: ConnectionLimits | None = None
) -> Iterator[int]:
    """A real server on a free port, which is in another thread for as long as the block lasts."""
    with server.listening(configuration, limits) as listener:
        served = uvicorn.Server(server.server_configuration(app, configuration, listener.connections))
        thread = threading.Thread(target=served.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]  # whoever calls before it is served waits
        finally:
            served.should_exit = True
            thread.join(20)
        assert not thread.is_alive()


def _add_users(connection: Connection) -> None:
    for role in Role:
        users.add_user(connection, role.value, role, PASSWORD)
