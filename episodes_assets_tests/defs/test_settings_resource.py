"""The settings as a resource: everything in `defs/` goes by it, and it shows nobody a DSN."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from episodes_assets.definitions import build_defs
from episodes_assets.defs.resources import Lake, QueueDatabase
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import PROJECT_FOLDER, Settings, load_settings
from episodes_assets_tests.defs.launchpad import LOCATION, REPOSITORY, opened_ui
from episodes_assets_tests.support.runs import QUIET
from episodes_assets_tests.support.system import System, day, failure

PACKAGE = PROJECT_FOLDER / "episodes_assets"
SECRET = "hunter2"
_RESOURCES = """
    query ($selector: RepositorySelector!) {
        allTopLevelResourceDetailsOrError(repositorySelector: $selector) {
            ... on ResourceDetailsList {
                results {
                    name description configFields { name } configuredValues { key value }
                    nestedResources { name }
                }
            }
        }
    }
"""


def test_only_entry_points_read_the_settings() -> None:
    """Commands, the code location, and Dagster's own storage, which Dagster builds before any definitions.

    And labs: the settings of one are those of its own home.
    """
    readers = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.parent.name != "cli" and b"load_settings" in file.read_bytes()
        for node in ast.walk(ast.parse(file.read_bytes()))
        if getattr(node, "id", getattr(node, "attr", getattr(node, "name", ""))) == "load_settings"
    }
    assert readers == {"settings.py", "definitions.py", "defs/storage.py", "lab/labs.py"}


def plan(settings: Settings) -> str:
    """Plan day 1 by other settings than the environment's; what the failed step says."""
    with dg.DagsterInstance.get() as instance:
        result = (
            build_defs(settings=settings)
            .resolve_job_def("plan_day")
            .execute_in_process(
                instance=instance, partition_key=str(day(1)), run_config=QUIET, raise_on_error=False
            )
        )
    return "" if result.success else failure(result)


def test_steps_go_by_the_settings_they_are_given(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(5)])
    elsewhere = str(system.home / "another lake")
    assert plan(load_settings(chunk_jobs=2, lake_url=elsewhere)) == ""
    assert sorted(system.query("queue", "SELECT jobs FROM ledger.chunks")) == [(1,), (2,), (2,)]
    assert Path(elsewhere).is_dir()
    assert not Path(system.settings.lake).exists()


@pytest.mark.long
def test_databases_go_by_the_settings_they_are_given(system: System) -> None:
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    assert "belongs to 'development', this process to 'staging'" in plan(load_settings(environment="staging"))


def test_settings_are_not_overridden_for_steps_alone() -> None:
    with pytest.raises(ValueError, match=re.escape("build_defs(settings=...)")):
        build_defs({"settings": load_settings(chunk_jobs=2)})


@pytest.mark.long
def test_sensors_go_by_the_settings_they_are_given(system: System) -> None:
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    system.query("queue", "UPDATE ledger.plans SET fanned_out_at = now() - interval '1 hour'")

    def stalled(minutes: float) -> bool:
        defs = build_defs(settings=load_settings(stall_minutes=minutes))
        with (
            dg.DagsterInstance.get() as instance,
            dg.build_sensor_context(
                instance=instance, resources=defs.resources, repository_def=defs.get_repository_def()
            ) as context,
        ):
            return bool(defs.resolve_sensor_def("alert_of_stalls").evaluate_tick(context).asset_events)

    assert [stalled(minutes) for minutes in (59, 61)] == [True, False]


def test_no_resource_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        if "SecretStr" in str(field.annotation):
            monkeypatch.setenv(f"EPISODES_{name.upper()}", f"postgresql://me:{SECRET}@127.0.0.1/db")
    for name in ("EPISODES_LAKE_URL", "EPISODES_SNAPSHOTS_URL"):
        monkeypatch.setenv(name, f"s3://me:{SECRET}@bucket/prefix")
    settings = load_settings()
    assert SECRET in settings.lake
    for each in (settings, QueueDatabase(settings=settings), Lake(settings=settings)):
        assert SECRET not in f"{each!r} {each}"


def test_the_web_ui_shows_resources_without_fields_and_values(system: System) -> None:
    with opened_ui() as ui:
        answer: Any = ui.ask(
            _RESOURCES, selector={"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
        )
    assert {each["name"] for each in answer["results"]} == set(build_defs().resources or {})
    for each in answer["results"]:
        assert each["configFields"] == each["configuredValues"] == [], each["name"]
    for purpose in Purpose:
        assert system.dsn(purpose) not in json.dumps(answer)
