"""The embedded PostgreSQL comes back when it was killed, and ends with the last process that uses it."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest

from episodes_assets.cli import up
from episodes_assets.cli.overview import Overview
from episodes_assets.cli.supervisor import ProcessGroup
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.postgres import embedded, postmaster
from episodes_assets_tests.support.embedded_servers import LONG, Start, admin, cluster, hold, pid
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import throwaway

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_a_server_that_was_killed_is_started_again_with_the_same_dsns(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / LONG / "home")
    dsn = server.dsn(embedded.ADMINISTRATOR, "postgres")
    assert not server.ensure_running()
    with admin(server) as connection:
        connection.execute("CREATE TABLE kept ()")
    os.kill(pid(tmp_path / LONG / "home"), signal.SIGKILL)
    eventually(lambda: not server.is_running())
    assert server.ensure_running()
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT FROM kept")
    assert not server.ensure_running()


@pytest.mark.slow
def test_a_killed_servers_process_id_may_belong_to_another_process(start: Start, tmp_path: Path) -> None:
    """As after a restart of a container, where ids are counted anew."""
    server = start(tmp_path / "home")
    found = cluster(tmp_path / "home")
    os.kill(pid(tmp_path / "home"), signal.SIGKILL)
    eventually(lambda: not server.is_running())
    argv = ["sleep", "60"]
    with subprocess.Popen(argv, **found.programs.options) as other:
        for file in (found.data / "postmaster.pid", server.socket_folder / ".s.PGSQL.5432.lock"):
            lines = file.read_text().splitlines()
            file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        assert server.ensure_running()
        other.kill()


def shown(server: embedded.EmbeddedServer, query: LiteralString) -> object:
    with admin(server) as connection:
        found = connection.execute(query).fetchone()
        return found and found[0]


def test_what_is_synced_later_is_there_and_durable_afterwards(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    embedded.sync_later(home)
    server = start(home)
    assert shown(server, "SHOW fsync") == "off"
    with admin(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
    embedded.sync_now(home)
    assert not server.is_running()
    again = start(home)
    assert (shown(again, "SHOW fsync"), shown(again, "SHOW full_page_writes")) == ("on", "on")
    assert shown(again, "SELECT count(*) FROM kept") == 1
    embedded.sync_now(home)  # of a durable one, nothing is done
    assert again.is_running()


@pytest.mark.slow
def test_databases_that_were_not_synced_when_the_machine_failed_are_made_anew(
    start: Start, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    embedded.sync_later(home)
    server = start(home)
    with admin(server) as connection:
        connection.execute("CREATE TABLE lost AS SELECT 1")
    os.kill(pid(home), signal.SIGKILL)
    eventually(lambda: not server.is_running())
    assert server.ensure_running()  # the process alone has failed
    assert shown(server, "SELECT count(*) FROM lost") == 1
    os.kill(pid(home), signal.SIGKILL)
    eventually(lambda: not server.is_running())
    (home / "postgres.unsynced").write_text("another start of the machine")
    assert server.ensure_running()
    assert shown(server, "SELECT to_regclass('lost')") is None


@pytest.mark.slow
def test_a_removed_socket_comes_back(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "home")
    (server.socket_folder / ".s.PGSQL.5432").unlink()
    assert server.ensure_running()
    with admin(server) as connection:
        connection.execute("SELECT 1")


def watch(server: embedded.EmbeddedServer) -> tuple[threading.Thread, threading.Event, list[BaseException]]:
    """The loop of `episodes up` over no process but the server."""
    stopping, ended_with = threading.Event(), list[BaseException]()

    def loop() -> None:
        try:
            overview = Overview(
                "http://here", ["code"], server.home / "logs", lambda *_: None, is_verbose=False
            )
            up._watch(ProcessGroup(lambda *_: None), stopping, threading.Event(), server, overview)
        except DatabaseUnreachable as error:
            ended_with.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    return thread, stopping, ended_with


@pytest.mark.long
def test_up_starts_a_killed_server_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up, "WATCH_SECONDS", 0.1)
    server = start(tmp_path / "home")
    first = pid(tmp_path / "home")
    thread, stopping, ended_with = watch(server)
    try:
        os.kill(first, signal.SIGKILL)
        eventually(lambda: "it has been started again" in capsys.readouterr().out)
        assert pid(tmp_path / "home") != first
        assert server.is_running()
    finally:
        stopping.set()
        thread.join()
    assert ended_with == []


@pytest.mark.slow
def test_up_ends_with_the_reason_when_the_server_does_not_start_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "WATCH_SECONDS", 0.1)
    server = start(tmp_path / "home")
    thread, _, ended_with = watch(server)
    configuration = cluster(tmp_path / "home").data / "postgresql.conf"
    configuration.write_text(configuration.read_text() + "nonsense = 1\n")
    os.kill(pid(tmp_path / "home"), signal.SIGKILL)
    thread.join(60)
    (error,) = ended_with
    assert 'unrecognized configuration parameter "nonsense"' in str(error)
    assert f"read {tmp_path}/home/logs/postgres.log" in str(error)


@pytest.mark.slow
def test_the_last_process_stops_the_server(tmp_path: Path) -> None:
    home = throwaway(tmp_path / "home")
    first, killed, last = hold(home), hold(home), hold(home)
    serving = psutil.Process(pid(home))
    killed.kill()
    killed.communicate()
    first.communicate()
    assert serving.is_running()
    last.communicate()
    assert last.returncode == 0
    assert postmaster.find_running(cluster(home).data) is None
