"""The Fleet page as a browser gets it."""

from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.dashboard.fleet import fleet_routes
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.html import Element, breaks_the_policy, read
from episodes_assets_tests.support.system import System


class SignedIn:
    """Stands for the auth gate: it lets everything through as somebody."""

    def __init__(self, app: ASGIApp, role: Role) -> None:
        self._app = app
        self._user = Identity("ana", role, AuthMethod.PASSWORD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "user": self._user}, receive, send)


def client(system: System, role: Role = Role.OPERATOR, queue_dsn: str | None = None) -> TestClient:
    routes = fleet_routes(queue_dsn or system.dsn(Purpose.QUEUE), system.settings.environment)
    return TestClient(SignedIn(Starlette(routes=routes), role), follow_redirects=False)


def get(browser: TestClient, path: str, status: int = 200) -> Element:
    answer = browser.get(path)
    assert answer.status_code == status, answer.text
    page = read(answer.text)
    assert breaks_the_policy(page) == []
    return page
