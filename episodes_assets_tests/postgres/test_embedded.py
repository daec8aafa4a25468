"""Where the embedded PostgreSQL lies: any path, locale or home, and what is told when it cannot start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from episodes_assets import private_files
from episodes_assets.errors import DatabaseUnreachable, LockTimeout
from episodes_assets.postgres import cluster as postgres_cluster
from episodes_assets.postgres import embedded, postmaster
from episodes_assets.postgres.cluster import Programs, programs_for_initdb
from episodes_assets.private_files import LOG_BYTES, older_log
from episodes_assets_tests.support.embedded_servers import LONG, ODD, Start, admin, cluster, mode
from episodes_assets_tests.support.other_user import needs_root
from episodes_assets_tests.support.system import throwaway

pytestmark = pytest.mark.process


@pytest.mark.slow
@needs_root
def test_a_home_that_is_made_again_begins_with_a_new_cluster(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    start(home)
    first = cluster(home).data
    postmaster.stop(first)
    shutil.rmtree(home)
    embedded.start.cache_clear()
    with admin(start(home)) as connection:
        connection.execute("SELECT 1")
    assert cluster(home).data != first
    assert f"note: {first.parent} has the databases of an earlier {home}" in caplog.text
    shutil.rmtree(first.parent)


@pytest.mark.long
@needs_root
def test_a_home_that_was_moved_keeps_its_cluster_and_a_copy_gets_none(start: Start, tmp_path: Path) -> None:
    start(tmp_path / "home")
    data = cluster(tmp_path / "home").data
    postmaster.stop(data)
    shutil.copytree(tmp_path / "home", tmp_path / "copy", symlinks=True)
    with pytest.raises(DatabaseUnreachable, match="is a copy of"):
        embedded.start(tmp_path / "copy")
    (tmp_path / "home").rename(tmp_path / "moved")
    with admin(start(tmp_path / "moved")) as connection:
        connection.execute("SELECT 1")
    assert cluster(tmp_path / "moved").data == data


@needs_root
def test_processes_that_make_the_system_user_at_once_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"episodes-test-{os.getpid()}"
    program = (
        "import sys; from episodes_assets.postgres import cluster as programs;"
        "programs.SYSTEM_USER = sys.argv[1]; print(programs.system_account().uid)"
    )
    try:
        argv = [sys.executable, "-c", program, name]
        processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        ids = {process.communicate(timeout=60)[0] for process in processes}
        assert len(ids) == 1
        assert ids != {""}
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


def test_a_locale_that_the_machine_lacks_does_not_matter(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh brings it; and libpq's variables are not the server's."""
    monkeypatch.setenv("LANG", "xx_YY.UTF-8")
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with admin(start(tmp_path / "home")) as connection:
        found = connection.execute(
            "SELECT datcollate, datlocale, pg_encoding_to_char(encoding), 'é' < 'z' FROM pg_database"
        )
        assert set(found.fetchall()) == {("C", "C.UTF-8", "UTF8", False)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [ODD, LONG])
def test_paths_that_a_shell_or_a_driver_would_misread(name: str, start: Start, tmp_path: Path) -> None:
    home = tmp_path / name
    server = start(home)
    with psycopg.connect(server.dsn(embedded.ADMINISTRATOR, "postgres")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert postmaster.suits_a_socket(server.socket_folder)


@pytest.mark.slow
def test_programs_below_a_path_that_initdb_would_misread(open_folder: Path) -> None:
    odd = open_folder / ODD
    postgres_cluster._copy_to(odd)
    account = postgres_cluster.system_account() if os.geteuid() == 0 else None
    programs = Programs(odd / postgres_cluster._BIN, account)
    data = open_folder / "data"
    data.mkdir()
    if account is not None:
        account.own(data)
    with programs_for_initdb(programs) as safe:
        argv = safe.argv("initdb", "-D", str(data), "--auth=reject", "--locale=C", "--no-sync")
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **safe.options)
        assert safe.folder != programs.folder
    assert not safe.folder.exists()
    assert (data / "PG_VERSION").exists()
    version = subprocess.check_output(programs.argv("postgres", "--version"), text=True, **programs.options)
    assert version.startswith("postgres (PostgreSQL) 18")


def test_no_folder_for_a_socket_is_told_before_anything_starts(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmaster, "LONGEST_SOCKET_PATH", 10)
    with pytest.raises(DatabaseUnreachable, match="set TMPDIR to a folder with such a path"):
        start(tmp_path / "home")
    assert not cluster(tmp_path / "home").data.exists()


@pytest.mark.long
def test_a_held_lock_is_told_and_given_up(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(private_files, "TELL_SECONDS", 0.1)
    monkeypatch.setattr(private_files, "LOCK_SECONDS", 0.5)
    home = throwaway(private_files.make_folder(tmp_path / "home"))
    program = (
        "import sys; from pathlib import Path; from episodes_assets.private_files import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", program, str(home / "postgres.lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockTimeout, match=f"process {holder.pid} still holds .*postgres.lock"):
            start(home)
        assert f"Waiting for process {holder.pid}, which holds {home}" in caplog.text
        holder.kill()  # which frees the lock
    with admin(start(home)) as connection:
        connection.execute("SELECT 1")


@pytest.mark.slow
def test_a_first_start_that_fails_says_why_and_names_a_log_that_is_there(tmp_path: Path) -> None:
    home = throwaway(tmp_path / "home")
    no_room = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh"]  # no file may have more than 50 kB
    argv = [*no_room, sys.executable, "-m", "episodes_assets", "db", "status"]
    done = subprocess.run(
        argv, env={**os.environ, "EPISODES_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    log = home / "logs" / "postgres.log"
    assert done.returncode == 1
    assert "did not start (" in done.stderr
    assert f"read {log}" in done.stderr
    assert done.stderr.count("\n") < 5
    assert log.read_text()
    assert mode(log) == 0o600
    # What was begun is not taken for a cluster.
    with admin(embedded.start(home)) as connection:
        connection.execute("SELECT 1")
    postmaster.stop(cluster(home).data)


@pytest.mark.long
def test_the_log_of_a_running_server_is_rotated(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "home")
    log = server.home / "logs" / "postgres.log"
    with log.open("a") as file:
        file.write("x" * LOG_BYTES)
    assert not server.ensure_running()
    assert older_log(log, 1).stat().st_size > LOG_BYTES
    assert log.stat().st_size == 0
    with admin(server) as connection:
        connection.execute("DO $$ BEGIN RAISE LOG 'goes on'; END $$")
    assert "goes on" in log.read_text()
