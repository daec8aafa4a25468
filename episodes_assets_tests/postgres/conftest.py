"""The session's embedded server by its settings, and a second one, reached by TCP with passwords."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from episodes_assets.postgres import embedded, postmaster
from episodes_assets.postgres.cluster import find_cluster
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.settings import Settings, load_settings
from episodes_assets_tests.support.embedded_servers import Start
from episodes_assets_tests.support.own_server import OwnServer, own_server
from episodes_assets_tests.support.system import System, throwaway


@pytest.fixture
def embedded_settings(server_home: Path) -> Settings:
    """Settings of the home of the session's server, without DSNs."""
    return load_settings(home=server_home, **{f"{p}_dsn": None for p in Purpose})


@pytest.fixture
def embedded_dsns(system: System) -> Dsns:
    """The system's DSNs, as if they were those of a home."""
    return Dsns(system.dsns.by_purpose, is_embedded=True)


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[OwnServer]:
    """A second server."""
    with own_server() as server:
        yield server


@pytest.fixture
def tcp_environment(tcp_server: OwnServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dsns:
    """Settings for four databases there, which tests before this one may have made."""
    monkeypatch.setenv("EPISODES_HOME", str(tmp_path))
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", tcp_server.address)
    monkeypatch.setenv("EPISODES_ADMIN_DSN", tcp_server.admin_dsn)
    for purpose in Purpose:
        dsn = f"postgresql://prod_{purpose}:p-{purpose}'%22@{tcp_server.address}/prod_{purpose.database}"
        monkeypatch.setenv(purpose.setting, dsn)
    return resolve_dsns(load_settings())


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers, which are stopped at the end of the test."""
    homes: list[Path] = []

    def started(home: Path) -> embedded.EmbeddedServer:
        homes.append(throwaway(home))
        return embedded.start(home)

    yield started
    for home in homes:
        if home.exists():
            postmaster.stop(find_cluster(home.resolve()).data)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
