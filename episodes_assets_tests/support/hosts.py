"""Several machines on one: network namespaces behind a router, each with only the routes that it is given.

A process that is started on a host has its network and its name, and shares only the files with others. A
host that is lost is cut off as by a pulled cable: nothing arrives any more, and nobody is told.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Host:
    """A host behind the router.

    Attributes:
        name: As its processes see it.
        number: Its network is 10.77.NUMBER.0/30.
        namespace: As the kernel knows it.
        router: The router's namespace.
    """

    name: str
    number: int
    namespace: str
    router: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"10.77.{self.number}.2"

    @property
    def network(self) -> str:
        return f"10.77.{self.number}.0/30"

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs a program there, in place of the process that is started."""
        script = 'hostname "$0" && exec "$@"'
        return [*in_namespace(self.namespace), "unshare", "--uts", "sh", "-c", script, self.name, *argv]

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process there."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.argv(*argv),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def run(self, argv: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run a process there to its end."""
        return subprocess.run(
            self.argv(*argv), env=dict(environment), capture_output=True, text=True, timeout=300, check=False
        )

    def cut_off(self) -> None:
        """Let nothing pass to it or from it any more; neither side is told."""
        _in(self.router, "ip", "link", "set", f"to{self.number}", "down")

    def kill(self) -> None:
        """End all its processes at once."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """Ask processes that were started there to end, and insist; the others go on."""
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = [each for each in self.processes if each not in processes]


def in_namespace(name: str) -> list[str]:
    """What runs a command line in a namespace."""
    return ["nsenter", f"--net=/run/netns/{name}"]


@contextmanager
def hosts(routes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Host]]:
    """Hosts while the block lasts.

    Skips the test where the machine allows no namespaces, and says so.

    Args:
        routes: The hosts that each host has a route to; those have one back.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("network namespaces take root, and `ip` and `nsenter` (Debian's iproute2 and util-linux)")
    prefix = f"episodes-{os.getpid()}"
    router = f"{prefix}-router"
    made = {
        name: Host(name, number, f"{prefix}-{name}", router) for number, name in enumerate(routes, start=1)
    }
    namespaces = [router, *(each.namespace for each in made.values())]
    try:
        try:
            for each in namespaces:
                _run("ip", "netns", "add", each)
            for host in made.values():
                _connect(host)
            _in(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine refuses network namespaces: {error.stderr.strip()}")
        for name, reached in routes.items():
            for other in reached:
                _route(made[name], made[other])
                _route(made[other], made[name])
        yield made
    finally:
        for host in made.values():
            host.stop(*host.processes)
        for each in namespaces:
            _remove(each)


def _remove(namespace: str) -> None:
    """Remove a namespace, if it was made, and its cables; a process that is left in it would keep it."""
    left = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in left.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def _connect(host: Host) -> None:
    """A cable between a host and the router."""
    near, far = "eth0", f"to{host.number}"
    _in(host.router, "ip", "link", "add", far, "type", "veth", "peer", near, "netns", host.namespace)
    _in(host.router, "ip", "address", "add", f"10.77.{host.number}.1/30", "dev", far)
    _in(host.router, "ip", "link", "set", far, "up")
    for name in ("lo", near):
        _in(host.namespace, "ip", "link", "set", name, "up")
    _in(host.namespace, "ip", "address", "add", f"{host.address}/30", "dev", near)


def _route(of: Host, to: Host) -> None:
    _in(of.namespace, "ip", "route", "replace", to.network, "via", f"10.77.{of.number}.1")


def _in(namespace: str, *argv: str) -> None:
    _run(*in_namespace(namespace), *argv)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
