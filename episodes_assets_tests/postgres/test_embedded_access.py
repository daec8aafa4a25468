"""Who gets into the embedded PostgreSQL: its roles by their passwords, and no other user of the machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest

from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.postgres import cluster as postgres_cluster
from episodes_assets.postgres import embedded, postmaster
from episodes_assets.postgres.cluster import Account, Cluster
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.provision.status import ready_databases
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.embedded_servers import (
    HOLD_FROM_ELSEWHERE,
    LONG,
    ODD,
    SHORTER,
    Start,
    admin,
    cluster,
    hold,
    mode,
)
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.other_user import do_as, needs_root, other_user, require_programs
from episodes_assets_tests.support.system import throwaway

pytestmark = pytest.mark.process


@pytest.mark.long
def test_nobody_gets_in_without_the_roles_password(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "home")
    dsn = server.dsn(embedded.ADMINISTRATOR, "postgres")
    password = dsn.split(":")[2].split("@")[0]
    psycopg.connect(dsn).close()
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(dsn.replace(f":{password}", ""))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn.replace(password, "wrong"))
    assert mode(tmp_path / "home" / "postgres.passwords.json") == 0o600
    assert password not in repr(server)
    assert mode(server.socket_folder) == 0o700


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", ["home", LONG, ODD])
def test_another_user_of_the_machine_does_not_get_in(name: str, open_folder: Path) -> None:
    """Not even one who knows a password: the socket's folder is closed."""
    with other_user("ann") as ann, other_user("eve") as eve:
        require_programs(ann)
        ann.own(open_folder)
        home = open_folder / name / ".episodes"

        def served() -> tuple[str, Path]:
            server = embedded.start(home)
            with admin(server) as connection:
                connection.execute("SELECT 1")
            return server.dsn(embedded.ADMINISTRATOR, "postgres"), server.socket_folder

        dsn, socket_folder = do_as(ann, served)
        try:
            do_as(ann, lambda: psycopg.connect(dsn).close())
            with pytest.raises(psycopg.OperationalError, match="Permission denied"):
                do_as(eve, lambda: psycopg.connect(dsn).close())
            assert mode(socket_folder) == 0o700
            assert mode(home) == 0o700
            for private in ("postgres.lock", "postgres.holders", "postgres.passwords.json"):
                with pytest.raises(PermissionError):
                    do_as(eve, (home / private).read_text)
        finally:
            postmaster.stop(home / "postgres")


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", ["home", LONG, ODD])
def test_as_root_no_mode_of_a_folder_changes(name: str, start: Start, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    home = closed / name / ".episodes"
    home.parent.mkdir(parents=True, mode=0o700)
    closed.chmod(0o700)
    wheel = postgres_cluster.find_programs().folder
    folders = [*home.parents, wheel, *wheel.parents]
    before = [folder.stat().st_mode for folder in folders]
    server = start(home)
    with admin(server) as connection:
        connection.execute("SELECT 1")
    assert [folder.stat().st_mode for folder in folders] == before
    data = cluster(home).data
    assert data.is_relative_to(postgres_cluster.SYSTEM_FOLDER)
    assert data.owner() == postgres_cluster.SYSTEM_USER
    assert mode(data) == 0o700
    assert mode(home) == 0o700


def test_a_socket_folder_that_is_open_to_others_is_refused(start: Start, tmp_path: Path) -> None:
    """Who can put a socket there would be told what is sent."""
    server = start(tmp_path / "home")
    server.socket_folder.chmod(0o777)
    embedded.start.cache_clear()
    with pytest.raises(DatabaseUnreachable, match="is not private"):
        embedded.start(tmp_path / "home")


@pytest.mark.long
@pytest.mark.parametrize("lives", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_socket_folder_that_others_have_made_meanwhile_is_replaced(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    """Whether the server lives or was killed; unless a process is left whose DSNs name the folder."""
    monkeypatch.setattr(postmaster, "LONGEST_SOCKET_PATH", SHORTER)
    home = throwaway(tmp_path / LONG / "home")
    argv = [sys.executable, "-c", HOLD_FROM_ELSEWHERE, str(home)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        running = postmaster.find_running(cluster(home).data)
        assert running is not None
        assert running.socket_folder.parent == Path(tempfile.gettempdir()).resolve()
        shutil.rmtree(running.socket_folder)
        running.socket_folder.mkdir()
        running.socket_folder.chmod(0o777)
        (running.socket_folder / "theirs").touch()
        if not lives:
            os.kill(running.pid, signal.SIGKILL)
            eventually(lambda: postmaster.find_running(cluster(home).data) is None)
            with pytest.raises(DatabaseUnreachable, match="is not private"):
                start(home)
        holder.kill()
    server = start(home)
    assert server.socket_folder != running.socket_folder
    assert mode(server.socket_folder) == 0o700
    with admin(server) as connection:
        connection.execute("SELECT 1")
    shutil.rmtree(running.socket_folder)


def initialise_as_before(home: Path, account: Account | None) -> Cluster:
    """As the wheel's helper did: everybody is trusted."""
    data = home / "postgres"
    data.mkdir(parents=True)
    if account is not None:
        account.own(data)
    programs = postgres_cluster.find_programs(account)
    argv = programs.argv("initdb", "--auth=trust", "--auth-local=trust", "--encoding=utf8")
    argv += ["--locale=C", "-U", "postgres", "-D", str(data)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **programs.options)
    return Cluster(home, data, programs)


def serve_as_before(found: Cluster, statement: str) -> None:
    argv = found.programs.argv("postgres", "--single", "-D", str(found.data), "postgres")
    subprocess.run(argv, input=statement.encode(), check=True, capture_output=True, **found.programs.options)


@pytest.mark.slow
def test_a_home_of_the_release_before_gets_passwords(start: Start, open_folder: Path) -> None:
    account = postgres_cluster.system_account() if os.geteuid() == 0 else None
    home = open_folder / "home"
    found = initialise_as_before(home, account)
    serve_as_before(found, "CREATE TABLE kept ()\nCREATE ROLE episodes_worker LOGIN\n")
    server = start(home)
    assert cluster(home).data == found.data
    with admin(server) as connection:
        connection.execute("SELECT FROM kept")
        collations = connection.execute("SELECT DISTINCT datlocprovider, datcollate FROM pg_database")
        assert collations.fetchall() == [("c", "C")]
    host = server.socket_folder
    for role in ("postgres", "episodes_worker"):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(f"postgresql://{role}@/postgres?host={host}")
    psycopg.connect(server.dsn("episodes_worker", "postgres")).close()  # before any `db init`
    dsns = ready_databases(load_settings(home=home, **{f"{p}_dsn": None for p in Purpose}), lambda _: None)
    for purpose in Purpose:
        with psycopg.connect(dsns.require(purpose)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (purpose.embedded_role,)


@pytest.mark.slow
def test_lost_passwords_are_replaced_once_nobody_uses_the_server(start: Start, tmp_path: Path) -> None:
    home = throwaway(tmp_path / "home")
    holder = hold(home)
    file = home / "postgres.passwords.json"
    file.unlink()
    with pytest.raises(DatabaseUnreachable, match="are not those of the running server"):
        start(home)
    holder.communicate()
    with admin(start(home)) as connection:
        connection.execute("SELECT 1")


@pytest.mark.long
def test_a_home_that_the_release_before_still_uses_is_left_alone(start: Start, open_folder: Path) -> None:
    account = postgres_cluster.system_account() if os.geteuid() == 0 else None
    home = open_folder / "home"
    found = initialise_as_before(home, account)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={found.data}"]
    argv = found.programs.argv("postgres", "-D", str(found.data), *options)
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, **found.programs.options) as before:
        eventually(
            lambda: psutil.Process(before.pid).is_running() and postmaster.accepts_connections(found.data)
        )
        (found.data / ".handle_pids.json").write_text(json.dumps([os.getpid()]))
        with pytest.raises(DatabaseUnreachable, match=rf"an older release still uses .*{os.getpid()}"):
            start(home)
        (found.data / ".handle_pids.json").write_text("[]")  # and then nobody does
        with admin(start(home)) as connection:
            connection.execute("SELECT 1")
        before.wait(30)


@pytest.mark.long
@needs_root
def test_a_cluster_that_its_user_cannot_reach_is_refused(start: Start, open_folder: Path) -> None:
    """The release before opened every folder above it; closed again, they stay so."""
    home = open_folder / "home"
    initialise_as_before(home, postgres_cluster.system_account())
    open_folder.chmod(0o700)
    with pytest.raises(DatabaseUnreachable, match="has no access to a folder above it"):
        embedded.start(home)
    assert mode(open_folder) == 0o700
    # As docs/environments.md says.
    moved = postgres_cluster.SYSTEM_FOLDER / f"cluster-test-{os.getpid()}"
    moved.mkdir(mode=0o711)
    (home / "postgres").rename(moved / "data")
    (moved / "home").write_text(f"{home}\n")
    (home / "postgres").symlink_to(moved)
    with admin(start(home)) as connection:
        connection.execute("SELECT 1")
    postmaster.stop(moved / "data")
    shutil.rmtree(moved)
