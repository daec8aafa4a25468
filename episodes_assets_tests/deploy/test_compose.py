"""The Compose file: what each service is handed, and how it is confined."""

import json
from importlib.resources import files
from typing import Any

import pytest
import yaml

from episodes_assets.postgres.databases import FLEET, ORCHESTRATOR, WEBSERVER, Purpose
from episodes_assets.settings import Settings
from episodes_assets_tests.deploy import compose

NEEDS = {
    "code-location": ORCHESTRATOR,
    "daemon": (Purpose.DAGSTER,),
    "webserver": WEBSERVER,
    "worker": FLEET,
    "db-init": tuple(Purpose),
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
        administrator = {"EPISODES_ADMIN_DSN"} if service == "db-init" else set()
        assert given == {purpose.setting for purpose in purposes} | administrator, service
    # All of env.example's would reach a service that reads the file.
    assert all("env_file" not in service for service in file["services"].values())


def test_only_the_code_location_writes_to_the_lake(file: dict[str, Any]) -> None:
    variables = compose.example() | {
        "LAKE_WRITER_ACCESS_KEY_ID": "writer",
        "LAKE_READER_ACCESS_KEY_ID": "reader",
    }
    services = compose.read(variables)["services"]
    keys = {name: service["environment"].get("AWS_ACCESS_KEY_ID") for name, service in services.items()}
    assert keys == {
        "db-init": "writer", "code-location": "writer",
        "webserver": "reader", "worker": "reader", "daemon": None,
    }  # fmt: skip
    volumes = {name: service.get("volumes") for name, service in services.items()}
    assert volumes == {
        "db-init": ["lake:/lake"], "code-location": ["lake:/lake"],
        "webserver": ["lake:/lake:ro"], "worker": ["lake:/lake:ro"], "daemon": None,
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
    assert file["networks"]["code"] == {"internal": True}
    reaching = {name for name, service in services.items() if "code" in service["networks"]}
    assert reaching == {"code-location", "daemon", "webserver"}


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


def test_the_code_location_is_found_where_it_listens(file: dict[str, Any]) -> None:
    workspace = yaml.safe_load(file["configs"]["workspace"]["content"])
    assert workspace["load_from"] == [
        {"grpc_server": {"host": "code-location", "port": 4000, "location_name": "episodes_assets"}}
    ]
    command = file["services"]["code-location"]["command"]
    assert "--port=4000" in command
    assert "--empty-working-directory" in command
    assert file["services"]["daemon"]["command"][-2:] == ["--grpc-host=code-location", "--grpc-port=4000"]


def test_every_setting_that_is_named_exists(file: dict[str, Any]) -> None:
    known = {f"EPISODES_{name.upper()}" for name in Settings.model_fields}
    named = {name for service in file["services"].values() for name in service["environment"]}
    assert {name for name in named if name.startswith("EPISODES_")} <= known


@pytest.mark.parametrize("name", ["EPISODES_WORKER_DSN", "EPISODES_IMAGE", "EPISODES_LAKE_URL"])
def test_what_is_missing_is_said(name: str) -> None:
    variables = {key: value for key, value in compose.example().items() if key != name}
    with pytest.raises(compose.Missing, match=name):
        compose.read(variables)
