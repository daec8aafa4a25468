"""Embedded servers that tests start, kill and look into."""

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from episodes_assets.postgres import embedded, postmaster
from episodes_assets.postgres.cluster import Cluster, find_cluster

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


def admin(server: embedded.EmbeddedServer) -> psycopg.Connection:
    return psycopg.connect(server.dsn(embedded.ADMINISTRATOR, "postgres"), autocommit=True)


def cluster(home: Path) -> Cluster:
    return find_cluster(home.resolve())


def pid(home: Path) -> int:
    running = postmaster.find_running(cluster(home).data)
    assert running is not None
    return running.pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def hold(home: Path) -> "subprocess.Popen[str]":
    """A process that holds the server until its input ends."""
    argv = [sys.executable, "-c", HOLD, str(home)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
