"""A day on several machines, each with only the routes and the DSNs of its role; one of them is lost."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.settings import load_settings, with_settings
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import published_bytes
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.lake.object_store import BUCKET, serve_argv
from episodes_assets_tests.support.hosts import Host, hosts
from episodes_assets_tests.support.own_server import OwnServer, own_server
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.workers import eventually

DAY = day(1)
EPISODES = 1_500
STORE_PORT = 9000
WORKERS_A_HOST = 2
# The databases' host serves the lake as well.
ROUTES = {
    "database": (),
    "orchestrator": ("database",),
    "worker-1": ("database",),
    "worker-2": ("database",),
    "consumer": ("database",),
}
READ = """
import os, sys, psycopg
with psycopg.connect(os.environ["EPISODES_CONSUMER_DSN"]) as connection:
    rows = connection.execute("SELECT count(*) FROM published.results WHERE day = %s", [sys.argv[1]])
    print(rows.fetchone()[0])
"""
REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
except OSError as error:
    sys.exit(type(error).__name__)
"""


@dataclass
class Landscape:
    """The hosts, and the system on them.

    Attributes:
        hosts: By name.
        system: As this process reaches it: by the server's socket.
        dsns: As the hosts reach it.
        base: The environment of every process.
        logs: What they say.
    """

    hosts: dict[str, Host]
    system: System
    dsns: Dsns
    base: dict[str, str]
    logs: Path

    def environment(self, host: Host, *purposes: Purpose) -> dict[str, str]:
        """A process's environment on a host: the lake, and DSNs of its role alone."""
        given = with_settings(self.base, self.dsns.environment(purposes))
        return {**given, "EPISODES_HOME": str(self.logs.parent / host.name)}

    @contextmanager
    def workers(self, *names: str, count: int = WORKERS_A_HOST) -> Iterator[None]:
        """Workers on some hosts while the block lasts, from when all are ready."""
        started = [self.hosts[name] for name in names]
        log = self.logs / f"workers-{time.monotonic_ns()}.log"
        for host in started:
            environment = self.environment(host, *FLEET)
            for _ in range(count):
                host.start(episodes_argv("worker"), environment, log)
        try:
            eventually(lambda: log.read_text().count("is ready") == count * len(started), 300)
            yield
        finally:
            for host in started:
                host.stop()

    def run_day(self, host: Host, *options: str) -> None:
        """The orchestrator's run over the day, on a host, to its end."""
        done = host.run(episodes_argv("run", str(DAY), *options), self.environment(host, *ORCHESTRATOR))
        assert done.returncode == 0, done.stdout + done.stderr

    def throughput(self) -> float:
        """Jobs a second of the day's current plan, from the first batch's beginning to the last one's end."""
        ((jobs, seconds),) = self.system.query(
            "queue",
            "SELECT sum(batches.jobs)::int, extract(epoch FROM max(finished_at)"
            " - min(finished_at - make_interval(secs => seconds)))::float8"
            " FROM ledger.batches JOIN ledger.plans USING (plan_id) WHERE superseded_at IS NULL",
        )
        return float(jobs / seconds)


@pytest.fixture
def landscape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Landscape]:
    """Five hosts with a set-up system and its input."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with hosts(ROUTES) as made:
        database = made["database"]
        with own_server(
            host=database.address, namespace=database.namespace, clients="10.77.0.0/16"
        ) as server:
            yield _set_up(made, server, logs, monkeypatch)


def _set_up(made: dict[str, Host], server: OwnServer, logs: Path, patch: pytest.MonkeyPatch) -> Landscape:
    database = made["database"]
    address = f"{database.address}:{STORE_PORT}"
    database.start(serve_argv(database.address, STORE_PORT), os.environ, logs / "store.log")

    def reached_by(host: str) -> Dsns:
        return Dsns(
            {
                p: f"postgresql://episodes_{p}:{server.password}@/{p.database}?host={host}&port={server.port}"
                for p in Purpose
            },
            is_embedded=False,
        )

    local = reached_by(str(server.data))
    admin = f"postgresql://boss:{server.password}@/postgres?host={server.data}&port={server.port}"
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "EPISODES_ALLOWED_HOSTS": f"s3://{BUCKET},{address},{server.address}",
        "EPISODES_LAKE_URL": f"s3://{BUCKET}",
        "EPISODES_CHUNK_JOBS": "20",
        "EPISODES_HEARTBEAT_SECONDS": "4",
    }.items():
        patch.setenv(name, value)
    patch.setenv("EPISODES_ADMIN_DSN", admin)
    provision(load_settings(), local, lambda _: None)
    patch.delenv("EPISODES_ADMIN_DSN")
    system = System(
        home=logs.parent,
        dsns=local,
        admin={each.value: admin.replace("@/postgres?", f"@/{each.value}?") for each in Database},
    )
    system.generate(DAY, DAY, episodes=EPISODES)
    made_bucket = database.run(
        [sys.executable, "-P", "-c", _PUT, f"http://{address}/{BUCKET}"], {"PATH": os.environ["PATH"]}
    )
    assert made_bucket.returncode == 0, made_bucket.stderr
    base = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return Landscape(made, system, reached_by(database.address), base, logs)


_PUT = """
import sys, time, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="PUT"), timeout=5)
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("the store does not answer")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_day_on_several_hosts_one_of_which_is_lost(
    system: System, landscape: Landscape, monkeypatch: pytest.MonkeyPatch, chaos: Chaos
) -> None:
    """It publishes the bytes that one host publishes."""
    assert_each_reaches_only_its_own(landscape)
    with chaos.attack(Promise.WORKERS, "a host with two workers that hold claims cut off and killed"):
        _lose_a_host(landscape)
        assert_the_consumer_reads(landscape)
        for name in ("EPISODES_LAKE_URL", "EPISODES_ALLOWED_HOSTS", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name)
        system.generate(DAY, DAY, episodes=EPISODES)
        with system.workers(2):
            assert system.materialize(DAY).success
        assert published_bytes(landscape.system, DAY) == published_bytes(system, DAY)


def assert_each_reaches_only_its_own(landscape: Landscape) -> None:
    made = landscape.hosts
    for name, others in (
        ("worker-1", ("orchestrator", "worker-2", "consumer")),
        ("orchestrator", ("worker-1", "worker-2", "consumer")),
        ("consumer", ("orchestrator", "worker-1", "worker-2")),
    ):
        for other in others:
            tried = made[name].run([sys.executable, "-c", REACH, made[other].address, "22"], {})
            assert tried.returncode == 1, (name, other)
            assert tried.stderr.strip() == "OSError", (name, other, tried.stderr)  # no route to it


def _lose_a_host(landscape: Landscape) -> None:
    """Run the day, and lose a host of workers in the middle of it."""
    made = landscape.hosts
    lost, kept, orchestrator = made["worker-1"], made["worker-2"], made["orchestrator"]
    with landscape.workers("worker-1", "worker-2"):
        environment = landscape.environment(orchestrator, *ORCHESTRATOR)
        log = landscape.logs / "run.log"
        run = orchestrator.start(episodes_argv("run", str(DAY)), environment, log)
        holds = "SELECT count(*) FROM ledger.chunks WHERE claim IS NOT NULL AND claimed_by LIKE 'worker-1-%%'"
        done = "SELECT count(*) FROM ledger.outcomes WHERE worker LIKE 'worker-1-%%'"
        eventually(
            lambda: (
                landscape.system.query("queue", done)[0][0] > 0
                and landscape.system.query("queue", holds)[0][0] > 0
            ),
            240,
        )
        lost.cut_off()
        lost.kill()
        assert run.poll() is None  # in the middle
        assert run.wait(400) == 0, log.read_text()
    of_each = dict(
        landscape.system.query(
            "queue", "SELECT substring(worker FROM 'worker-[12]'), count(*) FROM ledger.outcomes GROUP BY 1"
        )
    )
    assert set(of_each) == {lost.name, kept.name}
    assert landscape.system.query("queue", "SELECT sum(held) FROM ledger.chunks") == [(0,)]


def assert_the_consumer_reads(landscape: Landscape) -> None:
    consumer = landscape.hosts["consumer"]
    read = consumer.run(
        [sys.executable, "-c", READ, str(DAY)],
        {"EPISODES_CONSUMER_DSN": landscape.dsns.require(Purpose.CONSUMER), "PATH": os.environ["PATH"]},
    )
    rows = landscape.system.query("results", "SELECT count(*) FROM published.results")
    assert read.stdout.strip() == str(rows[0][0]), read.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_throughput_on_several_hosts(
    landscape: Landscape, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is measured, beside the same workers on the databases' host; the machine decides how much it is."""
    made = landscape.hosts
    with landscape.workers("worker-1", "worker-2"):
        landscape.run_day(made["orchestrator"])
    published = published_bytes(landscape.system, DAY)
    several, one = [], []
    for _ in range(3):
        with landscape.workers("worker-1", "worker-2"):
            landscape.run_day(made["orchestrator"], "--rework")
        several.append(landscape.throughput())
        with landscape.workers("database", count=2 * WORKERS_A_HOST):
            landscape.run_day(made["database"], "--rework")
        one.append(landscape.throughput())
        assert published_bytes(landscape.system, DAY) == published
    ratio = statistics.median(several) / statistics.median(one)
    record_property("throughput_of_several_hosts", ratio)
    with capsys.disabled():
        print(f"\njobs/s: {several} on several hosts, {one} on one: {ratio:.2f} x")
