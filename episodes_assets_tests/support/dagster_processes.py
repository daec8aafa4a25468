"""Dagster's processes as `episodes up` starts them, each by itself, of this release or of another one."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from episodes_assets.cli.supervisor import episodes_argv, program
from episodes_assets_tests.support.own_server import HOST, free_port
from episodes_assets_tests.support.system import System

READY_SECONDS = 120.0


def write_workspace(system: System, port: int) -> Path:
    """A workspace that names the code location on a port."""
    server = {"host": HOST, "port": port, "location_name": "episodes_assets"}
    workspace = system.home / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
    return workspace


def code_argv(port: int) -> list[str]:
    """The command line of the code location on a port."""
    return [
        *program("dagster"), "api", "grpc", "--module-name", "episodes_assets.definitions",
        "--host", HOST, "--port", str(port), "--location-name", "episodes_assets",
    ]  # fmt: skip


def daemon_argv(workspace: Path | str) -> list[str]:
    """The command line of the daemon."""
    return [*program("dagster-daemon"), "run", "--workspace", str(workspace)]


@contextmanager
def code_server(system: System) -> Iterator[str]:
    """The code location as `episodes up` serves it; the path of a workspace that names it."""
    port = free_port()
    workspace = write_workspace(system, port)
    with quiet_process(*code_argv(port)):
        yield str(workspace)


@contextmanager
def daemon(workspace: str) -> Iterator[subprocess.Popen[bytes]]:
    with quiet_process(*daemon_argv(workspace)) as process:
        yield process


@contextmanager
def quiet_process(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        argv,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@dataclass
class Logged:
    """A process whose output is kept in a file."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Until it has printed a text."""
        deadline = time.monotonic() + READY_SECONDS
        while text not in self.output:
            assert self.process.poll() is None, f"{self.name} has ended:\n{self.output}"
            assert time.monotonic() < deadline, f"{self.name} does not say {text!r}:\n{self.output}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end, and insist that it does."""
        self.process.terminate()
        self.process.wait(60)


def start_logged(name: str, log: Path, argv: list[str], environment: Mapping[str, str]) -> Logged:
    """Start a process with an environment and nothing else of this one's."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    return Logged(name, log, process)


def webserver_argv(port: int, workspace: Path) -> list[str]:
    """The command line of the web server."""
    return episodes_argv("webserver", "--port", str(port), "--workspace", str(workspace))


def is_healthy(port: int) -> bool:
    """Whether the web server says that it can serve."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False
