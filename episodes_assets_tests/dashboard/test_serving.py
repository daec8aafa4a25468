"""Where the dashboard listens, what it refuses to, and that TLS and a proxy before it work."""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never

import httpx2
import psutil
import pytest
from cryptography import x509
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.dashboard import app as dashboard_app
from episodes_assets.dashboard import server
from episodes_assets.dashboard.configuration import Configuration, read_configuration
from episodes_assets.errors import BadSetting, EpisodesError
from episodes_assets.postgres.databases import ORCHESTRATOR
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.settings import WITHHELD, Settings, load_settings
from episodes_assets_tests.dashboard.served import PASSWORD, Dashboard, serving
from episodes_assets_tests.support.certificates import certificate_for
from episodes_assets_tests.support.invoke import refusal
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process

MESSAGE_TOO_BIG = 1009


@contextmanager
def listening(dashboard: Dashboard, configuration: Configuration) -> Iterator[int]:
    """A real server on a free port, for as long as the block lasts."""
    served = dashboard.again(**vars(configuration))
    with serving(served.app, served.configuration) as port:
        yield port


@pytest.mark.long
def test_over_tls(dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = certificate_for("127.0.0.1", tmp_path / "tls")
    monkeypatch.setenv("EPISODES_TLS_CERTIFICATE", str(pem))
    monkeypatch.setenv("EPISODES_TLS_KEY", str(key))
    configuration = read_configuration(load_settings(), host="127.0.0.1", port=0)
    trusting = ssl.create_default_context(cafile=str(pem))
    with (
        listening(dashboard, configuration) as port,
        httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting) as browser,
    ):
        origin = Origin(f"https://127.0.0.1:{port}")
        own = {"Origin": origin}
        form = {"name": "operator", "password": PASSWORD, "next": "/runs"}
        signed_in = browser.post("/login", data=form, headers=own)
        assert signed_in.headers["location"] == "/runs"
        cookie = signed_in.headers["set-cookie"].split(";")[0]
        assert cookie.startswith("__Host-episodes_session=")
        assert "Secure" in signed_in.headers["set-cookie"]
        assert browser.get("/runs").status_code == 200
        assert browser.get("/runs").headers["strict-transport-security"]
        # Like a page in the clear, whose origin another could be.
        assert browser.post("/graphql", headers={"Origin": f"http://127.0.0.1:{port}"}).status_code == 403
        address = f"wss://127.0.0.1:{port}/graphql"
        with pytest.raises(InvalidStatus) as rejected, connect(address, ssl=trusting, origin=origin):
            pass
        assert rejected.value.response.status_code == 403
        with connect(
            address,
            ssl=trusting,
            origin=origin,
            subprotocols=[Subprotocol("graphql-ws")],
            additional_headers={"Cookie": cookie},
        ) as talk:
            talk.send('{"type": "connection_init"}')
            assert talk.recv(timeout=10) == '{"type":"connection_ack"}'
            talk.send('{"type": "start", "id": 1, "payload": {"query": "mutation { logTelemetry }"}}')
            with pytest.raises(ConnectionClosed):
                talk.recv(timeout=10)
        with connect(
            address,
            ssl=trusting,
            origin=origin,
            subprotocols=[Subprotocol("graphql-ws")],
            additional_headers={"Cookie": cookie},
        ) as shouting:
            shouting.send('{"type": "stop", "id": "1", "x": [' + "[]," * 100_000 + "1]}")
            with pytest.raises(ConnectionClosed) as end:
                shouting.recv(timeout=10)
            assert end.value.rcvd is not None
            assert end.value.rcvd.code == MESSAGE_TOO_BIG
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"http://127.0.0.1:{port}/login")


def test_a_renewed_certificate_is_served_without_a_restart(
    dashboard: Dashboard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pem, key = certificate_for("127.0.0.1", tmp_path / "tls")
    monkeypatch.setenv("EPISODES_TLS_CERTIFICATE", str(pem))
    monkeypatch.setenv("EPISODES_TLS_KEY", str(key))
    monkeypatch.setattr(server, "CERTIFICATE_SECONDS", 0)  # as often as uvicorn can: each second
    configuration = read_configuration(load_settings(), host="127.0.0.1", port=0)
    with listening(dashboard, configuration) as port:

        def serial() -> int:
            served = ssl.get_server_certificate(("127.0.0.1", port), timeout=20)
            return x509.load_pem_x509_certificate(served.encode()).serial_number

        def wait_for(condition: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < deadline
                time.sleep(0.05)

        assert serial() == 1
        new_pem, new_key = certificate_for("127.0.0.1", tmp_path / "renewed", 2)
        new_pem.replace(pem)
        # Its key is still the old one's.
        wait_for(lambda: "cannot be used with its key" in caplog.text)
        assert serial() == 1
        new_key.replace(key)
        wait_for(lambda: serial() == 2)
        pem.unlink()
        wait_for(lambda: caplog.text.count("the certificate from before is served") == 2)
        assert serial() == 2


def test_behind_a_proxy_that_ends_tls(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPISODES_TLS_ENDS_AT_PROXY", "true")
    monkeypatch.setenv("EPISODES_DASHBOARD_HOSTS", "episodes.example")
    forwarded = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "Host": "episodes.example",
        "Origin": "https://episodes.example",
    }
    for trusted, address in (("127.0.0.1", "203.0.113.7"), ("192.0.2.1", "127.0.0.1")):
        monkeypatch.setenv("EPISODES_TRUSTED_PROXIES", trusted)
        configuration = read_configuration(load_settings(), host="127.0.0.1", port=0)
        with listening(dashboard, configuration) as port:
            answer = httpx2.post(
                f"http://127.0.0.1:{port}/login",
                data={"name": "proxied", "password": "no"},
                headers=forwarded,
            )
        assert answer.status_code == 401
        assert dashboard.system.query(
            "dagster", "SELECT address FROM dashboard.audit_log ORDER BY event_id DESC LIMIT 1"
        ) == [(address,)]


def test_beyond_this_machine_only_with_tls(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "dashboard.example"):
        assert f"passwords would travel in the clear to {host}" in str(refusal("webserver", "--host", host))
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert not read_configuration(load_settings(), host=host, port=1).is_secure
    monkeypatch.setenv("EPISODES_TLS_CERTIFICATE", str(tmp_path / "none.pem"))
    assert "set both" in str(refusal("webserver"))
    monkeypatch.setenv("EPISODES_TLS_KEY", str(tmp_path / "none.key"))
    assert "none.pem cannot be used with its key" in str(refusal("webserver"))
    pem, key = certificate_for("127.0.0.1", tmp_path / "tls")
    _, other = certificate_for("127.0.0.1", tmp_path / "other")
    monkeypatch.setenv("EPISODES_TLS_CERTIFICATE", str(pem))
    monkeypatch.setenv("EPISODES_TLS_KEY", str(other))
    assert "cannot be used with its key" in str(refusal("webserver"))
    monkeypatch.setenv("EPISODES_TLS_KEY", str(key))
    assert read_configuration(load_settings(), host="0.0.0.0", port=1).is_secure
    monkeypatch.setenv("EPISODES_TLS_ENDS_AT_PROXY", "true")
    assert "set one of them" in str(refusal("webserver"))


@pytest.mark.parametrize(("listed", "problem"), [(",", "names no proxy"), ("*", "is not an address")])
def test_a_proxy_is_trusted_by_its_address(
    monkeypatch: pytest.MonkeyPatch, listed: str, problem: str
) -> None:
    monkeypatch.setenv("EPISODES_TLS_ENDS_AT_PROXY", "true")
    monkeypatch.setenv("EPISODES_TRUSTED_PROXIES", listed)
    with pytest.raises(BadSetting, match=problem):
        read_configuration(load_settings(), host="0.0.0.0", port=1)


def test_names_are_never_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed in ("*", "*.example", "https://episodes.example", "episodes.example:80"):
        monkeypatch.setenv("EPISODES_DASHBOARD_HOSTS", listed)
        with pytest.raises(BadSetting, match="is not a host"):
            read_configuration(load_settings(), host="127.0.0.1", port=1)
    monkeypatch.setenv("EPISODES_DASHBOARD_HOSTS", "Episodes.example, ::5")
    names = read_configuration(load_settings(), host="::1", port=1).names
    assert set(names) == {"localhost", "127.0.0.1", "::1", "[::1]", "episodes.example", "::5", "[::5]"}


def test_the_address_for_people() -> None:
    settings = load_settings()
    assert read_configuration(settings, host="::1", port=3).address == "http://[::1]:3"


def test_a_taken_port_is_one_plain_line(system: System) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1, port {port}" in str(refusal("webserver", "--port", port))


def test_it_serves_from_a_folder_of_its_own(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the code server that Dagster starts for it finds no `.env`; the workspace is found all the same."""
    (tmp_path / "workspace.yaml").write_text("load_from: []\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    served_from = []

    def note(_settings: Settings, _dsns: Dsns, _configuration: Configuration, workspace: Path) -> Never:
        served_from.append((Path.cwd(), workspace))
        raise EpisodesError("that is enough")

    monkeypatch.setattr(dashboard_app, "open_application", note)
    refused = refusal("webserver", "--workspace", "workspace.yaml", "--port", str(free_port()))
    assert refused.what == "that is enough"
    assert served_from == [(system.home / "dagster" / "current", tmp_path / "workspace.yaml")]
    assert Path.cwd() == tmp_path


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_stop(system: System) -> None:
    workspace = system.home / "no-code.yaml"
    workspace.write_text("load_from: []\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = episodes_argv("webserver", "--port", str(port), "--workspace", str(workspace))
    webserver = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert webserver.stdout is not None
    assert webserver.stdout.readline() == f"Serving http://127.0.0.1:{port}\n"
    # The socket listens already, so this waits until it is answered.
    assert httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=60).text == "ok"
    origin = {"Origin": f"http://127.0.0.1:{port}"}
    httpx2.post(f"http://127.0.0.1:{port}/login", data={"name": "who", "password": "no"}, headers=origin)
    webserver.terminate()
    said, _ = webserver.communicate(timeout=60)
    assert webserver.returncode == 0
    # The audit log is in the process's own log as well, and no password.
    assert 'audit {"who": "unproven:an unknown name", "way": null, "what": "login"' in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_its_own_code_server_is_handed_no_secret_of_the_dashboard(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["dagster"])
    monkeypatch.setenv("EPISODES_OPENID_CLIENT_SECRET", "s3cret")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = episodes_argv("webserver", "--port", str(port))
    webserver = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert webserver.stdout is not None
        assert f"Serving http://127.0.0.1:{port}\n" in webserver.stdout  # after the code server's own lines
        (code,) = [
            child
            for child in psutil.Process(webserver.pid).children(recursive=True)
            if "grpc" in child.cmdline()
        ]
        handed = {
            name: value
            for name, value in code.environ().items()
            if name.startswith("EPISODES_") and name.endswith(("_DSN", "_SECRET")) and value != WITHHELD
        }
    finally:
        webserver.terminate()
        webserver.communicate(timeout=60)
    assert handed == {purpose.setting: system.dsn(purpose) for purpose in ORCHESTRATOR}
