"""Prometheus itself: its alert rules, and each panel of the Grafana dashboard on a system that it scrapes."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import Role
from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.dashboard.served import Dashboard, serve_dashboard, serving
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.monitored import configure_slack, fill, finish_batch

pytestmark = pytest.mark.process

RULES = PROJECT_FOLDER / "deploy" / "prometheus"
PANELS = PROJECT_FOLDER / "deploy" / "grafana" / "episodes.json"
MOST_SECONDS = 90


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: scripts/install_prometheus.sh installs it on Debian as root")
    return found


def targets() -> list[tuple[str, str]]:
    """The panels' titles and queries."""
    board = json.loads(PANELS.read_text(encoding="utf-8"))
    return [(panel["title"], each["expr"]) for panel in board["panels"] for each in panel["targets"]]


@pytest.mark.long
def test_each_rule_fires_for_its_fault_alone() -> None:
    rules = RULES / "episodes.rules.yml"
    subprocess.run([program("promtool"), "check", "rules", str(rules)], check=True, capture_output=True)
    tests = RULES / "episodes.rules.test.yml"
    done = subprocess.run(
        [program("promtool"), "test", "rules", tests.name],
        cwd=RULES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = {
        rule["alert"] for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]
    }
    calm, *faults = yaml.safe_load(tests.read_text())["tests"]
    assert {each["alertname"] for each in calm["alert_rule_test"]} == named
    fired = {each["alertname"] for fault in faults for each in fault["alert_rule_test"] if each["exp_alerts"]}
    assert fired == named
    said = (PROJECT_FOLDER / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in sorted(named) if f"`{name}`" not in said] == []


def test_rules_and_panels_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    exported = re.findall(
        r'"(episodes_\w+)"',
        "".join(
            (PROJECT_FOLDER / "episodes_assets" / "dashboard" / f"{module}.py").read_text(encoding="utf-8")
            for module in ("metrics", "site")
        ),
    )
    text = (RULES / "episodes.rules.yml").read_text(encoding="utf-8") + " ".join(
        expr for _, expr in targets()
    )
    asked = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in re.findall(r"\bepisodes_\w+", text)}
    assert asked <= set(exported)


@pytest.fixture
def dashboard(server_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    configure_slack(monkeypatch)
    with (
        fresh_system(server_home, tmp_path / "home", monkeypatch) as system,
        serve_dashboard(system) as served,
    ):
        fill(system, time.time())
        yield served


@contextmanager
def prometheus(folder: Path, port: int, token: str) -> Iterator[httpx2.Client]:
    """A Prometheus that scrapes the web server on a port, with the rules and the configuration as shipped."""
    shipped = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))
    (scraped,) = shipped["scrape_configs"]
    (folder / "token").write_text(token, encoding="utf-8")
    scraped |= {
        "scheme": "http",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        "authorization": {"credentials_file": str(folder / "token")},
    }
    configuration = folder / "prometheus.yml"
    rules = [str(RULES / name) for name in shipped["rule_files"]]
    configuration.write_text(yaml.safe_dump({**shipped, "rule_files": rules}), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    process = subprocess.Popen(
        [program("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{own}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{own}/api/v1") as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def ask(client: httpx2.Client, path: str, **parameters: str) -> Any:
    """What Prometheus answers; None while it does not."""
    try:
        answer = client.get(path, params=parameters)
    except httpx2.TransportError:
        return None
    if answer.status_code == 503:  # it begins
        return None
    said = answer.json()
    assert said["status"] == "success", said
    return said["data"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_panel_shows_something_of_a_running_system(dashboard: Dashboard, tmp_path: Path) -> None:
    token = dashboard.accounts(sessions.create_token, "prometheus", Role.VIEWER, None)
    with (
        serving(dashboard.app, dashboard.configuration) as port,
        prometheus(tmp_path, port, token) as client,
    ):
        deadline = time.monotonic() + MOST_SECONDS
        left, position = targets(), 0
        while left:
            assert time.monotonic() < deadline, left
            position += 1
            finish_batch(dashboard.system, position)
            asked = {
                (title, expr): ask(client, "/query", query=expr.replace("$job", "episodes"))
                for title, expr in left
            }
            left = [each for each, data in asked.items() if not (data and data["result"])]
            time.sleep(0.5)
        (group,) = ask(client, "/rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
        assert len(group["rules"]) >= 16
