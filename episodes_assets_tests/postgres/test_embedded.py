"""The embedded PostgreSQL: who gets in, where it lies, and that it comes back."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest

from episodes_assets import private_files
from episodes_assets.cli import up
from episodes_assets.cli.overview import Overview
from episodes_assets.cli.supervisor import ProcessGroup
from episodes_assets.errors import DatabaseUnreachable, LockTimeout
from episodes_assets.postgres import cluster as postgres_cluster
from episodes_assets.postgres import embedded, postmaster
from episodes_assets.postgres.cluster import Account, Cluster, Programs, find_cluster, programs_for_initdb
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.provision.status import ready_databases
from episodes_assets.private_files import LOG_BYTES, older_log
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.other_user import do_as, needs_root, other_user, require_programs
from episodes_assets_tests.support.system import throwaway

pytestmark = pytest.mark.process

ODD = "a (b) ; $c ' \" , ? & \\ é"
LONG = "x" * 95
HOLD = """
import sys
from pathlib import Path
from episodes_assets.postgres import embedded
embedded.start(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""

# Too few for a socket beside the data, wherever they lie, and enough for one in the temporary folder.
SHORTER = 48
HOLD_FROM_ELSEWHERE = f"""
from episodes_assets.postgres import postmaster
postmaster.LONGEST_SOCKET_PATH = {SHORTER}
{HOLD}
"""

Start = Callable[[Path], embedded.EmbeddedServer]


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


def admin(server: embedded.EmbeddedServer) -> psycopg.Connection:
    return psycopg.connect(server.dsn(embedded.ADMINISTRATOR, "postgres"), autocommit=True)


def cluster(home: Path) -> Cluster:
    return find_cluster(home.resolve())


def pid(home: Path) -> int:
    running = postmaster.find_running(cluster(home).data)
    assert running is not None
    return running.pid


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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


def hold(home: Path) -> "subprocess.Popen[str]":
    """A process that holds the server until its input ends."""
    argv = [sys.executable, "-c", HOLD, str(home)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


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
