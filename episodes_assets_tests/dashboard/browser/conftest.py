"""A browser, the whole system to look at with it, and pictures of both."""

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
from playwright.sync_api import Browser, ViewportSize

from episodes_assets.accounts.identity import Role
from episodes_assets.accounts.users import add_user, generate_password
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.settings import WITHHELD
from episodes_assets_tests.dashboard.oidc_provider.running import Provider, running_provider
from episodes_assets_tests.support.browser import browser, person, pictures
from episodes_assets_tests.support.system import System

__all__ = ["browser", "person", "pictures"]

# Where `up` is typed, this is a `.env`.
FILE_OF_OTHERS = "EPISODES_ENVIRONMENT=production\nEPISODES_ADMIN_DSN=postgresql://me@/\nOF_OTHERS=yes\n"
WIDE = ViewportSize(width=2240, height=860)
PROCESSES = ("code", "daemon", "ui", "worker-1", "worker-2")


@dataclass(frozen=True)
class Running:
    """`episodes up`, and who may sign in.

    Attributes:
        address: Of the dashboard.
        passwords: By name; of the first operator, and of a viewer.
        provider: Through which `ann` signs in as an operator and `bob` as a viewer.
        system: Its databases.
        process: Of `episodes up`.
        lines: What it has printed so far.
    """

    address: str
    passwords: dict[str, str]
    provider: Provider
    system: System
    process: psutil.Process
    lines: list[str]

    @property
    def runs(self) -> list[psutil.Process]:
        """The processes of the runs at this moment, which the code location has started."""
        (code,) = [each for each in self.process.children() if "grpc" in each.cmdline()]
        started = code.children(recursive=True)
        return [each for each in started if "spawn_main" in " ".join(each.cmdline())]

    @contextmanager
    def sleeping_fleet(self) -> Iterator[None]:
        """No worker does anything while the block lasts, as on machines that are asleep."""
        workers = [each for each in self.process.children() if "worker" in each.cmdline()]
        asleep = [each for worker in workers for each in (worker, *worker.children(recursive=True))]
        assert len(workers) == 2
        for process in asleep:
            process.suspend()
        try:
            yield
        finally:
            for process in asleep:
                process.resume()

    @contextmanager
    def locked_outcomes(self) -> Iterator[None]:
        """Nobody writes outcomes while the block lasts, so that workers are at work as long."""
        with psycopg.connect(self.system.admin["queue"]) as connection:
            connection.execute("LOCK TABLE ledger.outcomes IN SHARE MODE")
            yield


@pytest.fixture
def running(
    browser: Browser, system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """The whole system, once there is a browser to look at it with."""
    folder = tmp_path / "provider"
    folder.mkdir()
    with running_provider(folder, "http://127.0.0.1/auth/openid/callback") as provider:
        monkeypatch.setenv("EPISODES_OPENID_ISSUER", provider.issuer)
        monkeypatch.setenv("EPISODES_OPENID_NAME", "Example")
        monkeypatch.setenv("EPISODES_OPENID_CLIENT_ID", "dashboard")
        monkeypatch.setenv("EPISODES_OPENID_CLIENT_SECRET", provider.clients["dashboard"])
        monkeypatch.setenv("EPISODES_OPENID_OPERATORS", "ann@example.com")
        monkeypatch.setenv("EPISODES_OPENID_VIEWERS", "*@example.com")
        (tmp_path / ".env").write_text(FILE_OF_OTHERS, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        with _up(system, provider) as running:
            yield running


@contextmanager
def _up(system: System, provider: Provider) -> Iterator[Running]:
    """`episodes up` until the block ends, and then nothing of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    up = subprocess.Popen(
        episodes_argv("up", "--port", str(port), "--workers", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ.copy(),
        text=True,
    )
    process = psutil.Process(up.pid)
    lines: list[str] = []
    assert up.stdout is not None
    try:
        for line in up.stdout:
            lines.append(line)
            if "The UI is ready" in line:
                break
        # Whoever does not read what it prints stops it in the end.
        threading.Thread(target=lines.extend, args=(up.stdout,), daemon=True).start()
        operator = re.search(r"Sign in as (\S+) with the password (\S+)", "".join(lines))
        assert operator, "".join(lines)
        yield Running(
            address=f"http://127.0.0.1:{port}",
            passwords={operator[1]: operator[2], **_add_viewer(system)},
            provider=provider,
            system=system,
            process=process,
            lines=lines,
        )
        children = process.children(recursive=True)
        assert len(children) >= len(PROCESSES)
        (ui,) = [child for child in children if "webserver" in child.cmdline()]
        given = {name for name, value in ui.environ().items() if name.endswith("_DSN") and value != WITHHELD}
        assert given == {
            "EPISODES_DAGSTER_DSN", "EPISODES_DASHBOARD_DSN", "EPISODES_QUEUE_DSN",
            "EPISODES_RESULTS_READER_DSN", "EPISODES_CONSUMER_DSN",
        }  # fmt: skip
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert up.returncode == 0
    text = "".join(lines)
    assert "All processes have stopped." in text
    for name in PROCESSES:
        assert f"{name} is running" in text


def _add_viewer(system: System) -> dict[str, str]:
    password = generate_password()
    dsn = system.dsn(Purpose.DASHBOARD)
    with connect_to_write(dsn, Database.DAGSTER, system.settings.environment, autocommit=True) as connection:
        add_user(connection, "viewer", Role.VIEWER, password)
    return {"viewer": password}
