"""The Compose file: what each service is handed, and how it is confined."""

import json
import re
from collections import Counter
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, WEBSERVER, Purpose
from episodes_assets.settings import PROJECT_FOLDER, Settings, load_settings
from episodes_assets_tests.deploy import compose
from episodes_assets_tests.deploy.variables import alert_settings, other_settings, secret_settings

NEEDS = {
    "code-location": ORCHESTRATOR,
    "daemon": (Purpose.DAGSTER,),
    "webserver": WEBSERVER,
    "worker": FLEET,
    "db-init": tuple(Purpose),
}
# The image says the first; the others are of TLS, which a proxy on the machine ends.
FIXED = {
    "EPISODES_HOME",
    "EPISODES_TLS_CERTIFICATE",
    "EPISODES_TLS_KEY",
    "EPISODES_TLS_ENDS_AT_PROXY",
    "EPISODES_TRUSTED_PROXIES",
}


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    """With the values of env.example."""
    return compose.read(compose.example())


def test_composes_schema_knows_every_field(file: dict[str, Any]) -> None:
    carrier = pytest.importorskip("check_jsonschema", reason="`make deploy-check` installs check-jsonschema")
    jsonschema = pytest.importorskip("jsonschema")
    schema = files(carrier) / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(file, json.loads(schema.read_text(encoding="utf-8")))


def test_each_service_is_handed_just_its_dsns(file: dict[str, Any]) -> None:
    for service, purposes in NEEDS.items():
        given = {name for name in file["services"][service]["environment"] if name.endswith("_DSN")}
        administrators = {name for name in secret_settings() if name.endswith("ADMIN_DSN")}
        more = administrators if service == "db-init" else set()
        assert given == {purpose.setting for purpose in purposes} | more, service


def test_every_setting_of_the_example_reaches_who_uses_it() -> None:
    every = other_settings() | secret_settings()
    services = compose.read(compose.example() | dict.fromkeys(every, "given"))["services"]
    reached = {
        name
        for service in services.values()
        for name, value in service["environment"].items()
        if value == "given"
    }
    assert every - reached == FIXED
    # In one place, so that what is changed there holds for all.
    named = re.findall(r"^ +(EPISODES_\w+): ", compose.FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, times in Counter(named).items() if times > 1 and name in other_settings()] == []


def test_what_is_left_empty_counts_as_not_set(file: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for service in file["services"].values():
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    empty = {name for service in file["services"].values() for name, value in service["environment"].items()
             if not value}  # fmt: skip
    assert len(empty) > 20
    for name in empty:
        field = name.removeprefix("EPISODES_").lower()
        default = Settings.model_fields[field].get_default(call_default_factory=True)
        assert getattr(settings, field) == default, name


def test_only_the_code_location_writes_to_the_lake(file: dict[str, Any]) -> None:
    services = file["services"]
    # How an object store lets in. All of env.example's would reach a service that reads .env.
    read = {
        name: [(each["path"], each["required"]) for each in service.get("env_file", [])]
        for name, service in services.items()
    }
    writer, reader = ("lake-writer.env", False), ("lake-reader.env", False)
    assert read == {
        "db-init": [writer], "code-location": [writer],
        "webserver": [reader], "worker": [reader], "daemon": [],
    }  # fmt: skip
    # Tools of object stores take a variable that is empty as set, so none may be handed on from .env.
    handed = {name for service in services.values() for name in service["environment"]}
    assert {name for name in handed if not name.startswith("EPISODES_")} == set()
    ignored = (PROJECT_FOLDER / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {f"/deploy/compose/{name}" for name, _ in (writer, reader)} <= set(ignored)
    volumes = {
        name: [each for each in service.get("volumes", []) if each.startswith("lake:")]
        for name, service in services.items()
    }
    assert volumes == {
        "db-init": ["lake:/lake"], "code-location": ["lake:/lake"],
        "webserver": ["lake:/lake:ro"], "worker": ["lake:/lake:ro"], "daemon": [],
    }  # fmt: skip


def test_every_service_is_confined(file: dict[str, Any]) -> None:
    for name, service in file["services"].items():
        assert service["read_only"] is True, name
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {each.split(":")[0] for each in service["tmpfs"]} == {"/tmp", "/var/lib/episodes"}
        assert "privileged" not in service


def test_who_may_call_whom(file: dict[str, Any]) -> None:
    services = file["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:3000:3000"]}
    listening = {
        name for name, service in services.items() if any("--host" in part for part in service["command"])
    }
    assert listening == {"webserver"}


def test_only_what_calls_the_code_location_reaches_its_socket(file: dict[str, Any]) -> None:
    (server,) = (each["grpc_server"] for each in compose.workspace()["load_from"])
    socket = f"--socket={server['socket']}"
    code = file["services"]["code-location"]
    assert socket in code["command"]
    assert f"--location-name={server['location_name']}" in code["command"]
    assert "--empty-working-directory" in code["command"]
    assert socket in code["healthcheck"]["test"]
    folder = server["socket"].rpartition("/")[0]
    reaching = {
        name
        for name, service in file["services"].items()
        if f"code-socket:{folder}" in service.get("volumes", [])
    }
    assert reaching == {"code-location", "daemon", "webserver"}
    # Its folder is the processes' alone, also on the machine.
    assert "mode=0700,uid=10001,gid=10001" in file["volumes"]["code-socket"]["driver_opts"]["o"]


def test_daemon_and_web_server_know_the_code_location_by_the_same_name(file: dict[str, Any]) -> None:
    """A sensor that is switched off in the UI is another than the daemon's where the names differ."""
    for name in ("daemon", "webserver"):
        service = file["services"][name]
        (config,) = service["configs"]
        assert f"--workspace={config['target']}" in service["command"]
        # Compose refuses one with `content` for a container whose root file system is read-only.
        assert file["configs"][config["source"]] == {"file": "workspace.yaml"}


def test_only_the_machine_itself_is_a_proxy_of_the_web_server(file: dict[str, Any]) -> None:
    """Whoever may set X-Forwarded-For chooses the address that failed logins are counted for."""
    services = file["services"]
    assert services["webserver"]["networks"] == ["web"]
    assert [name for name, service in services.items() if "web" in service["networks"]] == ["webserver"]
    (pool,) = file["networks"]["web"]["ipam"]["config"]
    assert services["webserver"]["environment"]["EPISODES_TRUSTED_PROXIES"] == pool["gateway"]
    assert ip_address(pool["gateway"]) in ip_network(pool["subnet"])
    moved = compose.example() | {"WEB_SUBNET": "10.1.2.0/29", "WEB_GATEWAY": "10.1.2.1"}
    file = compose.read(moved)
    assert file["networks"]["web"]["ipam"]["config"] == [{"subnet": "10.1.2.0/29", "gateway": "10.1.2.1"}]
    assert file["services"]["webserver"]["environment"]["EPISODES_TRUSTED_PROXIES"] == "10.1.2.1"


def test_alerts_are_sent_by_code_location_and_web_server() -> None:
    """Each setting of the alerts is theirs, and what is in .env for one reaches no other process."""
    named = alert_settings()
    services = compose.read(compose.example() | dict.fromkeys(named, "given"))["services"]
    for name, service in services.items():
        given = {key for key, value in service["environment"].items() if key in named and value == "given"}
        assert given == (named if name in ("code-location", "webserver") else set()), name
    assert named - {"EPISODES_ALERT_REMINDER_HOURS", "EPISODES_DAEMON_SILENT_SECONDS"} <= set(
        compose.example()
    )
    # One that is empty counts as not set.
    without = compose.read({**compose.example(), "EPISODES_DASHBOARD_URL": ""})["services"]["webserver"]
    assert not any(without["environment"][name] for name in named)


def test_nothing_starts_before_the_databases_are_ready(file: dict[str, Any]) -> None:
    services = file["services"]
    assert services["db-init"]["restart"] == "no"
    for name in ("code-location", "worker"):
        assert services[name]["depends_on"] == {"db-init": {"condition": "service_completed_successfully"}}
    for name in ("daemon", "webserver"):
        assert services[name]["depends_on"] == {"code-location": {"condition": "service_healthy"}}
        assert "healthcheck" in services["code-location"]
    assert "/healthz" in services["webserver"]["healthcheck"]["test"][-1]


def test_a_worker_has_the_time_for_its_longest_batch(file: dict[str, Any]) -> None:
    worker = file["services"]["worker"]
    limit = float(worker["environment"]["EPISODES_BATCH_TIMEOUT_SECONDS"])
    assert limit == Settings.model_fields["batch_timeout_seconds"].default
    assert worker["stop_grace_period"] == f"{(limit + 60) / 60:.0f}m"


@pytest.mark.parametrize("log_format", ["colored", "json"])
def test_dagsters_own_programs_log_in_the_same_format(log_format: str) -> None:
    services = compose.read(compose.example() | {"DAGSTER_LOG_FORMAT": log_format})["services"]
    told = {name for name, each in services.items() if f"--log-format={log_format}" in each["command"]}
    assert told == {"code-location", "daemon"}


def test_every_setting_that_is_named_exists(file: dict[str, Any]) -> None:
    known = {f"EPISODES_{name.upper()}" for name in Settings.model_fields}
    named = {name for service in file["services"].values() for name in service["environment"]}
    assert {name for name in named if name.startswith("EPISODES_")} <= known


@pytest.mark.parametrize("name", ["EPISODES_WORKER_DSN", "EPISODES_IMAGE", "EPISODES_LAKE_URL"])
def test_what_is_missing_is_said(name: str) -> None:
    variables = {key: value for key, value in compose.example().items() if key != name}
    with pytest.raises(compose.Missing, match=name):
        compose.read(variables)
