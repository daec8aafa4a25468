"""The embedded PostgreSQL: one private server for a home, reached by a unix socket only.

The server belongs to whoever uses it: each process that calls `start` holds it by a shared lock, and the last
one to exit stops it. A child process that is handed DSNs does not hold it; its parent does. It is started
again on the same socket, so DSNs that were handed out stay valid.

Every role has a generated password, kept in a file of mode 0600 in the home, and `pg_hba.conf` lets nobody in
without. The socket lies in a folder of mode 0700 as well: the data's own, which nobody else can replace,
where its path is short and plain enough. Otherwise it is one made by `mkdtemp`: its name is random, and the
temporary folder's sticky bit keeps others from replacing it. Should it be removed, and another user make one
of its name, a new one is made, unless a process has DSNs that name it. It is not in `XDG_RUNTIME_DIR`, which
services lack, and which vanishes at logout while the server still runs.

What can be loaded again need not be flushed to disk at each commit: after `sync_later` the server leaves that
to the system until `sync_now`. A process that is killed in between loses nothing; if the machine fails, the
next start deletes the databases, since they may be damaged.

Where the data lie and which programs run is `cluster`; its process, its socket's folder and its log are
`postmaster`; databases and roles are made in `provision/`, for this server as for any other.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psutil

from episodes_assets.errors import (
    DatabaseUnreachable,
    LockTimeout,
)
from episodes_assets.failures import explain
from episodes_assets.postgres import postmaster
from episodes_assets.postgres.cluster import Cluster, find_cluster, programs_for_initdb
from episodes_assets.postgres.databases import Purpose
from episodes_assets.private_files import lock, make_folder, open_file, rotate_log, write_file

ADMINISTRATOR = "postgres"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# PostgreSQL's defaults are for the smallest machines. None of these makes it less durable.
_SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",  # no spinning disks
    "max_connections": "300",
}
# A commit still goes to the system (synchronous_commit), so that a server that is killed has lost nothing.
# All that it writes is to be flushed in the end, so nothing is kept of the log that recovery does not need.
_UNSYNCED_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_recycle": "off",
    "wal_init_zero": "off",
    "min_wal_size": "32MB",
}
_UNSYNCED_FILE = "postgres.unsynced"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SETTINGS_FILE = "episodes.conf"
_ACCESS_FILE = "pg_hba.conf"


@dataclass(frozen=True)
class EmbeddedServer:
    """An embedded server on which this process holds a shared lock."""

    home: Path
    socket_folder: Path
    _passwords: Mapping[str, str] = field(repr=False)

    def dsn(self, role: str, database: str) -> str:
        """A libpq URL with the role's password."""
        host = quote(str(self.socket_folder), safe="/")
        return f"postgresql://{role}:{self._passwords[role]}@/{database}?host={host}&port={postmaster.PORT}"

    def is_running(self) -> bool:
        """Whether it accepts connections; cheap enough to be called every second."""
        return postmaster.accepts_connections(self.socket_folder)

    def ensure_running(self) -> bool:
        """Start it again if it is not running, and rotate its log; DSNs that were handed out stay valid.

        Returns:
            Whether it had to be started.

        Raises:
            DatabaseUnreachable: If it does not start.
            LockTimeout: If another process takes too long to start or stop it.
        """
        postmaster.reap()
        if self.is_running():
            with contextlib.suppress(OSError):
                rotate_log(postmaster.log_of(self.home), is_held_open=True)
            return False
        with _explaining_errors(self.home), lock(self.home / "postgres.lock"):
            found = _bring_up(find_cluster(self.home), self._passwords, self.socket_folder)
        if found != self.socket_folder:
            raise DatabaseUnreachable(
                f"the embedded PostgreSQL in {self.home} has been started again at another place, {found}",
                "start this command again",
            )
        return True


@functools.cache
def start(home: Path) -> EmbeddedServer:
    """Start the server of a home, creating it at first, or join the running one.

    Raises:
        DatabaseUnreachable: If it does not start.
        ProcessFailed: If there are no programs, or, where this process is root, no system user for them.
        LockTimeout: If another process takes too long to start or stop it.
    """
    home = home.resolve()
    with _explaining_errors(home):
        if _CONTROL.search(str(home)):
            raise OSError("its path has a control character in it")
        make_folder(home)
        with lock(home / "postgres.lock"):
            cluster = find_cluster(home)
            passwords = _read_passwords(home)
            socket_folder = _bring_up(cluster, passwords)
            holders = _open_holders(home)
            fcntl.flock(holders, fcntl.LOCK_SH)
            atexit.register(_release, cluster, holders, os.getpid())
    return EmbeddedServer(home, socket_folder, passwords)


def sync_later(home: Path) -> None:
    """Let the server of a home flush nothing to disk until `sync_now`; for what can be loaded again.

    To be called before the server starts; one that runs already goes on as it is. Idempotent.

    Raises:
        DatabaseUnreachable: If there is a cluster that cannot be used from here.
        LockTimeout: If another process takes too long to start or stop the server.
    """
    home = home.resolve()
    with _explaining_errors(home):
        make_folder(home)
        with lock(home / "postgres.lock"):
            cluster = find_cluster(home)
            if postmaster.find_running(cluster.data) is None:
                _delete_if_damaged(cluster)
            with open_file(home / _UNSYNCED_FILE, "w") as file:
                file.write(_boot())
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(home)  # before there are data that could be taken for durable ones


def sync_now(home: Path) -> None:
    """Flush the databases of a home to disk, and stop the server; from its next start on it is durable.

    Does nothing for a home for which `sync_later` was not called.

    Raises:
        DatabaseUnreachable: If that fails.
        LockTimeout: If another process takes too long to start or stop the server.
    """
    home = home.resolve()
    with _explaining_errors(home), lock(home / "postgres.lock"):
        if not (home / _UNSYNCED_FILE).exists():
            return
        cluster = find_cluster(home)
        postmaster.stop(cluster.data)
        with programs_for_initdb(cluster.programs) as programs:
            postmaster.run_program(cluster, programs.argv("initdb", "--sync-only", "-D", str(cluster.data)))
        (home / _UNSYNCED_FILE).unlink()
        _sync_folder(home)
    start.cache_clear()  # so that it is started again, should this process need it


def discard(home: Path) -> bool:
    """Stop the server of a home that no process uses, and delete its databases.

    Returns:
        Whether that was done; False while a process uses the server.

    Raises:
        OSError: If something cannot be removed.
        LockTimeout: If another process takes too long to start or stop it.
    """
    home = home.resolve()
    place = home / "postgres"
    with lock(home / "postgres.lock"), _open_holders(home) as holders:
        try:
            fcntl.flock(holders, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Where the data are is not asked of the cluster: of one half deleted, it may not know any more.
        folder = place.readlink() if place.is_symlink() else place
        postmaster.stop(folder / "data" if place.is_symlink() else place)
        if folder.exists():
            shutil.rmtree(folder)
        if place.is_symlink():
            place.unlink()
        (home / _UNSYNCED_FILE).unlink(missing_ok=True)
    return True


def _delete_if_damaged(cluster: Cluster) -> None:
    """Delete databases that were not flushed to disk when the machine failed or was restarted."""
    mark = cluster.home / _UNSYNCED_FILE
    if mark.exists() and mark.read_text(encoding="utf-8") != _boot() and cluster.data.exists():
        shutil.rmtree(cluster.data)


def _boot() -> str:
    """What tells one start of this machine from the others."""
    if _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return f"{psutil.boot_time():.0f}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explaining_errors(home: Path) -> Iterator[None]:
    """Turn errors of the operating system into one that names the server's log."""
    try:
        yield
    except (OSError, UnicodeError, json.JSONDecodeError, subprocess.SubprocessError, psutil.Error) as error:
        raise postmaster.did_not_start(home, str(error), explain(error, postmaster.name_of(home))) from error


def _open_holders(home: Path) -> IO[str]:
    """The file on which each process that uses the server has a shared lock, which ends with the process."""
    return open_file(home / "postgres.holders", "a")


def _read_passwords(home: Path) -> Mapping[str, str]:
    """The roles' passwords; those that are missing are made."""
    file = home / "postgres.passwords.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    roles = (ADMINISTRATOR, *(purpose.embedded_role for purpose in Purpose))
    made = {role: secrets.token_hex(24) for role in roles if role not in known}
    if made:
        write_file(file, json.dumps(known | made, indent=2))
    return {**known, **made}


def _bring_up(cluster: Cluster, passwords: Mapping[str, str], wanted: Path | None = None) -> Path:
    """Start the server unless it runs with today's access rules; to be called with the lock held.

    Args:
        cluster: Its data may be missing, or of a release without passwords.
        passwords: The roles'; `db init` sets those of roles that are not there yet.
        wanted: The folder in which its socket must be, if DSNs that name it are in use.

    Returns:
        The socket's folder.
    """
    access = _access_rules(passwords)
    running = postmaster.find_running(cluster.data)
    if running is not None:
        running = postmaster.wait_until_ready(cluster)
    if running is not None and not _has(cluster, _ACCESS_FILE, access):
        _refuse_while_used(cluster)
        postmaster.stop(cluster.data)
        running = None
    if running is not None and _is_lost(cluster, running.socket_folder):
        postmaster.stop(cluster.data)
        running = None
    if running is not None and not postmaster.accepts_connections(running.socket_folder):
        wanted = running.socket_folder  # somebody has removed its socket
        postmaster.stop(cluster.data)
        running = None
    if running is None:
        earlier = postmaster.socket_folder_of_killed(cluster.data)
        if earlier is not None and _is_lost(cluster, earlier):
            earlier = None
        socket_folder = wanted or earlier or postmaster.choose_socket_folder(cluster)
        _delete_if_damaged(cluster)
        postmaster.ensure_socket_folder(cluster, socket_folder)
        is_synced_later = (cluster.home / _UNSYNCED_FILE).exists()
        _initialise(cluster, *(["--no-sync"] if is_synced_later else []))
        settings = {**_SETTINGS, **(_UNSYNCED_SETTINGS if is_synced_later else {})}
        _put(cluster, _SETTINGS_FILE, "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        if not _has(cluster, _ACCESS_FILE, access):
            _set_passwords(cluster, passwords)
            _put(cluster, _ACCESS_FILE, access)
        running = postmaster.launch(cluster, socket_folder)
    postmaster.require_private(cluster, running.socket_folder)
    return running.socket_folder


def _access_rules(passwords: Mapping[str, str]) -> str:
    """The content of `pg_hba.conf` once the passwords are set; it changes with the administrator's."""
    digest = hashlib.sha256(passwords[ADMINISTRATOR].encode()).hexdigest()
    return f"# Written by `episodes`, for the password of SHA-256 {digest}.\nlocal all all scram-sha-256\n"


def _is_lost(cluster: Cluster, socket_folder: Path) -> bool:
    """Whether a socket's folder is open to others, and no process has a DSN that names it.

    Its name is known to all users of the machine: once it is gone from the temporary folder, as after a
    restart of the machine, any of them can make one of that name.
    """
    return postmaster.is_open(cluster, socket_folder) and not _is_used(cluster)


def _is_used(cluster: Cluster) -> bool:
    """Whether a process uses the server, this one included."""
    with _open_holders(cluster.home) as holders:
        try:
            fcntl.flock(holders, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _refuse_while_used(cluster: Cluster) -> None:
    """Refuse to replace a server that has other passwords, or none, while a process uses it."""
    if _is_used(cluster):
        raise DatabaseUnreachable(
            f"the passwords in {cluster.home} are not those of the running server",
            "stop all processes that use it, then start again",
        )
    earlier = cluster.data / ".handle_pids.json"  # by which releases without passwords counted theirs
    pids = json.loads(earlier.read_text(encoding="utf-8") or "[]") if earlier.exists() else []
    if alive := [pid for pid in pids if psutil.pid_exists(pid)]:
        raise DatabaseUnreachable(
            f"an older release still uses {cluster.data} (processes {', '.join(map(str, alive))})",
            "stop them, then start again",
        )


def _initialise(cluster: Cluster, *more_options: str) -> None:
    """Make the cluster, atomically by a rename at the end.

    Its locale is PostgreSQL's own: the same on every machine, whichever ones that machine has generated.
    """
    if (cluster.data / "PG_VERSION").exists():
        return
    part = cluster.data.with_name(f"{cluster.data.name}.part")
    if part.exists():  # of a process that was killed
        shutil.rmtree(part)
    part.mkdir(mode=0o700)
    cluster.own(part)
    with programs_for_initdb(cluster.programs) as programs:
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        options = (f"--username={ADMINISTRATOR}", "--auth=reject", "--no-instructions")
        postmaster.run_program(
            cluster, programs.argv("initdb", "-D", str(part), *locale, *options, *more_options)
        )
    with (part / "postgresql.conf").open("a", encoding="utf-8") as main:
        main.write(f"include_if_exists = '{_SETTINGS_FILE}'\n")
    part.rename(cluster.data)


def _set_passwords(cluster: Cluster, passwords: Mapping[str, str]) -> None:
    """Set the passwords of existing roles in single-user mode, so that nobody can connect before."""
    argv = cluster.programs.argv("postgres", "--single", "-D", str(cluster.data), "-c", "exit_on_error=on")
    statements = [
        f"DO $$BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
        f" THEN ALTER ROLE {role} PASSWORD '{password}'; END IF; END$$\n"
        for role, password in passwords.items()
    ]
    postmaster.run_program(cluster, [*argv, "postgres"], "".join(statements))


def _has(cluster: Cluster, name: str, text: str) -> bool:
    file = cluster.data / name
    return file.exists() and file.read_text(encoding="utf-8") == text


def _put(cluster: Cluster, name: str, text: str) -> None:
    """Write a file of the cluster by rename, so that root follows no link made by the server's user."""
    if _has(cluster, name, text):
        return
    part = cluster.data / f"{name}.part"
    part.unlink(missing_ok=True)
    with open_file(part, "x") as file:
        file.write(text)
    cluster.own(part)
    part.replace(cluster.data / name)


def _release(cluster: Cluster, holders: IO[str], holder: int) -> None:
    """Called at exit: stop the server if no other process holds it."""
    if os.getpid() != holder:  # a fork of it
        return
    with contextlib.suppress(OSError, LockTimeout, psutil.Error), contextlib.ExitStack() as stack, holders:
        if cluster.home.exists():
            stack.enter_context(lock(cluster.home / "postgres.lock"))
        fcntl.flock(holders, fcntl.LOCK_EX | fcntl.LOCK_NB)
        postmaster.stop(cluster.data)
