"""A PostgreSQL of one's own: TCP on a loopback port, every connection with a password; it can be stopped."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from episodes_assets.postgres.cluster import Account, Programs, find_programs, system_account

HOST = "127.0.0.1"
ADMINISTRATOR = "boss"


@dataclass(frozen=True)
class OwnServer:
    """A running server, or one that was stopped on purpose."""

    data: Path
    programs: Programs
    port: int
    password: str
    host: str = HOST
    namespace: str = ""  # of the network that it listens in; this process's own without

    @property
    def address(self) -> str:
        """As a DSN has it."""
        return f"{self.host}:{self.port}"

    @property
    def admin_dsn(self) -> str:
        return f"postgresql://{ADMINISTRATOR}:{self.password}@{self.address}/postgres"

    @property
    def is_started(self) -> bool:
        """Whether it runs, as its file says; also one that was not ready in time."""
        return (self.data / "postmaster.pid").exists()

    def start(self) -> None:
        """Start it, and wait until it answers; after `crash` it recovers first."""
        options = f"-h {self.host} -p {self.port} -k {self.data}"
        self._control("-o", options, "-l", str(self.data / "log"), "start")

    def crash(self) -> None:
        """Stop it as a failing machine does: no goodbye, no checkpoint."""
        self._control("-m", "immediate", "stop")

    def stop(self) -> None:
        self._control("-m", "fast", "stop")

    def initialize(self, password_file: Path) -> None:
        arguments = ("-U", ADMINISTRATOR, "--auth=scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8")
        self._run("initdb", "-D", str(self.data), *arguments)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-w", "-D", str(self.data), *arguments)

    def _run(self, name: str, *arguments: str) -> None:
        command, started_as = self.programs.argv(name, *arguments), self.programs.options
        if self.namespace:  # which only root may enter, so the account is changed there
            user, group = (
                f"--{id_of}={started_as.pop(who)}" for id_of, who in (("setuid", "user"), ("setgid", "group"))
            )
            del started_as["extra_groups"]
            command = ["nsenter", f"--net=/run/netns/{self.namespace}", user, group, *command]
        # No pipes: the server would hold them open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **started_as,
            )
            output.seek(0)
            assert done.returncode == 0, output.read()


@contextmanager
def own_server(
    on_disk: Path | None = None, *, host: str = HOST, namespace: str = "", clients: str = ""
) -> Iterator[OwnServer]:
    """Run a server while the block lasts, in a temporary folder or below one that every account can reach.

    Args:
        on_disk: That folder.
        host: The address that it listens on.
        namespace: The network namespace that has it, if that is not this process's own.
        clients: The network of those who may connect there, with a password, besides this machine.
    """
    account = system_account() if os.geteuid() == 0 else None
    # Not in pytest's, which is closed to that account.
    folder = Path(tempfile.mkdtemp(prefix="own-server-", dir=on_disk))
    try:
        server = _made(folder, account, host, namespace, clients)
        try:
            server.start()
            yield server
        finally:
            if server.is_started:
                server.stop()
    finally:
        shutil.rmtree(folder)


def _made(folder: Path, account: Account | None, host: str, namespace: str, clients: str) -> OwnServer:
    password = secrets.token_hex(8)
    password_file = folder / "password"
    password_file.write_text(password)
    if account is not None:
        account.own(folder)
        account.own(password_file)
    server = OwnServer(folder / "data", find_programs(account), free_port(), password, host, namespace)
    server.initialize(password_file)
    if clients:
        with (server.data / "pg_hba.conf").open("a") as access:
            access.write(f"host all all {clients} scram-sha-256\n")
    return server


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
