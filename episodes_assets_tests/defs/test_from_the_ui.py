"""Everything that people do with days, from the UI alone: by the GraphQL that its pages send."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.defs.jobs import WaiverOptions
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publications
from episodes_assets_tests.defs.launchpad import (
    ASSET_JOB,
    LOCATION,
    PARTITION,
    REPOSITORY,
    START_BACKFILL,
    Launchpad,
    opened_ui,
)
from episodes_assets_tests.support.runs import execute, tick
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

GRAPH = (
    "episode_jobs",
    "input_episodes",
    "input_viewings",
    "job_outcomes",
    "published_results",
    "tracked_episodes",
)
JOBS_OF_DAYS = (
    "plan_day",
    "publish_day",
    "correct_day",
    "rework_days",
    "repair_days",
    "retry_held_jobs",
    "waive_held_jobs",
)
_JOB = """
    query ($selector: PipelineSelector!) {
        pipelineOrError(params: $selector) {
            ... on Pipeline { description isAssetJob partitionKeysOrError(limit: 1) {
                ... on PartitionKeys { partitionKeys } } }
        }
    }
"""
_STATES = """
    query ($repository: RepositorySelector!) {
        repositoryOrError(repositorySelector: $repository) {
            ... on Repository {
                schedules { name id scheduleState { selectorId status } }
                sensors { name id sensorState { selectorId status } }
            }
        }
    }
"""
_SWITCH = {
    ("schedules", True): "mutation ($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) {"
    " ... on ScheduleStateResult { scheduleState { status } } } }",
    ("schedules", False): "mutation ($id: String!) { stopRunningSchedule(id: $id) {"
    " ... on ScheduleStateResult { scheduleState { status } } } }",
    ("sensors", True): "mutation ($s: SensorSelector!) { startSensor(sensorSelector: $s) {"
    " ... on Sensor { sensorState { status } } } }",
    ("sensors", False): "mutation ($id: String!) { stopSensor(id: $id) {"
    " ... on StopSensorMutationResult { instigationState { status } } } }",
}
SELECTOR = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}


def fill_in(config: Mapping[str, Any], op: str, **values: str) -> dict[str, Any]:
    """A configuration with fields of an op filled in, which must be there to be seen."""
    ops = config["ops"]
    assert set(values) <= set(ops[op]["config"])
    return {**config, "ops": {**ops, op: {"config": {**ops[op]["config"], **values}}}}


@pytest.mark.long
def test_a_day_is_materialised_corrected_and_published_without_failed_jobs(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(1, 11)])
    one = str(day(1))
    with opened_ui() as ui, dg.DagsterInstance.get() as instance:
        with system.workers():
            assert ui.launch(ASSET_JOB, {}, {PARTITION: one}, GRAPH) == ""
            assert len(system.published()) == 10

            # Replayed with a refreshed snapshot.
            system.insert_drop(day(1), [(11, 0, "2018-02-01", "2018-02-01")])
            config, tags = ui.preset("correct_day", one)
            refused = ui.launch("correct_day", config, tags)
            assert "only for a reason" in refused
            assert "Open launchpad" in refused
            assert ui.launch("correct_day", fill_in(config, "take_input", reason="late"), tags) == ""
            assert len(system.published()) == 11

        # Worked again, and one fails.
        config, tags = ui.preset("plan_day", one)
        system.forget_plans()
        assert ui.launch("plan_day", config, tags) == ""
        system.finish_jobs("epid < 11")
        system.hold_jobs("epid = 11")
        tick("fan_out", instance)
        assert "1 jobs are held" in ui.launch(ASSET_JOB, {}, {PARTITION: one}, ("job_outcomes",))
        config, tags = ui.preset("waive_held_jobs", one)
        assert "needs a reason" in ui.launch("waive_held_jobs", config, tags)
        decided = fill_in(config, "waive_held_jobs_op", reason="withdrawn")
        assert ui.launch("waive_held_jobs", decided, tags) == ""
        (request,) = tick("publish_finished_days", instance)
        execute(instance, "publish_day", request)
        with connect(system.dsn(Purpose.CONSUMER)) as consumer:
            manifest = publications.find_day(consumer, day(1))
        assert manifest is not None
        assert (manifest.rows, manifest.left_out, manifest.decision) == (
            10,
            1,
            f"withdrawn ({operating_system_user()})",
        )

        config, tags = ui.preset("retry_held_jobs", one)
        assert ui.launch("retry_held_jobs", config, tags) == ""
        with connect(system.dsn(Purpose.QUEUE)) as queue:
            (progress,) = read_progress(queue)
        assert (progress.waiting, progress.failed) == (1, 0)


def test_each_job_of_days_offers_days_and_says_what_it_does(system: System) -> None:
    with opened_ui() as ui:
        for name in JOBS_OF_DAYS:
            shown = ui.ask(_JOB, selector={**SELECTOR, "pipelineName": name})
            assert shown["partitionKeysOrError"]["partitionKeys"] == [str(day(1))], name
            assert len(shown["description"]) > 40, name
    assert all(field.description for field in WaiverOptions.model_fields.values())


def test_a_month_is_backfilled(system: System) -> None:
    days = [str(day(number)) for number in range(1, 32)]
    with opened_ui() as ui, dg.DagsterInstance.get() as instance:
        answer = ui.ask(
            START_BACKFILL,
            params={
                "assetSelection": [{"path": [name]} for name in GRAPH],
                "partitionNames": days,
                "title": "March",
            },
        )
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        backfill = instance.get_backfill(answer["backfillId"])
    assert backfill is not None
    assert backfill.is_asset_backfill


def test_the_schedules_and_sensors_are_switched(system: System) -> None:
    def states(ui: Launchpad) -> dict[tuple[str, str], tuple[str, str]]:
        found = ui.ask(_STATES, repository=SELECTOR)
        return {
            (kind, each["name"]): (each["id"], each[f"{kind[:-1]}State"]["status"])
            for kind in ("schedules", "sensors")
            for each in found[kind]
        }

    with opened_ui() as ui:
        before = states(ui)
        assert {name for (_, name), (_, status) in before.items() if status == "STOPPED"} == {"daily_plan"}
        for (kind, name), (identity, status) in before.items():
            starts = status == "STOPPED"
            selector = {**SELECTOR, f"{kind[:-1]}Name": name}
            ui.ask(_SWITCH[kind, starts], **({"s": selector} if starts else {"id": identity}))
        after = states(ui)
    assert {key: status for key, (_, status) in after.items()} == {
        key: "RUNNING" if status == "STOPPED" else "STOPPED" for key, (_, status) in before.items()
    }
