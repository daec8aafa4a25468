"""Dagster's UI as its GraphQL sees it: what a page asks for, and what its buttons send."""

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import yaml
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.remote_representation.external import RemoteSchedule
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster_graphql.test.utils import execute_dagster_graphql

from episodes_assets.definitions import defs
from episodes_assets_tests.support.system import failure

LOCATION, REPOSITORY, ASSET_JOB = "episodes", "__repository__", "__ASSET_JOB"
PARTITION = "dagster/partition"
_LAUNCH = """
    mutation ($params: ExecutionParams!) {
        launchRun(executionParams: $params) {
            __typename
            ... on LaunchRunSuccess { run { runId } }
            ... on RunConfigValidationInvalid { errors { message } }
            ... on PythonError { message }
        }
    }
"""
START_BACKFILL = """
    mutation ($params: LaunchBackfillParams!) {
        launchPartitionBackfill(backfillParams: $params) {
            __typename
            ... on LaunchBackfillSuccess { backfillId }
            ... on PythonError { message }
        }
    }
"""
_PRESET = """
    query ($repository: RepositorySelector!, $job: String!, $day: String!) {
        partitionSetsOrError(repositorySelector: $repository, pipelineName: $job) {
            ... on PartitionSets { results { partition(partitionName: $day) {
                runConfigOrError { ... on PartitionRunConfig { yaml } }
                tagsOrError { ... on PartitionTags { results { key value } } }
            } } }
        }
    }
"""


class Launchpad:
    """The UI over one instance.

    Args:
        instance: Dagster's.
        process: Of the web server.
    """

    def __init__(self, instance: dg.DagsterInstance, process: WorkspaceProcessContext) -> None:
        self._instance = instance
        self._process = process
        self._context = process.create_request_context()

    def ask(self, document: str, **variables: Any) -> Any:
        """The data that a query or mutation returns."""
        data = execute_dagster_graphql(self._context, document, variables).data
        (answer,) = data.values()
        return answer

    def preset(self, job: str, day: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The configuration and tags that the launchpad shows once a day is picked."""
        found = self.ask(
            _PRESET,
            repository={"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY},
            job=job,
            day=day,
        )
        (partition,) = [each["partition"] for each in found["results"]]
        tags = {tag["key"]: tag["value"] for tag in partition["tagsOrError"]["results"]}
        return yaml.safe_load(partition["runConfigOrError"]["yaml"]) or {}, tags

    def launch(
        self,
        job: str,
        config: Mapping[str, Any],
        tags: Mapping[str, str],
        assets: tuple[str, ...] | None = None,
    ) -> str:
        """Launch a run and work it; what the step that failed says, or nothing."""
        selector: dict[str, Any] = {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "pipelineName": job,
        }
        if assets is not None:
            selector["assetSelection"] = [{"path": name.split("/")} for name in assets]
        answer = self.ask(
            _LAUNCH,
            params={
                "selector": selector,
                "runConfigData": yaml.safe_dump(dict(config)),
                "executionMetadata": {"tags": [{"key": key, "value": tags[key]} for key in tags]},
                "mode": "default",
            },
        )
        assert answer["__typename"] == "LaunchRunSuccess", answer
        run = self._instance.get_run_by_id(answer["run"]["runId"])
        assert run is not None
        return self.work(run)

    def backfill(self, assets: Sequence[str], days: Sequence[str]) -> tuple[str, list[dg.DagsterRun]]:
        """Launch a backfill and be the daemon that carries it out.

        Returns:
            How it ended, and its runs.
        """
        answer = self.ask(
            START_BACKFILL,
            params={"assetSelection": [{"path": [name]} for name in assets], "partitionNames": list(days)},
        )
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        runs: list[dg.DagsterRun] = []
        for _ in range(20):
            errors = [
                e for e in execute_backfill_iteration(self._process, logging.getLogger("backfill")) if e
            ]
            assert not errors, errors
            queued = self._instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
            for run in reversed(queued):
                runs.append(run)
                self.work(run)
            backfill = self._instance.get_backfill(answer["backfillId"])
            assert backfill is not None
            if backfill.status not in (BulkActionStatus.REQUESTED, BulkActionStatus.FAILING):
                return backfill.status.value, runs
        raise AssertionError("the backfill does not end")

    def switch_on(self, schedule: str, at: dt.datetime) -> None:
        """Switch a schedule on at a time."""
        with freeze_time(at):
            self._instance.start_schedule(self._schedule(schedule))

    def evaluate(self, schedule: str, at: dt.datetime) -> tuple[str, list[dg.DagsterRun]]:
        """Be the daemon that looks at the schedules at a time, and leave what it launches queued.

        Returns:
            Why the schedule's newest tick launched nothing, and the runs that it launched.
        """
        launched = dg.RunsFilter(tags={"dagster/schedule_name": schedule})
        before = {run.run_id for run in self._instance.get_runs(launched)}
        with freeze_time(at):
            errors = [e for e in launch_scheduled_runs(self._process, logging.getLogger("s"), at, {}) if e]
        assert not errors, errors
        found = self._schedule(schedule)
        ticks = self._instance.get_ticks(found.get_remote_origin_id(), found.selector_id, limit=1)
        assert all(tick.status in (TickStatus.SKIPPED, TickStatus.SUCCESS) for tick in ticks), ticks
        reason = "".join(tick.skip_reason or "" for tick in ticks)
        return reason, [run for run in self._instance.get_runs(launched) if run.run_id not in before]

    def _schedule(self, name: str) -> RemoteSchedule:
        location = self._process.create_request_context().get_code_location(LOCATION)
        return location.get_repository(REPOSITORY).get_schedule(name)

    def work(self, run: dg.DagsterRun) -> str:
        """Work a queued run in place of its process; what the step that failed says, or nothing."""
        assert run.status is dg.DagsterRunStatus.QUEUED  # no daemon takes it; it is worked here
        self._instance.delete_run(run.run_id)
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        found = (
            defs.resolve_implicit_global_asset_job_def()
            if run.job_name == ASSET_JOB
            else defs.resolve_job_def(run.job_name)
        )
        result = found.execute_in_process(
            instance=self._instance,
            partition_key=run.tags.get(PARTITION),
            tags=dict(run.tags),
            asset_selection=sorted(run.asset_selection) if run.asset_selection else None,
            run_config={**run.run_config, **quiet},
            raise_on_error=False,
        )
        return "" if result.success else failure(result)


@contextmanager
def opened_ui() -> Iterator[Launchpad]:
    """The UI on the system's own instance, with the code location that its processes load."""
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="episodes_assets.definitions", attribute="defs"),
        location_name=LOCATION,
    )
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as process,
    ):
        yield Launchpad(instance, process)
