"""Outside production a process reaches the hosts that somebody opened, and no other."""

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.defs.resources import Lake
from episodes_assets.errors import BadSetting, HostNotAllowed
from episodes_assets.lake.opening import open_lake
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.postgres.hosts import (
    Host,
    Request,
    allowed_lake_url,
    hosts_of_dsn,
    hosts_of_url,
    is_allowed,
    make_host,
    parse_entries,
    require_listed,
)
from episodes_assets.settings import PROJECT_FOLDER, load_settings
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
hosts = st.one_of(names, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
ports = st.integers(1, 65_535)
protocols = st.sampled_from(["s3", "gs", "abfs", "sftp"])


def made(host: str, port: int | None, protocol: str = "") -> Host:
    made_host = make_host(host, port, protocol)
    assert made_host is not None
    return made_host


databases = st.builds(made, hosts, ports)
stores = st.builds(made, hosts, st.none() | ports, protocols)
all_hosts = st.lists(databases | stores, max_size=6)


def listed(of: list[Host]) -> str:
    return ",".join(map(str, of))


@given(asked=all_hosts, opened=all_hosts)
def test_the_setting_that_the_error_names_opens_just_what_was_denied(
    asked: list[Host], opened: list[Host]
) -> None:
    requests = [Request(f"EPISODES_{number}_DSN", host) for number, host in enumerate(asked)]
    denied = {host for host in asked if not is_allowed(host, parse_entries(listed(opened)))}
    if not denied:
        require_listed(requests, listed(opened), "development")
        return
    with pytest.raises(HostNotAllowed) as refused:
        require_listed(requests, listed(opened), "development")
    line = refused.value.hint.partition("EPISODES_ALLOWED_HOSTS=")[2]
    assert parse_entries(line) == parse_entries(listed(opened)) | denied
    require_listed(requests, line, "development")
    for request in requests:
        verdict = "denied" if request.host in denied else "allowed"
        assert f"{request.setting} -> {request.host} {verdict}" in refused.value.what


@given(host=databases | stores, other=databases | stores)
def test_an_entry_allows_its_host_and_no_other(host: Host, other: Host) -> None:
    assert not is_allowed(host, frozenset())
    assert is_allowed(host, parse_entries(str(host).upper()))
    assert is_allowed(other, parse_entries(str(host))) == (
        other == host or (host.port is None and (host.protocol, host.name) == (other.protocol, other.name))
    )


@given(host=databases)
def test_a_host_without_port_opens_every_port_of_it(host: Host) -> None:
    assert is_allowed(host, parse_entries(host.name))
    assert not is_allowed(host, parse_entries(f"s3://{host}"))


@pytest.mark.parametrize(
    "entry", ["*", "*.example", "10.0.0.0/8", "postgresql://me:secret@host/db", "host:", "host:port", ":1"]
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(BadSetting, match="EPISODES_ALLOWED_HOSTS") as refused:
        parse_entries(f"db.example,{entry}")
    assert "secret" not in str(refused.value)


@pytest.fixture
def libpq_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets libpq's variables, these and no others."""

    def set_these(environ: dict[str, str]) -> None:
        for name in [each for each in os.environ if each.startswith("PG")]:
            monkeypatch.delenv(name)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    return set_these


SOCKET = "postgresql://me@/queue?host=/run/postgresql"


@pytest.mark.parametrize(
    ("dsn", "environ", "expected"),
    [
        ("postgresql://me:secret@DB.Example/queue", {}, ["db.example:5432"]),
        ("postgresql://me@db.example.:6000/queue", {}, ["db.example:6000"]),
        ("host=a,b port=1,2 dbname=queue", {}, ["a:1", "b:2"]),
        ("postgresql://me@a:1,b,[::1]:3/queue", {}, ["a:1", "b:5432", "[::1]:3"]),
        ("host=a,b,/tmp port=7 dbname=queue", {}, ["a:7", "b:7"]),
        ("postgresql://me@[2001:DB8:0::1]/queue", {}, ["[2001:db8::1]:5432"]),
        ("postgresql://me@127.0.0.1/queue", {}, ["127.0.0.1:5432"]),
        ("host=near hostaddr=10.0.0.9 dbname=queue", {}, ["near:5432", "10.0.0.9:5432"]),
        ("host=/run/postgresql hostaddr=10.0.0.9 dbname=queue", {}, ["10.0.0.9:5432"]),
        (SOCKET, {}, []),
        ("postgresql://%2Frun%2Fpostgresql/queue", {}, []),
        ("host=@abstract dbname=queue", {}, []),
        ("postgresql:///queue", {}, []),
        ("postgresql:///queue", {"PGHOST": "far", "PGPORT": "9"}, ["far:9"]),
        # Empty: libpq takes its default, asyncpg what the environment says.
        ("postgresql:///queue?host=", {"PGHOST": "far"}, ["far:5432"]),
        ("host=near port='' dbname=queue", {"PGPORT": "9"}, ["near:5432", "near:9"]),
        ("postgresql://near/queue", {"PGHOST": "far"}, ["near:5432"]),
        (SOCKET, {"PGHOSTADDR": "10.0.0.9"}, ["10.0.0.9:5432"]),
        ("postgresql://near:/queue", {"PGPORT": ""}, ["near:5432"]),
        ("host=a,b port=1,", {"PGPORT": "9"}, ["a:1", "b:5432"]),
    ],
)
def test_a_dsn_leads_where_libpq_would_go(
    dsn: str,
    environ: dict[str, str],
    expected: list[str],
    libpq_environment: Callable[[dict[str, str]], None],
) -> None:
    libpq_environment(environ)
    assert [str(host) for host in hosts_of_dsn("EPISODES_QUEUE_DSN", dsn)] == expected


@pytest.mark.parametrize(
    ("dsn", "environ", "says"),
    [
        ("postgresql://near/queue?service=prod", {}, "leads to a service of libpq .service=."),
        ("postgresql://near/queue", {"PGSERVICE": "prod"}, "leads to a service of libpq .PGSERVICE."),
        ("postgresql://near/queue", {"PGSERVICE": ""}, "leads to a service of libpq .PGSERVICE."),
        ("postgresql://me:p@secret@near/queue", {}, "names an invalid host or port"),
        ("postgresql://me:sec/ret@near/queue", {}, "names an invalid host or port"),
        ("postgresql://me:secret@near:port:x/queue%", {}, "cannot be read"),
        ("queue please secret", {}, "cannot be read"),
    ],
)
def test_a_dsn_that_leads_nobody_knows_where_is_refused(
    dsn: str, environ: dict[str, str], says: str, libpq_environment: Callable[[dict[str, str]], None]
) -> None:
    libpq_environment(environ)
    with pytest.raises(BadSetting, match=f"EPISODES_QUEUE_DSN.*{says}") as refused:
        hosts_of_dsn("EPISODES_QUEUE_DSN", dsn)
    assert not re.search("secret|sec/|ret@", str(refused.value))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/snapshots", []),
        ("snapshots", []),
        ("file:///data", []),
        ("memory://x", []),
        ("s3://Bucket/x", ["s3://bucket"]),
        ("s3://key:secret@bucket/x", ["s3://bucket"]),
        ("simplecache::s3://bucket/x", ["s3://bucket"]),
        ("simplecache::zip://a.parquet::s3://bucket/x.zip", ["s3://bucket"]),
        ("filecache::file:///data", []),
        ("simplecache::s3", ["s3://"]),
        ("dir://x::sftp://me:secret@Store.example:22/y", ["sftp://store.example:22"]),
        ("abfs://container@account.dfs.core.windows.net/x", ["abfs://account.dfs.core.windows.net"]),
        ("simplecache://s3://bucket/x", ["s3://bucket"]),
        ("http://[2001:db8:0:0:0:0:0:1]:8000/x", ["http://[2001:db8::1]:8000"]),
    ],
)
def test_a_snapshot_url_leads_where_fsspec_would_go(url: str, expected: list[str]) -> None:
    found = hosts_of_url("EPISODES_SNAPSHOTS_URL", url)
    assert [str(host) for host in found] == expected
    assert all(host in parse_entries(str(host)) for host in found)


def test_every_setting_counts_and_production_needs_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    administrators = ["admin", "dagster_admin", "input_admin", "queue_admin", "results_admin"]
    for name in [*(purpose.value for purpose in Purpose), *administrators]:
        monkeypatch.setenv(f"EPISODES_{name.upper()}_DSN", f"postgresql://me:secret@{name}-host/db")
    monkeypatch.setenv("EPISODES_SNAPSHOTS_URL", "simplecache::s3://me:secret@snapshots-host/x")
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", "queue-host,Worker-Host:5432")
    with pytest.raises(HostNotAllowed) as refused:
        resolve_dsns(load_settings())
    message = str(refused.value)
    assert "EPISODES_QUEUE_DSN -> queue-host:5432 allowed" in message
    assert "EPISODES_WORKER_DSN -> worker-host:5432 allowed" in message
    for name in ("dagster", "dashboard", "input", "input_writer", "results", "consumer", *administrators):
        assert f"EPISODES_{name.upper()}_DSN -> {name}-host:5432 denied" in message
    assert "EPISODES_SNAPSHOTS_URL -> s3://snapshots-host denied" in message
    assert "secret" not in message
    assert "\n" not in message
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", message.partition("EPISODES_ALLOWED_HOSTS=")[2])
    assert resolve_dsns(load_settings()).require(Purpose.CONSUMER).endswith("@consumer-host/db")
    monkeypatch.delenv("EPISODES_ALLOWED_HOSTS")
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")
    assert resolve_dsns(load_settings()).require(Purpose.QUEUE).endswith("@queue-host/db")


def test_older_snapshots_are_not_opened_unless_their_host_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is not asked for an implementation before."""
    monkeypatch.setenv("EPISODES_SNAPSHOTS_URL", "nowhere://bucket/x")
    monkeypatch.setenv("EPISODES_LAKE_URL", str(tmp_path))
    with pytest.raises(HostNotAllowed, match="EPISODES_SNAPSHOTS_URL -> nowhere://bucket denied"):
        open_lake(load_settings())
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", "nowhere://bucket")
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        open_lake(load_settings()).complete_drops()


def test_each_way_to_the_lake_refuses_a_host_that_is_not_listed(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_LAKE_URL", "s3://lake.example/x")
    denied = "EPISODES_LAKE_URL -> s3://lake.example denied"
    explain = ["explain", "2018-03-01", "1"]
    for command in (["worker"], explain, ["lake", "status"], ["lake", "verify"], ["lake", "vacuum"]):
        error = refusal(*command)
        assert isinstance(error, HostNotAllowed), command
        assert denied in str(error)
    with pytest.raises(HostNotAllowed, match=denied):
        allowed_lake_url(load_settings())
    lake = Lake(settings=load_settings())
    for opened in (lake.viewings, lake.drops):
        with pytest.raises(HostNotAllowed, match=denied):
            opened()


def test_the_lakes_tables_are_made_where_its_host_was_looked_at() -> None:
    """Else a worker makes them, and what reads one episode: both are handed a URL that was.

    What takes a lab makes those of its bundle, which is a folder.
    """
    tables = {"Drops", "LakeTable", "OlderSnapshots", "TableFiles", "Viewings"}
    package = PROJECT_FOLDER / "episodes_assets"
    makers = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if any(table.encode() in file.read_bytes() for table in tables)
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in tables
    }
    assert makers == {
        "lab/take.py", "lake/drops.py", "lake/episode.py", "lake/opening.py", "worker/chunk.py",
        "worker/compute.py", "worker/main.py", "worker/outage.py",
    }  # fmt: skip


def test_libpq_variables_lead_nobody_away(
    server_home: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = load_settings(home=server_home, **{f"{p}_dsn": None for p in Purpose})
    for found in (load_settings(), embedded):
        with monkeypatch.context() as patch:
            patch.setenv("PGHOSTADDR", "127.0.0.9")
            with pytest.raises(HostNotAllowed, match=r"127\.0\.0\.9:5432 denied"):
                resolve_dsns(found)


@pytest.mark.slow
def test_allowed_hosts_are_shown(tcp_environment: object) -> None:
    _, shown = output("db", "init")
    assert re.search(r"Open by EPISODES_ALLOWED_HOSTS: 127\.0\.0\.1:\d+ \(EPISODES_DAGSTER_DSN, ", shown)
    assert "EPISODES_ADMIN_DSN" in shown
    assert shown.strip().count("\n") == 0


@pytest.mark.long
def test_nothing_is_said_where_no_host_had_to_be_allowed(system: System) -> None:
    assert output("db", "status")[1] == ""
