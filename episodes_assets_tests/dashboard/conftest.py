"""One dashboard for all tests of a module: they differ in who asks, not in what is served."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from episodes_assets_tests.dashboard.served import Dashboard, serve_dashboard
from episodes_assets_tests.support.fresh_system import fresh_system


@pytest.fixture(scope="module")
def dashboard(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("dashboard") / "home", patch) as system,
        serve_dashboard(system) as served,
    ):
        yield served


@pytest.fixture(autouse=True)
def recorded_refusals(request: pytest.FixtureRequest) -> None:
    """What other tests of the module were refused counts in none: tests look at what is on record."""
    if "dashboard" in request.fixturenames:
        request.getfixturevalue("dashboard").site.refusals.forget()
