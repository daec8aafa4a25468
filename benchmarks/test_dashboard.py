"""What the login adds to a request: Dagster's application bare, and behind the auth gate, on real sockets."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
import yaml
from starlette.types import ASGIApp

from benchmarks.conftest import Measure
from benchmarks.sizes import Sizes
from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.auth.credentials import cookie_name
from episodes_assets_tests.dashboard.served import THIS_USER, Dashboard, serve_dashboard
from episodes_assets_tests.support.system import System

GROUP = "the login"
# Nothing of Dagster's is quicker; what the UI asks takes from tens to hundreds of milliseconds.
QUERY = {"query": "{ version }"}
REQUESTS = 1_000
QUICK_REQUESTS = 20
WAYS = ("bare", "behind the login")


@contextlib.contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def dashboard(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    workspace: Path = tmp_path_factory.mktemp("dashboard") / "no-code.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": []}), encoding="utf-8")
    with serve_dashboard(system, workspace) as served:
        yield served


@pytest.fixture(scope="module")
def taken(dashboard: Dashboard, sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of each request, asked by turns: whatever else the machine does slows both."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        clients = {}
        apps: list[ASGIApp] = [dashboard.ui.for_operators, dashboard.app]
        for way, app in zip(WAYS, apps, strict=True):
            address = stack.enter_context(listening(app))
            client = stack.enter_context(httpx2.Client(base_url=address, headers={"Origin": address}))
            client.cookies.set(
                cookie_name(is_secure=False), dashboard.session(Role.OPERATOR, client=THIS_USER)
            )
            clients[way] = client
        for number in range(QUICK_REQUESTS if sizes.quick else REQUESTS):
            for way in WAYS if number % 2 else reversed(WAYS):
                began = time.perf_counter()
                answer = clients[way].post("/graphql", json=QUERY)
                found[way].append(time.perf_counter() - began)
                assert answer.status_code == 200
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_query(measure: Measure, taken: dict[str, list[float]], way: str) -> None:
    def timed() -> dict[str, Any]:
        return {"seconds": statistics.median(taken[way])}

    measure(GROUP, f"a GraphQL query, {way}", timed, rounds=1, warm=False, requests=len(taken[way]))
