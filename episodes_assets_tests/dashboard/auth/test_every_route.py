"""Every route of the application is closed to nobody, and none lets a viewer change anything.

The routes are taken from the application itself, Dagster's included, so none is forgotten.
"""

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from episodes_assets.accounts.identity import Role
from episodes_assets_tests.dashboard.routes_of import Found, routes_of
from episodes_assets_tests.dashboard.served import SOCKET, Dashboard

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
OPEN = {
    ("GET", "/login"),
    ("HEAD", "/login"),
    ("POST", "/login"),
    ("GET", "/healthz"),
    ("HEAD", "/healthz"),
    *((method, f"/dashboard/static/{name}") for method in ("GET", "HEAD") for name in (
        "dashboard.css", "favicon.svg",
    )),
}  # fmt: skip
# A viewer may POST here; of GraphQL, `test_every_mutation.py` says what.
VIEWERS_POST = {"/login", "/logout", "/graphql"}


@pytest.fixture(scope="module")
def paths(dashboard: Dashboard) -> list[Found]:
    found = sorted(set(routes_of(dashboard.app)), key=lambda each: each.path)
    assert {"/login", "/metrics", "/graphql", "/report_asset_check/x", "/x", "/", "/favicon.ico"} <= {
        each.path for each in found
    }
    assert any(each.path.startswith("/_next/static/chunks/") for each in found)
    assert [each.path for each in found if each.is_socket] == ["/graphql"]
    return found


@pytest.mark.long
def test_nobody_reaches_anything_that_is_not_declared_open(dashboard: Dashboard, paths: list[Found]) -> None:
    nobody = dashboard.client()
    reached = set()
    for found in paths:
        # Of hundreds of files, those of one folder differ in nothing.
        methods = METHODS if not found.path.startswith("/_next/") else ("GET",)
        for method in methods:
            answer = nobody.request(method, found.path)
            if answer.status_code == 401 and answer.headers.get("www-authenticate") == "Bearer":
                assert method == "HEAD" or list(answer.json()) == ["errors"]
            else:
                reached.add((method, found.path))
    assert reached == OPEN


@pytest.mark.long
def test_a_viewer_changes_nothing_by_any_route(dashboard: Dashboard, paths: list[Found]) -> None:
    viewer = dashboard.client(Role.VIEWER)
    for found in paths:
        if found.path.startswith("/_next/"):
            continue
        for method in METHODS:
            if (method, found.path) in OPEN or (method == "POST" and found.path in VIEWERS_POST):
                continue
            answer = viewer.request(method, found.path)
            if method in ("GET", "HEAD"):
                assert answer.status_code != 403, found
            else:
                assert answer.status_code == 403, (method, found)
                assert "signed in as a viewer" in answer.text
    dashboard.site.refusals.forget()  # only the first of a minute are on record
    viewer.post("/report_asset_check/x")
    assert any(
        who == "viewer"
        and outcome == "viewer"
        and detail == {"method": "POST", "path": "/report_asset_check/x"}
        for who, detail, outcome in dashboard.events("request refused")
    )


def test_the_socket_is_closed_to_nobody_before_it_opens(dashboard: Dashboard, paths: list[Found]) -> None:
    for path in {found.path for found in paths if not found.path.startswith("/_next/")}:
        with (
            pytest.raises(WebSocketDisconnect) as end,
            dashboard.client().websocket_connect(SOCKET + path),
        ):
            pass
        assert end.value.reason == "not signed in"


def test_a_route_that_somebody_adds_is_closed(dashboard: Dashboard) -> None:
    async def show(_request: Request) -> Response:
        return PlainTextResponse("added")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()

    routes = (Route("/added", show, methods=["GET", "POST"]), WebSocketRoute("/added-socket", talk))
    served = dashboard.again(pages=routes)
    assert served.client().get("/added").status_code == 401
    assert served.client(Role.VIEWER).get("/added").text == "added"
    assert served.client(Role.VIEWER).post("/added").status_code == 403
    assert served.client(Role.OPERATOR).post("/added").text == "added"
    who, detail, outcome = dashboard.events("request")[-1]
    assert (who, detail["method"], detail["path"], outcome) == ("operator", "POST", "/added", "200")
    for role, reason in ((None, "not signed in"), (Role.OPERATOR, "no such socket")):
        with (
            pytest.raises(WebSocketDisconnect) as end,
            served.client(role).websocket_connect(f"{SOCKET}/added-socket"),
        ):
            pass
        assert end.value.reason == reason


@pytest.mark.parametrize("path", ["/login%0A", "/healthz%0A", "/graphql%0A", "/logout%0A", "/%00"])
def test_a_path_that_only_looks_like_a_route_is_none(dashboard: Dashboard, path: str) -> None:
    # Starlette's routes end in `$`, which also matches before a last line end.
    for role in (None, *Role):
        for method in ("GET", "POST"):
            refused = dashboard.client(role).request(
                method, f"{path}?query=mutation{{reloadWorkspace{{__typename}}}}"
            )
            assert refused.status_code == 400


def test_paths_that_lead_elsewhere_stay_closed(dashboard: Dashboard) -> None:
    nobody = dashboard.client()
    for path in (
        "//login", "/login/", "/login/../runs", "/LOGIN", "/auth/", "/auth/x", "/healthz/x", "/login;x",
        "/dashboard/static/../../site.py", "/dashboard/static/strip.css", "/dashboard/static/%2e%2e/pages.py",
    ):  # fmt: skip
        assert nobody.get(path).status_code == 401, path
